/* The run: batch after batch is sampled and written, until the end or a signal. */
#include "cli/sample.h"
#include "cli/text.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Signals. */

static volatile sig_atomic_t stop_signal;

/* The first signal lets the step at hand end, the second ends the program. */
static void on_signal(int signal_number) {
  if (stop_signal) _exit(128 + signal_number);
  stop_signal = signal_number;
}

/* A signal that the parent had ignored stays ignored. */
static void catch_signals(void) {
  static const int signals[] = {SIGINT, SIGTERM};
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
    if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
      sigaction(signals[i], &action, NULL);
}

int sample_exit_code(enum ditmoe_status status) {
  return status == DITMOE_CANCELLED && stop_signal ? 128 + stop_signal : (int)status;
}

/* Batches. */

struct buffers { /* of one batch, or of the whole run where the grid or the latents need it */
  uint8_t *pixels;
  float *latents;
  size_t image_bytes, latent_floats;
  bool keep_pixels, keep_latents;
};

static void make_buffers(struct buffers *buffers, const struct sample *run) {
  const struct ditmoe_model_info *info = &run->info;
  size_t all = (size_t)run->labels.count, some = (size_t)run->plan.batch;
  buffers->image_bytes = 3 * (size_t)run->side * (size_t)run->side;
  buffers->latent_floats = (size_t)info->channels * (size_t)info->size * (size_t)info->size;
  buffers->keep_pixels = run->settings.grid != NULL;
  buffers->keep_latents = run->settings.latents != NULL;
  buffers->pixels = memory_get(buffers->keep_pixels ? all : some, buffers->image_bytes);
  buffers->latents = memory_get(buffers->keep_latents ? all : some,
                                buffers->latent_floats * sizeof *buffers->latents);
}

/* Without a decoder: trunc(clamp(127.5 x + 128)) of the first three channels, or of the first
 * alone. */
static void pixels_of_latents(uint8_t *pixels, const float *latents, int channels, size_t plane) {
  for (size_t i = 0; i < plane; i++)
    for (size_t c = 0; c < 3; c++) {
      float value = 127.5f * latents[(channels >= 3 ? c : 0) * plane + i] + 128.0f;
      pixels[3 * i + c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

struct watch { /* what the observer needs */
  struct progress progress;
  int64_t done; /* images before this batch */
};

static int observe(void *user, const struct ditmoe_observation *seen) {
  struct watch *watch = user;
  double part = (double)seen->count * seen->step / seen->steps;
  progress_step(&watch->progress, watch->done, part, seen->step, seen->steps);
  return stop_signal != 0;
}

/* Samples and writes `count` images from position `first` on. */
static enum ditmoe_status run_batch(struct sample *run, struct ditmoe_session *session,
                                    struct buffers *buffers, int64_t first, int64_t count) {
  struct ditmoe_request request = run->request;
  size_t offset = (size_t)first, plane = (size_t)run->info.size * (size_t)run->info.size;
  uint8_t *pixels = buffers->pixels + (buffers->keep_pixels ? offset * buffers->image_bytes : 0);
  float *latents = buffers->latents + (buffers->keep_latents ? offset * buffers->latent_floats : 0);
  request.labels = run->labels.labels + first;
  request.first_index = run->labels.first + first;
  request.count = count;
  TRY(ditmoe_sample(run->ctx, session, &request, latents, run->decoder ? pixels : NULL));
  TRY(sample_hash_finish(run));
  for (size_t i = 0; i < (size_t)count; i++) {
    if (!run->decoder)
      pixels_of_latents(pixels + i * buffers->image_bytes, latents + i * buffers->latent_floats,
                        run->info.channels, plane);
    if (sample_selected(run, first + (int64_t)i))
      TRY(sample_write_image(run, first + (int64_t)i, pixels + i * buffers->image_bytes));
  }
  return DITMOE_OK;
}

static enum ditmoe_status run_batches(struct sample *run, struct ditmoe_session *session,
                                      struct buffers *buffers) {
  struct watch watch = {0};
  const struct sample_settings *s = &run->settings;
  progress_start(&watch.progress, s->progress, s->common.quiet, report_uses_color(),
                 run->labels.count);
  run->request.user = &watch;
  run->request.observe = observe;
  enum ditmoe_status status = DITMOE_OK;
  for (int64_t first = 0; first < run->labels.count && status == DITMOE_OK;
       first += run->plan.batch) {
    int64_t left = run->labels.count - first;
    watch.done = first;
    status = stop_signal ? DITMOE_CANCELLED
                         : run_batch(run, session, buffers, first,
                                     left < run->plan.batch ? left : run->plan.batch);
  }
  progress_finish(&watch.progress);
  return status;
}

static void explain(const struct sample *run, enum ditmoe_status status) {
  if (status == DITMOE_CANCELLED)
    report_note("stopped by %s; %zu of %lld images were written", strsignal(stop_signal),
                run->image_count, (long long)sample_selected_count(run));
  else if (!*report_last_error())
    report_call(run->ctx, status);
}

enum ditmoe_status sample_images(struct sample *run) {
  struct ditmoe_session *session = NULL;
  struct buffers buffers = {0};
  if (!run->decoder && run->info.channels != 1 && run->info.channels != 3)
    report_warning("--vae none: of %d channels the images show the first%s", run->info.channels,
                   run->info.channels > 3 ? " three" : "");
  TRY(report_call(run->ctx, ditmoe_session_create(run->ctx, run->model, run->decoder, &run->request,
                                                  &session)));
  make_buffers(&buffers, run);
  catch_signals();
  double start = clock_seconds();
  enum ditmoe_status status = run_batches(run, session, &buffers);
  run->seconds_sample = clock_seconds() - start - run->seconds_write;
  if (status != DITMOE_OK) explain(run, status);
  if (status == DITMOE_OK && run->settings.grid) status = sample_write_grid(run, buffers.pixels);
  if (status == DITMOE_OK && run->settings.latents)
    status = sample_write_latents(run, buffers.latents);
  ditmoe_session_destroy(session);
  free(buffers.pixels);
  free(buffers.latents);
  return status;
}

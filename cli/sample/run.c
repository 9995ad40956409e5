/* The run: batch after batch is sampled and written, until the end or a signal. */
#include "cli/sample/work.h"
#include "cli/stop.h"
#include "cli/text.h"

#include <stdlib.h>

/* Batches. */

struct buffers { /* of one batch, latents of the whole run if they are written */
  uint8_t *pixels;
  float *latents;
  size_t image_bytes, latent_floats;
  bool keep_latents;
};

static void make_buffers(struct buffers *buffers, const struct sample *run) {
  size_t all = (size_t)run->labels.count, some = (size_t)run->plan.batch;
  buffers->image_bytes = sample_image_bytes(run);
  buffers->latent_floats = (size_t)sample_latent_bytes(run) / sizeof(float);
  buffers->keep_latents = run->settings.latents != NULL;
  buffers->pixels = memory_get(some, buffers->image_bytes);
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
  bool told;    /* that the run will stop   */
};

static int observe(void *user, const struct ditmoe_observation *seen) {
  struct watch *watch = user;
  double part = (double)seen->count * seen->step / seen->steps;
  progress_step(&watch->progress, watch->done, part, seen->step, seen->steps);
  if (stop_asked() && !watch->told) {
    progress_finish(&watch->progress);
    report_note("stopping after this batch; a second signal stops at once");
    watch->told = true;
  }
  return 0;
}

static enum ditmoe_status sample_batch(struct sample *run, struct ditmoe_session *session,
                                       int64_t first, int64_t count, float *latents,
                                       uint8_t *pixels) {
  struct ditmoe_request request = run->request;
  int32_t *labels = sample_label_list(run, first, count);
  request.labels = labels;
  request.first_index = first;
  request.count = count;
  enum ditmoe_status status = report_call(
      run->ctx, ditmoe_sample(run->ctx, session, &request, latents, run->decoder ? pixels : NULL));
  free(labels);
  return status;
}

static enum ditmoe_status run_batch(struct sample *run, struct ditmoe_session *session,
                                    struct buffers *buffers, int64_t first, int64_t count) {
  size_t offset = buffers->keep_latents ? (size_t)(first - run->labels.first) : 0;
  size_t plane = (size_t)run->info.size * (size_t)run->info.size;
  float *latents = buffers->latents + offset * buffers->latent_floats;
  TRY(sample_routing_begin(run, first, count));
  TRY(sample_routing_end(run, sample_batch(run, session, first, count, latents, buffers->pixels)));
  for (size_t i = 0; i < (size_t)count && !run->decoder; i++)
    pixels_of_latents(buffers->pixels + i * buffers->image_bytes,
                      latents + i * buffers->latent_floats, run->info.channels, plane);
  TRY(sample_begin(run));
  TRY(sample_write_batch(run, first, count, buffers->pixels));
  return sample_routing_save(run, false);
}

/* The next images that are missing from index `first` on: whole units, and no more than a batch.
 * 0 at the end of this rank's share. */
static int64_t next_batch(const struct sample *run, int64_t *first) {
  const struct sample_state *state = &run->state;
  int64_t end = state->share_end, unit = run->unit, batch = run->plan.batch;
  int64_t missing = made_find(&state->made, *first, end, false);
  if (missing == end) return 0;
  *first = missing / unit * unit;
  if (end - *first > batch) end = *first + batch;
  int64_t hole = made_find(&state->made, missing, end, true);
  int64_t count = (hole - *first + unit - 1) / unit * unit;
  return count < end - *first ? count : end - *first;
}

/* What is in the journal is history for the list of failures, and reaches rank 0. */
static void note_failure(struct sample *run, int64_t first, int64_t count,
                         enum ditmoe_status status) {
  struct journal *journal = &run->state.journal;
  journal_add(journal, "failure %lld %lld %d %s", (long long)first, (long long)count, (int)status,
              report_last_error());
  (void)journal_commit(journal);
  sample_add_failure(run, first, count, (int)status, report_last_error());
}

static void start_progress(const struct sample *run, struct watch *watch, int64_t there) {
  const struct sample_settings *s = &run->settings;
  bool quiet = s->common.quiet || (s->rank > 0 && !s->common.verbose);
  progress_start(&watch->progress, s->progress, quiet, report_uses_color(),
                 run->state.share_end - run->state.share_first);
  progress_skip(&watch->progress, there);
}

static enum ditmoe_status run_batches(struct sample *run, struct ditmoe_session *session,
                                      struct buffers *buffers) {
  struct sample_state *state = &run->state;
  struct watch watch = {0};
  enum ditmoe_status status = DITMOE_OK;
  int64_t there = made_count(&state->made, state->share_first, state->share_end), count;
  watch.done = there;
  start_progress(run, &watch, there);
  run->request.user = &watch;
  run->request.observe = observe;
  for (int64_t first = state->share_first;
       status == DITMOE_OK && (count = next_batch(run, &first)) > 0; first += count) {
    status = stop_asked() ? DITMOE_CANCELLED : run_batch(run, session, buffers, first, count);
    if (status != DITMOE_OK && status != DITMOE_CANCELLED) note_failure(run, first, count, status);
    watch.done += count;
  }
  progress_finish(&watch.progress);
  if (status == DITMOE_OK || status == DITMOE_CANCELLED) TRY(sample_routing_save(run, true));
  return status;
}

static enum ditmoe_status make_images(struct sample *run, float **latents) {
  struct ditmoe_session *session = NULL;
  struct buffers buffers = {0};
  struct ditmoe_request request = run->request;
  int32_t *labels = sample_label_list(run, run->labels.first, request.count);
  request.labels = labels;
  enum ditmoe_status status = report_call(
      run->ctx, ditmoe_session_create(run->ctx, run->model, run->decoder, &request, &session));
  free(labels);
  TRY(status);
  make_buffers(&buffers, run);
  double start = clock_seconds();
  status = run_batches(run, session, &buffers);
  run->seconds_sample = clock_seconds() - start - run->seconds_write;
  ditmoe_session_destroy(session);
  free(buffers.pixels);
  if (buffers.keep_latents)
    *latents = buffers.latents;
  else
    free(buffers.latents);
  return status;
}

enum ditmoe_status sample_images(struct sample *run, float **latents) {
  int64_t first = run->state.share_first;
  if (!run->decoder && run->info.channels != 1 && run->info.channels != 3)
    report_warning("--vae none: of %d channels the images show the first%s", run->info.channels,
                   run->info.channels > 3 ? " three" : "");
  stop_on_signals();
  return next_batch(run, &first) ? make_images(run, latents) : DITMOE_OK;
}

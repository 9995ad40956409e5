/* The batches of a run: each is sampled, counted and written before the next one begins. */
#include "cli/sample/work.h"
#include "cli/stop.h"
#include "cli/text.h"

#include <stdlib.h>

/* The session. */

static int observe(void *user, const struct ditmoe_observation *seen) {
  struct sample_batches *batches = user;
  double part = (double)seen->count * seen->step / seen->steps;
  progress_step(&batches->progress, batches->done, part, seen->step, seen->steps);
  if (stop_asked() && !batches->told) {
    progress_finish(&batches->progress);
    report_note("stopping after this batch; a second signal stops at once");
    batches->told = true;
  }
  return 0;
}

static void start_progress(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const struct sample_state *state = &run->state;
  struct sample_batches *batches = &run->batches;
  bool quiet = s->common.quiet || (s->rank > 0 && !s->common.verbose);
  batches->done = made_count(&state->made, state->share_first, state->share_end);
  progress_start(&batches->progress, s->progress, quiet, report_uses_color(),
                 state->share_end - state->share_first);
  progress_skip(&batches->progress, batches->done);
}

enum ditmoe_status sample_open_session(struct sample *run) {
  struct sample_batches *batches = &run->batches;
  struct ditmoe_request request = run->request;
  int32_t *labels = sample_label_list(run, run->labels.first, request.count);
  request.labels = labels;
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_session_create(run->ctx, run->model, run->decoder, &request,
                                                  &batches->session));
  free(labels);
  TRY(status);
  int64_t kept = run->settings.latents ? run->labels.count : run->plan.batch;
  batches->pixels = memory_get((size_t)run->plan.batch, sample_image_bytes(run));
  batches->latents = memory_get((size_t)kept, (size_t)sample_latent_bytes(run));
  batches->started = clock_seconds();
  start_progress(run);
  return DITMOE_OK;
}

enum ditmoe_status sample_close_session(struct sample *run, enum ditmoe_status status) {
  struct sample_batches *batches = &run->batches;
  if (!batches->session) return status;
  progress_finish(&batches->progress);
  if (status == DITMOE_OK || status == DITMOE_CANCELLED) {
    enum ditmoe_status saved = sample_routing_save(run, true);
    if (saved != DITMOE_OK) status = saved;
  }
  run->seconds_sample = clock_seconds() - batches->started - run->seconds_write;
  ditmoe_session_destroy(batches->session);
  batches->session = NULL;
  free(batches->pixels);
  batches->pixels = NULL;
  if (run->settings.latents) return status;
  free(batches->latents);
  batches->latents = NULL;
  return status;
}

/* Batches. */

int64_t sample_next_batch(const struct sample *run, int64_t *first) {
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

/* Without a decoder: trunc(clamp(127.5 x + 128)) of the first three channels, or of the first
 * alone. */
static void pixels_of_latents(uint8_t *pixels, const float *latents, int channels, size_t plane) {
  for (size_t i = 0; i < plane; i++)
    for (size_t c = 0; c < 3; c++) {
      float value = 127.5f * latents[(channels >= 3 ? c : 0) * plane + i] + 128.0f;
      pixels[3 * i + c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

/* Labels to latents, and to pixels with a decoder. */
static enum ditmoe_status predict_images(struct sample *run, int64_t first, int64_t count,
                                         float *latents) {
  struct ditmoe_request request = run->request;
  int32_t *labels = sample_label_list(run, first, count);
  request.labels = labels;
  request.first_index = first;
  request.count = count;
  request.user = &run->batches;
  request.observe = observe;
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_sample(run->ctx, run->batches.session, &request, latents,
                                          run->decoder ? run->batches.pixels : NULL));
  free(labels);
  return status;
}

static enum ditmoe_status make_batch(struct sample *run, int64_t first, int64_t count) {
  uint8_t *pixels = run->batches.pixels;
  size_t bytes = sample_image_bytes(run), floats = sample_latent_bytes(run) / sizeof(float);
  size_t plane = (size_t)run->latent_width * (size_t)run->latent_height;
  float *latents = run->batches.latents;
  if (run->settings.latents) latents += (size_t)(first - run->labels.first) * floats;
  TRY(sample_routing_begin(run, first, count));
  TRY(sample_routing_end(run, predict_images(run, first, count, latents)));
  for (size_t i = 0; i < (size_t)count && !run->decoder; i++)
    pixels_of_latents(pixels + i * bytes, latents + i * floats, run->info.channels, plane);
  TRY(sample_begin(run));
  TRY(sample_write_batch(run, first, count, pixels));
  for (size_t i = 0; i < (size_t)count; i++)
    sample_grid_add(run, first + (int64_t)i, pixels + i * bytes);
  return sample_routing_save(run, false);
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

enum ditmoe_status sample_batch(struct sample *run, int64_t first, int64_t count) {
  enum ditmoe_status status = stop_asked() ? DITMOE_CANCELLED : make_batch(run, first, count);
  if (status != DITMOE_OK && status != DITMOE_CANCELLED) note_failure(run, first, count, status);
  run->batches.done += count;
  return status;
}

/* A run: noise, sampler, decoder, batch after batch. */
#include "api/routing.h"
#include "base/rng.h"

#include <string.h>

/* One batch under way: what the sampler's callbacks know. */
struct batch {
  struct ditmoe_session *session;
  const struct ditmoe_request *request;
  const struct resolved *resolved;
  const int32_t *labels;
  int64_t first; /* index in the request */
  int count;
  struct recorder *recorder;
  struct torch_rng torch;
};

static size_t latent_size(const struct ditmoe_session *s) {
  const struct dit_config *c = &s->model->dit->config;
  return (size_t)c->channels * (size_t)s->height * (size_t)s->width;
}

static size_t output_size(const struct ditmoe_session *s) {
  const struct dit_config *c = &s->model->dit->config;
  return (size_t)c->out_channels * (size_t)s->height * (size_t)s->width;
}

/* The model. */

/* Flow models of some families want 1000 t; the product is rounded as theirs. */
static float model_time(const struct dit_record *record, double time) {
  return (float)record->time_scale * (float)time;
}

/* Routing is recorded where it is the model's own. */
static const struct dit_tap *watch(struct batch *batch, int halves,
                                   const struct prediction *prediction) {
  const bool both = halves == 2;
  if (!batch->recorder->routing || prediction->routing) return NULL;
  return recorder_tap(batch->recorder,
                      &(struct recorder_call){.first = batch->request->first_index + batch->first,
                                              .labels = batch->labels,
                                              .given = batch->session->labels,
                                              .count = batch->count,
                                              .step = prediction->step,
                                              .conditional = both || !prediction->unconditional,
                                              .unconditional = both || prediction->unconditional});
}

/* The images of the batch `halves` times, with the labels that session->labels holds. */
static enum ditmoe_status call_model(struct batch *batch, float *out, int halves,
                                     const struct prediction *prediction) {
  struct ditmoe_session *s = batch->session;
  const struct dit *dit = s->model->dit;
  const int rows = halves * batch->count;
  for (int i = 0; i < rows; i++) s->time[i] = model_time(&dit->config.record, prediction->time);
  const struct dit_input in = {.x = prediction->x,
                               .time = s->time,
                               .labels = s->labels,
                               .B = rows,
                               .halves = halves,
                               .grid = &s->grid,
                               .routing = prediction->routing,
                               .tap = watch(batch, halves, prediction)};
  TRY(dit_predict(&s->ex, dit, out, &in));
  if (f32_all_finite(out, rows * (int64_t)output_size(s))) return batch->recorder->status;
  return diagnose_nonfinite(&s->ex, dit, out, &in, prediction->step + 1,
                            batch->resolved->schedule.steps);
}

static enum ditmoe_status predict(void *user, float *out, const struct prediction *prediction) {
  struct batch *batch = user;
  struct ditmoe_session *s = batch->session;
  const int null_label = s->model->dit->config.record.null_label;
  for (int i = 0; i < batch->count; i++)
    s->labels[i] = prediction->unconditional ? null_label : batch->labels[i];
  return call_model(batch, out, 1, prediction);
}

static enum ditmoe_status predict_both(void *user, float *conditional, float *unconditional,
                                       const struct prediction *prediction) {
  struct batch *batch = user;
  struct ditmoe_session *s = batch->session;
  const size_t out = (size_t)batch->count * output_size(s);
  for (int i = 0; i < batch->count; i++) {
    s->labels[i] = batch->labels[i];
    s->labels[batch->count + i] = s->model->dit->config.record.null_label;
  }
  TRY(call_model(batch, s->pair_out, 2, prediction));
  memcpy(conditional, s->pair_out, out * sizeof(float));
  memcpy(unconditional, s->pair_out + out, out * sizeof(float));
  return DITMOE_OK;
}

/* Randomness. */

/* The stream of a sample that is set apart for labels. */
int32_t ditmoe_random_label(uint64_t seed, int64_t index, int32_t classes) {
  return (int32_t)rng_below((uint32_t)classes, seed, (uint64_t)index, 0, RNG_LABEL);
}

static void philox_normal(const struct batch *batch, float *out, int step,
                          enum rng_purpose purpose) {
  const size_t size = latent_size(batch->session);
  for (int i = 0; i < batch->count; i++)
    rng_normal(out + (size_t)i * size, (int64_t)size, batch->request->seed,
               (uint64_t)(batch->request->first_index + batch->first + i), (uint32_t)step, purpose);
}

/* Most original programs carry the rows of both halves through a guided run and draw for all. */
static enum ditmoe_status step_noise(void *user, float *out, int step) {
  struct batch *batch = user;
  struct ditmoe_session *s = batch->session;
  const size_t count = (size_t)batch->count * latent_size(s);
  if (batch->resolved->torch) {
    torch_rng_randn(&batch->torch, s->noise,
                    (int64_t)(batch->resolved->two_rows ? 2 * count : count));
    memcpy(out, s->noise, count * sizeof(float));
  } else {
    philox_normal(batch, out, step, RNG_STEP_NOISE);
  }
  return DITMOE_OK;
}

static void initial_noise(struct batch *batch) {
  struct ditmoe_session *s = batch->session;
  const struct ditmoe_request *request = batch->request;
  const size_t size = latent_size(s), count = (size_t)batch->count * size;
  if (batch->resolved->torch) {
    uint64_t block = (uint64_t)((request->first_index + batch->first) / batch->resolved->block);
    torch_rng_seed(&batch->torch, request->seed + block);
    torch_rng_randn(&batch->torch, s->x, (int64_t)count);
  } else {
    philox_normal(batch, s->x, 0, RNG_INITIAL_NOISE);
  }
  if (request->noise)
    memcpy(s->x, request->noise + (size_t)batch->first * size, count * sizeof(float));
  const struct dit_record *record = &s->model->dit->config.record;
  if (!record_has(record, REC_NOISE_SCALE) || record->noise_scale == 1) return;
  for (size_t i = 0; i < count; i++) s->x[i] *= (float)record->noise_scale;
}

/* The run. */

static enum ditmoe_status after_step(void *user, struct sampler_run *run, int step, float *x) {
  const struct batch *batch = user;
  const struct ditmoe_request *request = batch->request;
  const struct ditmoe_observation seen = {step, run->schedule.steps, batch->first, batch->count, x};
  if (request->observe && request->observe(request->user, &seen) != 0)
    return fail(run->ctx, DITMOE_CANCELLED, "stopped after step %d of %d", step,
                run->schedule.steps);
  return DITMOE_OK;
}

/* out [C, H, W] = x deviation + mean, of each channel. */
static void add_statistics(const struct ditmoe_session *s, float *out, const float *x) {
  const struct dit_record *record = &s->model->dit->config.record;
  const size_t plane = (size_t)s->height * (size_t)s->width;
  for (int c = 0; c < record->latent_mean.count; c++)
    for (size_t i = (size_t)c * plane; i < (size_t)(c + 1) * plane; i++)
      out[i] = x[i] * (float)record->latent_std.values[c] + (float)record->latent_mean.values[c];
}

/* Images that are latents already, as levels. */
static void show(const struct batch *batch, uint8_t *pixels) {
  const struct ditmoe_session *s = batch->session;
  const size_t plane = (size_t)s->height * (size_t)s->width;
  for (int i = 0; i < batch->count; i++, pixels += 3 * plane)
    for (size_t at = 0; at < 3 * plane; at++)
      pixels[at] = pixel_level(s->x[(size_t)i * 3 * plane + at % 3 * plane + at / 3]);
}

static enum ditmoe_status decode(struct batch *batch, uint8_t *pixels) {
  struct ditmoe_session *s = batch->session;
  const size_t values = image_values(s);
  if (!s->decoder) {
    show(batch, pixels);
    return DITMOE_OK;
  }
  for (int i = 0; i < batch->count; i++) {
    const float *latents = s->x + (size_t)i * latent_size(s);
    if (s->model->dit->config.record.latent_mean.count) {
      add_statistics(s, s->noise, latents);
      latents = s->noise;
    }
    TRY(vae_decode(&s->ex, s->decoder->vae, s->image, latents, s->height, s->width,
                   s->decoder->tile));
    if (!f32_all_finite(s->image, (int64_t)values))
      return fail(s->ex.ctx, DITMOE_NONFINITE,
                  "image %lld: the decoder made NaN or infinite pixels",
                  (long long)(batch->request->first_index + batch->first + i));
    vae_pixels(pixels + (size_t)i * values, s->image, s->height * s->factor, s->width * s->factor);
  }
  return DITMOE_OK;
}

static enum ditmoe_status run_batch(struct ditmoe_ctx *ctx, struct batch *batch,
                                    const struct schedule *schedule) {
  struct ditmoe_session *s = batch->session;
  const struct dit_config *c = &s->model->dit->config;
  struct sampler_run run = {
      .ctx = ctx,
      .count = batch->count,
      .channels = c->channels,
      .out_channels = c->out_channels,
      .plane = (int64_t)s->height * s->width,
      .denoiser = {batch, predict, batch->resolved->batched ? predict_both : NULL},
      .guidance = batch->resolved->guidance,
      .hooks = {.user = batch, .after_step = after_step},
      .schedule = *schedule,
      .eta = batch->request->eta,
      .fixed_variance = batch->request->fixed_variance,
      .heun_ends_euler = batch->resolved->heun_ends_euler,
      .clean_eps = c->record.prediction == FLOW_PREDICTS_CLEAN ? c->record.t_eps : 0,
      .noise_user = batch,
      .noise = step_noise,
      .x = s->x,
      .work = s->work,
  };
  initial_noise(batch);
  return batch->resolved->sampler->run(&run);
}

static enum ditmoe_status sample_all(struct ditmoe_ctx *ctx, struct ditmoe_session *s,
                                     const struct ditmoe_request *request, float *latents,
                                     uint8_t *pixels, const struct resolved *resolved,
                                     const struct schedule *schedule, struct recorder *recorder) {
  const size_t size = latent_size(s), image_bytes = image_values(s);
  for (int64_t first = 0; first < request->count; first += resolved->batch) {
    int64_t left = request->count - first;
    struct batch batch = {.session = s,
                          .request = request,
                          .resolved = resolved,
                          .labels = request->labels + first,
                          .first = first,
                          .count = left < resolved->batch ? (int)left : resolved->batch,
                          .recorder = recorder};
    TRY(run_batch(ctx, &batch, schedule));
    if (latents)
      memcpy(latents + (size_t)first * size, s->x, (size_t)batch.count * size * sizeof(float));
    if (pixels) TRY(decode(&batch, pixels + (size_t)first * image_bytes));
  }
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_sample(struct ditmoe_ctx *ctx, struct ditmoe_session *session,
                                 const struct ditmoe_request *request, float *latents,
                                 uint8_t *pixels) {
  const struct dit_config *c = &session->model->dit->config;
  struct resolved resolved;
  struct schedule schedule = {0};
  TRY(request_resolve(ctx, session->model, request, &resolved));
  size_t work = sampler_work_size(resolved.sampler, resolved.batch, c->channels, c->out_channels,
                                  (int64_t)resolved.height * resolved.width);
  if (resolved.height != session->height || resolved.width != session->width)
    return fail(ctx, DITMOE_USAGE, "the session was made for latents of %dx%d, not %dx%d",
                session->width, session->height, resolved.width, resolved.height);
  if (resolved.batch > session->capacity || work > session->work_floats ||
      session_arena_bytes(session->model, session->decoder, &resolved) > session->ex.arena.capacity)
    return fail(ctx, DITMOE_USAGE, "the session was made for a smaller batch or another sampler");
  if (pixels && !session->factor)
    return fail(ctx, DITMOE_USAGE, "pixels need a session with a decoder");
  TRY(resolved.sampler->plan(ctx, &resolved.schedule, &schedule));
  resolved.schedule.steps = schedule.steps;
  session->ex.ctx = ctx;
  struct recorder recorder = {0};
  enum ditmoe_status status =
      routing_start(ctx, session->model, request, &resolved, &schedule, &recorder);
  if (status == DITMOE_OK)
    status = sample_all(ctx, session, request, latents, pixels, &resolved, &schedule, &recorder);
  recorder_close(&recorder);
  exec_clear(&session->ex);
  arena_reset(&session->ex.arena, 0);
  session->ex.ctx = &session->own;
  schedule_free(ctx, &schedule);
  return status;
}

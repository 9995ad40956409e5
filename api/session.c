/* Sessions: the working memory of a run, made once. */
#include "api/handles.h"
#include "base/system.h"
#include "dit/families.h"

#include <math.h>
#include <string.h>

/* Both must be made for one backend, and the latents for the decoder. */
static enum ditmoe_status check_decoder(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                        const struct ditmoe_decoder *decoder) {
  const struct dit_config *c = &model->dit->config;
  struct vae_info info;
  if (!decoder) return DITMOE_OK;
  if (decoder->ex.device->ops != model->ex.device->ops ||
      strcmp(decoder->ex.device->tier, model->ex.device->tier) != 0)
    return fail(ctx, DITMOE_MISMATCH,
                "the decoder was opened for backend %s, tier %s, the model for %s, %s",
                decoder->ex.device->ops->name, decoder->ex.device->tier,
                model->ex.device->ops->name, model->ex.device->tier);
  vae_describe(decoder->vae, &info);
  if (c->record.pixels)
    return fail(ctx, DITMOE_MISMATCH, "the model makes images, not latents: it takes no decoder");
  if (c->family && c->family->statistics && !c->record.latent_mean.count && !info.statistics)
    return fail(ctx, DITMOE_USAGE,
                "latents of %s have a mean and a deviation of each channel, which neither record "
                "nor decoder has; give --latents-stats FILE",
                c->family->name);
  if (c->record.latent_mean.count && info.statistics)
    return fail(
        ctx, DITMOE_MISMATCH,
        "the decoder has means and deviations of its own (latents_mean of its config.json), "
        "and so has the record; leave out --latents-stats");
  if (info.latent_channels != c->channels)
    return fail(ctx, DITMOE_MISMATCH,
                "the decoder takes latents of %d channels, the model makes %d",
                info.latent_channels, c->channels);
  /* A TAESD stands in for the autoencoder of Stable Diffusion, whose scale this is. */
  double scale = info.unit_range ? 0.18215 : info.scale;
  if (record_has(&c->record, REC_LATENT_SCALE) &&
      fabs(c->record.latent_scale - scale) > 1e-3 * fabs(scale))
    return fail(ctx, DITMOE_MISMATCH,
                "the model was trained on latents scaled by %g, the decoder expects %g; give the "
                "decoder of this model, or --latent-scale",
                c->record.latent_scale, scale);
  if (record_has(&c->record, REC_LATENT_SHIFT) && fabs(c->record.latent_shift - info.shift) > 1e-3)
    return fail(ctx, DITMOE_MISMATCH,
                "the model was trained on latents shifted by %g, the decoder expects %g; give the "
                "decoder of this model, or --latent-shift",
                c->record.latent_shift, info.shift);
  return DITMOE_OK;
}

static enum ditmoe_status check_memory(struct ditmoe_ctx *ctx, uint64_t bytes) {
  uint64_t available = system_memory_available();
  if (bytes <= available) return DITMOE_OK;
  return fail(
      ctx, DITMOE_NOMEM,
      "the activations need %.1f MiB, %.1f MiB are free; use a smaller --batch-size or --tile",
      (double)bytes / 1048576, (double)available / 1048576);
}

/* Takes all arrays of a session from its host arena, which may be measuring. */
static void carve_arrays(struct ditmoe_session *s, const struct resolved *resolved) {
  const struct dit_config *c = &s->model->dit->config;
  size_t plane = (size_t)resolved->height * (size_t)resolved->width, B = (size_t)resolved->batch;
  size_t latents = B * (size_t)c->channels * plane, outputs = B * (size_t)c->out_channels * plane;
  struct vae_info info = {0};
  if (s->decoder) vae_describe(s->decoder->vae, &info);
  s->capacity = resolved->batch;
  s->height = resolved->height, s->width = resolved->width;
  s->factor = makes_images(s->model) ? 1 : info.factor;
  s->work_floats = sampler_work_size(resolved->sampler, resolved->batch, c->channels,
                                     c->out_channels, (int64_t)plane);
  s->x = arena_alloc(&s->host, latents, sizeof *s->x);
  s->work = arena_alloc(&s->host, s->work_floats, sizeof *s->work);
  s->pair_out = arena_alloc(&s->host, 2 * outputs, sizeof *s->pair_out);
  s->noise = arena_alloc(&s->host, 2 * latents, sizeof *s->noise);
  s->image = arena_alloc(&s->host, image_values(s), sizeof *s->image);
  s->time = arena_alloc(&s->host, 2 * B, sizeof *s->time);
  s->labels = arena_alloc(&s->host, 2 * B, sizeof *s->labels);
}

uint64_t session_host_bytes(const struct ditmoe_model *model, const struct ditmoe_decoder *decoder,
                            const struct resolved *resolved) {
  struct ditmoe_session probe = {.model = model, .decoder = decoder};
  arena_init_measuring(&probe.host);
  carve_arrays(&probe, resolved);
  return probe.host.peak;
}

static enum ditmoe_status make_session(struct ditmoe_ctx *ctx, struct ditmoe_session *s,
                                       const struct ditmoe_request *request) {
  struct resolved resolved;
  const struct ditmoe_model *model = s->model;
  if (model->ex.dry || (s->decoder && s->decoder->ex.dry))
    return fail(ctx, DITMOE_USAGE, "a model that was opened for its plan has no weights");
  TRY(request_resolve(ctx, model, request, &resolved));
  TRY(check_decoder(ctx, model, s->decoder));
  uint64_t arena = session_arena_bytes(model, s->decoder, &resolved);
  uint64_t host = session_host_bytes(model, s->decoder, &resolved);
  TRY(check_memory(ctx, arena + host));
  TRY(exec_open(&s->ex, ctx, model->ex.device));
  TRY(dit_grid_make(&s->ex, model->dit, resolved.height, resolved.width, &s->grid));
  TRY(exec_reserve(&s->ex, arena));
  TRY(arena_init(&s->host, ctx, host));
  carve_arrays(s, &resolved);
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_session_create(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                         const struct ditmoe_decoder *decoder,
                                         const struct ditmoe_request *request,
                                         struct ditmoe_session **out) {
  struct ditmoe_session *s = NULL;
  TRY(mem_zalloc(ctx, 1, sizeof *s, "session", &s));
  s->own.hooks = ctx->hooks;
  s->model = model;
  s->decoder = decoder;
  enum ditmoe_status status = make_session(ctx, s, request);
  s->ex.ctx = &s->own;
  if (status != DITMOE_OK) {
    ditmoe_session_destroy(s);
    return status;
  }
  *out = s;
  return DITMOE_OK;
}

void ditmoe_session_destroy(struct ditmoe_session *s) {
  if (!s) return;
  struct ditmoe_ctx own = s->own;
  s->ex.ctx = &own;
  if (s->grid.rows) dit_grid_free(&s->ex, s->model->dit, &s->grid);
  exec_close(&s->ex);
  arena_fini(&s->host, &own);
  mem_free(&own, s);
}

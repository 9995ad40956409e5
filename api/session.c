/* Sessions: the working memory of a run, made once. */
#include "api/handles.h"
#include "base/system.h"

#include <math.h>

/* Latents must be those that the decoder was made for. */
static enum ditmoe_status check_decoder(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                        const struct ditmoe_decoder *decoder) {
  const struct dit_config *c = &model->dit->config;
  struct vae_info info;
  if (!decoder) return DITMOE_OK;
  vae_describe(decoder->vae, &info);
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

static enum ditmoe_status make_arrays(struct ditmoe_ctx *ctx, struct ditmoe_session *s,
                                      const struct resolved *resolved) {
  const struct dit_config *c = &s->model->dit->config;
  size_t plane = (size_t)c->size * (size_t)c->size, B = (size_t)resolved->batch;
  size_t latents = B * (size_t)c->channels * plane, outputs = B * (size_t)c->out_channels * plane;
  s->capacity = resolved->batch;
  s->work_floats = sampler_work_size(resolved->sampler, resolved->batch, c->channels,
                                     c->out_channels, (int64_t)plane);
  TRY(mem_alloc(ctx, latents, sizeof *s->x, "latents", &s->x));
  TRY(mem_alloc(ctx, s->work_floats, sizeof *s->work, "sampler arrays", &s->work));
  TRY(mem_alloc(ctx, 2 * latents, sizeof *s->pair_in, "latents", &s->pair_in));
  TRY(mem_alloc(ctx, 2 * outputs, sizeof *s->pair_out, "predictions", &s->pair_out));
  TRY(mem_alloc(ctx, 2 * latents, sizeof *s->noise, "noise", &s->noise));
  TRY(mem_alloc(ctx, 2 * B, sizeof *s->time, "times", &s->time));
  TRY(mem_alloc(ctx, 2 * B, sizeof *s->labels, "labels", &s->labels));
  if (!s->decoder) return DITMOE_OK;
  struct vae_info info;
  vae_describe(s->decoder->vae, &info);
  size_t pixels = plane * (size_t)info.factor * (size_t)info.factor;
  return mem_alloc(ctx, 3 * pixels, sizeof *s->image, "image", &s->image);
}

static enum ditmoe_status make_session(struct ditmoe_ctx *ctx, struct ditmoe_session *s,
                                       const struct ditmoe_request *request) {
  struct resolved resolved;
  const struct ditmoe_model *model = s->model;
  TRY(request_resolve(ctx, model, request, &resolved));
  TRY(check_decoder(ctx, model, s->decoder));
  uint64_t arena = session_arena_bytes(model, s->decoder, &resolved);
  TRY(check_memory(ctx, arena + session_host_bytes(model, s->decoder, &resolved)));
  TRY(backend_init(&s->be, ctx, model->be.ops->name, model->be.tier, model->be.threads));
  TRY(backend_arena(&s->be, arena, false));
  return make_arrays(ctx, s, &resolved);
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
  s->be.ctx = &s->own;
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
  void *arrays[] = {s->x, s->work, s->pair_in, s->pair_out, s->noise, s->image, s->time, s->labels};
  s->be.ctx = &own;
  backend_fini(&s->be);
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) mem_free(&own, arrays[i]);
  mem_free(&own, s);
}

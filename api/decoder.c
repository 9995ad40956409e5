/* Decoders. */
#include "api/handles.h"

static enum ditmoe_status load(struct ditmoe_ctx *ctx, struct ditmoe_decoder *decoder,
                               const char *path, const struct ditmoe_model_options *options) {
  TRY(backend_open(&decoder->ex, ctx, options->backend, options->tier, options->threads));
  TRY(backend_compute(&decoder->ex, options->dtype));
  decoder->ex.dry = options->plan_only;
  TRY(vae_open(&decoder->ex, path, &decoder->vae));
  struct vae_info info;
  vae_describe(decoder->vae, &info);
  if (!info.can_decode)
    return fail(ctx, DITMOE_MISMATCH, "%s: holds an encoder only, no decoder", path);
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_decoder_open(struct ditmoe_ctx *ctx, const char *path,
                                       const struct ditmoe_model_options *options, int tile,
                                       struct ditmoe_decoder **out) {
  const struct ditmoe_model_options defaults = {0};
  struct ditmoe_decoder *decoder = NULL;
  if (tile < 0) return fail(ctx, DITMOE_USAGE, "tile %d: must not be negative", tile);
  TRY(mem_zalloc(ctx, 1, sizeof *decoder, "decoder", &decoder));
  decoder->own.hooks = ctx->hooks;
  decoder->tile = tile;
  enum ditmoe_status status = load(ctx, decoder, path, options ? options : &defaults);
  decoder->ex.ctx = &decoder->own;
  if (status != DITMOE_OK) {
    ditmoe_decoder_close(decoder);
    return status;
  }
  *out = decoder;
  return DITMOE_OK;
}

void ditmoe_decoder_close(struct ditmoe_decoder *decoder) {
  if (!decoder) return;
  struct ditmoe_ctx own = decoder->own;
  decoder->ex.ctx = &own;
  if (decoder->vae) vae_close(&decoder->ex, decoder->vae);
  exec_close(&decoder->ex);
  mem_free(&own, decoder);
}

void ditmoe_decoder_info(const struct ditmoe_decoder *decoder, struct ditmoe_decoder_info *out) {
  struct vae_info info;
  vae_describe(decoder->vae, &info);
  *out = (struct ditmoe_decoder_info){.kind = info.kind,
                                      .names = info.names,
                                      .latent_channels = info.latent_channels,
                                      .factor = info.factor,
                                      .scale = info.scale,
                                      .shift = info.shift,
                                      .statistics = info.statistics};
}

/* AutoencoderKL (Rombach et al. 2022, as sd-vae-ft-mse): encoder, decoder.
 *
 *   encode: conv_in, per level (blocks, halve), mid, conv_out, quant_conv
 *   decode: post_quant_conv, conv_in, mid, per level from the deepest (double, blocks), conv_out */
#include "vae/kl.h"

#include <sys/stat.h>

/* x [height, width, C] in place. */
static void mid_forward(struct exec *ex, const struct kl *kl, const struct mid *mid, float *x,
                        int height, int width) {
  resblock_forward(ex, &mid->block[0], x, x, height, width, NULL);
  if (kl->config.attention) attention_forward(ex, &mid->attention, x, height, width);
  resblock_forward(ex, &mid->block[1], x, x, height, width, NULL);
}

/* y [height, width, level->channels] = the blocks of a level applied to x. */
static void blocks_forward(struct exec *ex, const struct level *level, int blocks, float *y,
                           const float *x, int height, int width, struct tile *tile) {
  for (int r = 0; r < blocks; r++) {
    resblock_forward(ex, &level->block[r], y, r ? y : x, height, width, tile);
    if (level->attends) attention_forward(ex, &level->attention[r], y, height, width);
  }
}

static int level_scale(int i) { return i > 0 ? 2 : 1; }

/* Level i of the decoder with the doubling before it: y [height * scale, width * scale, channels]
 * of x [height, width, C]. */
static void level_forward(struct exec *ex, const struct kl *kl, int i, float *y, const float *x,
                          int height, int width, struct tile *tile) {
  const struct level *level = &kl->decoder.level[i];
  const int blocks = kl->config.layers + 1;
  if (i == 0) {
    blocks_forward(ex, level, blocks, y, x, height, width, tile);
    return;
  }
  const size_t mark = arena_mark(&ex->arena);
  float *doubled = be_floats(ex, (int64_t)4 * height * width * level[-1].channels);
  double_forward(ex, level[-1].resample, doubled, x, height, width);
  blocks_forward(ex, level, blocks, y, doubled, 2 * height, 2 * width, tile);
  arena_reset(&ex->arena, mark);
}

static void kl_head(struct exec *ex, const struct vae *vae, float *features, const float *latents,
                    int height, int width) {
  const struct kl *kl = vae->kl;
  const struct half *half = &kl->decoder;
  const int C = kl->config.latent_channels, Z = kl->config.z_channels, D = kl_deepest(&kl->config);
  const size_t mark = arena_mark(&ex->arena);
  const int64_t pixels = (int64_t)height * width;
  float *z = be_floats(ex, pixels * Z);                            /* [height, width, Z] */
  float *x = kl->split < 0 ? features : be_floats(ex, pixels * D); /* [height, width, D] */

  if (half->quant) {
    be_conv2d(ex, z, be_narrowed(ex, half->quant->input, latents, pixels * C), half->quant, 1,
              height, width);
    latents = z;
  }
  be_conv2d(ex, x, be_narrowed(ex, half->conv_in->input, latents, pixels * Z), half->conv_in, 1,
            height, width);
  mid_forward(ex, kl, &half->mid, x, height, width);
  for (int i = 0; i <= kl->split; i++) {
    const int scale = level_scale(i), H = height * scale, W = width * scale;
    float *y =
        i == kl->split ? features : be_floats(ex, (int64_t)H * W * kl_up_channels(&kl->config, i));
    level_forward(ex, kl, i, y, x, height, width, NULL);
    height = H, width = W;
    x = y;
  }
  arena_reset(&ex->arena, mark);
}

/* One level, and the image after the last. */
static void kl_stage(struct exec *ex, const struct vae *vae, int s, float *y, const float *x,
                     int height, int width, struct tile *tile) {
  const struct kl *kl = vae->kl;
  const struct half *half = &kl->decoder;
  const int i = kl->split + 1 + s, scale = level_scale(i), C = half->level[i].channels;
  const int H = height * scale, W = width * scale;
  if (s < vae->stages - 1) {
    level_forward(ex, kl, i, y, x, height, width, tile);
    return;
  }
  const size_t mark = arena_mark(&ex->arena);
  float *top = be_floats(ex, (int64_t)H * W * C); /* [H, W, C] */
  level_forward(ex, kl, i, top, x, height, width, tile);
  struct act a = be_acts(ex, half->conv_out->input, (int64_t)H * W * C); /* [H, W, C] */
  norm_forward(ex, a, top, &half->norm_out, kl->config.groups, H, W, true, tile);
  be_conv2d(ex, y, a, half->conv_out, 1, H, W);
  arena_reset(&ex->arena, mark);
}

static void kl_encode(struct exec *ex, const struct vae *vae, float *moments, const float *image,
                      int height, int width) {
  const struct kl *kl = vae->kl;
  const struct half *half = &kl->encoder;
  const int last = kl->config.levels - 1, Z = 2 * kl->config.z_channels,
            D = kl_deepest(&kl->config);
  const size_t mark = arena_mark(&ex->arena);
  int64_t pixels = (int64_t)height * width;
  float *x = be_floats(ex, pixels * kl->config.channels[0]);

  be_conv2d(ex, x, be_narrowed(ex, half->conv_in->input, image, 3 * pixels), half->conv_in, 1,
            height, width);
  for (int i = 0; i <= last; i++) {
    const struct level *level = &half->level[i];
    const int halved = i < last ? 2 : 1;
    float *y = be_floats(ex, pixels / halved / halved * level->channels);
    const size_t inner = arena_mark(&ex->arena);
    float *h = i < last ? be_floats(ex, pixels * level->channels) : y;
    blocks_forward(ex, level, kl->config.layers, h, x, height, width, NULL);
    if (i < last)
      be_conv2d(ex, y, be_narrowed(ex, level->resample->input, h, pixels * level->channels),
                level->resample, 1, height, width);
    arena_reset(&ex->arena, inner);
    x = y;
    height /= halved, width /= halved;
    pixels = (int64_t)height * width;
  }
  struct act a = be_acts(ex, half->conv_out->input, pixels * D); /* [height, width, D]   */
  float *m = be_floats(ex, pixels * Z);                          /* [height, width, 2 Z] */
  mid_forward(ex, kl, &half->mid, x, height, width);
  norm_forward(ex, a, x, &half->norm_out, kl->config.groups, height, width, true, NULL);
  be_conv2d(ex, half->quant ? m : moments, a, half->conv_out, 1, height, width);
  if (half->quant)
    be_conv2d(ex, moments, be_narrowed(ex, half->quant->input, m, pixels * Z), half->quant, 1,
              height, width);
  arena_reset(&ex->arena, mark);
}

/* The last levels, one per stage. A pixel of y sees one more beyond it for every 3x3 convolution
 * on the way; a pixel of a doubled image stands for half of one before. */
static void describe_stages(struct vae *vae, const struct kl_config *config) {
  const int blocks = config->layers + 1;
  for (int s = 0; s < vae->stages; s++) {
    const int i = vae->kl->split + 1 + s, last = s == vae->stages - 1;
    const int scale = level_scale(i), seen = RESBLOCK_CONVS * blocks + (scale > 1) + last;
    vae->stage[s] = (struct vae_stage){.in = kl_up_channels(config, i ? i - 1 : 0),
                                       .out = last ? 3 : kl_up_channels(config, i),
                                       .scale = scale,
                                       .margin = (seen + scale - 1) / scale,
                                       .norms = RESBLOCK_NORMS * blocks + last};
  }
}

static void describe(struct vae *vae, const struct kl_config *config) {
  const int last = config->levels - 1;
  vae->kl->config = *config;
  vae->stages = config->levels < VAE_STAGES ? config->levels : VAE_STAGES;
  vae->kl->split = last - vae->stages;
  vae->head = kl_head;
  vae->stage_forward = kl_stage;
  vae->encode = kl_encode;
  vae->head_scale = vae->kl->split > 0 ? 1 << vae->kl->split : 1;
  vae->groups = config->groups;
  vae->log_variance = true;
  vae->info = (struct vae_info){.kind = "autoencoder-kl",
                                .latent_channels = config->latent_channels,
                                .image_channels = 3,
                                .factor = 1 << last,
                                .scale = config->scale,
                                .shift = config->shift,
                                .statistics = config->statistics};
  describe_stages(vae, config);
}

/* z std / scale + mean, z / scale + shift */
static void describe_latents(struct vae *vae, const struct kl_config *config) {
  for (int c = 0; c < config->latent_channels; c++)
    vae->latent[c] =
        (struct affine){config->statistics ? config->deviation[c] : 1, (float)config->scale,
                        config->statistics ? config->mean[c] : (float)config->shift};
}

static enum ditmoe_status check_groups(struct ditmoe_ctx *ctx, const char *path,
                                       const struct kl_config *config) {
  for (int i = 0; i < config->levels; i++)
    if (config->channels[i] % config->groups != 0)
      return fail(ctx, DITMOE_MISMATCH, "%s: level %d has %d channels, no multiple of %d groups",
                  path, i, config->channels[i], config->groups);
  return DITMOE_OK;
}

static enum ditmoe_status read_config(struct ditmoe_ctx *ctx, const struct kl_dialect *dialect,
                                      const char *path, const struct ditmoe_checkpoint *file,
                                      struct kl_config *out) {
  struct stat info;
  if (!dialect->prefix) return kl_config_read(ctx, path, out);
  TRY(kl_config_infer(ctx, dialect, file, out));
  if (stat(path, &info) == 0) TRY(kl_config_read_scaling(ctx, path, out));
  return check_groups(ctx, file->path, out);
}

enum ditmoe_status kl_open(struct exec *ex, struct vae *vae, const char *config_path,
                           const struct ditmoe_checkpoint *file) {
  struct kl_config config;
  const struct kl_dialect *dialect;
  struct params *params = &vae->params[0];
  TRY(kl_dialect_find(ex->ctx, file, &dialect));
  TRY(read_config(ex->ctx, dialect, config_path, file, &config));
  TRY(mem_zalloc(ex->ctx, 1, sizeof *vae->kl, "the autoencoder", &vae->kl));
  describe(vae, &config);
  describe_latents(vae, &config);
  vae->info.names = dialect->name;
  vae->info.can_encode = kl_has(dialect, file, "encoder.");
  vae->info.can_decode = kl_has(dialect, file, "decoder.");
  *params = params_begin(ex->ctx, file);
  kl_walk(vae->kl, params, dialect);
  TRY(params_load(params, ex,
                  dialect->prefix ? "autoencoder-kl (CompVis names)"
                                  : "autoencoder-kl (by its config.json)"));
  vae->info.weight_bytes = params->weight_bytes;
  for (int s = 0; s < vae->stages; s++)
    if (vae->kl->decoder.level[vae->kl->split + 1 + s].attends) vae->whole_only = true;
  return DITMOE_OK;
}

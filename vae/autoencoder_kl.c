/* AutoencoderKL in the diffusers layout (Rombach et al. 2022, as sd-vae-ft-mse): encoder, decoder.
 *
 *   encode: conv_in, per level (blocks, halve), mid, conv_out, quant_conv
 *   decode: post_quant_conv, conv_in, mid, per level from the deepest (double, blocks), conv_out */
#include "vae/kl_config.h"
#include "vae/network.h"

#include <stdio.h>
#include <string.h>

/* Ends with halving the image (encoder) or doubling it (decoder), but for the last. */
struct level {
  int channels; /* after its blocks */
  struct resblock block[KL_BLOCKS];
  struct conv *resample;
};

struct mid {
  struct resblock block[2];
  struct attention_block attention;
};

/* Encoder and decoder have the same parts in another order. */
struct half {
  struct conv *conv_in, *conv_out, *quant;
  struct level level[KL_LEVELS]; /* in the order of the computation */
  struct mid mid;
  struct norm norm_out;
};

struct kl {
  struct kl_config config;
  int split; /* last level of the decoder's head, -1: none */
  struct half encoder, decoder;
};

static const struct conv_form conv_halve = {
    .kernel = {3, 3}, .window = {.stride = 2, .after = {1, 1}}, .bias = true};

static int deepest(const struct kl_config *config) { return config->channels[config->levels - 1]; }

/* Channels of level i in the order of the decoder. */
static int up_channels(const struct kl_config *config, int i) {
  return config->channels[config->levels - 1 - i];
}

static void resblocks_walk(struct resblock *block, struct params *params, int in, int out,
                           int count, int groups) {
  for (int r = 0; r < count; r++) {
    const size_t length = params_enter(params, "resnets.%d.", r);
    resblock_walk(&block[r], params, r ? out : in, out, groups);
    params_leave(params, length);
  }
}

static void mid_walk(struct mid *mid, struct params *params, const struct kl_config *config,
                     bool old_names) {
  const int C = deepest(config);
  const size_t length = params_enter(params, "mid_block.");
  resblocks_walk(mid->block, params, C, C, 2, config->groups);
  params_enter(params, "attentions.0.");
  if (config->attention) attention_walk(&mid->attention, params, C, config->groups, old_names);
  params_leave(params, length);
}

static void encoder_walk(struct half *half, struct params *params, const struct kl_config *config,
                         bool old_names) {
  const int M = 2 * config->latent_channels, last = config->levels - 1;
  const size_t outside = params_enter(params, "encoder.");
  params_conv(params, &half->conv_in, 3, config->channels[0], &conv_3x3, "conv_in");
  for (int i = 0; i <= last; i++) {
    struct level *level = &half->level[i];
    const int in = config->channels[i ? i - 1 : 0], out = config->channels[i];
    const size_t inside = params_enter(params, "down_blocks.%d.", i);
    level->channels = out;
    resblocks_walk(level->block, params, in, out, config->layers, config->groups);
    if (i < last)
      params_conv(params, &level->resample, out, out, &conv_halve, "downsamplers.0.conv");
    params_leave(params, inside);
  }
  mid_walk(&half->mid, params, config, old_names);
  params_norm(params, &half->norm_out, deepest(config), "conv_norm_out");
  params_conv(params, &half->conv_out, deepest(config), M, &conv_3x3, "conv_out");
  params_leave(params, outside);
  if (config->quant) params_conv(params, &half->quant, M, M, &conv_1x1, "quant_conv");
}

static void decoder_walk(struct half *half, struct params *params, const struct kl_config *config,
                         bool old_names) {
  const int C = config->latent_channels, last = config->levels - 1;
  if (config->post_quant) params_conv(params, &half->quant, C, C, &conv_1x1, "post_quant_conv");
  const size_t outside = params_enter(params, "decoder.");
  params_conv(params, &half->conv_in, C, deepest(config), &conv_3x3, "conv_in");
  mid_walk(&half->mid, params, config, old_names);
  for (int i = 0; i <= last; i++) {
    struct level *level = &half->level[i];
    const int in = up_channels(config, i ? i - 1 : 0), out = up_channels(config, i);
    const size_t inside = params_enter(params, "up_blocks.%d.", i);
    level->channels = out;
    resblocks_walk(level->block, params, in, out, config->layers + 1, config->groups);
    if (i < last) params_conv(params, &level->resample, out, out, &conv_3x3, "upsamplers.0.conv");
    params_leave(params, inside);
  }
  params_norm(params, &half->norm_out, config->channels[0], "conv_norm_out");
  params_conv(params, &half->conv_out, config->channels[0], 3, &conv_3x3, "conv_out");
  params_leave(params, outside);
}

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
  for (int r = 0; r < blocks; r++)
    resblock_forward(ex, &level->block[r], y, r ? y : x, height, width, tile);
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
                    int size) {
  const struct kl *kl = vae->kl;
  const struct half *half = &kl->decoder;
  const int C = kl->config.latent_channels, D = deepest(&kl->config);
  const size_t mark = arena_mark(&ex->arena);
  const int64_t pixels = (int64_t)size * size;
  float *z = be_floats(ex, pixels * C);                            /* [size, size, C] */
  float *x = kl->split < 0 ? features : be_floats(ex, pixels * D); /* [size, size, D] */

  if (half->quant) {
    be_conv2d(ex, z, be_narrowed(ex, half->quant->input, latents, pixels * C), half->quant, 1, size,
              size);
    latents = z;
  }
  be_conv2d(ex, x, be_narrowed(ex, half->conv_in->input, latents, pixels * C), half->conv_in, 1,
            size, size);
  mid_forward(ex, kl, &half->mid, x, size, size);
  for (int i = 0; i <= kl->split; i++) {
    const int side = size * level_scale(i);
    float *y = i == kl->split ? features
                              : be_floats(ex, (int64_t)side * side * up_channels(&kl->config, i));
    level_forward(ex, kl, i, y, x, size, size, NULL);
    size = side;
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
                      int size) {
  const struct kl *kl = vae->kl;
  const struct half *half = &kl->encoder;
  const int last = kl->config.levels - 1, M = 2 * kl->config.latent_channels;
  const size_t mark = arena_mark(&ex->arena);
  float *x = be_floats(ex, (int64_t)size * size * kl->config.channels[0]);

  be_conv2d(ex, x, be_narrowed(ex, half->conv_in->input, image, 3 * (int64_t)size * size),
            half->conv_in, 1, size, size);
  for (int i = 0; i <= last; i++) {
    const struct level *level = &half->level[i];
    const int next = i < last ? size / 2 : size;
    float *y = be_floats(ex, (int64_t)next * next * level->channels);
    const size_t inner = arena_mark(&ex->arena);
    float *h = i < last ? be_floats(ex, (int64_t)size * size * level->channels) : y;
    blocks_forward(ex, level, kl->config.layers, h, x, size, size, NULL);
    if (i < last)
      be_conv2d(ex, y,
                be_narrowed(ex, level->resample->input, h, (int64_t)size * size * level->channels),
                level->resample, 1, size, size);
    arena_reset(&ex->arena, inner);
    x = y;
    size = next;
  }
  const int64_t pixels = (int64_t)size * size;
  struct act a =
      be_acts(ex, half->conv_out->input, pixels * deepest(&kl->config)); /* [size, size, deepest] */
  float *m = be_floats(ex, pixels * M);                                  /* [size, size, 2 C]     */
  mid_forward(ex, kl, &half->mid, x, size, size);
  norm_forward(ex, a, x, &half->norm_out, kl->config.groups, size, size, true, NULL);
  be_conv2d(ex, half->quant ? m : moments, a, half->conv_out, 1, size, size);
  if (half->quant)
    be_conv2d(ex, moments, be_narrowed(ex, half->quant->input, m, pixels * M), half->quant, 1, size,
              size);
  arena_reset(&ex->arena, mark);
}

static bool has_prefix(const struct ditmoe_checkpoint *file, const char *prefix) {
  for (size_t i = 0; i < file->count; i++)
    if (strncmp(file->tensors[i].name, prefix, strlen(prefix)) == 0) return true;
  return false;
}

/* The last levels, one per stage. A pixel of y sees one more beyond it for every 3x3 convolution
 * on the way; a pixel of a doubled image stands for half of one before. */
static void describe_stages(struct vae *vae, const struct kl_config *config) {
  const int blocks = config->layers + 1;
  for (int s = 0; s < vae->stages; s++) {
    const int i = vae->kl->split + 1 + s, last = s == vae->stages - 1;
    const int scale = level_scale(i), seen = RESBLOCK_CONVS * blocks + (scale > 1) + last;
    vae->stage[s] = (struct vae_stage){.in = up_channels(config, i ? i - 1 : 0),
                                       .out = last ? 3 : up_channels(config, i),
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
                                .shift = config->shift};
  describe_stages(vae, config);
}

enum ditmoe_status kl_open(struct exec *ex, struct vae *vae, const char *config_path,
                           const struct ditmoe_checkpoint *file) {
  struct kl_config config;
  struct params *params = &vae->params[0];
  if (has_prefix(file, "decoder.mid.") || has_prefix(file, "encoder.mid.") ||
      has_prefix(file, "first_stage_model."))
    return fail(
        ex->ctx, DITMOE_MISMATCH,
        "%s: an autoencoder with CompVis tensor names (decoder.mid.block_1, ...), which are "
        "not supported; use the same weights in the diffusers layout",
        file->path);
  if (!has_prefix(file, "encoder.") && !has_prefix(file, "decoder."))
    return fail(
        ex->ctx, DITMOE_MISMATCH,
        "%s: not a decoder: expected tensors decoder.* or encoder.* of an AutoencoderKL, or "
        "1.weight of a TAESD",
        file->path);
  TRY(kl_config_read(ex->ctx, config_path, &config));
  TRY(mem_zalloc(ex->ctx, 1, sizeof *vae->kl, "the autoencoder", &vae->kl));
  describe(vae, &config);
  vae->info.can_encode = has_prefix(file, "encoder.");
  vae->info.can_decode = has_prefix(file, "decoder.");
  *params = params_begin(ex->ctx, file);
  if (vae->info.can_encode)
    encoder_walk(&vae->kl->encoder, params, &config,
                 checkpoint_find(file, "encoder.mid_block.attentions.0.query.weight") != NULL);
  if (vae->info.can_decode)
    decoder_walk(&vae->kl->decoder, params, &config,
                 checkpoint_find(file, "decoder.mid_block.attentions.0.query.weight") != NULL);
  TRY(params_load(params, ex, "autoencoder-kl (by its config.json)"));
  vae->info.weight_bytes = params->weight_bytes;
  return DITMOE_OK;
}

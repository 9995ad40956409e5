/* The parameters of an AutoencoderKL: names of the families of files as rows of a table, sizes from
 * the shapes of tensors, and the walk. */
#include "vae/kl.h"

#include <stdio.h>
#include <string.h>

/* CompVis (Rombach et al. 2022) count levels from the finest, whatever their order. */
#define COMPVIS_NAMES                                                                              \
  .down = "down", .up = "up", .block = "block", .attention = "attn", .up_from_finest = true,       \
  .halve = "downsample.conv", .twice = "upsample.conv", .norm_out = "norm_out",                    \
  .mid_block = {"mid.block_1.", "mid.block_2."}, .mid_attention = "mid.attn_1.",                   \
  .shortcut = "nin_shortcut", .attentions = ATTENTION_COMPVIS

static const struct kl_dialect diffusers = {
    .name = "diffusers",
    .down = "down_blocks",
    .up = "up_blocks",
    .block = "resnets",
    .attention = "attentions",
    .halve = "downsamplers.0.conv",
    .twice = "upsamplers.0.conv",
    .norm_out = "conv_norm_out",
    .mid_block = {"mid_block.resnets.0.", "mid_block.resnets.1."},
    .mid_attention = "mid_block.attentions.0.",
    .shortcut = "conv_shortcut",
    .attentions = ATTENTION_DIFFUSERS};
static const struct kl_dialect compvis = {.name = "CompVis", .prefix = "", COMPVIS_NAMES};
static const struct kl_dialect compvis_whole = {
    .name = "CompVis, in a whole model", .prefix = "first_stage_model.", COMPVIS_NAMES};

static const char *prefix_of(const struct kl_dialect *dialect) {
  return dialect->prefix ? dialect->prefix : "";
}

static bool has_prefix(const struct ditmoe_checkpoint *file, const char *prefix) {
  for (size_t i = 0; i < file->count; i++)
    if (strncmp(file->tensors[i].name, prefix, strlen(prefix)) == 0) return true;
  return false;
}

bool kl_has(const struct kl_dialect *dialect, const struct ditmoe_checkpoint *file,
            const char *prefix) {
  char full[PARAM_NAME];
  snprintf(full, sizeof full, "%s%s", prefix_of(dialect), prefix);
  return has_prefix(file, full);
}

enum ditmoe_status kl_dialect_find(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *file,
                                   const struct kl_dialect **out) {
  static const struct kl_dialect *const named[] = {&compvis, &compvis_whole};
  const struct kl_dialect *found = NULL;
  for (size_t i = 0; i < sizeof named / sizeof *named; i++)
    if (kl_has(named[i], file, "decoder.mid.") || kl_has(named[i], file, "encoder.mid."))
      found = named[i];
  if (!found && (kl_has(&diffusers, file, "encoder.") || kl_has(&diffusers, file, "decoder.")))
    found = &diffusers;
  if (!found)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: not a decoder: expected tensors decoder.* or encoder.* of an AutoencoderKL, "
                "or 1.weight of a TAESD",
                file->path);
  if (kl_has(found, file, "quantize."))
    return fail(ctx, DITMOE_MISMATCH,
                "%s: an autoencoder with a codebook (%squantize.*), which is not supported",
                file->path, prefix_of(found));
  *out = found;
  return DITMOE_OK;
}

/* Sizes. */

/* Reads a CompVis file; `half` is the one that the sizes are taken from. */
struct reader {
  struct ditmoe_ctx *ctx;
  const struct kl_dialect *dialect;
  const struct ditmoe_checkpoint *file;
  const char *half;
};

static const struct tensor *find(const struct reader *r, const char *half, const char *name) {
  char full[PARAM_NAME];
  snprintf(full, sizeof full, "%s%s%s.weight", prefix_of(r->dialect), half, name);
  return checkpoint_find(r->file, full);
}

enum { BLOCK_NAME = 64 };

/* name = that of a block's first convolution; whether it is there. */
static bool find_block(const struct reader *r, int level, int block, char name[BLOCK_NAME]) {
  const struct kl_dialect *d = r->dialect;
  snprintf(name, BLOCK_NAME, "%s.%d.%s.%d.conv1", *r->half == 'd' ? d->up : d->down, level,
           d->block, block);
  return find(r, r->half, name) != NULL;
}

/* Axis `axis` of the kernel <half><name>, within 1 and `most`. */
static enum ditmoe_status size_of(const struct reader *r, const char *half, const char *name,
                                  int axis, int most, int *out) {
  const struct tensor *t = find(r, half, name);
  if (!t || t->rank != 4 || t->shape[axis] < 1 || t->shape[axis] > most)
    return fail(r->ctx, DITMOE_MISMATCH,
                "%s: an autoencoder of CompVis names whose %s%s%s.weight is %s", r->file->path,
                prefix_of(r->dialect), half, name, t ? "no kernel of a possible size" : "missing");
  *out = (int)t->shape[axis];
  return DITMOE_OK;
}

static enum ditmoe_status infer_latents(const struct reader *r, struct kl_config *out) {
  const bool decodes = *r->half == 'd';
  const char *quant = decodes ? "post_quant_conv" : "quant_conv";
  TRY(size_of(r, r->half, decodes ? "conv_in" : "conv_out", decodes ? 1 : 0, 2 * VAE_LATENTS,
              &out->z_channels));
  out->latent_channels = out->z_channels;
  if (find(r, "", quant))
    TRY(size_of(r, "", quant, decodes ? 1 : 0, 2 * VAE_LATENTS, &out->latent_channels));
  if (!decodes) out->z_channels /= 2, out->latent_channels /= 2;
  if (out->latent_channels >= 1 && out->latent_channels <= VAE_LATENTS) return DITMOE_OK;
  return fail(r->ctx, DITMOE_MISMATCH,
              "%s: an autoencoder of %d latent channels; 1 to %d are "
              "supported",
              r->file->path, out->latent_channels, VAE_LATENTS);
}

enum ditmoe_status kl_config_infer(struct ditmoe_ctx *ctx, const struct kl_dialect *dialect,
                                   const struct ditmoe_checkpoint *file, struct kl_config *out) {
  const bool decodes = kl_has(dialect, file, "decoder.");
  const struct reader r = {ctx, dialect, file, decodes ? "decoder." : "encoder."};
  char name[BLOCK_NAME];
  *out = kl_config_default();
  for (out->levels = 0; out->levels < KL_LEVELS && find_block(&r, out->levels, 0, name);)
    TRY(size_of(&r, r.half, name, 0, KL_WIDTH, &out->channels[out->levels++]));
  for (out->layers = 0; out->layers < KL_BLOCKS && find_block(&r, 0, out->layers, name);)
    out->layers++;
  if (decodes) out->layers--;
  if (out->levels < 1 || out->layers < 1 || out->layers >= KL_BLOCKS)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: an autoencoder of CompVis names with %d levels of %d blocks; 1 to %d of 1 to "
                "%d are supported",
                file->path, out->levels, out->layers, KL_LEVELS, KL_BLOCKS - 1);
  TRY(infer_latents(&r, out));
  out->quant = find(&r, "", "quant_conv") != NULL;
  out->post_quant = find(&r, "", "post_quant_conv") != NULL;
  snprintf(name, sizeof name, "%sq", dialect->mid_attention);
  out->attention = find(&r, r.half, name) != NULL;
  /* The autoencoder of Stable Diffusion; others do not scale, or say how in a file beside. */
  if (out->latent_channels != 4 || out->levels != 4) out->scale = 1;
  return DITMOE_OK;
}

/* The walk. */

struct walk {
  struct params *params;
  const struct kl_config *config;
  const struct kl_dialect *dialect;
};

static void block_walk(const struct walk *w, struct resblock *block, int in, int out) {
  resblock_walk(block, w->params, in, out, w->config->groups, w->dialect->shortcut);
}

static void level_walk(const struct walk *w, struct level *level, int in, int out, int count) {
  struct params *params = w->params;
  char first[2 * PARAM_NAME];
  snprintf(first, sizeof first, "%s%s.0.", params->prefix, w->dialect->attention);
  level->channels = out;
  level->attends = has_prefix(params->file, first);
  for (int r = 0; r < count; r++) {
    const size_t length = params_enter(params, "%s.%d.", w->dialect->block, r);
    block_walk(w, &level->block[r], r ? out : in, out);
    params_leave(params, length);
    if (!level->attends) continue;
    params_enter(params, "%s.%d.", w->dialect->attention, r);
    attention_walk(&level->attention[r], params, out, w->config->groups, w->dialect->attentions);
    params_leave(params, length);
  }
}

static void mid_walk(const struct walk *w, struct mid *mid) {
  struct params *params = w->params;
  const int C = kl_deepest(w->config);
  for (int r = 0; r < 2; r++) {
    const size_t length = params_enter(params, "%s", w->dialect->mid_block[r]);
    block_walk(w, &mid->block[r], C, C);
    params_leave(params, length);
    if (r > 0 || !w->config->attention) continue;
    params_enter(params, "%s", w->dialect->mid_attention);
    attention_walk(&mid->attention, params, C, w->config->groups, w->dialect->attentions);
    params_leave(params, length);
  }
}

static const struct conv_form conv_halve = {
    .kernel = {3, 3}, .window = {.stride = 2, .after = {1, 1}}, .bias = true};

static void encoder_walk(const struct walk *w, struct half *half) {
  const struct kl_config *config = w->config;
  struct params *params = w->params;
  const int last = config->levels - 1;
  const size_t outside = params_enter(params, "encoder.");
  params_conv(params, &half->conv_in, 3, config->channels[0], &conv_3x3, "conv_in");
  for (int i = 0; i <= last; i++) {
    const int in = config->channels[i ? i - 1 : 0], out = config->channels[i];
    const size_t inside = params_enter(params, "%s.%d.", w->dialect->down, i);
    level_walk(w, &half->level[i], in, out, config->layers);
    if (i < last)
      params_conv(params, &half->level[i].resample, out, out, &conv_halve, w->dialect->halve);
    params_leave(params, inside);
  }
  mid_walk(w, &half->mid);
  params_norm(params, &half->norm_out, kl_deepest(config), w->dialect->norm_out);
  params_conv(params, &half->conv_out, kl_deepest(config), 2 * config->z_channels, &conv_3x3,
              "conv_out");
  params_leave(params, outside);
  if (config->quant)
    params_conv(params, &half->quant, 2 * config->z_channels, 2 * config->latent_channels,
                &conv_1x1, "quant_conv");
}

static void decoder_walk(const struct walk *w, struct half *half) {
  const struct kl_config *config = w->config;
  struct params *params = w->params;
  const int last = config->levels - 1;
  if (config->post_quant)
    params_conv(params, &half->quant, config->latent_channels, config->z_channels, &conv_1x1,
                "post_quant_conv");
  const size_t outside = params_enter(params, "decoder.");
  params_conv(params, &half->conv_in, config->z_channels, kl_deepest(config), &conv_3x3, "conv_in");
  mid_walk(w, &half->mid);
  for (int i = 0; i <= last; i++) {
    const int in = kl_up_channels(config, i ? i - 1 : 0), out = kl_up_channels(config, i);
    const int number = w->dialect->up_from_finest ? last - i : i;
    const size_t inside = params_enter(params, "%s.%d.", w->dialect->up, number);
    level_walk(w, &half->level[i], in, out, config->layers + 1);
    if (i < last)
      params_conv(params, &half->level[i].resample, out, out, &conv_3x3, w->dialect->twice);
    params_leave(params, inside);
  }
  params_norm(params, &half->norm_out, config->channels[0], w->dialect->norm_out);
  params_conv(params, &half->conv_out, config->channels[0], 3, &conv_3x3, "conv_out");
  params_leave(params, outside);
}

/* Losses, teachers, averages: whatever else the file of a training program holds. */
static void pass_over(const struct walk *w) {
  static const char *const halves[2][2] = {{"encoder.", "quant_conv."},
                                           {"decoder.", "post_quant_conv."}};
  const struct ditmoe_checkpoint *file = w->params->file;
  const char *prefix = w->dialect->prefix;
  const size_t length = strlen(prefix);
  const bool there[2] = {kl_has(w->dialect, file, halves[0][0]),
                         kl_has(w->dialect, file, halves[1][0])};
  for (size_t i = 0; i < file->count; i++) {
    const char *name = file->tensors[i].name;
    bool used = false;
    for (int h = 0; h < 2 && strncmp(name, prefix, length) == 0; h++)
      for (int part = 0; part < 2 && there[h]; part++)
        used = used || strncmp(name + length, halves[h][part], strlen(halves[h][part])) == 0;
    if (!used) params_unused(w->params, -1, NULL, name);
  }
}

void kl_walk(struct kl *kl, struct params *params, const struct kl_dialect *dialect) {
  const struct walk w = {params, &kl->config, dialect};
  if (dialect->prefix) pass_over(&w);
  const size_t length = params_enter(params, "%s", prefix_of(dialect));
  if (kl_has(dialect, params->file, "encoder.")) encoder_walk(&w, &kl->encoder);
  if (kl_has(dialect, params->file, "decoder.")) decoder_walk(&w, &kl->decoder);
  params_leave(params, length);
}

/* Tensors of the decoders: AutoencoderKL with the sizes of sd-vae-ft-mse, and TAESD. */
#include "bench/published.h"

#include <stdio.h>
#include <string.h>

enum { LATENT = 4, LEVELS = 4, BLOCKS = 3, TINY = 64 };

/* From the deepest level to the image. */
static const int widths[LEVELS] = {512, 512, 256, 128};

const char decoder_config[] =
    "{\"_class_name\":\"AutoencoderKL\",\"block_out_channels\":[128,256,512,512],"
    "\"layers_per_block\":2,\"latent_channels\":4,\"norm_num_groups\":32,"
    "\"scaling_factor\":0.18215}";

static void draw_conv(struct blueprint *out, bool bias, int to, int from, int kernel,
                      const char *name) {
  blueprint_add(out, FILL_RANDOM, 4, (int64_t[]){to, from, kernel, kernel}, "%s.weight", name);
  if (bias) blueprint_add(out, FILL_RANDOM, 1, (int64_t[]){to}, "%s.bias", name);
}

static void draw_norm(struct blueprint *out, int channels, const char *name) {
  blueprint_add(out, FILL_ONES, 1, (int64_t[]){channels}, "%s.weight", name);
  blueprint_add(out, FILL_RANDOM, 1, (int64_t[]){channels}, "%s.bias", name);
}

static void draw_resblock(struct blueprint *out, int to, int from, const char *prefix, int index) {
  char name[96];
#define PART(part) (snprintf(name, sizeof name, "%s.resnets.%d." part, prefix, index), name)
  draw_norm(out, from, PART("norm1"));
  draw_conv(out, true, to, from, 3, PART("conv1"));
  draw_norm(out, to, PART("norm2"));
  draw_conv(out, true, to, to, 3, PART("conv2"));
  if (to != from) draw_conv(out, true, to, from, 1, PART("conv_shortcut"));
#undef PART
}

static void draw_mid(struct blueprint *out) {
  static const char *const linears[] = {"to_q", "to_k", "to_v", "to_out.0"};
  const int C = widths[0];
  char name[96];
  for (int i = 0; i < 2; i++) draw_resblock(out, C, C, "decoder.mid_block", i);
  draw_norm(out, C, "decoder.mid_block.attentions.0.group_norm");
  for (int i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "decoder.mid_block.attentions.0.%s", linears[i]);
    blueprint_linear(out, true, C, C, name);
  }
}

static void draw_kl(struct blueprint *out) {
  char name[96];
  draw_conv(out, true, LATENT, LATENT, 1, "post_quant_conv");
  draw_conv(out, true, widths[0], LATENT, 3, "decoder.conv_in");
  draw_mid(out);
  for (int level = 0; level < LEVELS; level++) {
    const int from = widths[level ? level - 1 : 0], to = widths[level];
    snprintf(name, sizeof name, "decoder.up_blocks.%d", level);
    for (int i = 0; i < BLOCKS; i++) draw_resblock(out, to, i ? to : from, name, i);
    snprintf(name, sizeof name, "decoder.up_blocks.%d.upsamplers.0.conv", level);
    if (level < LEVELS - 1) draw_conv(out, true, to, to, 3, name);
  }
  draw_norm(out, widths[LEVELS - 1], "decoder.conv_norm_out");
  draw_conv(out, true, 3, widths[LEVELS - 1], 3, "decoder.conv_out");
}

/* Convolutions 1, 7, 12 and 17 of the sequence, the last three after a doubling and without a bias;
 * behind each its blocks of three convolutions; then the image. */
static void draw_taesd(struct blueprint *out) {
  static const int convs[] = {1, 7, 12, 17}, firsts[] = {3, 8, 13, 18}, blocks[] = {3, 3, 3, 1};
  char name[32];
  for (int step = 0; step < 4; step++) {
    snprintf(name, sizeof name, "%d", convs[step]);
    draw_conv(out, step == 0, TINY, step ? TINY : LATENT, 3, name);
    for (int i = 0; i < 3 * blocks[step]; i++) {
      snprintf(name, sizeof name, "%d.conv.%d", firsts[step] + i / 3, 2 * (i % 3));
      draw_conv(out, true, TINY, TINY, 3, name);
    }
  }
  draw_conv(out, true, 3, TINY, 3, "19");
}

void decoder_draw(const char *kind, struct blueprint *out) {
  *out = (struct blueprint){0};
  if (strcmp(kind, "kl") == 0)
    draw_kl(out);
  else
    draw_taesd(out);
}

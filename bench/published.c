#include "bench/published.h"

#include "cli/report.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 4, LABELS = 1001, TIME_FEATURES = 256, FACTOR = 8 };

static const struct model_size sizes[] = {
    {"S", 12, 384, 6, false, "ddpm"},   {"B", 12, 768, 12, false, "ddpm"},
    {"L", 24, 1024, 16, false, "ddpm"}, {"XL", 28, 1152, 16, true, "rf"},
    {"G", 40, 1408, 16, true, "rf"},
};

static const struct model_size *find_size(const char *letters, size_t length) {
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (strlen(sizes[i].letters) == length && strncmp(sizes[i].letters, letters, length) == 0)
      return &sizes[i];
  return NULL;
}

static enum ditmoe_status check_shape(const char *text, const struct model_choice *choice,
                                      const struct model_shape *shape) {
  if (choice->image_size % (FACTOR * shape->patch) != 0)
    return report_error(DITMOE_USAGE, "--image-size %d: %s needs a multiple of %d",
                        choice->image_size, text, FACTOR * shape->patch);
  if (shape->top_k > shape->experts)
    return report_error(DITMOE_USAGE, "--top-k %d of %d experts", shape->top_k, shape->experts);
  return DITMOE_OK;
}

enum ditmoe_status model_shape_parse(const char *text, const struct model_choice *choice,
                                     struct model_shape *out) {
  size_t length = strcspn(text, "/");
  const struct model_size *size = find_size(text, length);
  const char *patch = text[length] ? text + length + 1 : "";
  bool known = strcmp(patch, "2") == 0 || strcmp(patch, "4") == 0 || strcmp(patch, "8") == 0;
  if (!size || !known)
    return report_error(DITMOE_USAGE,
                        "no published shape \"%.40s\"; there are S, B, L, XL and G, with a patch "
                        "of 2, 4 or 8, such as XL/2",
                        text);
  *out = (struct model_shape){.size = size,
                              .depth = choice->depth ? choice->depth : size->depth,
                              .patch = patch[0] - '0',
                              .experts = choice->experts,
                              .top_k = choice->top_k,
                              .latent = choice->image_size / FACTOR};
  out->tokens = (out->latent / out->patch) * (out->latent / out->patch);
  int used = snprintf(out->name, sizeof out->name, "%s/%d-%dE%dA", size->letters, out->patch,
                      out->experts, out->top_k);
  if (choice->depth)
    snprintf(out->name + used, sizeof out->name - (size_t)used, " depth %d", out->depth);
  return check_shape(text, choice, out);
}

double model_shape_flop(const struct model_shape *shape, int B) {
  const double d = shape->size->width, t = shape->tokens, T = t * B;
  return shape->depth *
         (T * (8 * d * d + shape->top_k * 24 * d * d + 12 * d * d) + 4 * B * t * t * d);
}

static void draw_expert(struct blueprint *out, const char *prefix, int D, int F) {
  char name[128];
  snprintf(name, sizeof name, "%sgate_proj", prefix);
  blueprint_linear(out, false, F, D, name);
  snprintf(name, sizeof name, "%sup_proj", prefix);
  blueprint_linear(out, false, F, D, name);
  snprintf(name, sizeof name, "%sdown_proj", prefix);
  blueprint_linear(out, false, D, F, name);
}

static void draw_mixture(struct blueprint *out, const struct model_shape *shape, int layer) {
  const int D = shape->size->width;
  char prefix[96];
  blueprint_add(out, FILL_RANDOM, 2, (int64_t[]){shape->experts, D}, "blocks.%d.moe.gate.weight",
                layer);
  for (int e = 0; e < shape->experts; e++) {
    snprintf(prefix, sizeof prefix, "blocks.%d.moe.experts.%d.", layer, e);
    draw_expert(out, prefix, D, 4 * D);
  }
  snprintf(prefix, sizeof prefix, "blocks.%d.moe.shared_experts.", layer);
  draw_expert(out, prefix, D, 2 * D);
}

static void draw_attention(struct blueprint *out, const struct model_shape *shape, int layer) {
  const int D = shape->size->width, d = D / shape->size->heads;
  const bool flash = shape->size->flash;
  char name[96];
  snprintf(name, sizeof name, "blocks.%d.attn.%s", layer, flash ? "Wqkv" : "qkv");
  blueprint_linear(out, true, 3 * D, D, name);
  snprintf(name, sizeof name, "blocks.%d.attn.%s", layer, flash ? "out_proj" : "proj");
  blueprint_linear(out, true, D, D, name);
  static const char *const norms[] = {"q_norm", "k_norm"};
  for (int i = 0; i < 2 && flash; i++) {
    blueprint_add(out, FILL_ONES, 1, (int64_t[]){d}, "blocks.%d.attn.%s.weight", layer, norms[i]);
    blueprint_add(out, FILL_RANDOM, 1, (int64_t[]){d}, "blocks.%d.attn.%s.bias", layer, norms[i]);
  }
}

static void draw_block(struct blueprint *out, const struct model_shape *shape, int layer) {
  const int D = shape->size->width;
  char name[96];
  snprintf(name, sizeof name, "blocks.%d.adaLN_modulation.1", layer);
  blueprint_linear(out, true, 6 * D, D, name);
  draw_attention(out, shape, layer);
  draw_mixture(out, shape, layer);
}

void model_shape_draw(const struct model_shape *shape, struct blueprint *out) {
  const int D = shape->size->width, p = shape->patch;
  *out = (struct blueprint){0};
  blueprint_add(out, FILL_RANDOM, 4, (int64_t[]){D, CHANNELS, p, p}, "x_embedder.proj.weight");
  blueprint_add(out, FILL_RANDOM, 1, (int64_t[]){D}, "x_embedder.proj.bias");
  blueprint_add(out, FILL_RANDOM, 3, (int64_t[]){1, shape->tokens, D}, "pos_embed");
  blueprint_linear(out, true, D, TIME_FEATURES, "t_embedder.mlp.0");
  blueprint_linear(out, true, D, D, "t_embedder.mlp.2");
  blueprint_add(out, FILL_RANDOM, 2, (int64_t[]){LABELS, D}, "y_embedder.embedding_table.weight");
  for (int layer = 0; layer < shape->depth; layer++) draw_block(out, shape, layer);
  blueprint_linear(out, true, 2 * D, D, "final_layer.adaLN_modulation.1");
  blueprint_linear(out, true, p * p * 2 * CHANNELS, D, "final_layer.linear");
  out->record = text_format("{\"kind\":\"dit-moe\",\"objective\":\"%s\",\"heads\":%d,\"top_k\":%d,"
                            "\"latent_scale\":0.18215}",
                            shape->size->objective, shape->size->heads, shape->top_k);
}

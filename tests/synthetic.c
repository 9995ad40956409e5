#include "synthetic.h"
#include "base/rng.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 2048 };

const struct synthetic synthetic_uneven = {.width = 48,
                                           .depth = 3,
                                           .heads = 4,
                                           .size = 8,
                                           .patch = 2,
                                           .channels = 3,
                                           .classes = 5,
                                           .learn_sigma = true,
                                           .experts = {4, 7, 2},
                                           .hidden = {40, 17, 64},
                                           .hidden_step = 9,
                                           .zero = {0, 1, 1},
                                           .copy = {0, 2, 0},
                                           .top_k = {2, 4, 1},
                                           .shared = true,
                                           .seed = 11};

const struct synthetic synthetic_prototypes = {.promoe = true,
                                               .width = 32,
                                               .depth = 2,
                                               .heads = 2,
                                               .size = 8,
                                               .patch = 2,
                                               .channels = 4,
                                               .classes = 4,
                                               .experts = {5, 5},
                                               .hidden = {40, 40},
                                               .top_k = {2, 2},
                                               .shared = true,
                                               .seed = 6};

struct builder {
  const struct synthetic *spec;
  struct tensor tensors[MAX_TENSORS];
  size_t count;
};

static void add(struct builder *b, double scale, int rank, const int64_t *shape, const char *format,
                ...) __attribute__((format(printf, 5, 6)));

static void add(struct builder *b, double scale, int rank, const int64_t *shape, const char *format,
                ...) {
  char *name = malloc(128);
  va_list args;
  assert_true(name && b->count < MAX_TENSORS);
  va_start(args, format);
  vsnprintf(name, 128, format, args);
  va_end(args);
  struct tensor tensor = {.name = name, .dtype = DT_F32, .rank = rank, .elements = 1};
  for (int i = 0; i < rank; i++) tensor.elements *= tensor.shape[i] = shape[i];
  float *values = malloc((size_t)tensor.elements * sizeof *values + 1);
  assert_non_null(values);
  rng_normal(values, tensor.elements, b->spec->seed, b->count, 0, RNG_INITIAL_NOISE);
  for (int64_t i = 0; i < tensor.elements; i++) values[i] *= (float)scale;
  if (b->spec->plant) b->spec->plant(b->spec->user, name, values, tensor.elements);
  tensor.data = values;
  b->tensors[b->count++] = tensor;
}

static void add_linear(struct builder *b, bool bias, int out, int in, const char *name) {
  add(b, 1 / sqrt(in), 2, (int64_t[]){out, in}, "%s.weight", name);
  if (bias) add(b, 0.1, 1, (int64_t[]){out}, "%s.bias", name);
}

static void add_expert(struct builder *b, const char *prefix, int D, int F) {
  char name[128];
  const bool gelu = b->spec->promoe;
  const char *const parts[] = {"up_proj", "down_proj", gelu ? NULL : "gate_proj"};
  for (int i = 0; i < 3 && parts[i]; i++) {
    snprintf(name, sizeof name, "%s%s", prefix, parts[i]);
    add_linear(b, gelu, i == 1 ? D : F, i == 1 ? F : D, name);
  }
}

static void add_mixture(struct builder *b, int layer) {
  const struct synthetic *s = b->spec;
  const int E = s->experts[layer] + s->zero[layer] + s->copy[layer], D = s->width;
  const char *moe = s->promoe ? "mlp" : "moe";
  char prefix[96];
  add(b, s->promoe ? 1 : 1.5 / sqrt(D), 2, (int64_t[]){E, D}, "blocks.%d.%s.%s", layer, moe,
      s->promoe ? "cluster_centers" : "gate.weight");
  for (int e = 0; e < s->experts[layer] + (s->promoe ? 1 : 0); e++) {
    snprintf(prefix, sizeof prefix, "blocks.%d.%s.experts.%d.", layer, moe, e);
    add_expert(b, prefix, D, s->hidden[layer] + e * s->hidden_step);
  }
  snprintf(prefix, sizeof prefix, "blocks.%d.%s.%s.", layer, moe,
           s->promoe ? "shared_expert" : "shared_experts");
  if (s->shared) add_expert(b, prefix, D, 2 * D);
}

static void add_block(struct builder *b, int layer) {
  const int D = b->spec->width;
  static const struct {
    const char *name;
    int out;
  } linears[] = {{"adaLN_modulation.1", 6}, {"attn.qkv", 3}, {"attn.proj", 1}};
  char name[96];
  for (size_t i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "blocks.%d.%s", layer, linears[i].name);
    add_linear(b, true, linears[i].out * D, D, name);
  }
  add_mixture(b, layer);
}

static void layer_list(char *text, size_t size, const int *values, int depth) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < depth; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%d", i ? "," : "", values[i]);
  snprintf(text + used, size - used, "]");
}

static void write_record(const struct synthetic *s, char *text, size_t size) {
  char top_k[64], zero[64], copy[64];
  layer_list(top_k, sizeof top_k, s->top_k, s->depth);
  layer_list(zero, sizeof zero, s->zero, s->depth);
  layer_list(copy, sizeof copy, s->copy, s->depth);
  snprintf(text, size,
           "{\"kind\":\"%s\",\"objective\":\"rf\",\"heads\":%d,\"top_k\":%s,\"zero_experts\":%s,"
           "\"copy_experts\":%s,\"router_weight_mode\":\"%s\"}",
           s->promoe ? "promoe-tc" : "dit-moe", s->heads, top_k, zero, copy,
           s->promoe ? "identity" : "softmax");
}

void synthetic_write(const struct synthetic *s, const char *path) {
  struct builder *b = calloc(1, sizeof *b);
  assert_non_null(b);
  b->spec = s;
  const int D = s->width, side = s->size / s->patch, pp = s->patch * s->patch;
  add(b, 0.3, 4, (int64_t[]){D, s->channels, s->patch, s->patch}, "x_embedder.proj.weight");
  add(b, 0.1, 1, (int64_t[]){D}, "x_embedder.proj.bias");
  add(b, 0.5, 3, (int64_t[]){1, side * side, D}, "pos_embed");
  add_linear(b, true, D, 256, "t_embedder.mlp.0");
  add_linear(b, true, D, D, "t_embedder.mlp.2");
  add(b, 0.5, 2, (int64_t[]){s->classes + 1, D}, "y_embedder.embedding_table.weight");
  for (int layer = 0; layer < s->depth; layer++) add_block(b, layer);
  add_linear(b, true, 2 * D, D, "final_layer.adaLN_modulation.1");
  add_linear(b, true, pp * s->channels * (s->learn_sigma ? 2 : 1), D, "final_layer.linear");
  char record[512], key[] = "ditmoe";
  write_record(s, record, sizeof record);
  const struct checkpoint_entry entry = {key, record};
  assert_ok(test_ctx(),
            safetensors_write(test_ctx(), path, b->tensors, b->count, DT_COUNT, &entry, 1));
  for (size_t i = 0; i < b->count; i++) {
    free((void *)b->tensors[i].name);
    free((void *)b->tensors[i].data);
  }
  free(b);
}

void model_open(struct opened *out, const char *path, const char *backend, const char *tier,
                const char *dtype, int threads) {
  const struct ditmoe_model_options options = {
      .backend = backend, .tier = tier, .dtype = dtype, .threads = threads};
  model_open_with(out, path, &options);
}

void model_open_with(struct opened *out, const char *path,
                     const struct ditmoe_model_options *options) {
  struct ditmoe_checkpoint *checkpoint = checkpoint_of(path);
  assert_ok(test_ctx(),
            backend_open(&out->ex, test_ctx(), options->backend, options->tier, options->threads));
  assert_ok(test_ctx(), backend_compute(&out->ex, options->dtype));
  assert_ok(test_ctx(), dit_open(&out->ex, checkpoint, options->record, &out->model));
  ditmoe_checkpoint_close(checkpoint);
}

void model_close(struct opened *opened) {
  dit_close(&opened->ex, opened->model);
  exec_close(&opened->ex);
}

size_t model_output_size(const struct opened *opened) {
  const struct dit_config *c = &opened->model->config;
  return (size_t)c->out_channels * (size_t)c->size * (size_t)c->size;
}

void model_predict(struct opened *opened, float *out, int first, int B, uint32_t null_images,
                   const struct routing *routing) {
  const struct dit_config *c = &opened->model->config;
  const size_t size = (size_t)c->channels * (size_t)c->size * (size_t)c->size;
  float *x = malloc((size_t)B * size * sizeof *x), *time = malloc((size_t)B * sizeof *time);
  int32_t *labels = malloc((size_t)B * sizeof *labels);
  assert_true(x && time && labels);
  for (int i = 0; i < B; i++) {
    rng_normal(x + (size_t)i * size, (int64_t)size, 7, (uint64_t)(first + i), 0, RNG_INITIAL_NOISE);
    time[i] = (float)(first + i + 1) * 0.05f;
    labels[i] = null_images >> (first + i) & 1 ? c->record.null_label
                                               : (first + i) % c->record.classes_used;
  }
  const struct dit_input in = {.x = x, .time = time, .labels = labels, .B = B, .routing = routing};
  assert_ok(opened->ex.ctx,
            exec_reserve(&opened->ex, dit_predict_bytes(&opened->ex, opened->model, NULL, B)));
  assert_ok(opened->ex.ctx, dit_predict(&opened->ex, opened->model, out, &in));
  free(x);
  free(time);
  free(labels);
}

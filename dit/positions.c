#include "dit/positions.h"

#include <math.h>

void sincos_positions(float *table, int tokens, int width) {
  int side = (int)lround(sqrt(tokens)), quarter = width / 4;
  for (int n = 0; n < tokens; n++)
    for (int m = 0; m < quarter; m++) {
      double omega = pow(10000.0, -(double)m / quarter);
      float *row = table + (int64_t)n * width;
      row[m] = (float)sin(n % side * omega);
      row[quarter + m] = (float)cos(n % side * omega);
      row[2 * quarter + m] = (float)sin(n / side * omega);
      row[3 * quarter + m] = (float)cos(n / side * omega);
    }
}

void rope_table(float *cosines, float *sines, int tokens, int pairs) {
  const int side = (int)lround(sqrt(tokens)), half = pairs / 2;
  for (int n = 0; n < tokens; n++)
    for (int j = 0; j < pairs; j++) {
      const float frequency = 1 / powf(10000, (float)(j % half) / (float)half);
      const float angle = (float)(j < half ? n / side : n % side) * frequency;
      cosines[n * pairs + j] = cosf(angle);
      sines[n * pairs + j] = sinf(angle);
    }
}

/* n floats of the host as device memory. */
static enum ditmoe_status to_device(struct exec *ex, const float *values, size_t n, float **out) {
  void *device = NULL;
  TRY(ex->device->ops->alloc(ex, n * sizeof *values, "positions", &device));
  *out = device;
  be_upload(ex, device, values, n * sizeof *values);
  return ex->status;
}

static enum ditmoe_status make_sincos(struct exec *ex, struct dit *model) {
  const struct dit_config *c = &model->config;
  const size_t n = (size_t)c->tokens * (size_t)c->width;
  float *table, *device = NULL;
  TRY(mem_zalloc(ex->ctx, n, sizeof *table, "positions", &table));
  sincos_positions(table, c->tokens, c->width);
  enum ditmoe_status status = to_device(ex, table, n, &device);
  model->pos_embed = device;
  mem_free(ex->ctx, table);
  return status;
}

static enum ditmoe_status make_rope(struct exec *ex, struct dit *model) {
  const struct dit_config *c = &model->config;
  const size_t pairs = (size_t)c->head_dim / 2, prefix = (size_t)c->prefix * pairs;
  const size_t n = prefix + (size_t)c->tokens * pairs;
  float *table;
  TRY(mem_zalloc(ex->ctx, 2 * n, sizeof *table, "positions", &table));
  for (size_t i = 0; i < prefix; i++) table[i] = 1;
  rope_table(table + prefix, table + n + prefix, c->tokens, (int)pairs);
  enum ditmoe_status status = to_device(ex, table, 2 * n, &model->rope);
  mem_free(ex->ctx, table);
  return status;
}

enum ditmoe_status positions_make(struct exec *ex, struct dit *model) {
  if (model->config.positions == POSITIONS_MADE) TRY(make_sincos(ex, model));
  return model->config.rope == ROPE_NONE ? DITMOE_OK : make_rope(ex, model);
}

void positions_free(struct exec *ex, struct dit *model) {
  const struct backend_ops *ops = ex->device->ops;
  if (model->pos_embed && model->config.positions == POSITIONS_MADE)
    ops->release(ex, (float *)(uintptr_t)model->pos_embed);
  if (model->rope) ops->release(ex, model->rope);
}

void positions_turn(struct exec *ex, const struct dit *model, int layer, float *qkv,
                    float direction, int B) {
  const struct dit_config *c = &model->config;
  if (c->rope == ROPE_NONE) return;
  const int T = dit_tokens(c, layer);
  const int64_t pairs = c->head_dim / 2, rows = c->prefix + c->tokens;
  const float *cosines = model->rope + (rows - T) * pairs;
  const struct rope rope = {cosines, cosines + rows * pairs, c->rope == ROPE_ADJACENT};
  be_qk_rotate(ex, qkv, &rope, direction, B, T, c->heads, c->head_dim);
}

void prefix_put(struct exec *ex, const struct dit *model, struct dit_acts *acts,
                const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = in->B, D = c->width;
  const int64_t prefix = (int64_t)c->prefix * D, image = (int64_t)c->tokens * D;
  float *x = be_floats(ex, B * (prefix + image)), *labels = be_floats(ex, (int64_t)B * D);
  be_gather_rows(ex, labels, model->embedder.labels, in->labels, B, D);
  for (int b = 0; b < B; b++) {
    float *own = x + b * (prefix + image);
    be_copy(ex, own, model->prefix_positions, (size_t)prefix * sizeof *x);
    be_add_rows(ex, own, labels + (int64_t)b * D, c->prefix, D);
    be_copy(ex, own + prefix, acts->x + b * image, (size_t)image * sizeof *x);
  }
  acts->x = x;
}

void prefix_drop(struct exec *ex, const struct dit *model, struct dit_acts *acts, int B) {
  const struct dit_config *c = &model->config;
  const int64_t prefix = (int64_t)c->prefix * c->width, image = (int64_t)c->tokens * c->width;
  float *x = be_floats(ex, B * image);
  for (int b = 0; b < B; b++)
    be_copy(ex, x + b * image, acts->x + b * (prefix + image) + prefix, (size_t)image * sizeof *x);
  acts->x = x;
}

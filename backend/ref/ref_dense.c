/* Linear layers, y = x W^T + b, and the operations on single values. */
#include "backend/ref/ref_ops.h"

enum ditmoe_status ref_linear_create(struct backend *be, const struct linear_source *source,
                                     struct linear **out) {
  struct linear shape = {.paired = source->paired, .type = source->exact ? DT_F32 : be->dtype}, *w;
  TRY(linear_source_shape(be->ctx, source, &shape.in, &shape.out));
  size_t rows = (size_t)linear_total(&shape);
  TRY(mem_alloc(be->ctx, 1, sizeof *w, "a linear layer", &w));
  enum ditmoe_status status = mem_alloc(be->ctx, rows * ((size_t)shape.in + 1), sizeof(float),
                                        source->weight[0]->name, &shape.data);
  if (status != DITMOE_OK) {
    mem_free(be->ctx, w);
    return status;
  }
  shape.bytes = rows * ((size_t)shape.in + 1) * sizeof(float);
  linear_source_read(source, shape.data, (float *)shape.data + rows * (size_t)shape.in);
  ref_round(shape.data, shape.type, (int64_t)rows * shape.in);
  *w = shape;
  *out = w;
  return DITMOE_OK;
}

void ref_linear_destroy(struct backend *be, struct linear *linear) {
  if (linear) mem_free(be->ctx, linear->data);
  mem_free(be->ctx, linear);
}

void ref_round(float *weights, enum dtype type, int64_t n) {
  for (int64_t i = 0; type == DT_BF16 && i < n; i++)
    weights[i] = f32_from_bf16(bf16_from_f32(weights[i]));
}

double ref_linear_at(const struct linear *w, int64_t o, const void *x, int64_t first) {
  const float *bias = linear_row(w, linear_total(w));
  return dot_at(x, w->type, first, linear_row(w, o), w->in) + bias[o];
}

void ref_linear(struct backend *be, float *y, const void *x, const struct linear *w, int64_t rows) {
  (void)be;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t o = 0; o < w->out; o++)
      y[r * w->out + o] = (float)ref_linear_at(w, o, x, r * w->in);
}

void ref_narrow(struct backend *be, struct act *y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) act_set(be, y, i, x[i]);
}

void ref_widen(struct backend *be, float *y, const struct act *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = act_at(be, x, i);
}

#define REF_MAP(op, expression)                                                                    \
  void ref_##op(struct backend *be, float *y, const float *x, int64_t n) {                         \
    (void)be;                                                                                      \
    for (int64_t i = 0; i < n; i++) y[i] = (float)(expression);                                    \
  }
REF_MAP(silu, silu_of(x[i]))
REF_MAP(sigmoid, sigmoid_of(x[i]))
REF_MAP(relu, x[i] < 0 ? 0 : x[i]) /* a NaN stays one */

void ref_tanh_clamp(struct backend *be, float *y, const float *x, float limit, int64_t n) {
  (void)be;
  for (int64_t i = 0; i < n; i++) y[i] = (float)(limit * tanh((double)x[i] / limit));
}

void ref_add(struct backend *be, float *y, const float *a, const float *b, int64_t n) {
  (void)be;
  for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void ref_add_rows(struct backend *be, float *x, const float *row, int64_t rows, int64_t n) {
  (void)be;
  for (int64_t r = 0; r < rows; r++, x += n)
    for (int64_t i = 0; i < n; i++) x[i] += row[i];
}

void ref_gated_add(struct backend *be, float *x, const float *gate, int64_t stride, const float *y,
                   int B, int T, int D) {
  (void)be;
  for (int64_t b = 0; b < B; b++, gate += stride)
    for (int64_t t = 0; t < T; t++, x += D, y += D)
      for (int64_t i = 0; i < D; i++) x[i] = (float)(x[i] + (double)gate[i] * y[i]);
}

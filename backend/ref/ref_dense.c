/* Linear layers, y = x W^T + b, and the operations on single values. */
#include "backend/ref/ref_ops.h"

enum ditmoe_status ref_linear_create(struct backend *be, const struct linear_source *source,
                                     struct linear **out) {
  struct linear shape = {.paired = source->paired}, *w;
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
  *w = shape;
  *out = w;
  return DITMOE_OK;
}

void ref_linear_destroy(struct backend *be, struct linear *linear) {
  if (linear) mem_free(be->ctx, linear->data);
  mem_free(be->ctx, linear);
}

double ref_linear_at(const struct linear *w, int64_t o, const float *x) {
  const float *bias = linear_row(w, linear_total(w));
  return dot(x, linear_row(w, o), w->in) + bias[o];
}

void ref_linear(struct backend *be, float *y, const float *x, const struct linear *w,
                int64_t rows) {
  (void)be;
  for (int64_t r = 0; r < rows; r++, x += w->in, y += w->out)
    for (int64_t o = 0; o < w->out; o++) {
      double value = ref_linear_at(w, o, x);
      y[o] = (float)(w->paired ? silu_of(value) * ref_linear_at(w, w->out + o, x) : value);
    }
}

#define REF_MAP(op, expression)                                                                    \
  void ref_##op(struct backend *be, float *y, const float *x, int64_t n) {                         \
    (void)be;                                                                                      \
    for (int64_t i = 0; i < n; i++) y[i] = (float)(expression);                                    \
  }
REF_MAP(silu, silu_of(x[i]))
REF_MAP(gelu, gelu_of(x[i]))
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

/* Linear layers, y = x W^T + b, and the operations on single values. */
#include "backend/ref/ref_ops.h"

#include <string.h>

/* data: weight [total, in], then bias [total], in f32; total = out or, paired, 2 out: the rows of
 * gate, then those of up. */
enum ditmoe_status ref_linear_create(struct exec *ex, const struct linear_source *source,
                                     struct linear **out) {
  struct linear shape, *w;
  TRY(linear_source_shape(ex->ctx, source, &shape));
  size_t rows = (size_t)linear_total(&shape);
  shape.bytes = rows * ((size_t)shape.in + 1) * sizeof(float);
  TRY(mem_alloc(ex->ctx, sizeof *w + shape.bytes, 1, source->weight[0]->name, &w));
  shape.data = w + 1;
  if (!ex->dry) {
    linear_source_read(source, shape.data, (float *)shape.data + rows * (size_t)shape.in);
    ref_round(shape.data, shape.format, (int64_t)rows * shape.in);
  }
  *w = shape;
  *out = w;
  return DITMOE_OK;
}

void ref_linear_destroy(struct exec *ex, struct linear *linear) { mem_free(ex->ctx, linear); }

void ref_linear_update(struct exec *ex, struct linear *w, const float *weight, const float *bias) {
  const size_t rows = (size_t)linear_total(w), values = rows * (size_t)w->in;
  float *own = w->data;
  memcpy(own, weight, values * sizeof *own);
  ref_round(own, w->format, (int64_t)values);
  if (bias) memcpy(own + values, bias, rows * sizeof *own);
  if (!bias) memset(own + values, 0, rows * sizeof *own);
}

void ref_round(float *weights, enum dtype type, int64_t n) {
  for (int64_t i = 0; type == DT_BF16 && i < n; i++)
    weights[i] = f32_from_bf16(bf16_from_f32(weights[i]));
  for (int64_t i = 0; type == DT_F16 && i < n; i++)
    weights[i] = f32_from_f16(f16_from_f32(weights[i]));
}

double ref_linear_at(const struct linear *w, int64_t o, struct act x, int64_t first) {
  const float *bias = linear_row(w, linear_total(w));
  return dot_at(x, first, linear_row(w, o), w->in) + bias[o];
}

/* y[r, o] = b[o] + sum over c of x[r, c] W[o, c] */
void ref_linear(struct exec *ex, float *y, struct act x, const struct linear *w, int64_t rows) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t o = 0; o < w->out; o++)
      y[r * w->out + o] = (float)ref_linear_at(w, o, x, r * w->in);
}

void ref_narrow(struct exec *ex, struct act y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) act_set(y, i, x[i]);
}

void ref_widen(struct exec *ex, float *y, struct act x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = act_at(x, i);
}

/* y[i] = f(x[i]): silu x / (1 + e^-x) (Elfwing et al. 2018), sigmoid 1 / (1 + e^-x), relu
 * max(x, 0). */
#define REF_MAP(op, expression)                                                                    \
  void ref_##op(struct exec *ex, float *y, const float *x, int64_t n) {                            \
    for (int64_t i = 0; i < n; i++) y[i] = (float)(expression);                                    \
  }
REF_MAP(silu, silu_of(x[i]))
REF_MAP(sigmoid, sigmoid_of(x[i]))
REF_MAP(relu, x[i] < 0 ? 0 : x[i]) /* a NaN stays one */

/* y = limit tanh(x / limit), |y| <= limit */
void ref_tanh_clamp(struct exec *ex, float *y, const float *x, float limit, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = (float)(limit * tanh((double)x[i] / limit));
}

void ref_add(struct exec *ex, float *y, const float *a, const float *b, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

/* x[r, i] += row[i] */
void ref_add_rows(struct exec *ex, float *x, const float *row, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, x += n)
    for (int64_t i = 0; i < n; i++) x[i] += row[i];
}

/* out[b, t, i] = x[b, t, i] + gate[b, i] y[b, t, i], row b of the gates at b stride (adaLN-Zero,
 * Peebles & Xie 2023) */
void ref_gated_add(struct exec *ex, float *out, const float *x, const float *gate, int64_t stride,
                   const float *y, int B, int T, int D) {
  for (int64_t b = 0; b < B; b++, gate += stride)
    for (int64_t t = 0; t < T; t++, out += D, x += D, y += D)
      for (int64_t i = 0; i < D; i++) out[i] = (float)(x[i] + (double)gate[i] * y[i]);
}

/* Sinusoids of the time (Vaswani et al. 2017, Ho et al. 2020), i < n / 2:
 *
 *   features[b, i] = cos(time[b] f_i), features[b, n / 2 + i] = sin(time[b] f_i)
 *   f_i = e^(-ln(10000) i / (n / 2 - shift))
 *
 * Each step is rounded to f32. */
void ref_time_features(struct exec *ex, float *features, const float *time, int B, int n,
                       float shift) {
  const int half = n / 2;
  for (int b = 0; b < B; b++, features += n)
    for (int i = 0; i < half; i++) {
      float exponent = (float)-9.210340371976184 * (float)i / ((float)half - shift);
      float angle = time[b] * (float)exp((double)exponent);
      features[i] = (float)cos((double)angle);
      features[half + i] = (float)sin((double)angle);
    }
}

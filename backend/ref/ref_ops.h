/* Inside the reference backend: its operations, ref_<operation>, and the scalar functions that
 * several files use. */
#ifndef BACKEND_REF_REF_OPS_H
#define BACKEND_REF_REF_OPS_H

#include "backend/ref/ref.h"

#include <math.h>

/* Every operation is given the execution; plain loops over host memory need none of it. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* clang-format off */
#define REF_SLOTS(X)                                                                               \
  X(init) X(alloc) X(release) X(memory_available) X(linear_create) X(linear_destroy)               \
  X(conv_create) X(conv_destroy)
/* clang-format on */

#define REF_DECLARE(op) __typeof__(*((struct backend_ops *)0)->op) ref_##op;
REF_SLOTS(REF_DECLARE)
#undef REF_DECLARE
#define BE_OP(op, parameters, ...) void ref_##op(struct exec *ex, BE_UNPACK parameters);
#include "backend/gradients.h"
#include "backend/operations.h"
#undef BE_OP

static inline float act_at(struct act x, int64_t i) {
  return x.type == DT_BF16 ? f32_from_bf16(((const uint16_t *)x.data)[i])
                           : ((const float *)x.data)[i];
}
static inline void act_set(struct act y, int64_t i, double value) {
  if (y.type == DT_BF16)
    ((uint16_t *)y.data)[i] = bf16_from_f32((float)value);
  else
    ((float *)y.data)[i] = (float)value;
}

/* Columns of a sum that has its accumulators on the stack. */
enum { REF_CHUNK = 256 };

static inline int64_t chunk_end(int64_t begin, int64_t n) {
  return n - begin < REF_CHUNK ? n : begin + REF_CHUNK;
}

static inline double sigmoid_of(double x) { return 1 / (1 + exp(-x)); }

static inline double silu_of(double x) { return x * sigmoid_of(x); }

static inline double silu_slope(double x) {
  double s = sigmoid_of(x);
  return s * (1 + x * (1 - s));
}

/* gelu(x) = x / 2 (1 + tanh(u)), u = a (x + c x^3) */
static const double gelu_a = 0.79788456080286535588, gelu_c = 0.044715;

static inline double gelu_of(double x) {
  return 0.5 * x * (1 + tanh(gelu_a * (x + gelu_c * x * x * x)));
}

static inline double gelu_slope(double x) {
  double t = tanh(gelu_a * (x + gelu_c * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * gelu_a * (1 + 3 * gelu_c * x * x);
}

static inline double dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
  return sum;
}
/* With x[first ...]. */
static inline double dot_at(struct act x, int64_t first, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)act_at(x, first + i) * b[i];
  return sum;
}

/* Mean and 1 / sqrt(biased variance + eps) of `rows` times n values, `stride` between the rows. */
struct moments {
  double mean, scale;
};
struct moments ref_moments(const float *x, int64_t rows, int64_t stride, int64_t n, double eps);
/* Of one row: mean 0 and 1 / sqrt(mean square + eps) for an RMSNorm. */
static inline struct moments ref_row_moments(const float *x, int64_t n, bool rms, double eps) {
  if (rms) return (struct moments){0, 1 / sqrt(dot(x, x, n) / (double)n + eps)};
  return ref_moments(x, 1, 0, n, eps);
}

/* Weights are f32, in layers for bf16 inputs values that bf16 has. One output before activations,
 * row `o` of the stacked matrices, for x[first ...]: x . w + b. For paired weights row o is of
 * gate, row out + o of up. */
static inline int64_t linear_total(const struct linear *w) { return (int64_t)w->out << w->paired; }
static inline const float *linear_row(const struct linear *w, int64_t o) {
  return (const float *)w->data + o * w->in;
}
double ref_linear_at(const struct linear *w, int64_t o, struct act x, int64_t first);
/* Rounds n weights to the values of a type. */
void ref_round(float *weights, enum dtype type, int64_t n);

#endif

/* Inside the reference backend: the list of its operations, ref_<operation>, each with the
 * signature of its slot in struct backend_ops; and the scalar functions that several files use. */
#ifndef BACKEND_REF_REF_OPS_H
#define BACKEND_REF_REF_OPS_H

#include "backend/ref/ref.h"

#include <math.h>

/* clang-format off */
#define REF_OPS(X)                                                                                 \
  X(best_dtype) X(init) X(fini) X(exec_init) X(exec_fini) X(alloc) X(release) X(memory_available)  \
  X(upload) X(download) X(copy) X(fill) X(sync) X(linear_create) X(linear_destroy)                 \
  X(linear_update) X(conv_create) X(conv_destroy) X(narrow) X(widen) X(linear) X(hidden) X(silu)   \
  X(sigmoid) X(add) X(add_rows) X(gated_add) X(norm_modulate) X(qk_norm) X(qk_round_f16)           \
  X(time_features) X(normalize_rows) X(softmax_rows) X(softmax_tokens) X(group_norm)               \
  X(group_moments) X(group_norm_given) X(attention) X(patchify) X(unpatchify) X(gather_rows)       \
  X(assign_topk) X(assign_tokens) X(assign_label) X(assign_counted) X(dispatch_order)              \
  X(experts_in) X(experts_out) X(combine_rows) X(conv2d) X(conv2d_relu) X(max_pool)                \
  X(avg_pool_relu) X(mean_pixels) X(take_channels) X(relu) X(tanh_clamp) X(upsample2x)             \
  X(channels_last) X(channels_first)
#define REF_BWD_OPS(X)                                                                             \
  X(linear_bwd_input) X(linear_bwd_weight) X(hidden_bwd) X(silu_bwd) X(sigmoid_bwd)                \
  X(add_rows_bwd) X(norm_modulate_bwd) X(gated_add_bwd) X(qk_norm_bwd) X(attention_bwd)            \
  X(patchify_bwd) X(unpatchify_bwd) X(gather_rows_bwd) X(normalize_rows_bwd) X(softmax_rows_bwd)   \
  X(softmax_tokens_bwd) X(gates_bwd) X(dispatch_bwd) X(experts_bwd) X(combine_rows_bwd)            \
  X(conv2d_bwd_input) X(conv2d_bwd_weight) X(group_norm_bwd) X(upsample2x_bwd)
/* clang-format on */

#define REF_DECLARE(op) __typeof__(*((struct backend_ops *)0)->op) ref_##op;
REF_OPS(REF_DECLARE)
#undef REF_DECLARE
#define REF_DECLARE(op) __typeof__(*((struct gradient_ops *)0)->op) ref_##op;
REF_BWD_OPS(REF_DECLARE)
#undef REF_DECLARE

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

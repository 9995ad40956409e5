/* Operations on rows of floats. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"

#include "base/tensor.h"

#include <math.h>

/* y = f(x), the last lanes like all others. */
VEC_INLINE void map(float *y, const float *x, int64_t n, vec (*f)(vec)) {
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) vec_store(y + i, f(vec_load(x + i)));
  if (i < n) vec_store_n(y + i, f(vec_load_n(x + i, n - i)), n - i);
}

static void silu(float *y, const float *x, int64_t n) { map(y, x, n, vec_silu); }
static void sigmoid(float *y, const float *x, int64_t n) { map(y, x, n, vec_sigmoid); }
static void relu(float *y, const float *x, int64_t n) { map(y, x, n, vec_relu); }

static void add(float *y, const float *a, const float *b, int64_t n) {
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) vec_store(y + i, vec_load(a + i) + vec_load(b + i));
  for (; i < n; i++) y[i] = a[i] + b[i];
}

static void scale(float *y, const float *x, float factor, int64_t n) {
  vec f = vec_set1(factor);
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) vec_store(y + i, vec_load(x + i) * f);
  for (; i < n; i++) y[i] = x[i] * factor;
}

static void scaled_add(float *y, const float *x, float factor, int64_t n) {
  vec f = vec_set1(factor);
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES)
    vec_store(y + i, vec_fma(f, vec_load(x + i), vec_load(y + i)));
  if (i < n)
    vec_store_n(y + i, vec_fma(f, vec_load_n(x + i, n - i), vec_load_n(y + i, n - i)), n - i);
}

static void narrow(void *y, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i += VEC_LANES)
    vec_put(y, true, i, n - i < VEC_LANES ? vec_load_n(x + i, n - i) : vec_load(x + i), n - i);
}

static void widen(float *y, const void *x, int64_t n) {
  const uint16_t *half = x;
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) vec_store(y + i, vec_load_bf16(half + i));
  for (; i < n; i++) y[i] = f32_from_bf16(half[i]);
}

static void multiply_add(float *x, const float *gate, const float *y, int64_t n) {
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES)
    vec_store(x + i, vec_fma(vec_load(gate + i), vec_load(y + i), vec_load(x + i)));
  int64_t rest = n - i;
  if (rest > 0) {
    vec v = vec_fma(vec_load_n(gate + i, rest), vec_load_n(y + i, rest), vec_load_n(x + i, rest));
    vec_store_n(x + i, v, rest);
  }
}

/* Mean of a row in two floats, center + rest, so that rows far from 0 lose nothing. */
struct row_moments {
  float center, rest, inverse; /* inverse = 1 / sqrt(variance + eps) */
};

VEC_INLINE vec centered(const float *x, vec center, int64_t n) {
  if (n >= VEC_LANES) return vec_load(x) - center;
  return vec_first(vec_load_n(x, n) - center, n);
}

VEC_INLINE struct row_moments row_moments(const float *x, int64_t n, float eps) {
  vec sum = vec_set1(0), squares = vec_set1(0), rest = vec_set1(0);
  for (int64_t i = 0; i < n; i += VEC_LANES) sum = sum + centered(x + i, vec_set1(0), n - i);
  float center = vec_sum(sum) / (float)n;
  for (int64_t i = 0; i < n; i += VEC_LANES) {
    vec c = centered(x + i, vec_set1(center), n - i);
    rest = rest + c;
    squares = vec_fma(c, c, squares);
  }
  double mean = (double)vec_sum(rest) / (double)n;
  double variance = (double)vec_sum(squares) / (double)n - mean * mean;
  return (struct row_moments){center, (float)mean, (float)(1 / sqrt(variance + (double)eps))};
}

VEC_INLINE vec normalized(vec x, struct row_moments m) {
  return (x - vec_set1(m.center) - vec_set1(m.rest)) * vec_set1(m.inverse);
}

/* y = LayerNorm(x) (scale + one) + shift */
VEC_INLINE void norm(void *y, bool to_bf16, const float *x, const float *scale, const float *shift,
                     int64_t n, float eps, float one) {
  struct row_moments m = row_moments(x, n, eps);
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) {
    vec factor = vec_load(scale + i) + vec_set1(one);
    vec v = vec_fma(normalized(vec_load(x + i), m), factor, vec_load(shift + i));
    vec_put(y, to_bf16, i, v, VEC_LANES);
  }
  int64_t rest = n - i;
  if (rest > 0) {
    vec factor = vec_load_n(scale + i, rest) + vec_set1(one);
    vec v = normalized(vec_load_n(x + i, rest), m);
    vec_put(y, to_bf16, i, vec_fma(v, factor, vec_load_n(shift + i, rest)), rest);
  }
}

static void norm_modulate_f32(void *y, const float *x, const float *shift, const float *factor,
                              int64_t n, float eps) {
  norm(y, false, x, factor, shift, n, eps, 1);
}

static void norm_modulate_bf16(void *y, const float *x, const float *shift, const float *factor,
                               int64_t n, float eps) {
  norm(y, true, x, factor, shift, n, eps, 1);
}

/* 1 / sqrt(mean square + eps) */
VEC_INLINE vec rms_inverse(const float *x, int64_t n, float eps) {
  vec squares = vec_set1(0);
  for (int64_t i = 0; i < n; i += VEC_LANES) {
    vec v = centered(x + i, vec_set1(0), n - i);
    squares = vec_fma(v, v, squares);
  }
  return vec_set1((float)(1 / sqrt((double)vec_sum(squares) / (double)n + (double)eps)));
}

/* y = RMSNorm(x) weight (1 + scale) + shift */
VEC_INLINE void rms_modulate(void *y, bool to_bf16, const float *x, const float *weight,
                             const float *shift, const float *scale, int64_t n, float eps) {
  const vec inverse = rms_inverse(x, n, eps), one = vec_set1(1);
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) {
    vec v = vec_load(x + i) * inverse * vec_load(weight + i);
    vec_put(y, to_bf16, i, vec_fma(v, vec_load(scale + i) + one, vec_load(shift + i)), VEC_LANES);
  }
  int64_t rest = n - i;
  if (rest > 0) {
    vec v = vec_load_n(x + i, rest) * inverse * vec_load_n(weight + i, rest);
    v = vec_fma(v, vec_load_n(scale + i, rest) + one, vec_load_n(shift + i, rest));
    vec_put(y, to_bf16, i, v, rest);
  }
}

static void rms_modulate_f32(void *y, const float *x, const float *weight, const float *shift,
                             const float *factor, int64_t n, float eps) {
  rms_modulate(y, false, x, weight, shift, factor, n, eps);
}

static void rms_modulate_bf16(void *y, const float *x, const float *weight, const float *shift,
                              const float *factor, int64_t n, float eps) {
  rms_modulate(y, true, x, weight, shift, factor, n, eps);
}

static void norm_affine(float *y, const float *x, const float *weight, const float *bias, int64_t n,
                        float eps) {
  if (bias) {
    norm(y, false, x, weight, bias, n, eps, 0);
    return;
  }
  const vec inverse = rms_inverse(x, n, eps);
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES)
    vec_store(y + i, vec_load(x + i) * inverse * vec_load(weight + i));
  if (i < n)
    vec_store_n(y + i, vec_load_n(x + i, n - i) * inverse * vec_load_n(weight + i, n - i), n - i);
}

VEC_INLINE void rotate_pair(float *first, float *second, float cosine, float sine) {
  const float a = *first, b = *second;
  *first = a * cosine - b * sine;
  *second = b * cosine + a * sine;
}

static void rotate_halves(float *x, const float *cosine, const float *sine, float direction,
                          int64_t n) {
  for (int64_t j = 0; j < n; j++) rotate_pair(x + j, x + n + j, cosine[j], direction * sine[j]);
}

static void rotate_adjacent(float *x, const float *cosine, const float *sine, float direction,
                            int64_t n) {
  for (int64_t j = 0; j < n; j++)
    rotate_pair(x + 2 * j, x + 2 * j + 1, cosine[j], direction * sine[j]);
}

static void normalize(float *y, const float *x, int64_t n) {
  vec squares = vec_set1(0);
  for (int64_t i = 0; i < n; i += VEC_LANES) {
    vec v = centered(x + i, vec_set1(0), n - i);
    squares = vec_fma(v, v, squares);
  }
  double length = sqrt((double)vec_sum(squares));
  scale(y, x, (float)(1 / (length < 1e-12 ? 1e-12 : length)), n);
}

/* The sum of the exponentials is exact, each rounded to a multiple of 2^-36 by the addition of a
 * large number, so that the order of the columns does not matter. */
static void softmax(float *y, const float *x, int64_t n) {
  const double unit = 0x1.8p16;
  float max = -INFINITY;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
  int64_t i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES)
    vec_store(y + i, vec_exp(vec_load(x + i) - vec_set1(max)));
  if (i < n) vec_store_n(y + i, vec_exp(vec_load_n(x + i, n - i) - vec_set1(max)), n - i);
  for (i = 0; i < n; i++) sum += ((double)y[i] + unit) - unit;
  scale(y, y, (float)(1 / sum), n);
}

static void round_f16(float *x, int64_t n) {
  int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8) {
    __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_ps(x + i, _mm256_cvtph_ps(half));
  }
#endif
  for (; i < n; i++) x[i] = f32_from_f16(f16_from_f32(x[i]));
}

/* Floats add up at most this many rows, doubles the rest. */
enum { MOMENT_ROWS = 64 };

VEC_INLINE void moments_vector(double *sum, double *squares, const float *x, const float *center,
                               int64_t rows, int64_t stride, int n) {
  float lanes[2][VEC_LANES];
  vec c = n < VEC_LANES ? vec_load_n(center, n) : vec_load(center);
  vec s = vec_set1(0), q = vec_set1(0);
  for (int64_t r = 0; r < rows; r++, x += stride) {
    vec v = (n < VEC_LANES ? vec_load_n(x, n) : vec_load(x)) - c;
    s = s + v;
    q = vec_fma(v, v, q);
  }
  vec_store(lanes[0], s);
  vec_store(lanes[1], q);
  for (int i = 0; i < n && i < VEC_LANES; i++) {
    sum[i] += (double)lanes[0][i];
    squares[i] += (double)lanes[1][i];
  }
}

static void moments(double *sum, double *squares, const float *x, const float *center, int64_t rows,
                    int64_t stride, int n) {
  for (int64_t r = 0; r < rows; r += MOMENT_ROWS) {
    int64_t count = rows - r < MOMENT_ROWS ? rows - r : MOMENT_ROWS;
    const float *piece = x + r * stride;
    int i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
      moments_vector(sum + i, squares + i, piece + i, center + i, count, stride, VEC_LANES);
    if (i < n) moments_vector(sum + i, squares + i, piece + i, center + i, count, stride, n - i);
  }
}

VEC_INLINE vec affine_vector(vec x, vec center, vec factor, vec bias, bool silu_too) {
  vec v = vec_fma(x - center, factor, bias);
  return silu_too ? vec_silu(v) : v;
}

VEC_INLINE void affine(void *y, bool to_bf16, const float *x, const float *center,
                       const float *factor, const float *bias, int n, bool silu_too) {
  int i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) {
    vec v = affine_vector(vec_load(x + i), vec_load(center + i), vec_load(factor + i),
                          vec_load(bias + i), silu_too);
    vec_put(y, to_bf16, i, v, VEC_LANES);
  }
  int rest = n - i;
  if (rest > 0) {
    vec v = affine_vector(vec_load_n(x + i, rest), vec_load_n(center + i, rest),
                          vec_load_n(factor + i, rest), vec_load_n(bias + i, rest), silu_too);
    vec_put(y, to_bf16, i, v, rest);
  }
}

static void affine_f32(void *y, const float *x, const float *center, const float *factor,
                       const float *bias, int n, bool silu_too) {
  affine(y, false, x, center, factor, bias, n, silu_too);
}

static void affine_bf16(void *y, const float *x, const float *center, const float *factor,
                        const float *bias, int n, bool silu_too) {
  affine(y, true, x, center, factor, bias, n, silu_too);
}

/* x if that is larger or a NaN: vec_max returns its second argument if one is NaN. */
VEC_INLINE vec vec_larger(vec x, vec max) {
#if defined(__AVX512F__)
  return _mm512_mask_mov_ps(vec_max(x, max), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
#else
  vec_bits nan = (vec_bits)(x != x);
  return (vec)((nan & (vec_bits)x) | (~nan & (vec_bits)vec_max(x, max)));
#endif
}

VEC_INLINE vec vec_plus(vec x, vec sum) { return x + sum; }

/* So many vectors are reduced at a time: the walk over the rows is paid once for all of them. */
enum { REDUCED = 4 };

/* y = f over the rows of a block, from `start` on, for n values from i on: those of `vectors`
 * vectors. */
VEC_INLINE void reduce(vec *y, int vectors, const struct cpu_block *b, bool narrow, int64_t i,
                       int64_t n, vec start, vec (*f)(vec, vec)) {
  vec acc[REDUCED];
  VEC_UNROLL for (int v = 0; v < vectors; v++) acc[v] = start;
  for (int64_t r = 0; r < b->count[0]; r++)
    for (int64_t c = 0; c < b->count[1]; c++) {
      int64_t at = r * b->stride[0] + c * b->stride[1] + i;
      VEC_UNROLL for (int v = 0; v < vectors; v++) {
        acc[v] = f(vec_get(b->x, narrow, at + v * VEC_LANES, n - v * VEC_LANES), acc[v]);
      }
    }
  VEC_UNROLL for (int v = 0; v < vectors; v++) y[v] = acc[v];
}

VEC_INLINE void largest_of(void *y, int vectors, bool narrow, const struct cpu_block *x, int64_t i,
                           int64_t n) {
  vec max[REDUCED];
  reduce(max, vectors, x, narrow, i, n, vec_set1(-INFINITY), vec_larger);
  VEC_UNROLL for (int v = 0; v < vectors; v++) {
    vec_put(y, narrow, i + v * VEC_LANES, max[v], n - v * VEC_LANES);
  }
}

VEC_INLINE void largest(void *y, bool narrow, const struct cpu_block *x, int64_t n) {
  int64_t i = 0;
  for (; i + REDUCED * VEC_LANES <= n; i += REDUCED * VEC_LANES)
    largest_of(y, REDUCED, narrow, x, i, REDUCED * VEC_LANES);
  for (; i < n; i += VEC_LANES) largest_of(y, 1, narrow, x, i, n - i);
}

VEC_INLINE void mean_of(void *y, bool to_bf16, int vectors, bool narrow, const struct cpu_block *x,
                        int64_t i, int64_t n, vec (*f)(vec)) {
  const vec count = vec_set1((float)(x->count[0] * x->count[1]));
  vec sum[REDUCED];
  reduce(sum, vectors, x, narrow, i, n, vec_set1(0), vec_plus);
  VEC_UNROLL for (int v = 0; v < vectors; v++) {
    vec_put(y, to_bf16, i + v * VEC_LANES, f(sum[v] / count), n - v * VEC_LANES);
  }
}

VEC_INLINE void mean(void *y, bool to_bf16, bool narrow, const struct cpu_block *x, int64_t n,
                     vec (*f)(vec)) {
  int64_t i = 0;
  for (; i + REDUCED * VEC_LANES <= n; i += REDUCED * VEC_LANES)
    mean_of(y, to_bf16, REDUCED, narrow, x, i, REDUCED * VEC_LANES, f);
  for (; i < n; i += VEC_LANES) mean_of(y, to_bf16, 1, narrow, x, i, n - i, f);
}

VEC_INLINE vec same(vec x) { return x; }

static void largest_f32(void *y, const struct cpu_block *x, int64_t n) { largest(y, false, x, n); }
static void largest_bf16(void *y, const struct cpu_block *x, int64_t n) { largest(y, true, x, n); }

static void mean_f32(float *y, const struct cpu_block *x, int64_t n) {
  mean(y, false, false, x, n, same);
}

static void mean_bf16(float *y, const struct cpu_block *x, int64_t n) {
  mean(y, false, true, x, n, same);
}

static void mean_relu_f32(void *y, const struct cpu_block *x, int64_t n) {
  mean(y, false, false, x, n, vec_relu);
}

static void mean_relu_bf16(void *y, const struct cpu_block *x, int64_t n) {
  mean(y, true, false, x, n, vec_relu);
}

const struct row_kernels CPU_TIERED(row_kernels) = {
    .silu = silu,
    .sigmoid = sigmoid,
    .relu = relu,
    .add = add,
    .scale = scale,
    .scaled_add = scaled_add,
    .narrow = narrow,
    .widen = widen,
    .multiply_add = multiply_add,
    .norm_modulate = {norm_modulate_f32, norm_modulate_bf16},
    .rms_modulate = {rms_modulate_f32, rms_modulate_bf16},
    .norm_affine = norm_affine,
    .rotate = {rotate_halves, rotate_adjacent},
    .normalize = normalize,
    .softmax = softmax,
    .round_f16 = round_f16,
    .moments = moments,
    .largest = {largest_f32, largest_bf16},
    .mean = {mean_f32, mean_bf16},
    .mean_relu = {mean_relu_f32, mean_relu_bf16},
    .affine = {affine_f32, affine_bf16},
};

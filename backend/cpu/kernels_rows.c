/* Operations on rows of floats. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"

#include "base/tensor.h"

#include <math.h>

/* at(..., i, VEC_LANES) for every whole vector of n values and at(..., i, rest) for what is left:
 * the last lanes go the way of all others. */
#define EACH_VECTOR(n, at, ...)                                                                    \
  do {                                                                                             \
    int64_t i = 0;                                                                                 \
    for (; i + VEC_LANES <= (n); i += VEC_LANES) at(__VA_ARGS__, i, VEC_LANES);                    \
    if (i < (n)) at(__VA_ARGS__, i, (n)-i);                                                        \
  } while (0)

VEC_INLINE vec get(const float *x, int64_t i, int64_t n) { return vec_get(x, false, i, n); }
VEC_INLINE void put(float *y, vec v, int64_t i, int64_t n) { vec_put(y, false, i, v, n); }

VEC_INLINE void map_at(float *y, const float *x, vec (*f)(vec), int64_t i, int64_t n) {
  put(y, f(get(x, i, n)), i, n);
}

static void silu(float *y, const float *x, int64_t n) { EACH_VECTOR(n, map_at, y, x, vec_silu); }
static void sigmoid(float *y, const float *x, int64_t n) {
  EACH_VECTOR(n, map_at, y, x, vec_sigmoid);
}
static void relu(float *y, const float *x, int64_t n) { EACH_VECTOR(n, map_at, y, x, vec_relu); }

VEC_INLINE void add_at(float *y, const float *a, const float *b, int64_t i, int64_t n) {
  put(y, get(a, i, n) + get(b, i, n), i, n);
}

static void add(float *y, const float *a, const float *b, int64_t n) {
  EACH_VECTOR(n, add_at, y, a, b);
}

VEC_INLINE void scale_at(float *y, const float *x, vec factor, int64_t i, int64_t n) {
  put(y, get(x, i, n) * factor, i, n);
}

static void scale(float *y, const float *x, float factor, int64_t n) {
  EACH_VECTOR(n, scale_at, y, x, vec_set1(factor));
}

VEC_INLINE void scaled_add_at(float *y, const float *x, vec factor, int64_t i, int64_t n) {
  put(y, vec_fma(factor, get(x, i, n), get(y, i, n)), i, n);
}

static void scaled_add(float *y, const float *x, float factor, int64_t n) {
  EACH_VECTOR(n, scaled_add_at, y, x, vec_set1(factor));
}

VEC_INLINE void convert_at(void *y, bool to_bf16, const void *x, bool from_bf16, int64_t i,
                           int64_t n) {
  vec_put(y, to_bf16, i, vec_get(x, from_bf16, i, n), n);
}

static void narrow(void *y, const float *x, int64_t n) {
  EACH_VECTOR(n, convert_at, y, true, x, false);
}

static void widen(float *y, const void *x, int64_t n) {
  EACH_VECTOR(n, convert_at, y, false, x, true);
}

VEC_INLINE void multiply_add_at(float *x, const float *gate, const float *y, int64_t i, int64_t n) {
  put(x, vec_fma(get(gate, i, n), get(y, i, n), get(x, i, n)), i, n);
}

static void multiply_add(float *x, const float *gate, const float *y, int64_t n) {
  EACH_VECTOR(n, multiply_add_at, x, gate, y);
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

VEC_INLINE void norm_at(void *y, bool to_bf16, const float *x, struct row_moments m,
                        const float *scale, const float *shift, float one, int64_t i, int64_t n) {
  vec v = (get(x, i, n) - vec_set1(m.center) - vec_set1(m.rest)) * vec_set1(m.inverse);
  vec_put(y, to_bf16, i, vec_fma(v, get(scale, i, n) + vec_set1(one), get(shift, i, n)), n);
}

/* y = LayerNorm(x) (scale + one) + shift */
VEC_INLINE void norm(void *y, bool to_bf16, const float *x, const float *scale, const float *shift,
                     int64_t n, float eps, float one) {
  const struct row_moments m = row_moments(x, n, eps);
  EACH_VECTOR(n, norm_at, y, to_bf16, x, m, scale, shift, one);
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

VEC_INLINE vec rms_get(const float *x, vec inverse, const float *weight, int64_t i, int64_t n) {
  return get(x, i, n) * inverse * get(weight, i, n);
}

VEC_INLINE void rms_modulate_at(void *y, bool to_bf16, const float *x, vec inverse,
                                const float *weight, const float *shift, const float *scale,
                                int64_t i, int64_t n) {
  const vec factor = get(scale, i, n) + vec_set1(1);
  vec_put(y, to_bf16, i, vec_fma(rms_get(x, inverse, weight, i, n), factor, get(shift, i, n)), n);
}

/* y = RMSNorm(x) weight (1 + scale) + shift */
VEC_INLINE void rms_modulate(void *y, bool to_bf16, const float *x, const float *weight,
                             const float *shift, const float *scale, int64_t n, float eps) {
  const vec inverse = rms_inverse(x, n, eps);
  EACH_VECTOR(n, rms_modulate_at, y, to_bf16, x, inverse, weight, shift, scale);
}

static void rms_modulate_f32(void *y, const float *x, const float *weight, const float *shift,
                             const float *factor, int64_t n, float eps) {
  rms_modulate(y, false, x, weight, shift, factor, n, eps);
}

static void rms_modulate_bf16(void *y, const float *x, const float *weight, const float *shift,
                              const float *factor, int64_t n, float eps) {
  rms_modulate(y, true, x, weight, shift, factor, n, eps);
}

VEC_INLINE void rms_at(float *y, const float *x, vec inverse, const float *weight, int64_t i,
                       int64_t n) {
  put(y, rms_get(x, inverse, weight, i, n), i, n);
}

static void norm_affine(float *y, const float *x, const float *weight, const float *bias, int64_t n,
                        float eps) {
  if (bias) {
    norm(y, false, x, weight, bias, n, eps, 0);
    return;
  }
  const vec inverse = rms_inverse(x, n, eps);
  EACH_VECTOR(n, rms_at, y, x, inverse, weight);
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

VEC_INLINE void exp_at(float *y, const float *x, vec max, int64_t i, int64_t n) {
  put(y, vec_exp(get(x, i, n) - max), i, n);
}

/* The sum of the exponentials is exact, each rounded to a multiple of 2^-36 by the addition of a
 * large number, so that the order of the columns does not matter. */
static void softmax(float *y, const float *x, int64_t n) {
  const double unit = 0x1.8p16;
  float max = -INFINITY;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
  EACH_VECTOR(n, exp_at, y, x, vec_set1(max));
  for (int64_t i = 0; i < n; i++) sum += ((double)y[i] + unit) - unit;
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

VEC_INLINE void moments_at(double *sum, double *squares, const float *x, const float *center,
                           int64_t rows, int64_t stride, int64_t i, int64_t n) {
  float lanes[2][VEC_LANES];
  vec c = get(center, i, n), s = vec_set1(0), q = vec_set1(0);
  for (int64_t r = 0; r < rows; r++, x += stride) {
    vec v = get(x, i, n) - c;
    s = s + v;
    q = vec_fma(v, v, q);
  }
  vec_store(lanes[0], s);
  vec_store(lanes[1], q);
  for (int l = 0; l < n; l++) {
    sum[i + l] += (double)lanes[0][l];
    squares[i + l] += (double)lanes[1][l];
  }
}

static void moments(double *sum, double *squares, const float *x, const float *center, int64_t rows,
                    int64_t stride, int n) {
  for (int64_t r = 0; r < rows; r += MOMENT_ROWS) {
    const int64_t count = rows - r < MOMENT_ROWS ? rows - r : MOMENT_ROWS;
    EACH_VECTOR(n, moments_at, sum, squares, x + r * stride, center, count, stride);
  }
}

VEC_INLINE void affine_at(void *y, bool to_bf16, const float *x, const float *center,
                          const float *factor, const float *bias, bool silu_too, int64_t i,
                          int64_t n) {
  vec v = vec_fma(get(x, i, n) - get(center, i, n), get(factor, i, n), get(bias, i, n));
  vec_put(y, to_bf16, i, silu_too ? vec_silu(v) : v, n);
}

static void affine_f32(void *y, const float *x, const float *center, const float *factor,
                       const float *bias, int n, bool silu_too) {
  EACH_VECTOR(n, affine_at, y, false, x, center, factor, bias, silu_too);
}

static void affine_bf16(void *y, const float *x, const float *center, const float *factor,
                        const float *bias, int n, bool silu_too) {
  EACH_VECTOR(n, affine_at, y, true, x, center, factor, bias, silu_too);
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

VEC_INLINE vec plus(vec x, vec sum) { return x + sum; }
VEC_INLINE vec as_it_is(vec x, vec count) { return (void)count, x; }
VEC_INLINE vec mean(vec sum, vec count) { return sum / count; }
VEC_INLINE vec mean_relu(vec sum, vec count) { return vec_relu(sum / count); }

/* What becomes of the rows of a block, value by value: end(add(row, ... add(row, start)), rows). */
struct reduction {
  bool from_bf16, to_bf16;
  float start;
  vec (*add)(vec, vec), (*end)(vec, vec);
};

/* So many vectors are reduced at a time: the walk over the rows is paid once for all of them. */
enum { REDUCED = 4 };

/* n values from i on: those of `vectors` vectors. */
VEC_INLINE void reduce_at(void *y, const struct cpu_block *b, struct reduction f, int vectors,
                          int64_t i, int64_t n) {
  const vec count = vec_set1((float)(b->count[0] * b->count[1]));
  vec acc[REDUCED];
  VEC_UNROLL for (int v = 0; v < vectors; v++) acc[v] = vec_set1(f.start);
  for (int64_t r = 0; r < b->count[0]; r++)
    for (int64_t c = 0; c < b->count[1]; c++) {
      int64_t at = r * b->stride[0] + c * b->stride[1] + i;
      VEC_UNROLL for (int v = 0; v < vectors; v++) {
        acc[v] = f.add(vec_get(b->x, f.from_bf16, at + v * VEC_LANES, n - v * VEC_LANES), acc[v]);
      }
    }
  VEC_UNROLL for (int v = 0; v < vectors; v++) {
    vec_put(y, f.to_bf16, i + v * VEC_LANES, f.end(acc[v], count), n - v * VEC_LANES);
  }
}

VEC_INLINE void reduce(void *y, const struct cpu_block *x, int64_t n, struct reduction f) {
  int64_t i = 0;
  for (; i + REDUCED * VEC_LANES <= n; i += REDUCED * VEC_LANES)
    reduce_at(y, x, f, REDUCED, i, REDUCED * VEC_LANES);
  for (; i < n; i += VEC_LANES) reduce_at(y, x, f, 1, i, n - i);
}

#define REDUCE(name, result, ...)                                                                  \
  static void name(result *y, const struct cpu_block *x, int64_t n) {                              \
    reduce(y, x, n, (struct reduction){__VA_ARGS__});                                              \
  }
REDUCE(largest_f32, void, false, false, -INFINITY, vec_larger, as_it_is)
REDUCE(largest_bf16, void, true, true, -INFINITY, vec_larger, as_it_is)
REDUCE(mean_f32, float, false, false, 0, plus, mean)
REDUCE(mean_bf16, float, true, false, 0, plus, mean)
REDUCE(mean_relu_f32, void, false, false, 0, plus, mean_relu)
REDUCE(mean_relu_bf16, void, false, true, 0, plus, mean_relu)

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

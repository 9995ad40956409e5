/* A vector of floats in the width of the instruction tier that a kernel file is compiled for.
 *
 * CPU_TIER is generic, avx2 or avx512 and comes with the compiler's options for it. VEC_LANES is 4,
 * 8 or 16. The operators + - * / work on vec as on float. vec_fma rounds once in avx2 and avx512
 * and twice in generic, so the tiers differ in their last bits and each is the same everywhere. */
#ifndef BACKEND_CPU_VEC_H
#define BACKEND_CPU_VEC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define CPU_JOIN2(a, b) a##_##b
#define CPU_JOIN(a, b)  CPU_JOIN2(a, b)
/* name_<tier>: what a kernel file exports. */
#define CPU_TIERED(name) CPU_JOIN(name, CPU_TIER)

#define VEC_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#include <immintrin.h>
enum { VEC_LANES = 16, VEC_TILE_ROWS = 12 };
typedef __m512 vec;

VEC_INLINE vec vec_load(const float *p) { return _mm512_loadu_ps(p); }
VEC_INLINE void vec_store(float *p, vec v) { _mm512_storeu_ps(p, v); }
VEC_INLINE vec vec_set1(float x) { return _mm512_set1_ps(x); }
VEC_INLINE vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
VEC_INLINE vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
VEC_INLINE vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
VEC_INLINE vec vec_load_n(const float *p, int64_t n) {
  return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
VEC_INLINE void vec_store_n(float *p, vec v, int64_t n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}

#elif defined(__AVX2__)
#include <immintrin.h>
enum { VEC_LANES = 8, VEC_TILE_ROWS = 6 };
typedef __m256 vec;

VEC_INLINE __m256i vec_mask(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
VEC_INLINE vec vec_load(const float *p) { return _mm256_loadu_ps(p); }
VEC_INLINE void vec_store(float *p, vec v) { _mm256_storeu_ps(p, v); }
VEC_INLINE vec vec_set1(float x) { return _mm256_set1_ps(x); }
VEC_INLINE vec vec_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
VEC_INLINE vec vec_max(vec a, vec b) { return _mm256_max_ps(a, b); }
VEC_INLINE vec vec_min(vec a, vec b) { return _mm256_min_ps(a, b); }
VEC_INLINE vec vec_load_n(const float *p, int64_t n) { return _mm256_maskload_ps(p, vec_mask(n)); }
VEC_INLINE void vec_store_n(float *p, vec v, int64_t n) { _mm256_maskstore_ps(p, vec_mask(n), v); }

#else
enum { VEC_LANES = 4, VEC_TILE_ROWS = 4 };
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_int __attribute__((vector_size(16)));

VEC_INLINE vec vec_load(const float *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
VEC_INLINE void vec_store(float *p, vec v) { memcpy(p, &v, sizeof v); }
VEC_INLINE vec vec_set1(float x) { return (vec){x, x, x, x}; }
VEC_INLINE vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
VEC_INLINE vec vec_select(vec_int mask, vec a, vec b) {
  return (vec)((mask & (vec_int)a) | (~mask & (vec_int)b));
}
VEC_INLINE vec vec_max(vec a, vec b) { return vec_select(a > b, a, b); }
VEC_INLINE vec vec_min(vec a, vec b) { return vec_select(a < b, a, b); }
VEC_INLINE vec vec_load_n(const float *p, int64_t n) {
  vec v = {0};
  memcpy(&v, p, (size_t)n * sizeof *p);
  return v;
}
VEC_INLINE void vec_store_n(float *p, vec v, int64_t n) { memcpy(p, &v, (size_t)n * sizeof *p); }
#endif

/* Of the above: vec_load_n reads n < VEC_LANES floats and sets the other lanes to 0, vec_store_n
 * writes n. vec_max and vec_min return b if a or b is NaN. */

typedef uint32_t vec_bits __attribute__((vector_size(VEC_LANES * 4)));

/* LANES values of bf16, and to them, to nearest even; a NaN stays one. */
VEC_INLINE vec vec_load_bf16(const uint16_t *p) {
#if defined(__AVX512F__)
  __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)p);
  return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
#elif defined(__AVX2__)
  __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
  return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
#else
  vec_bits bits = {0};
  for (int i = 0; i < VEC_LANES; i++) bits[i] = (uint32_t)p[i] << 16;
  return (vec)bits;
#endif
}
VEC_INLINE void vec_store_bf16(uint16_t *p, vec v) {
#if defined(__AVX512BF16__)
  __m256bh half = _mm512_cvtneps_pbh(v);
  memcpy(p, &half, sizeof half);
#else
  vec_bits bits = (vec_bits)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  vec_bits nan = (vec_bits)(v != v);
  bits = (nan & (bits >> 16 | 0x40)) | (~nan & rounded);
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16((__m512i)bits));
#elif defined(__AVX2__)
  __m256i both = _mm256_packus_epi32((__m256i)bits, (__m256i)bits);
  __m128i half = _mm256_castsi256_si128(_mm256_permute4x64_epi64(both, 0xd8));
  _mm_storeu_si128((__m128i *)(void *)p, half);
#else
  for (int i = 0; i < VEC_LANES; i++) p[i] = (uint16_t)bits[i];
#endif
#endif
}

/* Values i .. of y, an array of f32 or of bf16: n of them, all lanes if n is as many or more. */
VEC_INLINE void vec_put(void *y, bool narrow, int64_t i, vec v, int64_t n) {
  float *wide = (float *)y + i;
  uint16_t *half = (uint16_t *)y + i, lanes[VEC_LANES];
  if (!narrow && n >= VEC_LANES) {
    vec_store(wide, v);
  } else if (!narrow) {
    vec_store_n(wide, v, n);
  } else if (n >= VEC_LANES) {
    vec_store_bf16(half, v);
  } else {
    vec_store_bf16(lanes, v);
    memcpy(half, lanes, (size_t)n * sizeof *half);
  }
}

/* Two vectors, all of their lanes, to the beginning of y. */
VEC_INLINE void vec_put_two(void *y, bool narrow, vec v0, vec v1) {
#if defined(__AVX512BF16__)
  const __m512bh halves = _mm512_cvtne2ps_pbh(v1, v0);
  if (narrow) {
    memcpy(y, &halves, sizeof halves);
    return;
  }
#endif
  vec_put(y, narrow, 0, v0, VEC_LANES);
  vec_put(y, narrow, VEC_LANES, v1, VEC_LANES);
}

/* And from there; lanes past n become 0. */
VEC_INLINE vec vec_get(const void *x, bool narrow, int64_t i, int64_t n) {
  const float *wide = (const float *)x + i;
  const uint16_t *half = (const uint16_t *)x + i;
  uint16_t lanes[VEC_LANES] = {0};
  if (!narrow) return n >= VEC_LANES ? vec_load(wide) : vec_load_n(wide, n);
  if (n >= VEC_LANES) return vec_load_bf16(half);
  memcpy(lanes, half, (size_t)n * sizeof *half);
  return vec_load_bf16(lanes);
}

#ifdef __clang__
#define VEC_UNROLL _Pragma("unroll")
#else
#define VEC_UNROLL _Pragma("GCC unroll 16")
#endif

/* Lanes n and above become 0. */
VEC_INLINE vec vec_first(vec v, int64_t n) {
  float lanes[VEC_LANES];
  vec_store(lanes, v);
  return vec_load_n(lanes, n);
}

/* The sum of the lanes, by halves. */
VEC_INLINE float vec_sum(vec v) {
  float lanes[VEC_LANES];
  vec_store(lanes, v);
  for (int half = VEC_LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

/* e^x within 1 ulp for -87.3 <= x <= 88.3; constant beyond, so never 0, infinite or denormal; NaN
 * stays NaN. x = n ln 2 + r, e^x = 2^n (1 + r + r^2 q(r)), |r| <= ln(2) / 2, q minimax of degree 4.
 */
VEC_INLINE vec vec_exp(vec x) {
  const vec shift = vec_set1(0x1.8p23f); /* adding it rounds to an integer in the lowest bits */
  x = vec_min(vec_set1(88.3f), vec_max(vec_set1(-87.3f), x));
  vec shifted = vec_fma(x, vec_set1(0x1.715476p+0f), shift);
  vec n = shifted - shift;
  vec r = vec_fma(n, vec_set1(-0x1.62e4p-1f), x);
  r = vec_fma(n, vec_set1(-0x1.7f7d1cp-20f), r);
  vec q = vec_set1(0x1.6a242ap-10f);
  q = vec_fma(q, r, vec_set1(0x1.1239f2p-7f));
  q = vec_fma(q, r, vec_set1(0x1.5558f2p-5f));
  q = vec_fma(q, r, vec_set1(0x1.555492p-3f));
  q = vec_fma(q, r, vec_set1(0x1.fffffcp-2f));
  vec p = vec_fma(q * r, r, r) + vec_set1(1);
  vec_bits scale = (((vec_bits)shifted) << 23) + (127 << 23);
  return p * (vec)scale;
}

/* Zero first: vec_max returns its second argument if one is NaN. */
VEC_INLINE vec vec_relu(vec x) { return vec_max(vec_set1(0), x); }

VEC_INLINE vec vec_sigmoid(vec x) { return vec_set1(1) / (vec_set1(1) + vec_exp(-x)); }

VEC_INLINE vec vec_silu(vec x) { return x / (vec_set1(1) + vec_exp(-x)); }

/* x / 2 (1 + tanh(u)) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
VEC_INLINE vec vec_gelu(vec x) {
  vec inner = vec_fma(x * x, vec_set1(0.044715f), vec_set1(1));
  return x / (vec_set1(1) + vec_exp(vec_set1(-1.5957691216057308f) * x * inner));
}

/* silu and gelu for results that are rounded to bf16, whose last place is 2^-8: here within 2^-13.
 * Beside a matrix unit, what follows a product takes as long as the product itself. */
#if defined(__AVX512F__)
/* 1 / d for 1 <= d < 2^126: from the bits a guess within 13%, a cubic and a quadratic step. (The
 * processor's own estimate differs between makers.) */
VEC_INLINE vec vec_inverse_bf16(vec d) {
  vec y = (vec)(0x7ef311c3 - (vec_bits)d);
  vec miss = _mm512_fnmadd_ps(d, y, vec_set1(1));
  y = vec_fma(y, vec_fma(miss, miss, miss), y);
  return vec_fma(y, _mm512_fnmadd_ps(d, y, vec_set1(1)), y);
}
/* x / (1 + 2^t); 2^t = 2^n 2^r with |r| <= 1/2 by a cubic polynomial. */
VEC_INLINE vec vec_logistic_bf16(vec x, vec t) {
  t = vec_min(vec_set1(125), t);
  vec n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = t - n;
  vec p = vec_fma(r, vec_set1(0x1.c3f75ap-5f), vec_set1(0x1.f0de1ap-3f));
  p = vec_fma(p, r, vec_set1(0x1.62f31ap-1f));
  p = vec_fma(p, r, vec_set1(0x1.fff692p-1f));
  return x * vec_inverse_bf16(vec_set1(1) + _mm512_scalef_ps(p, n));
}
VEC_INLINE vec vec_silu_bf16(vec x) { return vec_logistic_bf16(x, x * vec_set1(-0x1.715476p+0f)); }
VEC_INLINE vec vec_gelu_bf16(vec x) {
  vec inner = vec_fma(x * x, vec_set1(0.044715f), vec_set1(1));
  return vec_logistic_bf16(x, x * vec_set1(-1.5957691216057308f * 0x1.715476p+0f) * inner);
}
#else
VEC_INLINE vec vec_silu_bf16(vec x) { return vec_silu(x); }
VEC_INLINE vec vec_gelu_bf16(vec x) { return vec_gelu(x); }
#endif

#endif

/* Vectors of the types that weights have in files and in panels. */
#ifndef BACKEND_CPU_FORMATS_H
#define BACKEND_CPU_FORMATS_H

#include "backend/cpu/vec.h"

/* A vector of each, from any address. */

VEC_INLINE vec load_f32(const uint8_t *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

VEC_INLINE vec load_bf16(const uint8_t *p) {
#if defined(__AVX2__)
  return vec_load_bf16((const uint16_t *)(const void *)p);
#else
  typedef uint16_t halves __attribute__((vector_size(16)));
  halves zero = {0}, upper = {0};
  memcpy(&upper, p, 8);
  return (vec)__builtin_shufflevector(zero, upper, 0, 8, 1, 9, 2, 10, 3, 11);
#endif
}

VEC_INLINE vec load_f16(const uint8_t *p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#elif defined(__AVX2__)
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#else /* f32_from_f16 */
  vec_bits bits = (vec_bits)load_bf16(p), sign = bits & 0x80000000;
  vec_bits exponent = bits & 0x7c000000, magnitude = (bits & 0x7fff0000) >> 3;
  vec_bits small = (vec_bits)((vec)(magnitude + 0x38800000) - vec_set1(0x1p-14f));
  vec_bits is_small = (vec_bits)(exponent == 0), is_special = (vec_bits)(exponent == 0x7c000000);
  vec_bits normal = magnitude + 0x38000000 + (is_special & 0x38000000);
  return (vec)(sign | (is_small & small) | (~is_small & normal));
#endif
}

VEC_INLINE vec load_f64(const uint8_t *p) {
  typedef double wide __attribute__((vector_size(VEC_LANES * 8)));
  wide v;
  memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, vec);
}

#endif

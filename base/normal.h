/* The arithmetic of random bits and of normals, compiled for the CPU (base/normal.c) and for
 * CUDA (backend/cuda/noise.cu): integer operations and IEEE single precision in one written
 * order. Every product that is added is an fmaf, so a compiler has nothing left to contract. */
#ifndef BASE_NORMAL_H
#define BASE_NORMAL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define NORMAL_INLINE           static __device__ __forceinline__
#define NORMAL_LEADING_ZEROS(n) __clzll((long long)(n))
#else
#define NORMAL_INLINE           static inline __attribute__((always_inline))
#define NORMAL_LEADING_ZEROS(n) __builtin_clzll(n)
#endif

/* Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
 * (SC 2011). */
NORMAL_INLINE void normal_philox(uint32_t out[4], const uint32_t counter[4],
                                 const uint32_t key[2]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = UINT64_C(0xD2511F53) * c0, p1 = UINT64_C(0xCD9E8D57) * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* The four words of elements 4 block .. 4 block + 3 of a stream: the frozen place of a draw in the
 * counter (docs/RANDOM.md). */
NORMAL_INLINE void normal_block(uint32_t out[4], uint64_t seed, uint64_t sample, uint32_t step,
                                uint32_t purpose, uint32_t block) {
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  const uint32_t counter[4] = {block, (uint32_t)sample, (uint32_t)(sample >> 32),
                               step | purpose << 24};
  normal_philox(out, counter, key);
}

/* 2^exponent of a normal number. */
NORMAL_INLINE float normal_power_of_two(int exponent) {
  uint32_t bits = (uint32_t)(exponent + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

NORMAL_INLINE float normal_with_sign(float value, uint32_t negative) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits ^= negative << 31;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* -ln(n / 2^32) for n = 2^32 - a, as k ln 2 - ln(1 - g) with n = 2^(32-k) (1 - g), |g| <= 1/3. */
NORMAL_INLINE float normal_minus_log(uint32_t a) {
  uint64_t n = (UINT64_C(1) << 32) - a;
  int exponent = 63 - NORMAL_LEADING_ZEROS(n);
  exponent += 3 * n >= UINT64_C(4) << exponent;
  int32_t difference = (int32_t)((int64_t)(UINT64_C(1) << exponent) - (int64_t)n);
  float g = (float)difference * normal_power_of_two(-exponent), k = (float)(32 - exponent);
  float q = 0x1.0931e0p-3f;
  q = fmaf(q, g, 0x1.1ed12cp-3f);
  q = fmaf(q, g, 0x1.f25ddap-4f);
  q = fmaf(q, g, 0x1.1ebe6cp-3f);
  q = fmaf(q, g, 0x1.55a754p-3f);
  q = fmaf(q, g, 0x1.99d1f2p-3f);
  q = fmaf(q, g, 0x1.fffe84p-3f);
  q = fmaf(q, g, 0x1.555502p-2f);
  q = fmaf(q, g, 0x1.000000p-1f);
  q = fmaf(g * g, q, g);
  q = fmaf(k, 0x1.7f7d1cp-20f, q); /* ln 2 in two parts, */
  return fmaf(k, 0x1.62e4p-1f, q); /* k times the first exact */
}

/* Cosine and sine of 2 pi b/2^32: quarter turns are counted off in integers, the rest is t quarter
 * turns with |t| <= 1/2. */
NORMAL_INLINE void normal_cosine_sine(float *cosine, float *sine, uint32_t b) {
  uint32_t quarter = (b + (1u << 29)) >> 30;
  float t = (float)(int32_t)(b - (quarter << 30)) * 0x1p-30f, y = t * t;
  float s = -0x1.2dc84cp-8f;
  s = fmaf(s, y, 0x1.466004p-4f);
  s = fmaf(s, y, -0x1.4abbbep-1f);
  s = fmaf(s, y, -0x1.777a5cp-25f); /* pi/2 in two parts */
  s = fmaf(t, 0x1.921fb6p+0f, t * s);
  float c = 0x1.d9d57ep-11f;
  c = fmaf(c, y, -0x1.55c5e0p-6f);
  c = fmaf(c, y, 0x1.03c1dep-2f);
  c = fmaf(c, y, -0x1.3bd3ccp+0f);
  c = fmaf(c, y, 1.0f);
  uint32_t swap = quarter & 1, half = quarter >> 1 & 1;
  *cosine = normal_with_sign(swap ? s : c, half ^ swap);
  *sine = normal_with_sign(swap ? c : s, half);
}

/* Two independent standard normals from two words by Box and Muller's transform: radius
 * sqrt(-2 ln(1 - a/2^32)) and angle 2 pi b/2^32. Both arguments are reduced in integers, so that
 * nothing is lost where 1 - a/2^32 is near 1 or 0. The polynomials are minimax in relative error
 * over the reduced ranges. */
NORMAL_INLINE void normal_pair(float out[2], uint32_t a, uint32_t b) {
  float cosine, sine, radius = sqrtf(2.0f * normal_minus_log(a));
  normal_cosine_sine(&cosine, &sine, b);
  out[0] = radius * cosine;
  out[1] = radius * sine;
}

#endif

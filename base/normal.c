/* Standard normals by Box and Muller's transform, bit for bit the same wherever IEEE single
 * precision is: radius sqrt(-2 ln(1 - a/2^32)) and angle 2 pi b/2^32 from two words a and b.
 *
 * Both arguments are reduced in integers, so that nothing is lost where 1 - a/2^32 is near 1 or 0.
 * The polynomials are minimax in relative error over the reduced ranges. The written order of
 * operations is part of the format: every product that is added is an fmaf, so a compiler has
 * nothing left to contract. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* 2^exponent of a normal number. */
INLINE float power_of_two(int exponent) {
  uint32_t bits = (uint32_t)(exponent + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

INLINE float with_sign(float value, uint32_t negative) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits ^= negative << 31;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* -ln(n / 2^32) for n = 2^32 - a, as k ln 2 - ln(1 - g) with n = 2^(32-k) (1 - g), |g| <= 1/3. */
INLINE float minus_log(uint32_t a) {
  uint64_t n = (UINT64_C(1) << 32) - a;
  int exponent = 63 - __builtin_clzll(n);
  exponent += 3 * n >= UINT64_C(4) << exponent;
  int32_t difference = (int32_t)((int64_t)(UINT64_C(1) << exponent) - (int64_t)n);
  float g = (float)difference * power_of_two(-exponent), k = (float)(32 - exponent);
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
INLINE void cosine_sine(float *cosine, float *sine, uint32_t b) {
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
  *cosine = with_sign(swap ? s : c, half ^ swap);
  *sine = with_sign(swap ? c : s, half);
}

INLINE void normal_pair(float out[2], uint32_t a, uint32_t b) {
  float cosine, sine, radius = sqrtf(2.0f * minus_log(a));
  cosine_sine(&cosine, &sine, b);
  out[0] = radius * cosine;
  out[1] = radius * sine;
}

INLINE void fill(float *out, int64_t count, uint64_t seed, uint64_t sample, uint32_t step,
                 enum rng_purpose purpose) {
  for (int64_t i = 0; i < count; i += 4) {
    uint32_t bits[4];
    float normals[4];
    rng_block(bits, seed, sample, step, purpose, (uint32_t)(i / 4));
    normal_pair(normals, bits[0], bits[1]);
    normal_pair(normals + 2, bits[2], bits[3]);
    int64_t n = count - i < 4 ? count - i : 4;
    memcpy(out + i, normals, (size_t)n * sizeof *out);
  }
}

void rng_normal_pair(float out[2], uint32_t radius, uint32_t angle) {
  normal_pair(out, radius, angle);
}

/* fmaf is the fused operation with or without the instruction; the instruction is only faster. */
#if defined(__x86_64__)
__attribute__((target("fma"))) static void fill_fma(float *out, int64_t count, uint64_t seed,
                                                    uint64_t sample, uint32_t step,
                                                    enum rng_purpose purpose) {
  fill(out, count, seed, sample, step, purpose);
}
#define HAVE_FMA __builtin_cpu_supports("fma")
#else
#define fill_fma fill
#define HAVE_FMA 0
#endif

void rng_normal(float *out, int64_t count, uint64_t seed, uint64_t sample, uint32_t step,
                enum rng_purpose purpose) {
  if (HAVE_FMA)
    fill_fma(out, count, seed, sample, step, purpose);
  else
    fill(out, count, seed, sample, step, purpose);
}

/* Standard normals, bit for bit the same wherever IEEE single precision is, and integers of a
 * stream; base/normal.h has the arithmetic. */
#include "base/normal.h"
#include "base/rng.h"

NORMAL_INLINE void fill(float *out, int64_t count, uint64_t seed, uint64_t sample, uint32_t step,
                        enum rng_purpose purpose) {
  for (int64_t i = 0; i < count; i += 4) {
    uint32_t bits[4];
    float normals[4];
    normal_block(bits, seed, sample, step, purpose, (uint32_t)(i / 4));
    normal_pair(normals, bits[0], bits[1]);
    normal_pair(normals + 2, bits[2], bits[3]);
    int64_t n = count - i < 4 ? count - i : 4;
    memcpy(out + i, normals, (size_t)n * sizeof *out);
  }
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

uint32_t rng_below(uint32_t range, uint64_t seed, uint64_t sample, uint32_t step,
                   enum rng_purpose purpose) {
  uint32_t bits[4];
  normal_block(bits, seed, sample, step, purpose, 0);
  return (uint32_t)((uint64_t)bits[0] * range >> 32);
}

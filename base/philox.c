/* Random bits of a stream; base/normal.h has the arithmetic. */
#include "base/normal.h"
#include "base/rng.h"

void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]) {
  normal_philox(out, counter, key);
}

void rng_block(uint32_t out[4], uint64_t seed, uint64_t sample, uint32_t step,
               enum rng_purpose purpose, uint32_t block) {
  normal_block(out, seed, sample, step, purpose, block);
}

uint32_t rng_below(uint32_t range, uint64_t seed, uint64_t sample, uint32_t step,
                   enum rng_purpose purpose) {
  uint32_t bits[4];
  rng_block(bits, seed, sample, step, purpose, 0);
  return (uint32_t)((uint64_t)bits[0] * range >> 32);
}

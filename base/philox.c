/* Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
 * (SC 2011), and the frozen place of a draw in its counter (docs/RANDOM.md). */
#include "base/rng.h"

void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]) {
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

void rng_block(uint32_t out[4], uint64_t seed, uint64_t sample, uint32_t step,
               enum rng_purpose purpose, uint32_t block) {
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  const uint32_t counter[4] = {block, (uint32_t)sample, (uint32_t)(sample >> 32),
                               step | (uint32_t)purpose << 24};
  philox4x32(out, counter, key);
}

uint32_t rng_below(uint32_t range, uint64_t seed, uint64_t sample, uint32_t step,
                   enum rng_purpose purpose) {
  uint32_t bits[4];
  rng_block(bits, seed, sample, step, purpose, 0);
  return (uint32_t)((uint64_t)bits[0] * range >> 32);
}

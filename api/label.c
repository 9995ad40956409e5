/* Random class labels: the stream of a sample that is set apart for them. */
#include "base/rng.h"
#include "ditmoe.h"

int32_t ditmoe_random_label(uint64_t seed, int64_t index, int32_t classes) {
  return (int32_t)rng_below((uint32_t)classes, seed, (uint64_t)index, 0, RNG_LABEL);
}

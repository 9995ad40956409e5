/* Random numbers, as docs/RANDOM.md has them: Philox4x32-10 (Salmon et al., SC 2011) with a frozen
 * counter layout (base/normal.h), and the stream of torch's CPU generator to replay the original
 * programs. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

/* Which stream of a sample a draw belongs to; frozen. */
enum rng_purpose {
  RNG_INITIAL_NOISE = 0,
  RNG_STEP_NOISE = 1,
  RNG_LABEL = 2,
  RNG_ENCODER_NOISE = 3
};

/* Standard normals 0 .. count-1 of the stream (seed, sample, step, purpose); step < 2^24,
 * count <= 2^34. */
void rng_normal(float *out, int64_t count, uint64_t seed, uint64_t sample, uint32_t step,
                enum rng_purpose purpose);
/* A uniform integer 0 .. range-1 of the same stream, without bias beyond 2^-32. */
uint32_t rng_below(uint32_t range, uint64_t seed, uint64_t sample, uint32_t step,
                   enum rng_purpose purpose);

/* torch.Generator on the CPU: MT19937, and torch's ways of making numbers from it. */
struct torch_rng {
  uint32_t state[624];
  int next;
  int has_cached;
  double cached;
};

void torch_rng_seed(struct torch_rng *rng, uint64_t seed);
uint32_t torch_rng_u32(struct torch_rng *rng);
uint64_t torch_rng_u64(struct torch_rng *rng);
void torch_rng_rand(struct torch_rng *rng, float *out, int64_t count);
void torch_rng_rand_f64(struct torch_rng *rng, double *out, int64_t count);
void torch_rng_randn(struct torch_rng *rng, float *out, int64_t count);
void torch_rng_randn_f64(struct torch_rng *rng, double *out, int64_t count);
/* low <= value < high */
void torch_rng_randint(struct torch_rng *rng, int64_t *out, int64_t count, int64_t low,
                       int64_t high);
void torch_rng_randperm(struct torch_rng *rng, int64_t *out, int64_t count);

#endif

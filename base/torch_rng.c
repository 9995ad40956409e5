/* The random stream of torch's CPU generator: the Mersenne Twister MT19937 of Matsumoto and
 * Nishimura (1998), and torch's uniforms, normals, integers and permutations out of it. */
#include "base/rng.h"

#include <math.h>

static const double TWO_PI = 6.283185307179586476925286766559;

enum { STATE = 624, SHIFT = 397 };

/* Only the low 32 bits of the seed count. */
void torch_rng_seed(struct torch_rng *rng, uint64_t seed) {
  rng->state[0] = (uint32_t)seed;
  for (uint32_t i = 1; i < STATE; i++) {
    uint32_t last = rng->state[i - 1];
    rng->state[i] = 1812433253u * (last ^ last >> 30) + i;
  }
  rng->next = STATE;
  rng->has_cached = 0;
  rng->cached = 0;
}

static void regenerate(struct torch_rng *rng) {
  uint32_t *s = rng->state;
  for (int i = 0; i < STATE; i++) {
    uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % STATE] & 0x7fffffffu);
    s[i] = s[(i + SHIFT) % STATE] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
  }
  rng->next = 0;
}

uint32_t torch_rng_u32(struct torch_rng *rng) {
  if (rng->next == STATE) regenerate(rng);
  uint32_t y = rng->state[rng->next++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9d2c5680u;
  y ^= y << 15 & 0xefc60000u;
  return y ^ y >> 18;
}

uint64_t torch_rng_u64(struct torch_rng *rng) {
  uint64_t high = torch_rng_u32(rng);
  return high << 32 | torch_rng_u32(rng);
}

static float uniform(struct torch_rng *rng) {
  return (float)(torch_rng_u32(rng) & 0xffffffu) * 0x1p-24f;
}

static double uniform_f64(struct torch_rng *rng) {
  return (double)(torch_rng_u64(rng) & UINT64_C(0x1fffffffffffff)) * 0x1p-53;
}

void torch_rng_rand(struct torch_rng *rng, float *out, int64_t count) {
  for (int64_t i = 0; i < count; i++) out[i] = uniform(rng);
}

void torch_rng_rand_f64(struct torch_rng *rng, double *out, int64_t count) {
  for (int64_t i = 0; i < count; i++) out[i] = uniform_f64(rng);
}

/* One value from a pair of uniforms. The other one waits for the next small draw, and survives any
 * other draw in between. */
static double small_normal(struct torch_rng *rng) {
  if (rng->has_cached) {
    rng->has_cached = 0;
    return rng->cached;
  }
  double angle = TWO_PI * uniform_f64(rng);
  double radius = sqrt(-2 * log1p(-uniform_f64(rng)));
  rng->cached = radius * sin(angle);
  rng->has_cached = 1;
  return radius * cos(angle);
}

/* All uniforms of a tensor are drawn before any is transformed, 16 at a time, element j with
 * element j + 8; a ragged end gets 16 new ones. The arithmetic is that of the element type: a float
 * angle is rounded to 24 bits, and with it the normals move by up to 1e-6. */
#define DEFINE_RANDN(name, type, draw, root, logarithm, cosine, sine)                              \
  static void name##_block(type block[16]) {                                                       \
    for (int j = 0; j < 8; j++) {                                                                  \
      type radius = root(-2 * logarithm(1 - block[j])), angle = (type)TWO_PI * block[j + 8];       \
      block[j] = radius * cosine(angle);                                                           \
      block[j + 8] = radius * sine(angle);                                                         \
    }                                                                                              \
  }                                                                                                \
  void name(struct torch_rng *rng, type *out, int64_t count) {                                     \
    if (count < 16) {                                                                              \
      for (int64_t i = 0; i < count; i++) out[i] = (type)small_normal(rng);                        \
      return;                                                                                      \
    }                                                                                              \
    draw(rng, out, count);                                                                         \
    for (int64_t i = 0; i + 16 <= count; i += 16) name##_block(out + i);                           \
    if (count % 16 == 0) return;                                                                   \
    draw(rng, out + count - 16, 16);                                                               \
    name##_block(out + count - 16);                                                                \
  }

DEFINE_RANDN(torch_rng_randn, float, torch_rng_rand, sqrtf, logf, cosf, sinf)
DEFINE_RANDN(torch_rng_randn_f64, double, torch_rng_rand_f64, sqrt, log, cos, sin)

void torch_rng_randint(struct torch_rng *rng, int64_t *out, int64_t count, int64_t low,
                       int64_t high) {
  uint64_t range = (uint64_t)high - (uint64_t)low;
  for (int64_t i = 0; i < count; i++) {
    uint64_t draw = range >> 32 ? torch_rng_u64(rng) : torch_rng_u32(rng);
    out[i] = (int64_t)((uint64_t)low + draw % range);
  }
}

void torch_rng_randperm(struct torch_rng *rng, int64_t *out, int64_t count) {
  for (int64_t i = 0; i < count; i++) out[i] = i;
  for (int64_t i = 0; i + 1 < count; i++) {
    int64_t j = i + (int64_t)(torch_rng_u32(rng) % (uint64_t)(count - i));
    int64_t kept = out[i];
    out[i] = out[j];
    out[j] = kept;
  }
}

/* Philox and its frozen counter, the normals, and torch's CPU generator. */
#include "support.h"

#include "base/normal.h"
#include "base/rng.h"
#include "cases.h"
#include "data/normal_golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The three known answers that come with Random123. */
static void test_philox_known_answers(void **state) {
  static const uint32_t vectors[3][10] = {
      {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
      {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
       0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
      {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
       0x94fdcceb, 0x5001e420, 0x24126ea1}};
  (void)state;
  for (int i = 0; i < 3; i++) {
    uint32_t out[4];
    normal_philox(out, vectors[i], vectors[i] + 4);
    assert_memory_equal(out, vectors[i] + 6, sizeof out);
  }
}

static void test_counter_layout(void **state) {
  const uint32_t key[2] = {0x89abcdef, 0x01234567};
  const uint32_t counter[4] = {0x0badcafe, 0x76543210, 0xfedcba98, 0x03123456};
  uint32_t expected[4], out[4];
  (void)state;
  normal_philox(expected, counter, key);
  normal_block(out, 0x0123456789abcdef, 0xfedcba9876543210, 0x123456, RNG_ENCODER_NOISE,
               0x0badcafe);
  assert_memory_equal(out, expected, sizeof out);
  assert_int_equal(rng_below(1000, 42, 5, 0, RNG_LABEL), 122); /* the example of docs/RANDOM.md */
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static void test_golden_patterns(void **state) {
  size_t compared = 0;
  (void)state;
  for (size_t i = 0; i < sizeof normal_streams / sizeof *normal_streams; i++) {
    const struct normal_stream *s = &normal_streams[i];
    float z[100], four[4];
    for (uint32_t block = 0; block < 25; block++) {
      uint32_t words[4];
      normal_block(words, s->seed, s->sample, s->step, s->purpose, s->block + block);
      normal_pair(four, words[0], words[1]);
      normal_pair(four + 2, words[2], words[3]);
      assert_memory_equal(four, s->bits + 4 * block, sizeof four);
    }
    compared += 100;
    if (s->block > 0) continue;
    rng_normal(z, 100, s->seed, s->sample, s->step, s->purpose);
    assert_memory_equal(z, s->bits, sizeof z);
  }
  for (size_t i = 0; i < sizeof normal_pairs / sizeof *normal_pairs; i++, compared += 2) {
    float z[2];
    normal_pair(z, normal_pairs[i][0], normal_pairs[i][1]);
    assert_memory_equal(z, normal_pairs[i] + 2, sizeof z);
  }
  assert_int_equal(compared, 1000);
}

/* Against the definition in double precision, with as many draws from the ends of the radius as
 * from its middle. 2.5e-7 is two units in the last place. */
static void test_normal_accuracy(void **state) {
  const double two_pi = 6.283185307179586;
  double worst = 0;
  (void)state;
  for (uint32_t i = 0; i < 200000; i++) {
    uint32_t words[4];
    float z[2];
    normal_block(words, 99, 0, 0, RNG_STEP_NOISE, i);
    if (i % 4 == 1) words[0] >>= words[2] % 32;
    if (i % 4 == 2) words[0] = ~(words[0] >> words[2] % 32);
    normal_pair(z, words[0], words[1]);
    double radius = sqrt(-2 * log1p(-(double)words[0] * 0x1p-32));
    double angle = two_pi * 0x1p-32 * words[1];
    double x = radius * cos(angle), y = radius * sin(angle);
    worst = fmax(worst, fabs((double)z[0] - x) / fmax(1, fabs(x)));
    worst = fmax(worst, fabs((double)z[1] - y) / fmax(1, fabs(y)));
  }
  assert_within("normal against Box-Muller in double", worst, 2.5e-7);
}

/* The two paths of rng_normal, with and without the fused instruction, are one: the pair function
 * is always built without it. Also any count is a prefix of a larger one. */
static void test_normal_paths_and_prefix(void **state) {
  enum { COUNT = 4099 };
  static float all[COUNT], part[COUNT + 1];
  (void)state;
  rng_normal(all, COUNT, 5, 6, 7, RNG_STEP_NOISE);
  for (uint32_t i = 0; i < COUNT; i++) {
    uint32_t words[4];
    float pair[2];
    normal_block(words, 5, 6, 7, RNG_STEP_NOISE, i / 4);
    normal_pair(pair, words[i & 2], words[(i & 2) + 1]);
    assert_int_equal(bits_of(all[i]), bits_of(pair[i & 1]));
  }
  for (int count = 0; count < 10; count++) {
    part[count] = 123;
    rng_normal(part, count, 5, 6, 7, RNG_STEP_NOISE);
    assert_memory_equal(part, all, (size_t)count * sizeof *all);
    assert_true(part[count] == 123);
  }
}

static void test_streams_differ(void **state) {
  static const struct {
    uint64_t seed, sample;
    uint32_t step;
    enum rng_purpose purpose;
  } streams[] = {{1, 1, 1, RNG_STEP_NOISE},
                 {2, 1, 1, RNG_STEP_NOISE},
                 {1 + (UINT64_C(1) << 32), 1, 1, RNG_STEP_NOISE},
                 {1, 2, 1, RNG_STEP_NOISE},
                 {1, 1 + (UINT64_C(1) << 32), 1, RNG_STEP_NOISE},
                 {1, 1, 2, RNG_STEP_NOISE},
                 {1, 1, 1, RNG_INITIAL_NOISE}};
  enum { STREAMS = sizeof streams / sizeof *streams };
  float first[STREAMS][8];
  (void)state;
  for (int i = 0; i < STREAMS; i++) {
    rng_normal(first[i], 8, streams[i].seed, streams[i].sample, streams[i].step,
               streams[i].purpose);
    for (int j = 0; j < i; j++)
      for (int k = 0; k < 8; k++) assert_true(first[i][k] != first[j][k]);
  }
}

/* Moments, neighbours and tails of a million draws, each within five standard deviations. */
static void test_normal_distribution(void **state) {
  enum { COUNT = 1000000, TAILS = 5 };
  double power[5] = {0}, neighbours = 0, n = COUNT;
  int64_t beyond[TAILS] = {0};
  float *z = malloc(COUNT * sizeof *z);
  (void)state;
  assert_non_null(z);
  rng_normal(z, COUNT, 2024, 1, 0, RNG_INITIAL_NOISE);
  for (int64_t i = 0; i < COUNT; i++) {
    double x = (double)z[i], term = 1;
    for (int k = 1; k <= 4; k++) power[k] += term *= x;
    if (i > 0) neighbours += x * (double)z[i - 1];
    for (int k = 0; k < TAILS; k++) beyond[k] += fabs(x) > k + 0.5;
  }
  free(z);
  assert_within("mean", fabs(power[1] / n), 5 / sqrt(n));
  assert_within("variance", fabs(power[2] / n - 1), 5 * sqrt(2 / n));
  assert_within("third moment", fabs(power[3] / n), 5 * sqrt(15 / n));
  assert_within("fourth moment", fabs(power[4] / n - 3), 5 * sqrt(96 / n));
  assert_within("neighbours", fabs(neighbours / n), 5 / sqrt(n));
  for (int k = 0; k < TAILS; k++) {
    double expected = n * erfc((k + 0.5) / sqrt(2));
    assert_within("tail", fabs((double)beyond[k] - expected), 5 * sqrt(expected));
  }
}

static void test_below(void **state) {
  int64_t hits[7] = {0};
  (void)state;
  for (uint64_t sample = 0; sample < 70000; sample++) {
    uint32_t value = rng_below(7, 3, sample, 0, RNG_LABEL);
    assert_true(value < 7);
    hits[value]++;
  }
  for (int i = 0; i < 7; i++) assert_within("count", fabs((double)hits[i] - 10000), 500);
  assert_int_equal(rng_below(1, 3, 4, 5, RNG_LABEL), 0);
  assert_int_equal(rng_below(7, 3, 4, 5, RNG_LABEL), rng_below(7, 3, 4, 5, RNG_LABEL));
}

/* A value that a small draw leaves over survives larger draws and is cleared by a seed. */
static void test_torch_cache(void **state) {
  struct torch_rng rng;
  float three[3], two[2], one[1], block[16];
  (void)state;
  torch_rng_seed(&rng, 7);
  torch_rng_randn(&rng, three, 3);
  torch_rng_seed(&rng, 7);
  torch_rng_randn(&rng, one, 1);
  torch_rng_randn(&rng, block, 16);
  torch_rng_randn(&rng, two, 1);
  assert_true(one[0] == three[0] && two[0] == three[1]);
  torch_rng_seed(&rng, 7);
  torch_rng_randn(&rng, one, 1);
  torch_rng_seed(&rng, 7);
  torch_rng_randn(&rng, one, 1);
  assert_true(one[0] == three[0]);
}

static void check(void *user, const char *tensor, double error, double limit) {
  ++*(int *)user;
  assert_within(tensor, error, limit);
}

static void test_fixture(void **state) {
  int lines = 0;
  (void)state;
  assert_ok(test_ctx(), rng_case(test_ctx(), fixture_path("rng"), check, &lines));
  assert_true(lines > 100);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_philox_known_answers),
      cmocka_unit_test(test_counter_layout),
      cmocka_unit_test(test_golden_patterns),
      cmocka_unit_test(test_normal_accuracy),
      cmocka_unit_test(test_normal_paths_and_prefix),
      cmocka_unit_test(test_streams_differ),
      cmocka_unit_test(test_normal_distribution),
      cmocka_unit_test(test_below),
      cmocka_unit_test(test_torch_cache),
      cmocka_unit_test(test_fixture),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Inputs, guarded results and weights of one operation under test. */
#include "tests/ops/trial.h"

#include "base/rng.h"
#include "tests/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Guard values before and after a result; 64 keep its alignment. */
enum { GUARD = 64 };

const uint32_t trial_unwritten = 0x7fc0dead;

void trial_begin(struct trial *t, struct backend *be, const struct shape *s, int64_t begin,
                 int64_t count) {
  *t = (struct trial){.be = be, .s = s, .begin = begin, .count = count};
}

void trial_normal(struct trial *t, float *out, int64_t n) {
  rng_normal(out, n, 42, t->draws++, 0, RNG_INITIAL_NOISE);
}

uint32_t trial_below(struct trial *t, uint32_t below) {
  return rng_below(below, 43, t->draws++, 0, RNG_LABEL);
}

static float *make(int64_t n) {
  float *values = malloc((size_t)(n > 0 ? n : 1) * sizeof *values);
  assert_non_null(values);
  return values;
}

static float *random_values(struct trial *t, int64_t n, float scale, float offset) {
  float *values = make(n);
  trial_normal(t, values, n);
  for (int64_t i = 0; i < n; i++) values[i] = values[i] * scale + offset;
  return values;
}

static struct trial_block *add_block(struct trial *t, int64_t n) {
  assert_true(t->blocks < TRIAL_BLOCKS);
  struct trial_block *block = &t->block[t->blocks++];
  *block = (struct trial_block){.values = n};
  assert_ok(t->be->ctx, t->be->ops->alloc(t->be, (size_t)(n + 2 * GUARD) * sizeof(float), "a test",
                                          &block->memory));
  float *host = make(n + 2 * GUARD);
  for (int64_t i = 0; i < n + 2 * GUARD; i++) memcpy(&host[i], &trial_unwritten, sizeof *host);
  be_upload(t->be, block->memory, host, (size_t)(n + 2 * GUARD) * sizeof *host);
  free(host);
  return block;
}

void *trial_upload(struct trial *t, const void *values, int64_t n) {
  float *device = (float *)add_block(t, n)->memory + GUARD;
  be_upload(t->be, device, values, (size_t)n * sizeof *device);
  return device;
}

/* Uploads the items of the run out of those of all, which it frees. */
static void *upload_items(struct trial *t, void *all, int64_t item) {
  void *device = trial_upload(t, (float *)all + t->begin * item, t->count * item);
  free(all);
  return device;
}

float *trial_items(struct trial *t, int64_t item) {
  double scale = t->s->scale != 0 ? t->s->scale : 1;
  float *values = random_values(t, t->s->N * item, (float)scale, (float)t->s->offset);
  for (int64_t i = 0; t->s->nans && i < item; i++) values[t->s->N / 2 * item + i] = NAN;
  return upload_items(t, values, item);
}

float *trial_standard_items(struct trial *t, int64_t item) {
  return upload_items(t, random_values(t, t->s->N * item, 1, 0), item);
}

float *trial_values(struct trial *t, int64_t n, float scale, float offset) {
  float *values = random_values(t, n, scale, offset);
  float *device = trial_upload(t, values, n);
  free(values);
  return device;
}

int32_t *trial_indices(struct trial *t, int64_t item, int32_t below) {
  int32_t *values = malloc((size_t)(t->s->N * item) * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < t->s->N * item; i++) values[i] = (int32_t)trial_below(t, (uint32_t)below);
  return upload_items(t, values, item);
}

void *trial_result(struct trial *t, int64_t n) {
  struct trial_block *block = add_block(t, n);
  block->role = BLOCK_RESULT;
  return (float *)block->memory + GUARD;
}

void *trial_results(struct trial *t, int64_t item) {
  void *result = trial_result(t, t->count * item);
  t->block[t->blocks - 1].item = item;
  return result;
}

float *trial_in_place(struct trial *t, int64_t item) {
  float *values = trial_items(t, item);
  struct trial_block *block = &t->block[t->blocks - 1];
  block->role = BLOCK_RESULT;
  block->item = item;
  return values;
}

void *trial_scratch(struct trial *t, int64_t n) {
  struct trial_block *block = add_block(t, n);
  block->role = BLOCK_SCRATCH;
  return (float *)block->memory + GUARD;
}

/* Random weights of the shape's type, as bytes to be freed. */
static void *random_weights(struct trial *t, int64_t n, float scale) {
  float *values = random_values(t, n, t->poisoned ? NAN : scale, 0);
  if (t->s->dtype == DT_F32) return values;
  uint16_t *half = malloc((size_t)n * sizeof *half);
  assert_non_null(half);
  for (int64_t i = 0; i < n; i++)
    half[i] = t->s->dtype == DT_F16 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
  free(values);
  return half;
}

static float unit_scale(int64_t fan_in) { return 1.0F / sqrtf((float)fan_in); }

struct linear *trial_linear(struct trial *t, int in, int out, int parts, bool paired, bool bias) {
  struct tensor weight[3], biases[3];
  struct linear_source source = {.parts = paired ? 2 : parts, .paired = paired};
  for (int i = 0; i < source.parts; i++) {
    weight[i] = (struct tensor){"weight", t->s->dtype, 2, {out, in}, (int64_t)out * in, NULL};
    weight[i].data = random_weights(t, weight[i].elements, unit_scale(in));
    biases[i] = (struct tensor){"bias", t->s->dtype, 1, {out}, out, NULL};
    biases[i].data = random_weights(t, out, 0.5F);
    source.weight[i] = &weight[i];
    source.bias[i] = bias && i != 1 ? &biases[i] : NULL; /* the second part has none */
  }
  assert_true(t->linears < TRIAL_BLOCKS);
  struct linear **linear = &t->linear[t->linears++];
  assert_ok(t->be->ctx, t->be->ops->linear_create(t->be, &source, linear));
  for (int i = 0; i < source.parts; i++) {
    free((void *)(uintptr_t)weight[i].data);
    free((void *)(uintptr_t)biases[i].data);
  }
  return *linear;
}

struct conv *trial_conv(struct trial *t) {
  const struct shape *s = t->s;
  int64_t area = (int64_t)s->kernel * s->kernel, fan_in = s->C * area;
  struct tensor weight = {"weight",        s->dtype, 4, {s->out, s->C, s->kernel, s->kernel},
                          s->out * fan_in, NULL};
  struct tensor bias = {"bias", s->dtype, 1, {s->out}, s->out, NULL};
  weight.data = random_weights(t, weight.elements, unit_scale(fan_in));
  bias.data = random_weights(t, s->out, 0.5F);
  struct conv **conv = &t->conv[t->convs++];
  assert_ok(t->be->ctx, t->be->ops->conv_create(t->be, &weight, s->bias ? &bias : NULL, s->stride,
                                                s->before, s->after, conv));
  free((void *)(uintptr_t)weight.data);
  free((void *)(uintptr_t)bias.data);
  return *conv;
}

static bool guards_hold(const float *values, int64_t n) {
  for (int64_t i = 0; i < GUARD; i++)
    if (memcmp(&values[i], &trial_unwritten, sizeof *values) != 0 ||
        memcmp(&values[GUARD + n + i], &trial_unwritten, sizeof *values) != 0)
      return false;
  return true;
}

bool trial_finish(struct trial *t) {
  bool intact = true;
  for (int i = 0; i < t->blocks; i++) {
    struct trial_block *block = &t->block[i];
    float *host = make(block->values + 2 * GUARD);
    be_download(t->be, host, block->memory,
                (size_t)(block->values + 2 * GUARD) * sizeof *block->host);
    intact = intact && guards_hold(host, block->values);
    memmove(host, host + GUARD, (size_t)block->values * sizeof *host);
    block->host = host;
    t->be->ops->release(t->be, block->memory);
    block->memory = NULL;
  }
  for (int i = 0; i < t->linears; i++) t->be->ops->linear_destroy(t->be, t->linear[i]);
  for (int i = 0; i < t->convs; i++) t->be->ops->conv_destroy(t->be, t->conv[i]);
  return intact;
}

void trial_free(struct trial *t) {
  for (int i = 0; i < t->blocks; i++) free(t->block[i].host);
}

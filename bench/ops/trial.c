/* Inputs, guarded results and weights of one operation. */
#include "bench/ops/trial.h"

#include "base/rng.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of guard before and after a result, which keep its alignment, and what they and unwritten
 * elements hold: a NaN in every type, and one that no operation makes. */
enum { GUARD = 256, UNWRITTEN = 0x7fed };

const uint32_t trial_unwritten = (uint32_t)UNWRITTEN << 16 | UNWRITTEN;

void trial_begin(struct trial *t, struct exec *ex, const struct shape *s, int64_t begin,
                 int64_t count) {
  *t = (struct trial){.ex = ex, .s = s, .begin = begin, .count = count};
}

/* Drawing takes longer than what is tested: values repeat after a prime number of them, which
 * shifts them from row to row of any width. */
void trial_normal(struct trial *t, float *out, int64_t n) {
  enum { PERIOD = 4099 };
  rng_normal(out, n < PERIOD ? n : PERIOD, 42, t->draws++, 0, RNG_INITIAL_NOISE);
  for (int64_t i = PERIOD; i < n; i++) out[i] = out[i - PERIOD];
}

uint32_t trial_below(struct trial *t, uint32_t below) {
  return rng_below(below, 43, t->draws++, 0, RNG_LABEL);
}

void trial_again(struct trial *t) {
  t->again = true;
  t->draws = 0;
  t->blocks = t->linears = t->convs = 0;
}

static void *make(int64_t n, size_t size) { return memory_get(n > 0 ? (size_t)n : 0, size); }

static float *random_values(struct trial *t, int64_t n, float scale, float offset) {
  float *values = make(n, sizeof *values);
  trial_normal(t, values, n);
  for (int64_t i = 0; i < n; i++) values[i] = values[i] * scale + offset;
  return values;
}

static size_t block_bytes(const struct trial_block *block) {
  return (size_t)block->values * dtype_size(block->type);
}

/* The next array of the run before this. */
static void *next_block(struct trial *t) { return (char *)t->block[t->blocks++].memory + GUARD; }

/* Returns the first element, on the device. */
static void *add_block(struct trial *t, int64_t n, enum dtype type, int role) {
  if (t->again) return next_block(t);
  struct trial_block *block = &t->block[t->blocks++]; /* no operation has more than TRIAL_BLOCKS */
  *block = (struct trial_block){.role = role, .type = type, .values = n};
  size_t bytes = block_bytes(block) + 2 * GUARD;
  enum ditmoe_status status = t->ex->device->ops->alloc(t->ex, bytes, "an array", &block->memory);
  if (status != DITMOE_OK) {
    exec_fail(t->ex, status);
    return NULL;
  }
  uint16_t *host = make((int64_t)bytes, 1);
  for (size_t i = 0; i < bytes / sizeof *host; i++) host[i] = UNWRITTEN;
  be_upload(t->ex, block->memory, host, bytes);
  free(host);
  return (char *)block->memory + GUARD;
}

static void *upload(struct trial *t, const void *values, int64_t n, enum dtype type) {
  if (t->again) return next_block(t);
  void *device = add_block(t, n, type, BLOCK_INPUT);
  be_upload(t->ex, device, values, (size_t)n * dtype_size(type));
  return device;
}

void *trial_upload(struct trial *t, const void *values, int64_t n) {
  return upload(t, values, n, DT_F32);
}

/* Uploads the items of the run out of those of all, which it frees. */
static void *upload_items(struct trial *t, void *all, int64_t item, enum dtype type) {
  int64_t first = t->begin * item * (int64_t)dtype_size(type);
  void *device = upload(t, (char *)all + first, t->count * item, type);
  free(all);
  return device;
}

/* Of all items. */
static float *random_items(struct trial *t, int64_t item) {
  double scale = t->s->scale != 0 ? t->s->scale : 1;
  float *values = random_values(t, t->s->N * item, (float)scale, (float)t->s->offset);
  for (int64_t i = 0; t->s->nans && i < item; i++) values[t->s->N / 2 * item + i] = NAN;
  return values;
}

static void round_values(float *values, int64_t n, int round) {
  for (int64_t i = 0; round != ROUND_NOT && i < n; i++) {
    uint32_t bits = (uint32_t)bf16_from_f32(values[i]) << 16;
    if (round == ROUND_HALFWAY) bits |= 0x8000;
    memcpy(&values[i], &bits, sizeof bits);
  }
}

float *trial_items(struct trial *t, int64_t item) {
  if (t->again) return next_block(t);
  float *values = random_items(t, item);
  round_values(values, t->s->N * item, t->s->round);
  return upload_items(t, values, item, DT_F32);
}

struct act trial_acts(struct trial *t, int64_t item) {
  const enum dtype type = t->ex->compute;
  if (t->again) return (struct act){next_block(t), type};
  float *values = random_items(t, item);
  if (type == DT_F32) return act_f32(upload_items(t, values, item, DT_F32));
  int64_t n = t->s->N * item;
  uint16_t *brains = make(n, sizeof *brains);
  for (int64_t i = 0; i < n; i++) brains[i] = bf16_from_f32(values[i]);
  free(values);
  return (struct act){upload_items(t, brains, item, DT_BF16), type};
}

float *trial_standard_items(struct trial *t, int64_t item) {
  if (t->again) return next_block(t);
  return upload_items(t, random_values(t, t->s->N * item, 1, 0), item, DT_F32);
}

float *trial_values(struct trial *t, int64_t n, float scale, float offset) {
  if (t->again) return next_block(t);
  float *values = random_values(t, n, scale, offset);
  float *device = trial_upload(t, values, n);
  free(values);
  return device;
}

int32_t *trial_indices(struct trial *t, int64_t item, int32_t below) {
  if (t->again) return next_block(t);
  int64_t n = t->s->N * item;
  int32_t *values = make(n, sizeof *values);
  for (int64_t i = 0; i < n; i++) values[i] = (int32_t)trial_below(t, (uint32_t)below);
  return upload_items(t, values, item, DT_I32);
}

void *trial_result(struct trial *t, int64_t n) { return add_block(t, n, DT_F32, BLOCK_RESULT); }

struct act trial_act_result(struct trial *t, int64_t n) {
  return (struct act){add_block(t, n, t->ex->compute, BLOCK_RESULT), t->ex->compute};
}

/* The last block as one of items. */
static void *divide(struct trial *t, void *device, int64_t item) {
  t->block[t->blocks - 1].item = item;
  return device;
}

void *trial_results(struct trial *t, int64_t item) {
  return divide(t, trial_result(t, t->count * item), item);
}

struct act trial_act_results(struct trial *t, int64_t item) {
  struct act result = trial_act_result(t, t->count * item);
  divide(t, result.data, item);
  return result;
}

float *trial_in_place(struct trial *t, int64_t item) {
  float *values = trial_items(t, item);
  t->block[t->blocks - 1].role = BLOCK_RESULT;
  return divide(t, values, item);
}

void *trial_scratch(struct trial *t, int64_t n) { return add_block(t, n, DT_F32, BLOCK_SCRATCH); }

struct act trial_act_scratch(struct trial *t, int64_t n) {
  return (struct act){add_block(t, n, t->ex->compute, BLOCK_SCRATCH), t->ex->compute};
}

static enum dtype weight_type(const struct trial *t) { return t->widened ? DT_F32 : t->s->dtype; }

/* Random weights of that type, with the values of the shape's, as bytes to be freed. */
static void *random_weights(struct trial *t, int64_t n, float scale) {
  float *values = random_values(t, n, t->poisoned ? NAN : scale, 0);
  const bool f16 = t->s->dtype == DT_F16;
  if (t->s->dtype == DT_F32) return values;
  uint16_t *half = make(n, sizeof *half);
  for (int64_t i = 0; i < n; i++) {
    half[i] = f16 ? f16_from_f32(values[i]) : bf16_from_f32(values[i]);
    values[i] = f16 ? f32_from_f16(half[i]) : f32_from_bf16(half[i]);
  }
  free(t->widened ? (void *)half : values);
  return t->widened ? (void *)values : half;
}

static float unit_scale(int64_t fan_in) { return 1.0F / sqrtf((float)fan_in); }

struct linear *trial_linear(struct trial *t, int in, int out, int parts, bool paired, bool bias) {
  if (t->again) return t->linear[t->linears++];
  struct tensor weight[3], biases[3];
  struct linear_source source = {.parts = paired ? 2 : parts,
                                 .paired = paired,
                                 .input = t->s->exact ? DT_F32 : t->ex->compute};
  for (int i = 0; i < source.parts; i++) {
    weight[i] = (struct tensor){"weight", weight_type(t), 2, {out, in}, (int64_t)out * in, NULL};
    weight[i].data = random_weights(t, weight[i].elements, unit_scale(in));
    biases[i] = (struct tensor){"bias", weight_type(t), 1, {out}, out, NULL};
    biases[i].data = random_weights(t, out, 0.5F);
    source.weight[i] = &weight[i];
    source.bias[i] = bias && i != 1 ? &biases[i] : NULL; /* the second part has none */
  }
  struct linear **linear = &t->linear[t->linears++];
  enum ditmoe_status status = t->ex->device->ops->linear_create(t->ex, &source, linear);
  if (status != DITMOE_OK) exec_fail(t->ex, status);
  for (int i = 0; i < source.parts; i++) {
    free((void *)(uintptr_t)weight[i].data);
    free((void *)(uintptr_t)biases[i].data);
  }
  return *linear;
}

struct conv *trial_conv(struct trial *t) {
  if (t->again) return t->conv[t->convs++];
  const struct shape *s = t->s;
  const int across = s->kernel_x ? s->kernel_x : s->kernel;
  const struct conv_window window = {s->stride,
                                     {s->before, s->kernel_x ? s->before_x : s->before},
                                     {s->after, s->kernel_x ? s->after_x : s->after}};
  const int64_t fan_in = (int64_t)s->C * s->kernel * across;
  struct tensor weight = {
      "weight", weight_type(t), 4, {s->out, s->C, s->kernel, across}, s->out * fan_in, NULL};
  struct tensor bias = {"bias", weight_type(t), 1, {s->out}, s->out, NULL};
  weight.data = random_weights(t, weight.elements, unit_scale(fan_in));
  bias.data = random_weights(t, s->out, 0.5F);
  struct conv **conv = &t->conv[t->convs++];
  enum ditmoe_status status =
      t->ex->device->ops->conv_create(t->ex, &weight, s->bias ? &bias : NULL, &window, conv);
  if (status != DITMOE_OK) exec_fail(t->ex, status);
  free((void *)(uintptr_t)weight.data);
  free((void *)(uintptr_t)bias.data);
  return *conv;
}

static bool is_guard(const uint16_t *bytes) {
  for (size_t i = 0; i < GUARD / sizeof *bytes; i++)
    if (bytes[i] != UNWRITTEN) return false;
  return true;
}

/* n downloaded elements as f32, unwritten ones as such. */
static float *widened(const void *values, int64_t n, enum dtype type) {
  float *wide = make(n, sizeof *wide);
  const uint16_t *brains = values;
  if (type != DT_BF16) return memcpy(wide, values, (size_t)n * sizeof *wide);
  for (int64_t i = 0; i < n; i++) {
    wide[i] = f32_from_bf16(brains[i]);
    if (brains[i] == UNWRITTEN) memcpy(&wide[i], &trial_unwritten, sizeof *wide);
  }
  return wide;
}

/* Downloads a block and frees its memory; false if a guard has been written. */
static bool finish_block(struct trial *t, struct trial_block *block) {
  size_t bytes = block_bytes(block);
  char *host = make((int64_t)bytes + 2 * GUARD, 1);
  be_download(t->ex, host, block->memory, bytes + 2 * GUARD);
  bool intact = is_guard((void *)host) && is_guard((void *)(host + GUARD + bytes));
  block->host = widened(host + GUARD, block->values, block->type);
  free(host);
  if (block->memory) t->ex->device->ops->release(t->ex, block->memory);
  block->memory = NULL;
  return intact;
}

bool trial_finish(struct trial *t) {
  bool intact = true;
  for (int i = 0; i < t->blocks; i++) intact = finish_block(t, &t->block[i]) && intact;
  for (int i = 0; i < t->linears; i++)
    if (t->linear[i]) t->ex->device->ops->linear_destroy(t->ex, t->linear[i]);
  for (int i = 0; i < t->convs; i++)
    if (t->conv[i]) t->ex->device->ops->conv_destroy(t->ex, t->conv[i]);
  return intact;
}

void trial_free(struct trial *t) {
  for (int i = 0; i < t->blocks; i++) free(t->block[i].host);
}

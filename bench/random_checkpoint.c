#include "bench/random_checkpoint.h"

#include "base/rng.h"
#include "cli/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The list of tensors. */

void blueprint_add(struct blueprint *blueprint, enum fill fill, int rank, const int64_t *shape,
                   const char *format, ...) {
  char name[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  if (blueprint->count == blueprint->room) {
    blueprint->room = 2 * blueprint->room + 64;
    blueprint->tensors =
        memory_resize(blueprint->tensors, blueprint->room, sizeof *blueprint->tensors);
  }
  struct blueprint_tensor *tensor = &blueprint->tensors[blueprint->count++];
  *tensor =
      (struct blueprint_tensor){.name = text_copy(name), .fill = fill, .rank = rank, .elements = 1};
  for (int i = 0; i < rank; i++) tensor->elements *= tensor->shape[i] = shape[i];
}

void blueprint_linear(struct blueprint *blueprint, bool bias, int out, int in, const char *name) {
  blueprint_add(blueprint, FILL_RANDOM, 2, (int64_t[]){out, in}, "%s.weight", name);
  if (bias) blueprint_add(blueprint, FILL_RANDOM, 1, (int64_t[]){out}, "%s.bias", name);
}

int64_t blueprint_elements(const struct blueprint *blueprint) {
  int64_t sum = 0;
  for (size_t i = 0; i < blueprint->count; i++) sum += blueprint->tensors[i].elements;
  return sum;
}

void blueprint_free(struct blueprint *blueprint) {
  for (size_t i = 0; i < blueprint->count; i++) free(blueprint->tensors[i].name);
  free(blueprint->tensors);
  free(blueprint->record);
  *blueprint = (struct blueprint){0};
}

/* The values: `size` of them, each tensor begins somewhere in the first SHIFTS, so that no two look
 * alike. A prime number is no multiple of a width. */

enum { SHIFTS = 65521, STRIDE = 7919 };

static int64_t largest(const struct blueprint *blueprint, enum fill fill) {
  int64_t most = 0;
  for (size_t i = 0; i < blueprint->count; i++)
    if (blueprint->tensors[i].fill == fill && blueprint->tensors[i].elements > most)
      most = blueprint->tensors[i].elements;
  return most;
}

static void put(void *values, enum dtype dtype, int64_t at, float value) {
  if (dtype == DT_F32)
    ((float *)values)[at] = value;
  else
    ((uint16_t *)values)[at] = bf16_from_f32(value);
}

static void fill_values(void *values, enum dtype dtype, int64_t random, int64_t ones,
                        uint64_t seed) {
  enum { CHUNK = 4096 };
  float chunk[CHUNK];
  for (int64_t at = 0; at < random; at += CHUNK) {
    int64_t count = random - at < CHUNK ? random - at : CHUNK;
    rng_normal(chunk, count, seed, (uint64_t)at, 0, RNG_INITIAL_NOISE);
    for (int64_t i = 0; i < count; i++) put(values, dtype, at + i, 0.02F * chunk[i]);
  }
  for (int64_t i = 0; i < ones; i++) put(values, dtype, random + i, 1);
}

static enum ditmoe_status add_block(struct ditmoe_checkpoint *checkpoint, size_t bytes,
                                    const char *what, void **out) {
  TRY(mem_alloc(checkpoint->ctx, bytes, 1, what, out));
  checkpoint->blocks[checkpoint->block_count++] = *out;
  return DITMOE_OK;
}

static int compare_tensors(const void *a, const void *b) {
  return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static enum ditmoe_status add_tensors(struct ditmoe_checkpoint *checkpoint,
                                      const struct blueprint *blueprint, enum dtype dtype,
                                      uint64_t seed) {
  const int64_t random = largest(blueprint, FILL_RANDOM) + SHIFTS,
                ones = largest(blueprint, FILL_ONES);
  const size_t size = dtype_size(dtype);
  void *values, *name;
  TRY(add_block(checkpoint, (size_t)(random + ones) * size, "random values", &values));
  fill_values(values, dtype, random, ones, seed);
  for (size_t i = 0; i < blueprint->count; i++) {
    const struct blueprint_tensor *plan = &blueprint->tensors[i];
    TRY(add_block(checkpoint, strlen(plan->name) + 1, "tensor names", &name));
    strcpy(name, plan->name);
    int64_t first = plan->fill == FILL_ONES ? random : (int64_t)(i * STRIDE % SHIFTS);
    struct tensor *tensor = &checkpoint->tensors[checkpoint->count++];
    *tensor = (struct tensor){.name = name,
                              .dtype = dtype,
                              .rank = plan->rank,
                              .elements = plan->elements,
                              .data = (char *)values + (size_t)first * size};
    memcpy(tensor->shape, plan->shape, sizeof plan->shape);
  }
  qsort(checkpoint->tensors, checkpoint->count, sizeof *checkpoint->tensors, compare_tensors);
  return DITMOE_OK;
}

static enum ditmoe_status add_record(struct ditmoe_checkpoint *checkpoint, const char *record) {
  static char key[] = CHECKPOINT_RECORD;
  void *copy;
  TRY(mem_alloc(checkpoint->ctx, 1, sizeof *checkpoint->metadata, "record", &checkpoint->metadata));
  TRY(add_block(checkpoint, strlen(record) + 1, "record", &copy));
  checkpoint->metadata[0] = (struct checkpoint_entry){key, strcpy(copy, record)};
  checkpoint->metadata_count = 1;
  return DITMOE_OK;
}

static enum ditmoe_status make(struct ditmoe_checkpoint *checkpoint,
                               const struct blueprint *blueprint, const char *path,
                               enum dtype dtype, uint64_t seed) {
  struct ditmoe_ctx *ctx = checkpoint->ctx;
  TRY(mem_strdup(ctx, path, &checkpoint->path));
  TRY(mem_alloc(ctx, blueprint->count, sizeof *checkpoint->tensors, "tensors",
                &checkpoint->tensors));
  TRY(mem_alloc(ctx, blueprint->count + 2, sizeof *checkpoint->blocks, "tensors",
                &checkpoint->blocks));
  TRY(add_tensors(checkpoint, blueprint, dtype, seed));
  return blueprint->record ? add_record(checkpoint, blueprint->record) : DITMOE_OK;
}

enum ditmoe_status random_checkpoint(struct ditmoe_ctx *ctx, const struct blueprint *blueprint,
                                     const char *path, enum dtype dtype, uint64_t seed,
                                     struct ditmoe_checkpoint **out) {
  struct ditmoe_checkpoint *checkpoint;
  TRY(mem_zalloc(ctx, 1, sizeof *checkpoint, "checkpoint", &checkpoint));
  checkpoint->ctx = ctx;
  checkpoint->format = "random values";
  enum ditmoe_status status = make(checkpoint, blueprint, path, dtype, seed);
  if (status == DITMOE_OK)
    *out = checkpoint;
  else
    ditmoe_checkpoint_close(checkpoint);
  return status;
}

/* One run of one operation on one backend, with inputs that are the same on every backend. A run
 * function asks for inputs, results and weights, and makes the call; comparing is done by
 * others.
 *
 * Items: an operation works on items that do not see each other (rows, images or single values).
 * A trial runs items begin .. begin + count - 1 of all that the shape has, and the same item
 * must have the same bits whatever the others are. */
#ifndef TESTS_OPS_TRIAL_H
#define TESTS_OPS_TRIAL_H

#include "backend/backend.h"

/* Sizes by the project's letters. */
struct shape {
  int N; /* items */
  int B, T, D, H, d, E, K, F, C;
  int in, out, parts, paired, bias;                              /* linear layers */
  int size, width, patch, kernel, stride, before, after, groups; /* images of size x width */
  int silu, skip, kinds, pattern;
  int ties;                  /* many equal scores or weights */
  int nans;                  /* the middle item, or some scores or weights, are NaN */
  int nulls;                 /* every third image belongs to the last expert alone */
  int poison;                /* the weights of the middle expert are NaN */
  enum dtype dtype;          /* of weights */
  double scale, offset, eps; /* inputs are scale * normal + offset; scale 0 means 1 */
};

enum { KINDS_SWIGLU, KINDS_GELU, KINDS_MIXED, KINDS_FREE };
enum { PATTERN_RANDOM, PATTERN_EMPTY, PATTERN_ONE };

enum { TRIAL_BLOCKS = 32 };

struct trial_block {
  enum { BLOCK_INPUT, BLOCK_RESULT, BLOCK_SCRATCH } role;
  void *memory;         /* of the device, before trial_finish */
  float *host;          /* after it */
  int64_t values, item; /* item: values of one item, 0: not divided into items */
};

struct trial {
  struct backend *be;
  const struct shape *s;
  int64_t begin, count;
  uint64_t draws;
  bool poisoned; /* weights made now are NaN */
  int blocks, linears, convs;
  struct trial_block block[TRIAL_BLOCKS];
  struct linear *linear[TRIAL_BLOCKS];
  struct conv *conv[2];
};

/* A value that no operation computes, for elements that have not been written. */
extern const uint32_t trial_unwritten;

void trial_begin(struct trial *t, struct backend *be, const struct shape *s, int64_t begin,
                 int64_t count);
/* Downloads the results and frees everything else; false if something was written around a
 * result. */
bool trial_finish(struct trial *t);
void trial_free(struct trial *t);

/* Random values: `item` for each item of the run, by the shape; the same, always standard normal;
 * n that do not belong to items. */
float *trial_items(struct trial *t, int64_t item);
float *trial_standard_items(struct trial *t, int64_t item);
float *trial_values(struct trial *t, int64_t n, float scale, float offset);
int32_t *trial_indices(struct trial *t, int64_t item, int32_t below);
/* Host values on the device. */
void *trial_upload(struct trial *t, const void *values, int64_t n);
/* Results, not initialised: `item` values for each item, or n that are compared only whole. */
void *trial_results(struct trial *t, int64_t item);
void *trial_result(struct trial *t, int64_t n);
/* Results that start as random items. */
float *trial_in_place(struct trial *t, int64_t item);
/* Working memory that is not compared. */
void *trial_scratch(struct trial *t, int64_t n);

/* parts of `out` rows each (paired: two). */
struct linear *trial_linear(struct trial *t, int in, int out, int parts, bool paired, bool bias);
struct conv *trial_conv(struct trial *t);

/* The random source of all the above: n normals; whole numbers 0 .. below - 1. */
void trial_normal(struct trial *t, float *out, int64_t n);
uint32_t trial_below(struct trial *t, uint32_t below);

#endif

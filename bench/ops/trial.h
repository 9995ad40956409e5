/* One run of one operation on one backend, with inputs that are the same on every backend. A run
 * function asks for inputs, results and weights, and makes the call; comparing (tests/test_ops.c)
 * and timing (bench/operations.c) are done by others. Errors stay in ex->status.
 *
 * Items: an operation works on items that do not see each other (rows, images or single values).
 * A trial runs items begin .. begin + count - 1 of all that the shape has, and the same item
 * must have the same bits whatever the others are. */
#ifndef BENCH_OPS_TRIAL_H
#define BENCH_OPS_TRIAL_H

#include "backend/backend.h"

/* Sizes by the project's letters. */
struct shape {
  int N; /* items */
  int B, T, D, H, d, E, K, F, C;
  int in, out, parts, bias, exact;                               /* linear layers */
  int size, width, patch, kernel, stride, before, after, groups; /* images of size x width */
  int kernel_x, before_x, after_x; /* along the columns; kernel_x 0: as along the rows */
  int ldy, at;                     /* pixels of the result and the channel to start at; 0: dense */
  int silu, skip, kinds, pattern;
  int adjacent;              /* pairs that turn together */
  int round;                 /* of inputs that are f32 in every compute type */
  int ties;                  /* many equal scores or weights */
  int add;                   /* rows are combined with another array */
  int nans;                  /* the middle item, or some scores or weights, are NaN */
  int nulls;                 /* every third image belongs to the last expert alone */
  int poison;                /* the weights of the middle expert are NaN */
  int full;                  /* every choice of an expert is used, else six of seven */
  enum dtype dtype;          /* of weights */
  double scale, offset, eps; /* inputs are scale * normal + offset; scale 0 means 1 */
};

enum { KINDS_SWIGLU, KINDS_GELU, KINDS_MIXED, KINDS_FREE };
enum { ROUND_NOT, ROUND_BF16, ROUND_HALFWAY }; /* to values of bf16, to those between two */
enum { PATTERN_RANDOM, PATTERN_EMPTY, PATTERN_ONE };

enum { TRIAL_BLOCKS = 32, TRIAL_EXPERTS = 128, TRIAL_LINEARS = 2 * TRIAL_EXPERTS };

struct trial_block {
  enum { BLOCK_INPUT, BLOCK_RESULT, BLOCK_SCRATCH } role;
  enum dtype type;
  void *memory;         /* of the device, before trial_finish */
  float *host;          /* after it; of any type as f32       */
  int64_t values, item; /* item: values of one item, 0: not divided into items */
};

struct trial {
  struct exec *ex;
  const struct shape *s;
  int64_t begin, count;
  uint64_t draws;
  bool poisoned; /* weights made now are NaN */
  bool widened;  /* weights of 16 bits come as f32 of the same values */
  bool again;    /* all that is asked for is there already */
  int blocks, linears, convs;
  struct trial_block block[TRIAL_BLOCKS];
  struct linear *linear[TRIAL_LINEARS];
  struct conv *conv[CONV_BRANCHES];
};

/* A value that no operation computes, for elements of f32 or int32 that have not been written. */
extern const uint32_t trial_unwritten;

void trial_begin(struct trial *t, struct exec *ex, const struct shape *s, int64_t begin,
                 int64_t count);
/* After a run: the next run of the same operation finds the memory, the values and the weights of
 * the first, as it left them. */
void trial_again(struct trial *t);
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
/* trial_items in the compute type. */
struct act trial_acts(struct trial *t, int64_t item);
/* Host values on the device. */
void *trial_upload(struct trial *t, const void *values, int64_t n);
/* Results, not initialised: `item` values for each item, or n that are compared only whole. */
void *trial_results(struct trial *t, int64_t item);
void *trial_result(struct trial *t, int64_t n);
struct act trial_act_results(struct trial *t, int64_t item);
struct act trial_act_result(struct trial *t, int64_t n);
/* Results that start as random items. */
float *trial_in_place(struct trial *t, int64_t item);
/* Working memory that is not compared. */
void *trial_scratch(struct trial *t, int64_t n);
struct act trial_act_scratch(struct trial *t, int64_t n);

/* parts of `out` rows each (paired: two). */
struct linear *trial_linear(struct trial *t, int in, int out, int parts, bool paired, bool bias);
struct conv *trial_conv(struct trial *t);

/* The random source of all the above: n normals; whole numbers 0 .. below - 1. */
void trial_normal(struct trial *t, float *out, int64_t n);
uint32_t trial_below(struct trial *t, uint32_t below);

#endif

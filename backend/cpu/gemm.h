/* Matrix products y = finish(x W^T + b), many of them at a time.
 *
 * Names here and elsewhere: a tile (micro-tile) is what a kernel makes, `rows` times `columns` (MR
 * times NR); a strip is what it reads of x (packed A), a panel what it reads of W (packed B), both
 * `depth` inputs (KC) at most; a task is a block of rows times a block of panels (MC, NC);
 * `finish` is the epilogue. A comes from a row source, B from panels.h. */
#ifndef BACKEND_CPU_GEMM_H
#define BACKEND_CPU_GEMM_H

#include "backend/cpu/state.h"

enum { GEMM_BESIDE = CONV_BRANCHES /* products of one x, see struct gemm */ };

struct row_source;

/* y [rows, out] = finish(x [rows, in] W^T + b); ldx and ldy elements between rows. With an index,
 * row i of x is row index[i]; with a source, what that makes of x.
 *
 * `beside` is a product of the same x, of which w, finish, y and ldy count, and so on, up to
 * GEMM_BESIDE in all: strips are then copied once for all of them. */
struct gemm {
  const struct linear *w;
  enum cpu_finish finish;
  const void *x;
  const int32_t *index;
  const struct row_source *source; /* NULL: rows in memory */
  const void *view;                /* of the source: what rows of x are */
  void *y;
  int64_t ldx, ldy, rows;
  const struct gemm *beside;
};

/* Inputs begin .. begin + count - 1. */
struct inputs {
  int begin, count;
};

/* Rows of y that belong to consecutive rows of x: the first, how many, and their distance. */
struct places {
  int64_t row, apart;
  int rows;
};

/* How a product reads the rows row .. row + rows - 1 of x, at most a strip of them. */
struct row_source {
  /* Their inputs to those of a strip. */
  void (*load)(char *strip, const struct gemm *g, const struct gemm_kernels *k, int64_t row,
               int rows, struct inputs inputs);
  /* Brings them nearer, before they are loaded; NULL: they are near already. */
  void (*prefetch)(const struct gemm *g, int64_t row, int rows, struct inputs inputs);
  /* Of these inputs, those that are not 0 for each of the rows: all that a product of finite
   * weights needs. Begins and, but for the last of all, ends at a multiple of k->unit from the
   * first. NULL: all of them. */
  struct inputs (*needed)(const struct gemm *g, const struct gemm_kernels *k, int64_t row, int rows,
                          struct inputs all);
  /* The rows where they are, if that takes few enough segments. NULL: they are copied. */
  bool (*segments)(struct cpu_segments *out, const struct gemm *g, int64_t row, int rows,
                   struct inputs inputs);
  /* Where the first of their results go to. NULL: row i to row i. */
  struct places (*places)(const struct gemm *g, int64_t row, int rows);
};

/* A list of independent products, made on demand: product i is at(source, i). */
struct gemm_list {
  int count;
  struct gemm (*at)(const void *source, int i);
  const void *source;
};

void gemm_run(struct exec *ex, const struct gemm_list *list);
void gemm_run_one(struct exec *ex, const struct gemm *g);

/* What follows the first product of an expert. */
static inline enum cpu_finish finish_of(enum activation activation) {
  static const enum cpu_finish finish[] = {[ACTIVATION_GELU] = FINISH_GELU,
                                           [ACTIVATION_SWIGLU] = FINISH_SWIGLU,
                                           [ACTIVATION_RELU] = FINISH_RELU,
                                           [ACTIVATION_SILU] = FINISH_SILU};
  return finish[activation];
}

#endif

/* All pairs of rows of two sets, block by block: products in double by BLAS, memory that does not
 * grow with the sets. */
#ifndef EVAL_PAIRS_H
#define EVAL_PAIRS_H

#include "eval/metrics.h"

/* DITMOE_NONFINITE naming the first row of values [n, dims] that has a NaN or an infinity, counted
 * from `first`; `what` the rows are. */
enum ditmoe_status rows_finite(struct ditmoe_ctx *ctx, const char *what, const float *values,
                               int64_t n, int dims, int64_t first);

/* Rows a .. a + rows - 1 of one set with rows b .. b + columns - 1 of the other. */
struct pair_block {
  int64_t a, b;
  int rows, columns;
  const double *products; /* [rows, columns] */
};

typedef void pair_visit(void *user, const struct pair_block *block);

/* Visits the blocks of x y^T. y NULL: of x x^T, those with b >= a alone; a block with b == a is
 * whole. Rows must be finite. */
enum ditmoe_status pairs_visit(struct ditmoe_ctx *ctx, const struct rows *x, const struct rows *y,
                               pair_visit *visit, void *user);

#endif

#include "eval/pairs.h"

struct kernel_sum {
  int dims;
  bool self; /* pairs of a set with itself: each counts twice, rows with themselves do not */
  double sum;
};

static void add_block(void *user, const struct pair_block *block) {
  struct kernel_sum *kernel = user;
  const bool diagonal = kernel->self && block->a == block->b;
  double sum = 0;
  for (int i = 0; i < block->rows; i++) {
    const double *product = block->products + (int64_t)i * block->columns;
    double row = 0;
    for (int j = 0; j < block->columns; j++) {
      const double base = product[j] / kernel->dims + 1;
      if (!diagonal || i != j) row += base * base * base;
    }
    sum += row;
  }
  kernel->sum += kernel->self && !diagonal ? 2 * sum : sum;
}

/* Mean of the kernel over pairs of x and y, or with y NULL of different rows of x. */
static enum ditmoe_status mean_kernel(struct ditmoe_ctx *ctx, const struct rows *x,
                                      const struct rows *y, double *mean) {
  struct kernel_sum kernel = {.dims = x->dims, .self = !y};
  TRY(pairs_visit(ctx, x, y, add_block, &kernel));
  *mean = kernel.sum / ((double)x->count * (double)(y ? y->count : x->count - 1));
  return DITMOE_OK;
}

enum ditmoe_status kernel_distance(struct ditmoe_ctx *ctx, const struct rows *a,
                                   const struct rows *b, double *distance) {
  double within_a, within_b, between;
  if (a->dims != b->dims)
    return fail(ctx, DITMOE_USAGE, "features of %d and of %d dimensions", a->dims, b->dims);
  if (a->count < 2 || b->count < 2)
    return fail(ctx, DITMOE_USAGE,
                "a kernel distance needs at least 2 images on each side; there are %lld and %lld",
                (long long)a->count, (long long)b->count);
  TRY(rows_finite(ctx, "features of the reference", a->values, a->count, a->dims, 0));
  TRY(rows_finite(ctx, "features of the samples", b->values, b->count, b->dims, 0));
  TRY(mean_kernel(ctx, a, NULL, &within_a));
  TRY(mean_kernel(ctx, b, NULL, &within_b));
  TRY(mean_kernel(ctx, a, b, &between));
  *distance = within_a + within_b - 2 * between;
  return DITMOE_OK;
}

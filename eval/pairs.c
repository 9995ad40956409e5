#include "eval/pairs.h"
#include "base/blas.h"
#include "base/tensor.h"

enum { BLOCK = 1024 }; /* rows: 3 blocks of doubles are 40 MiB at 2048 dimensions */

enum ditmoe_status rows_finite(struct ditmoe_ctx *ctx, const char *what, const float *values,
                               int64_t n, int dims, int64_t first) {
  for (int64_t i = 0; i < n; i++)
    if (!f32_all_finite(values + i * dims, dims))
      return fail(ctx, DITMOE_NONFINITE, "%s: row %lld has a value that is not finite", what,
                  (long long)(first + i));
  return DITMOE_OK;
}

/* Rows from `first` on, as many as there are in a block. */
static int widen_block(double *out, const struct rows *set, int64_t first) {
  const int64_t left = set->count - first, n = left < BLOCK ? left : BLOCK;
  const float *values = set->values + first * set->dims;
  for (int64_t i = 0; i < n * set->dims; i++) out[i] = (double)values[i];
  return (int)n;
}

enum ditmoe_status pairs_visit(struct ditmoe_ctx *ctx, const struct rows *x, const struct rows *y,
                               pair_visit *visit, void *user) {
  const struct rows *other = y ? y : x;
  const int dims = x->dims;
  const size_t block = (size_t)BLOCK * (size_t)dims;
  double *left = NULL, *right, *products;
  TRY(mem_alloc(ctx, 2 * block + (size_t)BLOCK * BLOCK, sizeof *left, "blocks of features", &left));
  right = left + block;
  products = right + block;
  for (int64_t a = 0; a < x->count; a += BLOCK) {
    const int rows = widen_block(left, x, a);
    for (int64_t b = y ? 0 : a; b < other->count; b += BLOCK) {
      const int columns = widen_block(right, other, b);
      blas.cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, dims, 1, left, dims,
                       right, dims, 0, products, columns);
      visit(user, &(struct pair_block){a, b, rows, columns, products});
    }
  }
  mem_free(ctx, left);
  return DITMOE_OK;
}

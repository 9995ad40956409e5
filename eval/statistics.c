#include "base/blas.h"
#include "eval/pairs.h"

#include <string.h>

/* Rows that are added to the scatter at once: always as many, whatever the batches were, so that
 * sums have one order. */
enum { BLOCK = 256 };

struct moments {    /* and behind it, its arrays */
  int dims, filled; /* rows in the block */
  int64_t count;
  /* Of rows minus the first one: numbers of the size of the spread lose nothing where the mean is
   * subtracted at last. */
  double *first;   /* [dims]                                   */
  double *sum;     /* [dims]                                   */
  double *block;   /* [BLOCK, dims]                            */
  double *scatter; /* [dims, dims] upper triangle, full blocks */
};

enum ditmoe_status moments_create(struct ditmoe_ctx *ctx, int dims, struct moments **out) {
  const size_t d = (size_t)dims;
  const size_t bytes = d * (2 + BLOCK + d) * sizeof(double);
  struct moments *moments;
  TRY(mem_zalloc(ctx, sizeof *moments + bytes, 1, "mean and covariance", out));
  moments = *out;
  moments->dims = dims;
  moments->first = (double *)(void *)(moments + 1);
  moments->sum = moments->first + d;
  moments->block = moments->sum + d;
  moments->scatter = moments->block + BLOCK * d;
  return DITMOE_OK;
}

void moments_free(struct ditmoe_ctx *ctx, struct moments *moments) { mem_free(ctx, moments); }

/* The rows of the block onto a scatter. */
static void add_block(const struct moments *moments, double *scatter) {
  const int d = moments->dims;
  blas.cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, d, moments->filled, 1, moments->block, d,
                   1, scatter, d);
}

enum ditmoe_status moments_add(struct ditmoe_ctx *ctx, struct moments *moments, const float *rows,
                               int64_t n) {
  const int d = moments->dims;
  TRY(rows_finite(ctx, "features", rows, n, d, moments->count));
  for (int64_t i = 0; i < n; i++) {
    const float *row = rows + i * d;
    double *out = moments->block + (int64_t)moments->filled * d;
    for (int c = 0; moments->count == 0 && c < d; c++) moments->first[c] = (double)row[c];
    for (int c = 0; c < d; c++) {
      out[c] = (double)row[c] - moments->first[c];
      moments->sum[c] += out[c];
    }
    moments->count++;
    if (++moments->filled < BLOCK) continue;
    add_block(moments, moments->scatter);
    moments->filled = 0;
  }
  return DITMOE_OK;
}

enum ditmoe_status moments_read(struct ditmoe_ctx *ctx, struct moments *moments, double *mean,
                                double *covariance) {
  const int64_t d = moments->dims;
  const double n = (double)moments->count;
  if (moments->count < 2)
    return fail(ctx, DITMOE_USAGE, "a covariance needs at least 2 images; there %s %lld",
                moments->count == 1 ? "is" : "are", (long long)moments->count);
  memcpy(covariance, moments->scatter, (size_t)(d * d) * sizeof *covariance);
  if (moments->filled > 0) add_block(moments, covariance);
  for (int64_t i = 0; i < d; i++) {
    mean[i] = moments->first[i] + moments->sum[i] / n;
    for (int64_t j = i; j < d; j++) {
      const double scatter = covariance[i * d + j] - moments->sum[i] * moments->sum[j] / n;
      covariance[i * d + j] = scatter / (n - 1);
    }
    for (int64_t j = 0; j < i; j++) covariance[i * d + j] = covariance[j * d + i];
  }
  return DITMOE_OK;
}

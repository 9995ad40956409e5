#include "base/blas.h"
#include "eval/metrics.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Above it LAPACK's count of work space, 2 n^2 + 6 n + 1, leaves an int. */
enum { DIMS_MAX = 32000 };

/* Matrices are symmetric, or column-major as LAPACK has them. */
struct workspace {
  int n;
  double *factor; /* [n, n] eigenvectors, then F with S = F F^T, [n, rank] */
  double *values; /* [n] eigenvalues, ascending                            */
  double *space;  /* [size]                                                */
  lapack_int size, *integers, integer_size;
};

static enum ditmoe_status workspace_init(struct ditmoe_ctx *ctx, int n, struct workspace *out) {
  const size_t width = (size_t)n, size = 2 * width * width + 6 * width + 1;
  *out = (struct workspace){.n = n, .size = (lapack_int)size, .integer_size = 5 * n + 3};
  TRY(mem_alloc(ctx, width * width + width + size, sizeof *out->factor, "Frechet distance",
                &out->factor));
  out->values = out->factor + width * width;
  out->space = out->values + width;
  return mem_alloc(ctx, (size_t)out->integer_size, sizeof *out->integers, "Frechet distance",
                   &out->integers);
}

static void workspace_fini(struct ditmoe_ctx *ctx, struct workspace *work) {
  mem_free(ctx, work->factor);
  mem_free(ctx, work->integers);
}

static void load(struct workspace *work, const struct gaussian *g) {
  memcpy(work->factor, g->covariance, (size_t)g->dims * (size_t)g->dims * sizeof *work->factor);
}

/* By pivoted Cholesky: an eighth of the time of an eigen-decomposition. An estimate, and nothing
 * else rests on it. */
static int estimated_rank(struct workspace *work, const struct gaussian *g) {
  lapack_int rank = 0;
  load(work, g);
  blas.LAPACKE_dpstrf_work(LAPACK_COL_MAJOR, 'L', work->n, work->factor, work->n, work->integers,
                           &rank, -1, work->space);
  return rank;
}

static double clipped_share(const double *values, int n) {
  double clipped = 0, sum = 0;
  for (int i = 0; i < n; i++) {
    clipped += fmax(0, -values[i]);
    sum += fabs(values[i]);
  }
  return sum > 0 ? clipped / sum : 0;
}

/* The factor of g's covariance without the directions in which it is 0 up to rounding: the root of
 * their noise is large, 1e-8 of the largest eigenvalue each. */
static enum ditmoe_status decompose(struct ditmoe_ctx *ctx, struct workspace *work,
                                    const struct gaussian *g, int *rank, double *clipped) {
  const int n = work->n;
  load(work, g);
  if (blas.LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'L', n, work->factor, n, work->values,
                               work->space, work->size, work->integers, work->integer_size) != 0)
    return fail(ctx, DITMOE_FAILED, "the eigenvalues of a covariance did not converge");
  const double least = n * DBL_EPSILON * fmax(0, work->values[n - 1]);
  *clipped = clipped_share(work->values, n);
  *rank = 0;
  for (int i = 0; i < n; i++) {
    if (!(work->values[i] > least)) continue;
    const double *vector = work->factor + (size_t)i * (size_t)n, root = sqrt(work->values[i]);
    double *out = work->factor + (size_t)(*rank)++ * (size_t)n;
    for (int c = 0; c < n; c++) out[c] = root * vector[c];
  }
  return DITMOE_OK;
}

/* tr (S1 S2)^(1/2): F^T S2 F has the eigenvalues of S1^(1/2) S2 S1^(1/2) with one product less, and
 * only as many as S1 has. */
static enum ditmoe_status trace_root(struct ditmoe_ctx *ctx, struct workspace *work, int rank,
                                     const struct gaussian *other, double *trace, double *clipped) {
  const int n = work->n;
  const size_t entries = (size_t)rank * (size_t)rank, rest = (size_t)n * (size_t)n;
  double *matrix = work->space, *product = work->space + rest;
  *trace = *clipped = 0;
  if (rank == 0) return DITMOE_OK;
  blas.cblas_dsymm(CblasColMajor, CblasLeft, CblasLower, n, rank, 1, other->covariance, n,
                   work->factor, n, 0, product, n);
  blas.cblas_dgemm(CblasColMajor, CblasTrans, CblasNoTrans, rank, rank, n, 1, work->factor, n,
                   product, n, 0, matrix, rank);
  for (size_t i = 0; i < entries; i++)
    if (!isfinite(matrix[i]))
      return fail(ctx, DITMOE_NONFINITE, "the product of the covariances is too large");
  if (blas.LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'N', 'L', rank, matrix, rank, work->values,
                               product, work->size - (lapack_int)rest, work->integers,
                               work->integer_size) != 0)
    return fail(ctx, DITMOE_FAILED, "the eigenvalues of the product did not converge");
  for (int i = 0; i < rank; i++) *trace += sqrt(fmax(0, work->values[i]));
  *clipped = clipped_share(work->values, rank);
  return DITMOE_OK;
}

static enum ditmoe_status check_finite(struct ditmoe_ctx *ctx, const struct gaussian *g) {
  const size_t n = (size_t)g->dims;
  for (size_t i = 0; i < n; i++)
    if (!isfinite(g->mean[i]))
      return fail(ctx, DITMOE_NONFINITE, "value %zu of a mean is not finite", i);
  for (size_t i = 0; i < n * n; i++)
    if (!isfinite(g->covariance[i]))
      return fail(ctx, DITMOE_NONFINITE, "value [%zu, %zu] of a covariance is not finite", i / n,
                  i % n);
  return DITMOE_OK;
}

static double trace(const struct gaussian *g) {
  double sum = 0;
  for (size_t i = 0, n = (size_t)g->dims; i < n; i++) sum += g->covariance[i * n + i];
  return sum;
}

enum ditmoe_status frechet_distance(struct ditmoe_ctx *ctx, const struct gaussian *a,
                                    const struct gaussian *b, double *distance, double *clipped) {
  struct workspace work = {0};
  double sum = 0, root, clipped_one, clipped_product;
  int rank;
  enum ditmoe_status status;
  if (a->dims != b->dims)
    return fail(ctx, DITMOE_USAGE, "statistics of %d and of %d dimensions", a->dims, b->dims);
  if (a->dims < 1 || a->dims > DIMS_MAX)
    return fail(ctx, DITMOE_USAGE, "statistics of %d dimensions", a->dims);
  TRY(check_finite(ctx, a));
  TRY(check_finite(ctx, b));
  TRY_DONE(workspace_init(ctx, a->dims, &work));
  /* The factor of the one with fewer directions: then no eigenvalue of the product is 0, whose
   * computed value would be noise and have a large root. */
  const bool swap = estimated_rank(&work, b) < estimated_rank(&work, a);
  TRY_DONE(decompose(ctx, &work, swap ? b : a, &rank, &clipped_one));
  TRY_DONE(trace_root(ctx, &work, rank, swap ? a : b, &root, &clipped_product));
  for (int i = 0; i < a->dims; i++) sum += (a->mean[i] - b->mean[i]) * (a->mean[i] - b->mean[i]);
  sum += trace(a) + trace(b) - 2 * root;
  if (!isfinite(sum)) TRY_DONE(fail(ctx, DITMOE_NONFINITE, "the distance is too large"));
  *distance = sum;
  *clipped = fmax(clipped_one, clipped_product);
done:
  workspace_fini(ctx, &work);
  return status;
}

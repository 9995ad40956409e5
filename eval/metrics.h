/* The metrics, from features and statistics; no images and no network here. Features are f32, rows
 * of one image each; all sums are in double, in blocks of fixed size: no result depends on batches
 * or threads by more than the rounding of LAPACK. Whoever calls has loaded it (base/blas.h). */
#ifndef EVAL_METRICS_H
#define EVAL_METRICS_H

#include "base/memory.h"

#include <stdint.h>

/* statistics.c: mean and covariance of a stream of rows, in one pass. */

struct moments; /* being added up */

enum ditmoe_status moments_create(struct ditmoe_ctx *ctx, int dims, struct moments **out);
void moments_free(struct ditmoe_ctx *ctx, struct moments *moments); /* NULL is allowed */
/* rows [n, dims] */
enum ditmoe_status moments_add(struct ditmoe_ctx *ctx, struct moments *moments, const float *rows,
                               int64_t n);
/* mean [dims], covariance [dims, dims] with divisor n - 1; DITMOE_USAGE for fewer than 2 rows,
 * DITMOE_NONFINITE. The rows added may be followed by more. */
enum ditmoe_status moments_read(struct ditmoe_ctx *ctx, struct moments *moments, double *mean,
                                double *covariance);

/* A normal distribution. */
struct gaussian {
  int dims;
  const double *mean, *covariance; /* [dims], [dims, dims] */
};

/* frechet.c: |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), the last from the eigenvalues of
 * S1^(1/2) S2 S1^(1/2), which is symmetric: exact for covariances of any rank, never complex.
 * *clipped: what was cut off below 0, as a share of the sum of all eigenvalues (of S1 and of the
 * product, the larger). DITMOE_NONFINITE if a value is not finite. */
enum ditmoe_status frechet_distance(struct ditmoe_ctx *ctx, const struct gaussian *a,
                                    const struct gaussian *b, double *distance, double *clipped);

/* A set of features in memory. */
struct rows {
  const float *values; /* [count, dims] */
  int64_t count;
  int dims;
};

/* neighbours.c: improved precision and recall. A point's radius is its (k + 1)-th smallest distance
 * to its own set, itself included; precision is the share of samples within the radius of any
 * reference, recall the share of references within the radius of any sample. Distances in double,
 * as |u|^2 + |v|^2 - 2 u v, or from differences where that cancels: equal points are 0 apart.
 * radii_*: [count] squared, or NULL if they are not wanted. DITMOE_USAGE for fewer than k + 1 rows,
 * DITMOE_NONFINITE. */
enum ditmoe_status precision_recall(struct ditmoe_ctx *ctx, const struct rows *reference,
                                    const struct rows *samples, int k, double *precision,
                                    double *recall, double *reference_radii, double *sample_radii);

/* kernel.c: unbiased squared maximum mean discrepancy of kernel (x y / dims + 1)^3 over all pairs:
 * KID without subsets. DITMOE_USAGE for fewer than 2 rows, DITMOE_NONFINITE. */
enum ditmoe_status kernel_distance(struct ditmoe_ctx *ctx, const struct rows *a,
                                   const struct rows *b, double *distance);

/* score.c: Inception Score: exp of the mean divergence between the class probabilities of an image
 * and their mean, in consecutive splits, the last one shorter; the mean over splits. Streams. */

struct score; /* being added up */

enum ditmoe_status score_create(struct ditmoe_ctx *ctx, int classes, int64_t split,
                                struct score **out);
void score_free(struct ditmoe_ctx *ctx, struct score *score);
/* probabilities [n, classes] */
enum ditmoe_status score_add(struct ditmoe_ctx *ctx, struct score *score,
                             const float *probabilities, int64_t n);
/* The same of logits, whose softmax is taken first. */
enum ditmoe_status score_add_logits(struct ditmoe_ctx *ctx, struct score *score,
                                    const float *logits, int64_t n);
/* DITMOE_USAGE if nothing was added. */
enum ditmoe_status score_read(struct ditmoe_ctx *ctx, const struct score *score, double *out);

#endif

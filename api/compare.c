/* Two sets to numbers. */
#include "api/set.h"
#include "base/blas.h"
#include "eval/metrics.h"

#include <string.h>

enum { NEIGHBOURS = 3 }; /* k of improved precision and recall */

static enum ditmoe_status lacks(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                const char *what, const char *measure) {
  return fail(ctx, DITMOE_USAGE, "%s: has no %s, which %s needs", set->path, what, measure);
}

static enum ditmoe_status frechet(struct ditmoe_ctx *ctx, const struct ditmoe_set *reference,
                                  const struct ditmoe_set *samples, bool spatial, double *distance,
                                  double *clipped) {
  const char *what = spatial ? "spatial statistics (mu_s, sigma_s)" : "statistics (mu, sigma)";
  const char *measure = spatial ? "the spatial Frechet distance" : "the Frechet distance";
  const struct set_normal *a = spatial ? &reference->spatial : &reference->pool;
  const struct set_normal *b = spatial ? &samples->spatial : &samples->pool;
  if (!a->dims) return lacks(ctx, reference, what, measure);
  if (!b->dims) return lacks(ctx, samples, what, measure);
  if (a->dims != b->dims)
    return fail(ctx, DITMOE_FORMAT, "%s has features of %d dimensions, %s of %d", reference->path,
                a->dims, samples->path, b->dims);
  const struct gaussian first = {a->dims, a->mean, a->covariance};
  const struct gaussian second = {b->dims, b->mean, b->covariance};
  return frechet_distance(ctx, &first, &second, distance, clipped);
}

static enum ditmoe_status find_rows(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                    const char *measure, int64_t least, struct rows *out) {
  if (!set->features) return lacks(ctx, set, "features of its images", measure);
  if (set->info.images < least)
    return fail(ctx, DITMOE_NONFINITE, "%s: %s needs at least %lld images, not %lld", set->path,
                measure, (long long)least, (long long)set->info.images);
  *out = (struct rows){set->features, set->info.images, set->dims};
  return DITMOE_OK;
}

/* Features that were computed must come from the same weights and the same resizing. */
static enum ditmoe_status check_networks(struct ditmoe_ctx *ctx, const struct ditmoe_set *reference,
                                         const struct ditmoe_set *samples) {
  const struct ditmoe_features_info *a = &reference->network, *b = &samples->network;
  if (!a->kind || !b->kind) return DITMOE_OK;
  if (strcmp(a->sha256, b->sha256) == 0 && strcmp(a->resize, b->resize) == 0) return DITMOE_OK;
  return fail(ctx, DITMOE_USAGE, "%s and %s: features of different networks or resize rules",
              reference->path, samples->path);
}

static enum ditmoe_status precision(struct ditmoe_ctx *ctx, const struct ditmoe_set *reference,
                                    const struct ditmoe_set *samples, struct ditmoe_scores *out) {
  static const char measure[] = "precision and recall";
  struct rows a, b;
  TRY(find_rows(ctx, reference, measure, NEIGHBOURS + 1, &a));
  TRY(find_rows(ctx, samples, measure, NEIGHBOURS + 1, &b));
  return precision_recall(ctx, &a, &b, NEIGHBOURS, &out->precision, &out->recall, NULL, NULL);
}

static enum ditmoe_status kernel(struct ditmoe_ctx *ctx, const struct ditmoe_set *reference,
                                 const struct ditmoe_set *samples, struct ditmoe_scores *out) {
  static const char measure[] = "the kernel distance";
  struct rows a, b;
  TRY(find_rows(ctx, reference, measure, 2, &a));
  TRY(find_rows(ctx, samples, measure, 2, &b));
  return kernel_distance(ctx, &a, &b, &out->kernel);
}

enum ditmoe_status ditmoe_compare(struct ditmoe_ctx *ctx, const struct ditmoe_set *reference,
                                  const struct ditmoe_set *samples, unsigned measures,
                                  struct ditmoe_scores *out) {
  struct ditmoe_scores scores = {0};
  TRY(blas_load(ctx, samples->threads));
  TRY(check_networks(ctx, reference, samples));
  if (measures & DITMOE_FRECHET)
    TRY(frechet(ctx, reference, samples, false, &scores.frechet, &scores.clipped));
  if (measures & DITMOE_SPATIAL)
    TRY(frechet(ctx, reference, samples, true, &scores.spatial_frechet, &scores.spatial_clipped));
  if (measures & DITMOE_INCEPTION) {
    if (!samples->scored) return lacks(ctx, samples, "class probabilities", "the Inception Score");
    scores.inception_score = samples->score;
  }
  if (measures & DITMOE_PRECISION) TRY(precision(ctx, reference, samples, &scores));
  if (measures & DITMOE_KERNEL) TRY(kernel(ctx, reference, samples, &scores));
  *out = scores;
  return DITMOE_OK;
}

#include "eval/pairs.h"

#include <math.h>

/* Below this share of the norms, |u|^2 - 2 u v + |v|^2 has lost half of its digits, and points that
 * are equal would seem apart: such distances are summed from differences. */
static const double CLOSE = 1e-6;

struct points {
  struct rows rows;
  double *norms; /* [count] squared */
  double *radii; /* [count] squared */
};

static double sum_differences(const float *u, const float *v, int dims) {
  double sum[4] = {0};
  for (int c = 0; c < dims; c++) {
    const double d = (double)u[c] - (double)v[c];
    sum[c % 4] += d * d;
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static double squared_distance(const struct points *u, int64_t i, const struct points *v, int64_t j,
                               double product) {
  const int dims = u->rows.dims;
  const double norms = u->norms[i] + v->norms[j], distance = norms - 2 * product;
  if (distance > CLOSE * norms) return distance;
  return sum_differences(u->rows.values + i * dims, v->rows.values + j * dims, dims);
}

/* The k + 1 smallest distances of each point so far, ascending. */
struct nearest {
  const struct points *points;
  int k;
  double *kept; /* [count, k + 1] */
};

static double nearest_last(const struct nearest *nearest, int64_t i) {
  return nearest->kept[i * (nearest->k + 1) + nearest->k];
}

static void nearest_offer(struct nearest *nearest, int64_t i, double distance) {
  double *kept = nearest->kept + i * (nearest->k + 1);
  int at = nearest->k;
  if (!(distance < kept[at])) return;
  for (; at > 0 && kept[at - 1] > distance; at--) kept[at] = kept[at - 1];
  kept[at] = distance;
}

static void offer_block(void *user, const struct pair_block *block) {
  struct nearest *nearest = user;
  const struct points *points = nearest->points;
  const bool diagonal = block->a == block->b;
  for (int64_t i = block->a; i < block->a + block->rows; i++) {
    const double *product = block->products + (i - block->a) * block->columns;
    for (int64_t j = block->b; j < block->b + block->columns; j++) {
      /* Nothing is nearer than 0: sets of equal images would be all differences. */
      if (nearest_last(nearest, i) == 0 && nearest_last(nearest, j) == 0) continue;
      const double distance =
          i == j ? 0 : squared_distance(points, i, points, j, product[j - block->b]);
      nearest_offer(nearest, i, distance);
      if (!diagonal) nearest_offer(nearest, j, distance);
    }
  }
}

static enum ditmoe_status points_init(struct ditmoe_ctx *ctx, const struct rows *rows,
                                      const char *what, int k, struct points *out) {
  const int64_t count = rows->count;
  *out = (struct points){.rows = *rows};
  if (count < k + 1)
    return fail(ctx, DITMOE_USAGE,
                "precision and recall with k = %d need at least %d images on each side; %s: %lld",
                k, k + 1, what, (long long)count);
  TRY(rows_finite(ctx, what, rows->values, count, rows->dims, 0));
  TRY(mem_alloc(ctx, (size_t)count, 2 * sizeof *out->norms, "norms and radii", &out->norms));
  out->radii = out->norms + count;
  for (int64_t i = 0; i < count; i++) {
    const float *row = rows->values + i * rows->dims;
    out->norms[i] = 0;
    for (int c = 0; c < rows->dims; c++) out->norms[i] += (double)row[c] * (double)row[c];
  }
  return DITMOE_OK;
}

static enum ditmoe_status points_radii(struct ditmoe_ctx *ctx, struct points *points, int k) {
  struct nearest nearest = {.points = points, .k = k};
  const int64_t count = points->rows.count;
  const size_t kept = (size_t)count * (size_t)(k + 1);
  TRY(mem_alloc(ctx, kept, sizeof *nearest.kept, "nearest neighbours", &nearest.kept));
  for (size_t i = 0; i < kept; i++) nearest.kept[i] = INFINITY;
  enum ditmoe_status status = pairs_visit(ctx, &points->rows, NULL, offer_block, &nearest);
  for (int64_t i = 0; status == DITMOE_OK && i < count; i++)
    points->radii[i] = nearest_last(&nearest, i);
  mem_free(ctx, nearest.kept);
  return status;
}

struct cover {
  const struct points *reference, *samples;
  bool *reached; /* [references] within the radius of a sample */
  bool *inside;  /* [samples] within the radius of a reference */
};

static void cover_block(void *user, const struct pair_block *block) {
  struct cover *cover = user;
  for (int64_t i = block->a; i < block->a + block->rows; i++) {
    const double *product = block->products + (i - block->a) * block->columns;
    for (int64_t j = block->b; j < block->b + block->columns; j++) {
      if (cover->reached[i] && cover->inside[j]) continue;
      const double distance =
          squared_distance(cover->reference, i, cover->samples, j, product[j - block->b]);
      if (distance <= cover->reference->radii[i]) cover->inside[j] = true;
      if (distance <= cover->samples->radii[j]) cover->reached[i] = true;
    }
  }
}

static double share(const bool *flags, int64_t count) {
  int64_t set = 0;
  for (int64_t i = 0; i < count; i++) set += flags[i];
  return (double)set / (double)count;
}

static enum ditmoe_status cover_shares(struct ditmoe_ctx *ctx, const struct points *reference,
                                       const struct points *samples, double *precision,
                                       double *recall) {
  const int64_t references = reference->rows.count, count = samples->rows.count;
  struct cover cover = {.reference = reference, .samples = samples};
  TRY(mem_zalloc(ctx, (size_t)(references + count), sizeof *cover.reached, "points inside",
                 &cover.reached));
  cover.inside = cover.reached + references;
  enum ditmoe_status status =
      pairs_visit(ctx, &reference->rows, &samples->rows, cover_block, &cover);
  if (status == DITMOE_OK) {
    *precision = share(cover.inside, count);
    *recall = share(cover.reached, references);
  }
  mem_free(ctx, cover.reached);
  return status;
}

static void copy_radii(double *out, const struct points *points) {
  for (int64_t i = 0; out && i < points->rows.count; i++) out[i] = points->radii[i];
}

enum ditmoe_status precision_recall(struct ditmoe_ctx *ctx, const struct rows *reference,
                                    const struct rows *samples, int k, double *precision,
                                    double *recall, double *reference_radii, double *sample_radii) {
  struct points r = {0}, s = {0};
  enum ditmoe_status status;
  if (reference->dims != samples->dims)
    return fail(ctx, DITMOE_USAGE, "features of %d and of %d dimensions", reference->dims,
                samples->dims);
  TRY_DONE(points_init(ctx, reference, "features of the reference", k, &r));
  TRY_DONE(points_init(ctx, samples, "features of the samples", k, &s));
  TRY_DONE(points_radii(ctx, &r, k));
  TRY_DONE(points_radii(ctx, &s, k));
  TRY_DONE(cover_shares(ctx, &r, &s, precision, recall));
  copy_radii(reference_radii, &r);
  copy_radii(sample_radii, &s);
done:
  mem_free(ctx, r.norms);
  mem_free(ctx, s.norms);
  return status;
}

/* Metrics against sums written out, closed forms, and sets that are degenerate. */
#include "support.h"

#include "base/blas.h"
#include "base/rng.h"
#include "eval/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NEIGHBOURS = 3 };

static void *allocate(int64_t count, size_t size) {
  void *block = calloc((size_t)count, size);
  assert_non_null(block);
  return block;
}

/* Normal features [count, dims] around `mean`; free() the values. */
static float *draw(uint64_t seed, int64_t count, int dims, float mean) {
  float *values = allocate(count * dims, sizeof *values);
  rng_normal(values, count * dims, seed, 0, 0, RNG_INITIAL_NOISE);
  for (int64_t i = 0; i < count * dims; i++) values[i] += mean;
  return values;
}

/* Mean and covariance of rows. */
struct statistics {
  double *mean, *covariance; /* free() the mean, which the covariance follows */
  struct gaussian gaussian;
};

static struct statistics statistics_create(int dims) {
  struct statistics out;
  out.mean = allocate(dims + (int64_t)dims * dims, sizeof *out.mean);
  out.covariance = out.mean + dims;
  out.gaussian = (struct gaussian){dims, out.mean, out.covariance};
  return out;
}

/* Added `batch` rows at a time, and read after every batch if `look`. */
static struct statistics statistics_of(const float *values, int64_t count, int dims, int64_t batch,
                                       bool look) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct statistics out = statistics_create(dims);
  struct moments *moments;
  assert_ok(ctx, moments_create(ctx, dims, &moments));
  for (int64_t i = 0; i < count; i += batch) {
    const int64_t n = count - i < batch ? count - i : batch;
    assert_ok(ctx, moments_add(ctx, moments, values + i * dims, n));
    if (look && i + n >= 2) assert_ok(ctx, moments_read(ctx, moments, out.mean, out.covariance));
  }
  assert_ok(ctx, moments_read(ctx, moments, out.mean, out.covariance));
  moments_free(ctx, moments);
  return out;
}

/* In two passes. */
static struct statistics written_out(const float *values, int64_t count, int dims) {
  struct statistics out = statistics_create(dims);
  for (int i = 0; i < dims; i++) {
    long double sum = 0;
    for (int64_t r = 0; r < count; r++) sum += (long double)values[r * dims + i];
    out.mean[i] = (double)(sum / (long double)count);
  }
  for (int i = 0; i < dims; i++)
    for (int j = 0; j < dims; j++) {
      long double sum = 0;
      for (int64_t r = 0; r < count; r++)
        sum += ((long double)values[r * dims + i] - (long double)out.mean[i]) *
               ((long double)values[r * dims + j] - (long double)out.mean[j]);
      out.covariance[i * dims + j] = (double)(sum / (long double)(count - 1));
    }
  return out;
}

static void assert_near(const struct statistics *a, const struct statistics *b, double limit) {
  const int d = a->gaussian.dims;
  for (int i = 0; i < d; i++)
    assert_within("mean", fabs(a->mean[i] - b->mean[i]) / fmax(1, fabs(b->mean[i])), limit);
  for (int i = 0; i < d * d; i++)
    assert_within("covariance", fabs(a->covariance[i] - b->covariance[i]), limit);
}

/* The mean is as far away as a float can hold with the spread. */
static void test_moments(void **state) {
  static const float means[] = {0, 1, 1000, 1e6F};
  (void)state;
  for (size_t i = 0; i < sizeof means / sizeof *means; i++) {
    float *values = draw(1, 700, 9, means[i]);
    struct statistics own = statistics_of(values, 700, 9, 700, false);
    struct statistics reference = written_out(values, 700, 9);
    assert_near(&own, &reference, 1e-14);
    free(own.mean), free(reference.mean), free(values);
  }
}

/* The same bits however the rows were added, and whether somebody looked in between. */
static void test_moments_batches(void **state) {
  static const int64_t batches[] = {1, 7, 255, 256, 257, 600};
  const size_t bytes = (9 + 81) * sizeof(double);
  float *values = draw(2, 600, 9, 3);
  struct statistics whole = statistics_of(values, 600, 9, 600, false);
  (void)state;
  for (size_t i = 0; i < 2 * sizeof batches / sizeof *batches; i++) {
    struct statistics parts = statistics_of(values, 600, 9, batches[i / 2], i % 2 == 1);
    assert_memory_equal(whole.mean, parts.mean, bytes);
    free(parts.mean);
  }
  free(whole.mean), free(values);
}

static void test_moments_refused(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct statistics out = statistics_create(4);
  float *values = draw(3, 300, 4, 0);
  struct moments *moments;
  (void)state;
  assert_ok(ctx, moments_create(ctx, 4, &moments));
  assert_fails(ctx, DITMOE_USAGE, "there are 0",
               moments_read(ctx, moments, out.mean, out.covariance));
  assert_ok(ctx, moments_add(ctx, moments, values, 1));
  assert_fails(ctx, DITMOE_USAGE, "there is 1",
               moments_read(ctx, moments, out.mean, out.covariance));
  values[4 * 299 + 2] = NAN;
  assert_fails(ctx, DITMOE_NONFINITE, "row 300", moments_add(ctx, moments, values, 300));
  values[4 * 17] = -INFINITY;
  assert_fails(ctx, DITMOE_NONFINITE, "row 18", moments_add(ctx, moments, values, 300));
  moments_free(ctx, moments);
  free(out.mean), free(values);
}

static double trace(const struct gaussian *g) {
  double sum = 0;
  for (int i = 0; i < g->dims; i++) sum += g->covariance[i * g->dims + i];
  return sum;
}

/* Both orders agree, and are what is expected. */
static void assert_distance(const struct statistics *a, const struct statistics *b,
                            double expected) {
  struct ditmoe_ctx *ctx = test_ctx();
  const struct gaussian *x = &a->gaussian, *y = &b->gaussian;
  const double limit = 1e-13 * fmax(1, fmax(expected, trace(x) + trace(y)));
  double distance, clipped;
  for (int order = 0; order < 2; order++) {
    assert_ok(ctx, frechet_distance(ctx, order ? y : x, order ? x : y, &distance, &clipped));
    assert_within("distance", fabs(distance - expected), limit);
    assert_within("clipped", fabs(clipped), 1e-12);
  }
}

static void test_frechet_diagonal(void **state) {
  enum { D = 40 };
  struct statistics a = statistics_create(D), b = statistics_create(D);
  double expected = 0;
  (void)state;
  for (int i = 0; i < D; i++) {
    const double s = exp(-0.2 * i), t = 1 + sin(i);
    a.mean[i] = 0.1 * i, b.mean[i] = cos(i);
    a.covariance[i * D + i] = s * s, b.covariance[i * D + i] = t * t;
    expected += pow(a.mean[i] - b.mean[i], 2) + pow(s - t, 2);
  }
  assert_distance(&a, &b, expected);
  free(a.mean), free(b.mean);
}

/* u u^T with v v^T, and with the unit matrix; tr ((u u^T) (v v^T))^(1/2) = |u v|. */
static void test_frechet_rank_one(void **state) {
  enum { D = 300 };
  struct statistics one = statistics_create(D), other = statistics_create(D),
                    unit = statistics_create(D);
  float *u = draw(4, 1, D, 0.3F), *v = draw(5, 1, D, 0);
  double uu = 0, vv = 0, uv = 0;
  (void)state;
  for (int i = 0; i < D; i++) {
    uu += (double)u[i] * (double)u[i];
    vv += (double)v[i] * (double)v[i];
    uv += (double)u[i] * (double)v[i];
    unit.covariance[i * D + i] = 1;
    for (int j = 0; j < D; j++) {
      one.covariance[i * D + j] = (double)u[i] * (double)u[j];
      other.covariance[i * D + j] = (double)v[i] * (double)v[j];
    }
  }
  assert_distance(&one, &other, uu + vv - 2 * fabs(uv));
  assert_distance(&one, &unit, uu + D - 2 * sqrt(uu));
  free(one.mean), free(other.mean), free(unit.mean), free(u), free(v);
}

/* A set is at 0 from itself, also with fewer images than dimensions, with 2, with equal ones. */
static void test_frechet_itself(void **state) {
  static const int64_t counts[] = {2, 3, 10, 63, 64, 65, 66, 400};
  (void)state;
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    float *values = draw(6, counts[i], 64, 1);
    struct statistics all = statistics_of(values, counts[i], 64, counts[i], false);
    for (int64_t r = 1; r < counts[i]; r++) memcpy(values + r * 64, values, 64 * sizeof *values);
    struct statistics equal = statistics_of(values, counts[i], 64, counts[i], false);
    double spread = 0;
    for (int c = 0; c < 64; c++) {
      assert_true(equal.mean[c] == (double)values[c]);
      spread += all.covariance[c * 64 + c] + pow(all.mean[c] - equal.mean[c], 2);
    }
    assert_distance(&all, &all, 0);
    assert_distance(&equal, &equal, 0);
    assert_distance(&all, &equal, spread);
    free(all.mean), free(equal.mean), free(values);
  }
}

static void test_frechet_clips(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct statistics bad = statistics_create(3), unit = statistics_create(3);
  double distance, clipped;
  (void)state;
  bad.covariance[0] = 1, bad.covariance[4] = 4, bad.covariance[8] = -0.5;
  for (int i = 0; i < 3; i++) unit.covariance[4 * i] = 1;
  for (int order = 0; order < 2; order++) {
    const struct gaussian *a = order ? &unit.gaussian : &bad.gaussian;
    const struct gaussian *b = order ? &bad.gaussian : &unit.gaussian;
    assert_ok(ctx, frechet_distance(ctx, a, b, &distance, &clipped));
    assert_within("distance", fabs(distance - (4.5 + 3 - 2 * 3)), 1e-14);
    assert_within("clipped", fabs(clipped - 0.5 / 5.5), 1e-15);
  }
  free(bad.mean), free(unit.mean);
}

static void test_frechet_refused(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct statistics a = statistics_create(3), b = statistics_create(3), c = statistics_create(4);
  double distance, clipped;
  (void)state;
  assert_fails(ctx, DITMOE_USAGE, "of 3 and of 4 dimensions",
               frechet_distance(ctx, &a.gaussian, &c.gaussian, &distance, &clipped));
  b.mean[1] = NAN;
  assert_fails(ctx, DITMOE_NONFINITE, "value 1 of a mean",
               frechet_distance(ctx, &a.gaussian, &b.gaussian, &distance, &clipped));
  b.mean[1] = 1e200;
  assert_fails(ctx, DITMOE_NONFINITE, "too large",
               frechet_distance(ctx, &a.gaussian, &b.gaussian, &distance, &clipped));
  b.mean[1] = 0;
  b.covariance[5] = INFINITY;
  assert_fails(ctx, DITMOE_NONFINITE, "value [1, 2] of a covariance",
               frechet_distance(ctx, &b.gaussian, &a.gaussian, &distance, &clipped));
  b.covariance[5] = 0;
  for (int i = 0; i < 3; i++) a.covariance[4 * i] = b.covariance[4 * i] = 1e200;
  assert_fails(ctx, DITMOE_NONFINITE, "too large",
               frechet_distance(ctx, &a.gaussian, &b.gaussian, &distance, &clipped));
  free(a.mean), free(b.mean), free(c.mean);
}

/* Neighbours. */

static double apart(const struct rows *a, int64_t i, const struct rows *b, int64_t j) {
  double sum = 0;
  for (int c = 0; c < a->dims; c++)
    sum += pow((double)a->values[i * a->dims + c] - (double)b->values[j * b->dims + c], 2);
  return sum;
}

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double *radii_written_out(const struct rows *rows) {
  double *radii = allocate(rows->count, sizeof *radii);
  double *distances = allocate(rows->count, sizeof *distances);
  for (int64_t i = 0; i < rows->count; i++) {
    for (int64_t j = 0; j < rows->count; j++) distances[j] = apart(rows, i, rows, j);
    qsort(distances, (size_t)rows->count, sizeof *distances, compare_doubles);
    radii[i] = distances[NEIGHBOURS];
  }
  free(distances);
  return radii;
}

/* The share of a's points within the radius of a point of b. */
static double covered(const struct rows *a, const struct rows *b, const double *radii) {
  int64_t count = 0;
  for (int64_t i = 0; i < a->count; i++) {
    bool inside = false;
    for (int64_t j = 0; j < b->count && !inside; j++) inside = apart(a, i, b, j) <= radii[j];
    count += inside;
  }
  return (double)count / (double)a->count;
}

static void check_neighbours(const struct rows *reference, const struct rows *samples) {
  struct ditmoe_ctx *ctx = test_ctx();
  double *reference_radii = radii_written_out(reference);
  double *sample_radii = radii_written_out(samples);
  double *own = allocate(reference->count + samples->count, sizeof *own), precision, recall;
  assert_ok(ctx, precision_recall(ctx, reference, samples, NEIGHBOURS, &precision, &recall, own,
                                  own + reference->count));
  for (int64_t i = 0; i < reference->count; i++)
    assert_within("radius", fabs(own[i] - reference_radii[i]), 1e-12 * reference_radii[i]);
  for (int64_t i = 0; i < samples->count; i++)
    assert_within("radius", fabs(own[reference->count + i] - sample_radii[i]),
                  1e-12 * sample_radii[i]);
  assert_true(precision == covered(samples, reference, reference_radii));
  assert_true(recall == covered(reference, samples, sample_radii));
  free(reference_radii), free(sample_radii), free(own);
}

/* Sets of several blocks, of different sizes, with a part of the points apart. */
static void test_neighbours(void **state) {
  static const int64_t counts[][2] = {{4, 5}, {300, 70}, {1100, 1030}, {30, 1025}};
  (void)state;
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    float *x = draw(7, counts[i][0], 7, 0), *y = draw(8, counts[i][1], 7, 0.8F);
    const struct rows reference = {x, counts[i][0], 7}, samples = {y, counts[i][1], 7};
    check_neighbours(&reference, &samples);
    free(x), free(y);
  }
}

static void assert_shares(const struct rows *reference, const struct rows *samples,
                          double precision, double recall) {
  double own_precision, own_recall;
  assert_ok(test_ctx(), precision_recall(test_ctx(), reference, samples, NEIGHBOURS, &own_precision,
                                         &own_recall, NULL, NULL));
  assert_true(own_precision == precision);
  assert_true(own_recall == recall);
}

/* Points far from the origin: |u|^2 - 2 u v + |v|^2 alone would tell equal ones apart. */
static void test_neighbours_equal(void **state) {
  enum { N = 1100, D = 33 };
  float *a = draw(9, N, D, 100), *b = allocate((int64_t)N * D, sizeof *b);
  const struct rows reference = {a, N, D}, samples = {b, N, D};
  (void)state;
  assert_shares(&reference, &reference, 1, 1);
  assert_shares(&samples, &samples, 1, 1); /* all black */
  assert_shares(&reference, &samples, 0, 0);
  for (int64_t i = 0; i < N; i++) /* 10 points of the reference, over and over: radius 0 */
    memcpy(b + i * D, a + i % 10 * D, D * sizeof *b);
  assert_shares(&reference, &samples, 1, 10.0 / N);
  assert_shares(&samples, &reference, 10.0 / N, 1);
  check_neighbours(&samples, &samples);
  free(a), free(b);
}

static void test_neighbours_refused(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  float *values = draw(10, 10, 4, 0);
  const struct rows few = {values, 3, 4}, enough = {values, 4, 4}, flat = {values, 4, 3};
  const struct rows all = {values, 10, 4};
  double p, r;
  (void)state;
  assert_shares(&enough, &enough, 1, 1);
  assert_fails(ctx, DITMOE_USAGE, "at least 4 images on each side; features of the reference: 3",
               precision_recall(ctx, &few, &enough, NEIGHBOURS, &p, &r, NULL, NULL));
  assert_fails(ctx, DITMOE_USAGE, "at least 4 images on each side; features of the samples: 3",
               precision_recall(ctx, &enough, &few, NEIGHBOURS, &p, &r, NULL, NULL));
  assert_fails(ctx, DITMOE_USAGE, "of 4 and of 3 dimensions",
               precision_recall(ctx, &enough, &flat, NEIGHBOURS, &p, &r, NULL, NULL));
  values[4 * 8 + 3] = INFINITY;
  assert_fails(ctx, DITMOE_NONFINITE, "samples: row 8",
               precision_recall(ctx, &enough, &all, NEIGHBOURS, &p, &r, NULL, NULL));
  assert_fails(ctx, DITMOE_NONFINITE, "reference: row 8", kernel_distance(ctx, &all, &enough, &p));
  free(values);
}

/* Kernel distance. */

static double mean_kernel(const struct rows *a, const struct rows *b, bool different) {
  double sum = 0;
  int64_t pairs = 0;
  for (int64_t i = 0; i < a->count; i++)
    for (int64_t j = 0; j < b->count; j++) {
      double product = 0;
      if (different && i == j) continue;
      for (int c = 0; c < a->dims; c++)
        product += (double)a->values[i * a->dims + c] * (double)b->values[j * b->dims + c];
      sum += pow(product / a->dims + 1, 3);
      pairs++;
    }
  return sum / (double)pairs;
}

static void test_kernel(void **state) {
  static const int64_t counts[][2] = {{2, 2}, {2, 9}, {1030, 1100}};
  struct ditmoe_ctx *ctx = test_ctx();
  (void)state;
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    float *x = draw(11, counts[i][0], 6, 0.5F), *y = draw(12, counts[i][1], 6, 0);
    const struct rows a = {x, counts[i][0], 6}, b = {y, counts[i][1], 6};
    const double expected =
        mean_kernel(&a, &a, true) + mean_kernel(&b, &b, true) - 2 * mean_kernel(&a, &b, false);
    double distance;
    assert_ok(ctx, kernel_distance(ctx, &a, &b, &distance));
    assert_within("kernel distance", fabs(distance - expected), 1e-12);
    free(x), free(y);
  }
}

static void test_kernel_degenerate(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  float values[15] = {0};
  const struct rows black = {values, 5, 3}, one = {values, 1, 3}, flat = {values, 5, 2};
  double distance;
  (void)state;
  assert_ok(ctx, kernel_distance(ctx, &black, &black, &distance));
  assert_true(distance == 0);
  assert_fails(ctx, DITMOE_USAGE, "at least 2 images on each side; there are 5 and 1",
               kernel_distance(ctx, &black, &one, &distance));
  assert_fails(ctx, DITMOE_USAGE, "of 3 and of 2 dimensions",
               kernel_distance(ctx, &black, &flat, &distance));
}

/* Inception Score. */

static double score_of(const float *rows, int64_t n, int classes, int64_t split, bool logits) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct score *score;
  double whole, parts;
  assert_ok(ctx, score_create(ctx, classes, split, &score));
  assert_ok(ctx, (logits ? score_add_logits : score_add)(ctx, score, rows, n));
  assert_ok(ctx, score_read(ctx, score, &whole));
  score_free(ctx, score);
  assert_ok(ctx, score_create(ctx, classes, split, &score));
  for (int64_t i = 0; i < n; i++) {
    assert_ok(ctx, (logits ? score_add_logits : score_add)(ctx, score, rows + i * classes, 1));
    assert_ok(ctx, score_read(ctx, score, &parts));
  }
  score_free(ctx, score);
  assert_true(parts == whole);
  return whole;
}

static void test_score(void **state) {
  enum { N = 23, CLASSES = 4 };
  float even[N * CLASSES], sure[N * CLASSES] = {0};
  (void)state;
  for (int i = 0; i < N * CLASSES; i++) even[i] = 1.0F / CLASSES;
  for (int i = 0; i < N; i++) sure[i * CLASSES + i % CLASSES] = 1;
  assert_within("even", fabs(score_of(even, N, CLASSES, 5, false) - 1), 1e-15);
  assert_within("sure", fabs(score_of(sure, 20, CLASSES, 100, false) - CLASSES), 1e-14);
  /* Splits of 8, 8 and 5 rows: classes 4, 4, and 2, 1, 1, 1 of 5. */
  const double last = exp(log(5) - 0.4 * log(2));
  assert_within("splits", fabs(score_of(sure, 21, CLASSES, 8, false) - (8 + last) / 3), 1e-14);
  assert_within("one", fabs(score_of(sure, 1, CLASSES, 8, false) - 1), 1e-15);
}

static void test_score_logits(void **state) {
  enum { N = 40, CLASSES = 10 };
  float *logits = draw(13, N, CLASSES, 0), *shifted = draw(13, N, CLASSES, 0);
  double expected = 0, mean[CLASSES] = {0}, p[N * CLASSES];
  (void)state;
  for (int i = 0; i < N; i++) {
    double sum = 0;
    for (int c = 0; c < CLASSES; c++) sum += exp((double)logits[i * CLASSES + c]);
    for (int c = 0; c < CLASSES; c++) {
      p[i * CLASSES + c] = exp((double)logits[i * CLASSES + c]) / sum;
      mean[c] += p[i * CLASSES + c] / N;
      shifted[i * CLASSES + c] = logits[i * CLASSES + c] * 1e4F; /* softmax of one class alone */
    }
  }
  for (int i = 0; i < N * CLASSES; i++) expected += p[i] * log(p[i] / mean[i % CLASSES]) / N;
  const double score = score_of(logits, N, CLASSES, 5000, true);
  assert_within("logits", fabs(score - exp(expected)), 1e-14);
  assert_true(score_of(shifted, N, CLASSES, 5000, true) > score);
  free(logits), free(shifted);
}

static void test_score_refused(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  const float good[] = {0.5F, 0.5F}, negative[] = {0.5F, 0.5F, 1.5F, -0.5F}, bad[] = {1, NAN};
  struct score *score;
  double value;
  (void)state;
  assert_ok(ctx, score_create(ctx, 2, 10, &score));
  assert_fails(ctx, DITMOE_USAGE, "needs images", score_read(ctx, score, &value));
  assert_ok(ctx, score_add(ctx, score, good, 1));
  assert_fails(ctx, DITMOE_NONFINITE, "row 1 has", score_add(ctx, score, bad, 1));
  assert_fails(ctx, DITMOE_NONFINITE, "row 1 has", score_add_logits(ctx, score, bad, 1));
  assert_fails(ctx, DITMOE_NONFINITE, "row 2 has a negative", score_add(ctx, score, negative, 2));
  score_free(ctx, score);
}

/* Every allocation may fail; nothing stays behind. */

static enum ditmoe_status everything(struct ditmoe_ctx *ctx) {
  float values[40];
  double mean[4], covariance[16], first, second;
  const struct rows rows = {values, 10, 4};
  const struct gaussian gaussian = {4, mean, covariance};
  struct moments *moments = NULL;
  struct score *score = NULL;
  enum ditmoe_status status;
  rng_normal(values, 40, 14, 0, 0, RNG_INITIAL_NOISE);
  TRY_DONE(moments_create(ctx, 4, &moments));
  TRY_DONE(moments_add(ctx, moments, values, 10));
  TRY_DONE(moments_read(ctx, moments, mean, covariance));
  TRY_DONE(frechet_distance(ctx, &gaussian, &gaussian, &first, &second));
  TRY_DONE(precision_recall(ctx, &rows, &rows, NEIGHBOURS, &first, &second, NULL, NULL));
  TRY_DONE(kernel_distance(ctx, &rows, &rows, &first));
  TRY_DONE(score_create(ctx, 4, 5, &score));
  TRY_DONE(score_add_logits(ctx, score, values, 10));
  status = score_read(ctx, score, &first);
done:
  moments_free(ctx, moments);
  score_free(ctx, score);
  return status;
}

static void test_out_of_memory(void **state) {
  (void)state;
  for (int64_t at = 0, fired = 1; fired; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    enum ditmoe_status status = everything(ctx);
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
}

static int load_blas(void **state) {
  (void)state;
  return (int)blas_load(test_ctx(), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_moments),
      cmocka_unit_test(test_moments_batches),
      cmocka_unit_test(test_moments_refused),
      cmocka_unit_test(test_frechet_diagonal),
      cmocka_unit_test(test_frechet_rank_one),
      cmocka_unit_test(test_frechet_itself),
      cmocka_unit_test(test_frechet_clips),
      cmocka_unit_test(test_frechet_refused),
      cmocka_unit_test(test_neighbours),
      cmocka_unit_test(test_neighbours_equal),
      cmocka_unit_test(test_neighbours_refused),
      cmocka_unit_test(test_kernel),
      cmocka_unit_test(test_kernel_degenerate),
      cmocka_unit_test(test_score),
      cmocka_unit_test(test_score_logits),
      cmocka_unit_test(test_score_refused),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, load_blas, NULL);
}

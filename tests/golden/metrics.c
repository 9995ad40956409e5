/* Kind metrics: the entries of expected.json from features and class probabilities, means,
 * covariances and radii, and the files of statistics. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include "base/blas.h"
#include "eval/metrics.h"
#include "io/npz.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char FEATURES[] = "features.safetensors";
enum { SPLIT = 5000, NEIGHBOURS = 3 };

struct metrics {
  struct golden *g;
  struct case_file file; /* FEATURES */
  const char *expected;  /* name of the file of entries */
  float *probabilities;
  int64_t images;
  int classes;
};

/* What is not compared, and why. */
static const struct {
  const char *key, *why;
} excluded[] = {
    {"precision_float16", "distances in float16, which the library does not offer"},
    {"recall_float16", "distances in float16, which the library does not offer"},
    {"pr_min_relative_margin", "says how near the data are to a tie"},
};

/* Relative to the entry, but never to less than 0.01: a limit of 1e-6 is 1e-8 then. */
static void compare_entry(struct metrics *m, const char *key, double value, double reference,
                          double limit) {
  char line[256];
  snprintf(line, sizeof line, "%s:%s", m->expected, key);
  const double error = fabs(value - reference) / fmax(fabs(reference), 0.01);
  report_add(m->g->report, line, isnan(error) ? INFINITY : error, limit);
}

/* A tensor [count, dims]; mem_free the values. */
static enum ditmoe_status load_rows(struct metrics *m, const char *name, float **values,
                                    struct rows *out) {
  const struct tensor *tensor = checkpoint_find(m->file.checkpoint, name);
  *values = NULL;
  if (!tensor || tensor->rank != 2)
    return fail(m->g->ctx, DITMOE_FORMAT, "%s: no features %s", FEATURES, name);
  TRY(golden_floats(&m->file, name, values, NULL));
  *out = (struct rows){*values, tensor->shape[0], (int)tensor->shape[1]};
  return DITMOE_OK;
}

/* Mean and covariance; mem_free the mean, which the covariance follows. */
struct statistics {
  double *mean;
  struct gaussian gaussian;
};

static enum ditmoe_status moments_of(struct ditmoe_ctx *ctx, const struct rows *rows,
                                     struct statistics *out) {
  const size_t d = (size_t)rows->dims;
  struct moments *moments = NULL;
  enum ditmoe_status status;
  TRY_DONE(moments_create(ctx, rows->dims, &moments));
  TRY_DONE(moments_add(ctx, moments, rows->values, rows->count));
  TRY_DONE(mem_alloc(ctx, d + d * d, sizeof *out->mean, "statistics", &out->mean));
  out->gaussian = (struct gaussian){rows->dims, out->mean, out->mean + d};
  status = moments_read(ctx, moments, out->mean, out->mean + d);
done:
  moments_free(ctx, moments);
  return status;
}

/* Frechet distances. */

static const struct frechet_entry {
  const char *key, *a, *b;
  float columns_a, columns_b; /* not 0: what the first 5 columns become */
  bool single_mean;           /* the means are summed in float32        */
} frechet_entries[] = {
    {"fid_A_B", "A", "B", 0, 0, false},
    {"fid_A_A", "A", "A", 0, 0, false},
    {"fid_A_B_float32_mean", "A", "B", 0, 0, true},
    {"fid_rankdef_C_E", "C", "E", 0, 0, false},
    {"fid_zerovar_C_E", "C", "E", 0.25F, 0.5F, false},
    {"fid_spatial_SA_SB", "SA", "SB", 0, 0, false},
};

/* As NumPy has the mean of float32 rows. */
static void mean_single(const struct rows *rows, double *mean) {
  for (int c = 0; c < rows->dims; c++) {
    float sum = 0;
    for (int64_t i = 0; i < rows->count; i++) sum += rows->values[i * rows->dims + c];
    mean[c] = (double)(sum / (float)rows->count);
  }
}

static enum ditmoe_status load_statistics(struct metrics *m, const char *name, float columns,
                                          bool single_mean, struct statistics *out) {
  float *values;
  struct rows rows;
  enum ditmoe_status status;
  TRY_DONE(load_rows(m, name, &values, &rows));
  for (int64_t i = 0; columns != 0 && i < rows.count; i++)
    for (int c = 0; c < 5 && c < rows.dims; c++) values[i * rows.dims + c] = columns;
  TRY_DONE(moments_of(m->g->ctx, &rows, out));
  if (single_mean) mean_single(&rows, out->mean);
done:
  mem_free(m->g->ctx, values);
  return status;
}

static enum ditmoe_status check_frechet(struct metrics *m, const struct frechet_entry *entry,
                                        const cJSON *item) {
  struct statistics a = {0}, b = {0};
  double distance, clipped;
  enum ditmoe_status status;
  TRY_DONE(load_statistics(m, entry->a, entry->columns_a, entry->single_mean, &a));
  TRY_DONE(load_statistics(m, entry->b, entry->columns_b, entry->single_mean, &b));
  TRY_DONE(frechet_distance(m->g->ctx, &a.gaussian, &b.gaussian, &distance, &clipped));
  compare_entry(m, item->string, distance, item->valuedouble, LIMIT_METRIC);
done:
  mem_free(m->g->ctx, a.mean);
  mem_free(m->g->ctx, b.mean);
  return status;
}

/* Inception Scores. */

static enum ditmoe_status score_of(struct metrics *m, int64_t first, int64_t n, int64_t split,
                                   double *out) {
  struct score *score = NULL;
  enum ditmoe_status status;
  if (n > m->images - first) n = m->images - first;
  TRY(score_create(m->g->ctx, m->classes, split, &score));
  TRY_DONE(score_add(m->g->ctx, score, m->probabilities + first * m->classes, n));
  status = score_read(m->g->ctx, score, out);
done:
  score_free(m->g->ctx, score);
  return status;
}

static enum ditmoe_status check_splits(struct metrics *m, const cJSON *item) {
  const cJSON *part;
  int64_t first = 0;
  double value;
  cJSON_ArrayForEach(part, item) {
    char key[160];
    snprintf(key, sizeof key, "%s[%lld]", item->string, (long long)(first / SPLIT));
    TRY(score_of(m, first, SPLIT, SPLIT, &value));
    compare_entry(m, key, value, part->valuedouble, LIMIT_METRIC_F32);
    first += SPLIT;
  }
  return DITMOE_OK;
}

/* Entries are float32 unless their name ends in _f64; "is_splitS_firstN_": splits of S of the first
 * N. */
static enum ditmoe_status check_score(struct metrics *m, const cJSON *item) {
  const size_t length = strlen(item->string);
  long long split = SPLIT, images = m->images;
  double value;
  if (cJSON_IsArray(item)) return check_splits(m, item);
  sscanf(item->string, "is_split%lld_first%lld_", &split, &images);
  TRY(score_of(m, 0, images, split, &value));
  const bool exact = length > 4 && !strcmp(item->string + length - 4, "_f64");
  compare_entry(m, item->string, value, item->valuedouble, exact ? LIMIT_METRIC : LIMIT_METRIC_F32);
  return DITMOE_OK;
}

/* Neighbours. */

static enum ditmoe_status check_radii(struct metrics *m, const char *set, const double *radii,
                                      int64_t count) {
  char name[64];
  snprintf(name, sizeof name, "radii_%s_float64", set);
  TRY(case_relative(&m->file, name, radii, count, LIMIT_STATISTICS));
  snprintf(name, sizeof name, "radii_%s_float32", set);
  return case_relative(&m->file, name, radii, count, LIMIT_RADII_F32);
}

static enum ditmoe_status check_neighbours(struct metrics *m, const cJSON *expected) {
  static const char *const keys[][2] = {{"precision_float32", "recall_float32"},
                                        {"precision_float64", "recall_float64"}};
  float *values[2] = {0};
  struct rows reference, samples;
  double precision, recall, *radii = NULL;
  enum ditmoe_status status;
  TRY_DONE(load_rows(m, "PR_ref", &values[0], &reference));
  TRY_DONE(load_rows(m, "PR_sample", &values[1], &samples));
  const size_t count = (size_t)(reference.count + samples.count);
  TRY_DONE(mem_alloc(m->g->ctx, count, sizeof *radii, "radii", &radii));
  TRY_DONE(precision_recall(m->g->ctx, &reference, &samples, NEIGHBOURS, &precision, &recall, radii,
                            radii + reference.count));
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    compare_entry(m, keys[i][0], precision, case_number(expected, keys[i][0], NAN), LIMIT_EXACT);
    compare_entry(m, keys[i][1], recall, case_number(expected, keys[i][1], NAN), LIMIT_EXACT);
  }
  TRY_DONE(check_radii(m, "ref", radii, reference.count));
  TRY_DONE(check_radii(m, "sample", radii + reference.count, samples.count));
done:
  mem_free(m->g->ctx, radii);
  mem_free(m->g->ctx, values[0]);
  mem_free(m->g->ctx, values[1]);
  return status;
}

static enum ditmoe_status check_kernel(struct metrics *m, const char *other, const cJSON *item) {
  float *values[2] = {0};
  struct rows a, b;
  double distance;
  enum ditmoe_status status;
  TRY_DONE(load_rows(m, "A", &values[0], &a));
  TRY_DONE(load_rows(m, other, &values[1], &b));
  TRY_DONE(kernel_distance(m->g->ctx, &a, &b, &distance));
  compare_entry(m, item->string, distance, item->valuedouble, LIMIT_METRIC);
done:
  mem_free(m->g->ctx, values[0]);
  mem_free(m->g->ctx, values[1]);
  return status;
}

/* Entries of expected.json. */

static const struct frechet_entry *find_frechet(const char *key) {
  for (size_t i = 0; i < sizeof frechet_entries / sizeof *frechet_entries; i++) {
    const size_t length = strlen(frechet_entries[i].key);
    if (strncmp(key, frechet_entries[i].key, length) != 0) continue;
    if (!key[length] || !strcmp(key + length, "_symmetric_eig")) return &frechet_entries[i];
  }
  return NULL;
}

static bool settled(const struct metrics *m, const char *key) {
  char line[256];
  snprintf(line, sizeof line, "%s:%s", m->expected, key);
  for (size_t i = 0; i < sizeof excluded / sizeof *excluded; i++)
    if (!strcmp(key, excluded[i].key))
      return printf("  %-56s not compared: %s\n", line, excluded[i].why), true;
  return report_has(m->g->report, line);
}

static enum ditmoe_status check_entry(struct metrics *m, const cJSON *item) {
  const char *key = item->string;
  const struct frechet_entry *frechet = find_frechet(key);
  if (settled(m, key)) return DITMOE_OK;
  if (frechet) return check_frechet(m, frechet, item);
  if (!strcmp(key, "kid_unbiased_A_B")) return check_kernel(m, "B", item);
  if (!strcmp(key, "kid_unbiased_A_A")) return check_kernel(m, "A", item);
  if (!strncmp(key, "is_", 3)) return check_score(m, item);
  compare_entry(m, key, NAN, 0, 0);
  return DITMOE_OK;
}

/* Statistics. */

static enum ditmoe_status check_moments(struct metrics *m, const char *set) {
  struct statistics own = {0};
  char name[64];
  enum ditmoe_status status;
  TRY_DONE(load_statistics(m, set, 0, false, &own));
  const int64_t d = own.gaussian.dims;
  snprintf(name, sizeof name, "mu%s", set);
  TRY_DONE(case_peak(&m->file, name, own.mean, d, LIMIT_STATISTICS));
  snprintf(name, sizeof name, "sigma%s", set);
  TRY_DONE(case_peak(&m->file, name, own.gaussian.covariance, d * d, LIMIT_STATISTICS));
done:
  mem_free(m->g->ctx, own.mean);
  return status;
}

/* The largest difference over the largest magnitude. */
static enum ditmoe_status compare_array(struct metrics *m, const char *file, struct npz *npz,
                                        const struct npz_array *array, const double *values,
                                        int64_t count) {
  double *reference = NULL, error = array->elements == count ? 0 : INFINITY, peak = 0;
  char line[256];
  enum ditmoe_status status;
  TRY(mem_alloc(m->g->ctx, (size_t)array->elements, sizeof *reference, array->name, &reference));
  TRY_DONE(npz_read_f64(m->g->ctx, npz, array, reference));
  for (int64_t i = 0; i < array->elements; i++) peak = fmax(peak, fabs(reference[i]));
  for (int64_t i = 0; i < count && error < INFINITY; i++) {
    const double difference = fabs(values[i] - reference[i]) / peak;
    error = isnan(difference) ? INFINITY : fmax(error, difference);
  }
  snprintf(line, sizeof line, "%s:%s", file, array->name);
  report_add(m->g->report, line, error,
             array->dtype == DT_F64 ? LIMIT_STATISTICS : LIMIT_STATISTICS_F32);
done:
  mem_free(m->g->ctx, reference);
  return status;
}

/* mu and sigma are those of the features A, or B in stats_B*; mu_s and sigma_s those of SA. */
static enum ditmoe_status check_array(struct metrics *m, const char *file, struct npz *npz,
                                      const struct npz_array *array) {
  const char *name = array->name;
  const bool spatial = strstr(name, "_s") != NULL, mean = !strncmp(name, "mu", 2);
  struct statistics own = {0};
  enum ditmoe_status status;
  if (!strcmp(name, "arr_0") || !strcmp(name, "arr_1")) {
    if (m->g->report->verbose) printf("  %s:%s input\n", file, name);
    return DITMOE_OK;
  }
  const char *set = spatial ? "SA" : !strncmp(file, "stats_B", 7) ? "B" : "A";
  TRY_DONE(load_statistics(m, set, 0, false, &own));
  const int64_t d = own.gaussian.dims;
  status = compare_array(m, file, npz, array, mean ? own.mean : own.gaussian.covariance,
                         mean ? d : d * d);
done:
  mem_free(m->g->ctx, own.mean);
  return status;
}

static enum ditmoe_status check_archive(struct metrics *m, const char *file) {
  struct npz *npz = NULL;
  char path[2048];
  enum ditmoe_status status;
  snprintf(path, sizeof path, "%s/%s", m->g->folder, file);
  TRY_DONE(npz_open(m->g->ctx, path, &npz));
  for (int i = 0; i < npz_count(npz); i++) TRY_DONE(check_array(m, file, npz, npz_at(npz, i)));
done:
  npz_close(npz);
  return status;
}

static enum ditmoe_status check_archives(struct metrics *m) {
  const cJSON *entry;
  cJSON_ArrayForEach(entry, golden_field(m->g->manifest, "files")) {
    const char *ending = strrchr(entry->string, '.');
    if (ending && !strcmp(ending, ".npz")) TRY(check_archive(m, entry->string));
  }
  return DITMOE_OK;
}

static enum ditmoe_status load_probabilities(struct metrics *m) {
  struct npz *npz = NULL;
  double *wide = NULL;
  char path[2048];
  enum ditmoe_status status;
  snprintf(path, sizeof path, "%s/probs_f16.npy", m->g->folder);
  TRY_DONE(npz_open(m->g->ctx, path, &npz));
  const struct npz_array *array = npz_at(npz, 0);
  const size_t n = (size_t)array->elements;
  if (array->rank != 2)
    TRY_DONE(fail(m->g->ctx, DITMOE_FORMAT, "%s: %d dimensions", path, array->rank));
  TRY_DONE(mem_alloc(m->g->ctx, n, sizeof *wide, "probabilities", &wide));
  TRY_DONE(mem_alloc(m->g->ctx, n, sizeof *m->probabilities, "probabilities", &m->probabilities));
  TRY_DONE(npz_read_f64(m->g->ctx, npz, array, wide));
  for (size_t i = 0; i < n; i++) m->probabilities[i] = (float)wide[i];
  m->images = array->shape[0];
  m->classes = (int)array->shape[1];
done:
  npz_close(npz);
  mem_free(m->g->ctx, wide);
  return status;
}

static enum ditmoe_status check_entries(struct metrics *m) {
  cJSON *expected = NULL;
  const cJSON *item;
  char path[2048];
  enum ditmoe_status status;
  snprintf(path, sizeof path, "%s/%s", m->g->folder, m->expected);
  TRY_DONE(json_read(m->g->ctx, path, &expected));
  TRY_DONE(check_neighbours(m, expected));
  cJSON_ArrayForEach(item, expected) TRY_DONE(check_entry(m, item));
done:
  cJSON_Delete(expected);
  return status;
}

enum ditmoe_status golden_metrics(struct golden *g) {
  struct metrics m = {.g = g, .expected = case_string(g->manifest, "expected")};
  enum ditmoe_status status;
  TRY(blas_load(g->ctx, 0));
  TRY(golden_open(g, FEATURES, &m.file));
  TRY_DONE(load_probabilities(&m));
  TRY_DONE(check_entries(&m));
  TRY_DONE(check_moments(&m, "A"));
  TRY_DONE(check_moments(&m, "B"));
  status = check_archives(&m);
done:
  mem_free(g->ctx, m.probabilities);
  case_close(&m.file);
  return status;
}

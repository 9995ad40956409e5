/* Errors of arrays against tensors of a fixture. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include <math.h>
#include <stdio.h>

/* float32 rounding alone, relative: below it a float32 tensor is no measure of anything. */
static const double RESOLUTION = 6e-8;

enum ditmoe_status golden_open(struct golden *g, const char *name, struct case_file *out) {
  return case_open(g->ctx, g->folder, name, report_add, g->report, out);
}

enum ditmoe_status golden_floats(struct case_file *file, const char *tensor, float **values,
                                 int64_t *count) {
  double *wide = NULL;
  int64_t n;
  *values = NULL;
  TRY(case_values(file, tensor, &wide, &n));
  enum ditmoe_status status = mem_alloc(file->ctx, (size_t)n, sizeof **values, tensor, values);
  for (int64_t i = 0; status == DITMOE_OK && i < n; i++) (*values)[i] = (float)wide[i];
  mem_free(file->ctx, wide);
  if (count) *count = n;
  return status;
}

enum ditmoe_status golden_labels(struct case_file *file, const struct dit *model,
                                 const char *tensor, int32_t **labels, int64_t *count) {
  double *wide = NULL;
  int64_t n;
  enum ditmoe_status status;
  *labels = NULL;
  TRY_DONE(case_values(file, tensor, &wide, &n));
  TRY_DONE(mem_alloc(file->ctx, (size_t)n, sizeof **labels, tensor, labels));
  for (int64_t i = 0; i < n; i++) {
    (*labels)[i] = (int32_t)wide[i];
    if (!(wide[i] >= 0 && wide[i] < model->config.label_rows))
      TRY_DONE(fail(file->ctx, DITMOE_FORMAT, "%s: %s has label %g, but the model has %d rows",
                    file->name, tensor, wide[i], model->config.label_rows));
  }
  if (count) *count = n;
done:
  mem_free(file->ctx, wide);
  return status;
}

/* |values - reference| / |reference| in L2; infinite if that is not a number. */
static double error_l2(const float *values, const double *reference, int64_t count) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < count; i++) {
    double d = (double)values[i] - reference[i];
    difference += d * d;
    norm += reference[i] * reference[i];
  }
  if (difference == 0) return 0;
  return isfinite(difference) && norm > 0 ? sqrt(difference / norm) : INFINITY;
}

double error_peak(const float *values, const double *reference, int64_t count) {
  double difference = 0, peak = 0;
  for (int64_t i = 0; i < count; i++) {
    double d = fabs((double)values[i] - reference[i]);
    if (!isfinite(d)) return INFINITY;
    difference = fmax(difference, d);
    peak = fmax(peak, fabs(reference[i]));
  }
  if (difference == 0) return 0;
  return peak > 0 ? difference / peak : INFINITY;
}

/* Our distance from the float64 tensor over that of the reference. */
static double distance_ratio(const float *values, const double *reference, const double *exact,
                             int64_t count) {
  double ours = error_l2(values, exact, count), theirs = 0, norm = 0;
  for (int64_t i = 0; i < count; i++) {
    theirs += (reference[i] - exact[i]) * (reference[i] - exact[i]);
    norm += exact[i] * exact[i];
  }
  return ours == 0 ? 0 : ours / fmax(sqrt(theirs / norm), RESOLUTION);
}

static enum ditmoe_status compare_f64(struct case_file *file, const char *tensor,
                                      const float *values, const double *reference, int64_t count) {
  char name[160];
  double *exact;
  int64_t n;
  snprintf(name, sizeof name, "%s_f64", tensor);
  if (!checkpoint_find(file->checkpoint, name)) return DITMOE_OK;
  TRY(case_values(file, name, &exact, &n));
  case_line(file, name, n == count ? distance_ratio(values, reference, exact, n) : INFINITY,
            LIMIT_F64_RATIO);
  mem_free(file->ctx, exact);
  return DITMOE_OK;
}

/* Reports `tensor`, its error as the worst of `slices` equal parts, and its float64 companion. */
static enum ditmoe_status compare(struct case_file *file, const char *tensor, const float *values,
                                  int64_t count, int64_t slices,
                                  double (*measure)(const float *, const double *, int64_t),
                                  double limit) {
  double *reference, error = 0;
  int64_t n;
  TRY(case_values(file, tensor, &reference, &n));
  const bool fits = n == count && slices > 0 && count % slices == 0;
  const int64_t each = fits ? count / slices : 0;
  for (int64_t i = 0; fits && i < slices; i++)
    error = fmax(error, measure(values + i * each, reference + i * each, each));
  case_line(file, tensor, fits ? error : INFINITY, limit);
  enum ditmoe_status status = fits ? compare_f64(file, tensor, values, reference, n) : DITMOE_OK;
  mem_free(file->ctx, reference);
  return status;
}

enum ditmoe_status compare_l2(struct case_file *file, const char *tensor, const float *values,
                              int64_t count, double limit) {
  return compare(file, tensor, values, count, 1, error_l2, limit);
}

enum ditmoe_status compare_sampled(struct case_file *file, const char *tensor, const float *values,
                                   int64_t count, int64_t slices) {
  return compare(file, tensor, values, count, slices, error_peak, LIMIT_SAMPLED);
}

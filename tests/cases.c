/* What the case modules share: tensors of a fixture as doubles, and comparisons. */
#include "cases.h"
#include "limit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum ditmoe_status case_open(struct ditmoe_ctx *ctx, const char *folder, const char *name,
                             case_report *report, void *user, struct case_file *out) {
  char path[1024];
  *out = (struct case_file){.ctx = ctx, .report = report, .user = user};
  snprintf(out->name, sizeof out->name, "%s", name);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return ditmoe_checkpoint_open(ctx, path, NULL, &out->checkpoint);
}

void case_close(struct case_file *file) {
  ditmoe_checkpoint_close(file->checkpoint);
  file->checkpoint = NULL;
}

void case_line(struct case_file *file, const char *tensor, double error, double limit) {
  char line[256];
  snprintf(line, sizeof line, "%s:%s", file->name, tensor);
  file->report(file->user, line, error, limit);
}

double case_value(const struct tensor *tensor, int64_t i) {
  const char *at = (const char *)tensor->data + (size_t)i * dtype_size(tensor->dtype);
  float single;
  double number;
  int64_t integer;
  if (tensor->dtype == DT_I64) return memcpy(&integer, at, sizeof integer), (double)integer;
  if (tensor->dtype == DT_F64) return memcpy(&number, at, sizeof number), number;
  return tensor_read_f32(&single, tensor, i, 1), (double)single;
}

enum ditmoe_status case_values(struct case_file *file, const char *tensor, double **values,
                               int64_t *count) {
  const struct tensor *found = checkpoint_find(file->checkpoint, tensor);
  if (!found || (found->dtype != DT_I64 && !dtype_is_float(found->dtype)))
    return fail(file->ctx, DITMOE_FORMAT, "%s: no number tensor %s", file->name, tensor);
  TRY(mem_alloc(file->ctx, (size_t)found->elements, sizeof **values, tensor, values));
  for (int64_t i = 0; i < found->elements; i++) (*values)[i] = case_value(found, i);
  if (count) *count = found->elements;
  return DITMOE_OK;
}

/* How far one value is off; `peak` is the largest magnitude of the reference. */
typedef double error_measure(double value, double reference, double peak);

static double unequal(double value, double reference, double peak) {
  (void)peak;
  return value != reference;
}

static double relative(double value, double reference, double peak) {
  (void)peak;
  if (value == reference) return 0;
  return reference != 0 ? fabs((value - reference) / reference) : INFINITY;
}

static double of_peak(double value, double reference, double peak) {
  return value == reference ? 0 : fabs(value - reference) / peak;
}

/* A difference that is not a number counts as infinite. */
static double larger(double a, double b) { return isnan(b) ? INFINITY : fmax(a, b); }

static double sum(double a, double b) { return a + b; }

static enum ditmoe_status compare(struct case_file *file, const char *tensor, const double *values,
                                  int64_t count, error_measure *measure,
                                  double (*join)(double, double), double limit) {
  double *reference, error = 0, peak = 0;
  int64_t expected;
  TRY(case_values(file, tensor, &reference, &expected));
  for (int64_t i = 0; i < expected; i++) peak = fmax(peak, fabs(reference[i]));
  if (expected != count) error = INFINITY;
  for (int64_t i = 0; i < count && i < expected; i++)
    error = join(error, measure(values[i], reference[i], peak));
  mem_free(file->ctx, reference);
  case_line(file, tensor, error, limit);
  return DITMOE_OK;
}

enum ditmoe_status case_equal(struct case_file *file, const char *tensor, const double *values,
                              int64_t count) {
  return compare(file, tensor, values, count, unequal, sum, LIMIT_EXACT);
}

enum ditmoe_status case_relative(struct case_file *file, const char *tensor, const double *values,
                                 int64_t count, double limit) {
  return compare(file, tensor, values, count, relative, larger, limit);
}

enum ditmoe_status case_peak(struct case_file *file, const char *tensor, const double *values,
                             int64_t count, double limit) {
  return compare(file, tensor, values, count, of_peak, larger, limit);
}

double case_number(const cJSON *object, const char *key, double otherwise) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
  return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

const char *case_string(const cJSON *object, const char *key) {
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
  return text ? text : "";
}

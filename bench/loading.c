/* Loading a checkpoint file, from the start of the program to the first step. */
#include "api/handles.h"
#include "base/system.h"
#include "bench/bench.h"
#include "cli/text.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Bytes that the process has held in memory at most. */
static double peak_memory(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? 1024.0 * (double)usage.ru_maxrss : 0;
}

static void add_row(struct bench *bench, struct row *row, const char *what, double file_bytes) {
  double seconds = system_seconds() - bench->started;
  row->what = what;
  row->time = (struct spread){.min = seconds, .median = seconds};
  row->bytes = file_bytes;
  cJSON *object = rows_add(&bench->rows, row);
  row_number(object, "file_bytes", file_bytes, 15);
  row_number(object, "peak_rss_bytes", peak_memory(), 15);
}

static enum ditmoe_status first_step(struct bench *bench, struct ditmoe_model *model) {
  const struct bench_settings *s = &bench->settings;
  struct exec *ex = &model->ex;
  struct inputs inputs = {0};
  TRY(inputs_make(&model->dit->config, (int)s->batch, s->guided, 0, &inputs));
  size_t bytes = dit_predict_bytes(ex, model->dit, NULL, inputs.in.B);
  ex->ctx = bench->ctx;
  enum ditmoe_status status = bench_fits("the activations", (double)bytes);
  if (status == DITMOE_OK) status = report_call(bench->ctx, exec_reserve(ex, bytes));
  if (status == DITMOE_OK)
    status = report_call(bench->ctx, dit_predict(ex, model->dit, inputs.out, &inputs.in));
  inputs_free(&inputs);
  return status;
}

enum ditmoe_status bench_load(struct bench *bench) {
  const struct bench_settings *s = &bench->settings;
  const struct variant *variant = &bench->variants[0];
  const struct ditmoe_model_options options = {.backend = s->backend,
                                               .tier = variant->tier,
                                               .dtype = variant->dtype,
                                               .threads = variant->threads};
  struct ditmoe_model *model = NULL;
  struct stat info = {0};
  if (bench->variant_count > 1)
    return report_error(DITMOE_USAGE, "--load takes one --dtype, one --tier and one --threads");
  TRY(report_call(bench->ctx, ditmoe_model_open(bench->ctx, s->load, &options, &model)));
  (void)stat(s->load, &info);
  struct row row = {
      .shape = path_name(s->load), .ex = &model->ex, .batch = (int)s->batch, .reps = 1};
  add_row(bench, &row, "load: open", (double)info.st_size);
  enum ditmoe_status status = first_step(bench, model);
  if (status == DITMOE_OK) add_row(bench, &row, "load: first step", (double)info.st_size);
  ditmoe_model_close(model);
  return status;
}

#include "bench/peak.h"

#include "base/rng.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct product_library *const libraries[] = {
    &product_own,
    &product_openblas,
#ifdef HAVE_ONEDNN
    &product_onednn,
#endif
};
static const struct product shapes[] = {
    {.rows = 2048, .in = 2048, .out = 2048},
    {.rows = 2048, .in = 1152, .out = 4608},
};
enum {
  LIBRARIES = sizeof libraries / sizeof *libraries,
  SHAPES = sizeof shapes / sizeof *shapes,
  VALUES = 4608 * 2048, /* of the largest array */
};

struct peak_job {
  struct bench *bench;
  struct exec *ex;
  struct repeats repeats;
  bool rows; /* a row for each product */
  float *values, *y;
  uint16_t *brains; /* the same values in bf16 */
  struct peak best;
};

/* Threads of a library wait for more work for a while after a product, on processors that the next
 * library needs. */
static void let_threads_sleep(void) {
  const struct timespec pause = {.tv_nsec = 60000000};
  nanosleep(&pause, NULL);
}

static void note(struct peak_job *job, const struct product *product,
                 const struct product_library *library, const double *seconds) {
  const double flop = 2.0 * product->rows * product->in * product->out;
  struct row row = {.what = library->name,
                    .ex = job->ex,
                    .batch = 1,
                    .reps = job->repeats.reps,
                    .time = spread_of(seconds, job->repeats.reps),
                    .flop = flop};
  if (flop / row.time.min > job->best.flops) {
    job->best.flops = flop / row.time.min;
    job->best.by = library->name;
  }
  if (!job->rows) return;
  char *what = text_format("peak: %s", library->name);
  char *shape = text_format("%dx%dx%d", product->rows, product->in, product->out);
  row.what = what;
  row.shape = shape;
  rows_add(&job->bench->rows, &row);
  free(what);
  free(shape);
}

static enum ditmoe_status time_product(struct peak_job *job, struct product *product,
                                       const struct product_library *library) {
  bool available = true;
  struct timed timed = {.user = product, .call = library->call};
  TRY(library->open(product, &available));
  if (!available) return DITMOE_OK;
  let_threads_sleep();
  enum ditmoe_status status = measure(&timed, 1, &job->repeats);
  if (status == DITMOE_OK) note(job, product, library, timed.seconds);
  free(timed.seconds);
  library->close(product);
  return status;
}

static enum ditmoe_status time_all(struct peak_job *job) {
  const void *values = job->ex->compute == DT_BF16 ? (void *)job->brains : (void *)job->values;
  for (int s = 0; s < SHAPES; s++)
    for (int l = 0; l < LIBRARIES; l++) {
      struct product product = shapes[s];
      product.bench = job->bench;
      product.ex = job->ex;
      product.x = product.w = values;
      product.y = job->y;
      TRY(time_product(job, &product, libraries[l]));
    }
  return DITMOE_OK;
}

static enum ditmoe_status run(struct peak_job *job) {
  job->values = memory_get(VALUES, sizeof *job->values);
  job->brains = memory_get(VALUES, sizeof *job->brains);
  job->y = memory_get((size_t)2048 * 4608, sizeof *job->y);
  rng_normal(job->values, VALUES, 0, 0, 0, RNG_INITIAL_NOISE);
  for (int i = 0; i < VALUES; i++) job->brains[i] = bf16_from_f32(job->values[i]);
  enum ditmoe_status status = time_all(job);
  free(job->values);
  free(job->brains);
  free(job->y);
  return status;
}

enum ditmoe_status bench_peak(struct bench *bench) {
  for (int i = 0; i < bench->variant_count; i++) {
    struct exec ex;
    TRY(variant_open(bench, &bench->variants[i], &ex));
    struct peak_job job = {
        .bench = bench, .ex = &ex, .repeats = bench_repeats(bench), .rows = true};
    enum ditmoe_status status = run(&job);
    exec_close(&ex);
    TRY(status);
  }
  return DITMOE_OK;
}

enum ditmoe_status peak_of(struct bench *bench, const struct exec *ex, double *out) {
  *out = 0;
  if (bench->settings.no_share) return DITMOE_OK;
  for (int i = 0; i < bench->peak_count; i++) {
    const struct peak *peak = &bench->peaks[i];
    if (peak->dtype == ex->compute && peak->threads == ex->device->threads) *out = peak->flops;
  }
  if (*out > 0) return DITMOE_OK;
  /* Our own product on the best tier, whatever the variant's. */
  const struct variant best = {ex->compute == DT_BF16 ? "bf16" : "f32", NULL, ex->device->threads};
  struct exec own;
  TRY(variant_open(bench, &best, &own));
  struct peak_job job = {.bench = bench,
                         .ex = &own,
                         .repeats = {.warm_up = 1, .reps = 5},
                         .best = {ex->compute, ex->device->threads, 0, NULL}};
  enum ditmoe_status status = run(&job);
  exec_close(&own);
  TRY(status);
  report_detail("peak of %s on %d threads: %.0f GFLOP/s (%s)", best.dtype, ex->device->threads,
                job.best.flops / 1e9, job.best.by);
  bench->peaks[bench->peak_count++] = job.best;
  *out = job.best.flops;
  return DITMOE_OK;
}

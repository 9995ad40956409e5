/* Each operation alone, on the cases of a shape file. A run is prepared once and then made again
 * and again; the time is what the backend tells of its operations, without what surrounds them. */
#include "bench/bench.h"
#include "bench/cases.h"
#include "bench/count.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

struct operation_run { /* of one case and variant */
  struct bench *bench;
  struct exec *ex;
  const struct op_case *c;
  struct trial trial;
  struct backend_profile hook;
  double took;        /* seconds of the operation in the last run       */
  int calls;          /* and how many calls of it that were             */
  double flop, bytes; /* of a call                                      */
};

/* Words of the list that is timed. */
static int parts_of(const struct operation *operation) {
  int parts = 1;
  for (const char *c = operation->timed; *c; c++) parts += *c == ' ';
  return parts;
}

static void called(void *user, const char *name, double seconds) {
  struct operation_run *run = user;
  const char *timed = run->c->operation->timed, *found = strstr(timed, name);
  size_t length = strlen(name);
  for (; found; found = strstr(found + 1, name))
    if ((found == timed || found[-1] == ' ') && (found[length] == ' ' || !found[length])) break;
  if (!found) return;
  run->took += seconds;
  run->calls++;
}

static enum ditmoe_status make_run(struct operation_run *run) {
  run->took = 0;
  run->calls = 0;
  run->ex->profile = &run->hook;
  run->c->operation->run(&run->trial);
  run->ex->profile = NULL;
  TRY(report_call(run->bench->ctx, run->ex->status));
  if (run->calls > parts_of(run->c->operation))
    run->took *= (double)parts_of(run->c->operation) / run->calls;
  return DITMOE_OK;
}

static enum ditmoe_status call(void *user) {
  struct operation_run *run = user;
  trial_again(&run->trial);
  return make_run(run);
}

/* Inputs and results, once each. */
static double array_bytes(const struct trial *t) {
  double bytes = 0;
  for (int i = 0; i < t->blocks; i++)
    if (t->block[i].role != BLOCK_SCRATCH)
      bytes += (double)t->block[i].values * (double)dtype_size(t->block[i].type);
  return bytes;
}

/* Roughly what a run holds: inputs, results and a copy on the host, all f32, and the weights. */
static double bytes_needed(const struct shape *s) {
  const double rows = (double)s->N * (s->T ? s->T : 1), image = (double)s->size * s->width * s->C;
  const double heads = 4.0 * s->H * s->d, experts = (double)s->K * (s->D + s->F);
  const double values = s->D + s->F + s->E + heads + s->in + s->out + experts + 2 * image;
  const double linear = (double)s->in * s->out * (s->parts ? s->parts : 1);
  const double mixture = 3.0 * s->D * s->F * (s->E ? s->E : 1);
  const double area = (double)s->kernel * (s->kernel_x ? s->kernel_x : s->kernel);
  const double conv = s->C * s->out * area;
  return sizeof(float) * (2 * rows * values + 1.1 * (linear + mixture + conv));
}

static enum ditmoe_status prepare(struct operation_run *run) {
  struct counter counter;
  const struct shape *shape = &run->c->shape;
  TRY(bench_fits(run->c->operation->name, bytes_needed(shape)));
  run->hook = (struct backend_profile){run, called};
  trial_begin(&run->trial, run->ex, shape, 0, shape->N);
  counter_begin(&counter, run->ex);
  enum ditmoe_status status = make_run(run);
  counter_end(&counter, run->ex);
  double calls = (double)run->calls / parts_of(run->c->operation);
  if (calls > 0) {
    run->flop = counter.flop / calls;
    run->bytes = (array_bytes(&run->trial) + counter.weight_bytes) / calls;
  }
  return status;
}

static enum ditmoe_status time_case(struct bench *bench, struct operation_run *runs,
                                    struct timed *timed) {
  struct repeats repeats = bench_repeats(bench);
  repeats.at_least = 1e-3;
  for (int i = 0; i < bench->variant_count; i++) {
    TRY(prepare(&runs[i]));
    timed[i] = (struct timed){.user = &runs[i], .call = call, .took = &runs[i].took};
  }
  TRY(measure(timed, bench->variant_count, &repeats));
  for (int i = 0; i < bench->variant_count; i++) {
    struct row row = {.what = runs[i].c->operation->name,
                      .shape = runs[i].c->text,
                      .ex = runs[i].ex,
                      .batch = runs[i].c->shape.N,
                      .reps = repeats.reps,
                      .time = spread_of(timed[i].seconds, repeats.reps),
                      .flop = runs[i].flop,
                      .bytes = runs[i].bytes};
    if (row.flop > 0) TRY(peak_of(bench, row.ex, &row.peak));
    rows_add(&bench->rows, &row);
  }
  return DITMOE_OK;
}

static enum ditmoe_status run_case(struct bench *bench, struct exec *backends,
                                   const struct op_case *c) {
  const int count = bench->variant_count;
  struct timed timed[MAX_VARIANTS] = {{0}};
  struct operation_run *runs = memory_get((size_t)count, sizeof *runs);
  for (int i = 0; i < count; i++) {
    runs[i].bench = bench;
    runs[i].ex = &backends[i];
    runs[i].c = c;
  }
  enum ditmoe_status status = time_case(bench, runs, timed);
  for (int i = 0; i < count; i++) {
    free(timed[i].seconds);
    if (!runs[i].trial.ex) continue;
    trial_finish(&runs[i].trial);
    trial_free(&runs[i].trial);
  }
  free(runs);
  return status;
}

enum ditmoe_status bench_operations(struct bench *bench) {
  struct op_cases cases;
  struct exec backends[MAX_VARIANTS];
  TRY(cases_read(bench->settings.ops, &cases));
  enum ditmoe_status status = variants_open(bench, backends);
  if (status == DITMOE_OK) {
    for (size_t i = 0; i < cases.count && status == DITMOE_OK; i++)
      status = run_case(bench, backends, &cases.list[i]);
    for (int i = 0; i < bench->variant_count; i++) exec_close(&backends[i]);
  }
  cases_free(&cases);
  return status;
}

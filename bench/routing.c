/* What it costs to record routing: the same calls of a model with and without, in alternation. */
#include "api/recorder.h"
#include "bench/whole.h"
#include "cli/text.h"

#include <stdlib.h>
#include <unistd.h>

enum { STEPS = 50 };

static const struct recording { /* what is recorded, from least to most */
  const char *name;
  bool counts, mass, trace;
  unsigned what; /* of the trace */
} recordings[] = {
    {"off", .counts = false},
    {"off again", .counts = false},
    {"counts", .counts = true},
    {"counts and weights", .counts = true, .mass = true},
    {"trace", .counts = true, .trace = true},
    {"trace with scores", .counts = true, .trace = true, .what = DITMOE_TRACE_SCORES}};
enum { RECORDINGS = sizeof recordings / sizeof *recordings };

struct subject { /* one way of recording */
  struct bench *bench;
  struct exec *ex;
  const struct dit *model;
  const struct inputs *inputs;
  struct ditmoe_routing *routing; /* NULL: nothing is recorded */
  struct recorder recorder;
  int64_t calls;
};

/* Calls are the steps of one batch, then of the next. */
static enum ditmoe_status call(void *user) {
  struct subject *subject = user;
  const struct dit_input *in = &subject->inputs->in;
  struct dit_input recorded = *in;
  const int halves = in->halves > 1 ? in->halves : 1, images = in->B / halves;
  if (subject->routing)
    recorded.tap = recorder_tap(&subject->recorder,
                                &(struct recorder_call){.first = subject->calls / STEPS * images,
                                                        .labels = in->labels,
                                                        .given = in->labels,
                                                        .count = images,
                                                        .step = (int)(subject->calls % STEPS),
                                                        .conditional = true,
                                                        .unconditional = halves > 1});
  subject->calls++;
  TRY(report_call(subject->bench->ctx,
                  dit_predict(subject->ex, subject->model, subject->inputs->out, &recorded)));
  return subject->routing ? report_call(subject->bench->ctx, subject->recorder.status) : DITMOE_OK;
}

static enum ditmoe_status begin_trace(struct subject *subject, unsigned what) {
  const char *folder = getenv("TMPDIR");
  char *path = text_format("%s/ditmoe-bench-%lld.trace", folder && *folder ? folder : "/tmp",
                           (long long)getpid());
  enum ditmoe_status status =
      report_call(subject->bench->ctx,
                  ditmoe_routing_trace_begin(subject->bench->ctx, subject->routing, path, what));
  free(path);
  return status;
}

static enum ditmoe_status open_subject(struct subject *subject, const struct recording *recording) {
  struct ditmoe_ctx *ctx = subject->bench->ctx;
  struct routing_shape shape;
  if (!recording->counts) return DITMOE_OK;
  TRY(report_call(ctx, routing_shape_of(ctx, subject->model, STEPS, STEPS, &shape)));
  shape.mass = recording->mass;
  shape.halves = subject->inputs->in.halves > 1 ? DITMOE_HALVES : 1;
  enum ditmoe_status status = report_call(ctx, routing_create(ctx, &shape, &subject->routing));
  shape_free(ctx, &shape);
  TRY(status);
  if (recording->trace) TRY(begin_trace(subject, recording->what));
  return report_call(ctx, recorder_open(ctx, subject->model, subject->inputs->in.B,
                                        subject->routing, &subject->recorder));
}

static void close_subject(struct subject *subject) {
  if (!subject->routing) return;
  recorder_close(&subject->recorder);
  ditmoe_routing_trace_abandon(subject->routing);
  ditmoe_routing_destroy(subject->routing);
}

static enum ditmoe_status time_all(struct bench *bench, struct subject *subjects,
                                   const struct model_shape *shape) {
  const struct repeats repeats = bench_repeats(bench);
  struct timed timed[RECORDINGS] = {{0}};
  for (int i = 0; i < RECORDINGS; i++)
    timed[i] = (struct timed){.user = &subjects[i], .call = call};
  enum ditmoe_status status = measure(timed, RECORDINGS, &repeats);
  for (int i = 0; i < RECORDINGS; i++) {
    char *name = text_format("%s %d px%s, %s", shape->name, (int)bench->settings.image_size,
                             bench->settings.guided ? " guided" : "", recordings[i].name);
    if (status == DITMOE_OK)
      rows_add(&bench->rows, &(struct row){.what = "routing",
                                           .shape = name,
                                           .ex = subjects[i].ex,
                                           .batch = subjects[i].inputs->in.B,
                                           .reps = repeats.reps,
                                           .time = spread_of(timed[i].seconds, repeats.reps)});
    free(name);
    free(timed[i].seconds);
  }
  return status;
}

static enum ditmoe_status run_inputs(struct bench *bench, struct exec *ex, const struct dit *model,
                                     const struct model_shape *shape, const struct inputs *inputs) {
  struct subject subjects[RECORDINGS];
  enum ditmoe_status status =
      report_call(bench->ctx, exec_reserve(ex, dit_predict_bytes(ex, model, NULL, inputs->in.B)));
  for (int i = 0; i < RECORDINGS; i++) {
    subjects[i] = (struct subject){.bench = bench, .ex = ex, .model = model, .inputs = inputs};
    if (status == DITMOE_OK) status = open_subject(&subjects[i], &recordings[i]);
  }
  if (status == DITMOE_OK) status = time_all(bench, subjects, shape);
  for (int i = 0; i < RECORDINGS; i++) close_subject(&subjects[i]);
  return status;
}

static enum ditmoe_status run_model(struct bench *bench, struct exec *ex,
                                    const struct model_shape *shape) {
  const struct bench_settings *s = &bench->settings;
  struct dit *model;
  struct inputs inputs = {0};
  TRY(bench_open_model(bench, ex, shape, &model));
  enum ditmoe_status status =
      inputs_make(&model->config, (int)s->batch, s->guided, s->seed, &inputs);
  if (status == DITMOE_OK) status = run_inputs(bench, ex, model, shape, &inputs);
  inputs_free(&inputs);
  dit_close(ex, model);
  return status;
}

enum ditmoe_status bench_routing(struct bench *bench) {
  const char *size = bench->settings.routing;
  const struct model_choice choice = bench_choice(bench);
  struct model_shape shape;
  struct exec ex;
  if (bench->variant_count > 1)
    return report_error(DITMOE_USAGE, "--routing compares recordings: one variant at a time");
  TRY(model_shape_parse(*size ? size : "S/2", &choice, &shape));
  TRY(variant_open(bench, &bench->variants[0], &ex));
  enum ditmoe_status status = run_model(bench, &ex, &shape);
  exec_close(&ex);
  return status;
}

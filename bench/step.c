/* Whole calls of the model, latents in, prediction out, as a sampler makes them. */
#include "bench/whole.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

struct step { /* of one variant */
  struct bench *bench;
  struct exec ex;
  struct dit *model;
  bool owner; /* this backend made the model */
  const struct inputs *inputs;
  struct whole whole;
};

static enum ditmoe_status call(void *user) {
  struct step *step = user;
  return report_call(step->bench->ctx,
                     dit_predict(&step->ex, step->model, step->inputs->out, &step->inputs->in));
}

/* The first of the variants before `i` whose weights this one can use. */
static int same_weights(const struct step *steps, int i) {
  int j = 0;
  while (j < i && (steps[j].ex.compute != steps[i].ex.compute ||
                   strcmp(steps[j].ex.device->tier, steps[i].ex.device->tier) != 0))
    j++;
  return j;
}

/* All models are held at once: variants take turns. */
static enum ditmoe_status check_memory(const struct step *steps, int count,
                                       const struct model_shape *shape) {
  struct blueprint blueprint;
  double bytes = 0;
  model_shape_draw(shape, &blueprint);
  for (int i = 0; i < count; i++)
    if (same_weights(steps, i) == i)
      bytes += (double)blueprint_elements(&blueprint) * (double)dtype_size(steps[i].ex.compute);
  blueprint_free(&blueprint);
  char *what = text_format("the weights of %s", shape->name);
  enum ditmoe_status status = bench_fits(what, bytes);
  free(what);
  return status;
}

static enum ditmoe_status open_models(struct bench *bench, struct step *steps,
                                      const struct model_shape *shape) {
  TRY(check_memory(steps, bench->variant_count, shape));
  for (int i = 0; i < bench->variant_count; i++) {
    int maker = same_weights(steps, i);
    steps[i].model = steps[maker].model;
    if (maker == i) TRY(bench_open_model(bench, &steps[i].ex, shape, &steps[i].model));
    steps[i].owner = maker == i;
  }
  return DITMOE_OK;
}

static enum ditmoe_status prepare(struct step *step, const struct inputs *inputs) {
  step->inputs = inputs;
  step->whole = (struct whole){.ex = &step->ex, .user = step, .call = call};
  return whole_prepare(step->bench, &step->whole,
                       dit_predict_bytes(&step->ex, step->model, NULL, inputs->in.B));
}

static enum ditmoe_status time_steps(struct bench *bench, struct step *steps,
                                     const struct inputs *inputs, const struct model_shape *shape) {
  const struct bench_settings *s = &bench->settings;
  const int B = inputs->in.B;
  const struct whole *wholes[MAX_VARIANTS];
  for (int i = 0; i < bench->variant_count; i++) {
    TRY(prepare(&steps[i], inputs));
    steps[i].whole.flop = model_shape_flop(shape, B);
    wholes[i] = &steps[i].whole;
  }
  char *name =
      text_format("%s %d px%s", shape->name, (int)s->image_size, s->guided ? " guided" : "");
  struct row row = {.what = "step", .shape = name, .batch = B};
  enum ditmoe_status status = whole_time(bench, wholes, &row);
  free(name);
  return status;
}

static enum ditmoe_status run_prepared(struct bench *bench, struct step *steps,
                                       const struct model_shape *shape) {
  const struct bench_settings *s = &bench->settings;
  struct inputs inputs = {0};
  TRY(inputs_make(&steps[0].model->config, (int)s->batch, s->guided, s->seed, &inputs));
  enum ditmoe_status status = time_steps(bench, steps, &inputs, shape);
  inputs_free(&inputs);
  return status;
}

static enum ditmoe_status run_shape(struct bench *bench, const struct model_shape *shape) {
  struct exec backends[MAX_VARIANTS];
  TRY(variants_open(bench, backends));
  const int count = bench->variant_count;
  struct step *steps = memory_get((size_t)count, sizeof *steps);
  for (int i = 0; i < count; i++) steps[i] = (struct step){.bench = bench, .ex = backends[i]};
  enum ditmoe_status status = open_models(bench, steps, shape);
  if (status == DITMOE_OK) status = run_prepared(bench, steps, shape);
  for (int i = 0; i < count; i++)
    if (steps[i].owner) dit_close(&steps[i].ex, steps[i].model);
  for (int i = 0; i < count; i++) exec_close(&steps[i].ex);
  free(steps);
  return status;
}

/* All shapes of --step; dry: only checks them. */
static enum ditmoe_status run_list(struct bench *bench, bool dry) {
  const struct model_choice choice = bench_choice(bench);
  struct model_shape shape;
  char *list = text_copy(bench->settings.step), *rest = NULL, *name = strtok_r(list, ",", &rest);
  enum ditmoe_status status =
      name ? DITMOE_OK : report_error(DITMOE_USAGE, "--step: the list is empty");
  for (; name && status == DITMOE_OK; name = strtok_r(NULL, ",", &rest)) {
    status = model_shape_parse(name, &choice, &shape);
    if (status == DITMOE_OK && !dry) status = run_shape(bench, &shape);
  }
  free(list);
  return status;
}

enum ditmoe_status bench_step(struct bench *bench) {
  const struct bench_settings *s = &bench->settings;
  if (s->guided && s->batch % 2)
    return report_error(DITMOE_USAGE, "--guided needs an even --batch, found %d", (int)s->batch);
  TRY(run_list(bench, true));
  return run_list(bench, false);
}

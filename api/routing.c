/* Tables for a request of a model. */
#include "api/routing.h"

/* Steps and their times, in the order of the run. */
static void describe_steps(const struct schedule *schedule, struct routing_shape *shape) {
  const bool chain = schedule->beta && !schedule->sigma; /* its first entry is the last step */
  for (int step = 0; step < shape->steps; step++)
    shape->time[step] = schedule->times[chain ? shape->steps - 1 - step : step];
}

/* What is counted of the run of a schedule. */
static enum ditmoe_status make_shape(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                     const struct schedule *schedule,
                                     const struct ditmoe_routing_options *options,
                                     struct routing_shape *out) {
  const int steps = schedule->steps, bins = options->bins ? options->bins : steps;
  if (bins < 1 || bins > steps)
    return fail(ctx, DITMOE_USAGE, "routing: %d bins of %d steps", options->bins, steps);
  TRY(routing_shape_of(ctx, model->dit, steps, bins, out));
  describe_steps(schedule, out);
  out->mass = options->mass != 0;
  out->halves = options->unconditional ? DITMOE_HALVES : 1;
  const char *fault = shape_fault(out);
  if (!fault) return DITMOE_OK;
  shape_free(ctx, out);
  return fail(ctx, DITMOE_USAGE, "routing cannot be counted: %s is out of range", fault);
}

/* Places of tokens are counted on the grid that the model was trained on. */
static enum ditmoe_status check_size(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                     const struct resolved *resolved) {
  const int size = model->dit->config.size;
  if (resolved->height == size && resolved->width == size) return DITMOE_OK;
  return fail(ctx, DITMOE_USAGE,
              "routing is recorded at the size that a model was trained at, latents of %dx%d, not "
              "%dx%d",
              size, size, resolved->width, resolved->height);
}

/* A request for one image stands for one without labels and with any number of images. */
static enum ditmoe_status plan_steps(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                     const struct ditmoe_request *request, struct schedule *out) {
  const int32_t label = 0;
  struct ditmoe_request one = *request;
  struct resolved resolved;
  one.labels = &label, one.count = 1, one.first_index = 0;
  TRY(request_resolve(ctx, model, &one, &resolved));
  TRY(check_size(ctx, model, &resolved));
  return resolved.sampler->plan(ctx, &resolved.schedule, out);
}

enum ditmoe_status ditmoe_routing_create(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                         const struct ditmoe_request *request,
                                         const struct ditmoe_routing_options *options,
                                         struct ditmoe_routing **out) {
  const struct ditmoe_routing_options defaults = {0};
  struct schedule schedule = {0};
  struct routing_shape shape;
  if (!options) options = &defaults;
  TRY(plan_steps(ctx, model, request, &schedule));
  enum ditmoe_status status = make_shape(ctx, model, &schedule, options, &shape);
  schedule_free(ctx, &schedule);
  if (status != DITMOE_OK) return status;
  status = routing_create(ctx, &shape, out);
  shape_free(ctx, &shape);
  if (status != DITMOE_OK) return status;
  (*out)->user = options->user;
  (*out)->other_label = options->other_label;
  return DITMOE_OK;
}

static enum ditmoe_status check_shape(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                      const struct schedule *schedule,
                                      const struct ditmoe_routing *routing) {
  struct routing_shape shape;
  TRY(routing_shape_of(ctx, model->dit, schedule->steps, routing->shape.bins, &shape));
  describe_steps(schedule, &shape);
  shape.mass = routing->shape.mass;
  shape.halves = routing->shape.halves;
  const char *difference = shape_difference(&shape, &routing->shape);
  shape_free(ctx, &shape);
  if (!difference) return DITMOE_OK;
  return fail(ctx, DITMOE_MISMATCH, "the tables of routing were made for another run: %s differ",
              difference);
}

enum ditmoe_status routing_start(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                 const struct ditmoe_request *request,
                                 const struct resolved *resolved, const struct schedule *schedule,
                                 struct recorder *out) {
  if (!request->routing) return DITMOE_OK;
  TRY(check_size(ctx, model, resolved));
  TRY(check_shape(ctx, model, schedule, request->routing));
  return recorder_open(ctx, model->dit, resolved->batch * (resolved->batched ? 2 : 1),
                       request->routing, out);
}

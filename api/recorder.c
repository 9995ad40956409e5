/* The tap that records routing. */
#include "api/recorder.h"
#include "trace/trace.h"

#include <string.h>

/* Making. */

static enum ditmoe_status number_layers(struct recorder *r) {
  const struct dit_config *c = &r->model->config;
  int layers = 0;
  TRY(mem_alloc(r->ctx, (size_t)c->depth, sizeof *r->layer_of, "layers", &r->layer_of));
  for (int l = 0; l < c->depth; l++) r->layer_of[l] = r->model->blocks[l].moe ? layers++ : -1;
  return DITMOE_OK;
}

/* Most rows of a dispatch, over the layers. */
static int64_t most_assignments(const struct dit *model, int rows) {
  const struct dit_config *c = &model->config;
  const struct router_input in = {.B = rows, .T = c->tokens + c->prefix, .D = c->width};
  int64_t most = 0;
  for (int l = 0; l < c->depth; l++) {
    if (!model->blocks[l].moe) continue;
    const struct router_layer *router = model->blocks[l].moe->router;
    int64_t assignments = router->router->assignments(router, &in);
    if (assignments > most) most = assignments;
  }
  return most;
}

static enum ditmoe_status make_arrays(struct recorder *r) {
  const size_t T = (size_t)r->model->config.tokens, E = (size_t)r->routing->shape.experts;
  const size_t tokens = (size_t)r->rows * (T + (size_t)r->model->config.prefix),
               R = (size_t)most_assignments(r->model, r->rows);
  static const char what[] = "recording of routing";
  TRY(mem_alloc(r->ctx, (size_t)r->rows, sizeof *r->counted, what, &r->counted));
  TRY(mem_alloc(r->ctx, E + 1, sizeof *r->offset, what, &r->offset));
  TRY(mem_alloc(r->ctx, tokens + 1, sizeof *r->first, what, &r->first));
  TRY(mem_alloc(r->ctx, R, sizeof *r->row, what, &r->row));
  TRY(mem_alloc(r->ctx, R, sizeof *r->weight, what, &r->weight));
  TRY(mem_alloc(r->ctx, R, sizeof *r->expert, what, &r->expert));
  TRY(mem_alloc(r->ctx, T + 1, sizeof *r->image_first, what, &r->image_first));
  TRY(mem_alloc(r->ctx, T * E, sizeof *r->image_expert, what, &r->image_expert));
  TRY(mem_alloc(r->ctx, T * E, sizeof *r->image_weight, what, &r->image_weight));
  return r->scores ? mem_alloc(r->ctx, T * E, sizeof *r->score, what, &r->score) : DITMOE_OK;
}

enum ditmoe_status recorder_open(struct ditmoe_ctx *ctx, const struct dit *model, int rows,
                                 struct ditmoe_routing *routing, struct recorder *out) {
  *out = (struct recorder){.ctx = ctx,
                           .model = model,
                           .routing = routing,
                           .rows = rows,
                           .batch = -1,
                           .scores = routing->trace && trace_wants_scores(routing->trace)};
  enum ditmoe_status status = number_layers(out);
  if (status == DITMOE_OK) status = make_arrays(out);
  if (status != DITMOE_OK) recorder_close(out);
  return status;
}

void recorder_close(struct recorder *r) {
  void *const blocks[] = {r->counted,     r->layer_of,     r->offset,      r->first,
                          r->row,         r->weight,       r->expert,      r->score,
                          r->image_first, r->image_expert, r->image_weight};
  if (!r->routing) return;
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) mem_free(r->ctx, blocks[i]);
  slots_end(&r->routing->slots);
  *r = (struct recorder){0};
}

/* Looking. */

/* The plan on the host, and the expert of each of its rows. */
static void fetch_plan(struct recorder *r, struct exec *ex, const struct dispatch *d) {
  be_download(ex, r->offset, d->offset, ((size_t)d->experts + 1) * sizeof *r->offset);
  const size_t rows = (size_t)r->offset[d->experts];
  be_download(ex, r->first, d->first, ((size_t)d->tokens + 1) * sizeof *r->first);
  be_download(ex, r->row, d->row, rows * sizeof *r->row);
  be_download(ex, r->weight, d->weight, rows * sizeof *r->weight);
  for (int e = 0; e < d->experts; e++)
    for (int32_t row = r->offset[e]; row < r->offset[e + 1]; row++) r->expert[row] = (uint16_t)e;
}

/* Routers with an unconditional expert score no tokens of images that it takes. */
static bool is_scored(const struct recorder *r, const struct router_layer *router, int b) {
  return router->uncond_expert < 0 || r->call.given[b] != router->uncond_label;
}

/* In-context tokens, which come first in an image, have no place in it and are not counted. */
static int prefix_of(const struct recorder *r, const struct dit_tap_data *data) {
  return data->T - r->model->config.tokens;
}

/* Scores [T, router->experts] of image b of the call, the `scored`-th that has any. */
static const float *fetch_scores(struct recorder *r, struct exec *ex,
                                 const struct dit_tap_data *data, int b, int scored) {
  const struct router_layer *router = r->model->blocks[data->layer].moe->router;
  const int64_t prefix = (int64_t)prefix_of(r, data) * router->experts;
  const int64_t size = (int64_t)data->T * router->experts;
  if (!r->scores || !data->trace->scores || !is_scored(r, router, b)) return NULL;
  be_download(ex, r->score, data->trace->scores + scored * size + prefix,
              (size_t)(size - prefix) * sizeof *r->score);
  return r->score;
}

static void pick_choices(struct recorder *r, const struct dit_tap_data *data, int b) {
  const int T = r->model->config.tokens;
  const int32_t *first = r->first + (int64_t)b * data->T + prefix_of(r, data);
  for (int t = 0; t <= T; t++) r->image_first[t] = first[t] - first[0];
  for (int32_t i = 0; i < r->image_first[T]; i++) {
    const int32_t row = r->row[first[0] + i];
    r->image_expert[i] = r->expert[row];
    r->image_weight[i] = r->weight[row];
  }
}

static enum ditmoe_status count_image(struct recorder *r, struct exec *ex,
                                      const struct dit_tap_data *data, int b, int scored) {
  const struct recorder_call *call = &r->call;
  const int image = b % call->count;
  const enum ditmoe_half half =
      call->conditional && b < call->count ? DITMOE_CONDITIONAL : DITMOE_UNCONDITIONAL;
  if ((int)half >= r->routing->shape.halves || r->counted[image]) return DITMOE_OK;
  pick_choices(r, data, b);
  const struct ditmoe_routing *routing = r->routing;
  const int64_t index = call->first + image;
  const struct ditmoe_trace_record record = {
      .image = index,
      .label = call->labels[image],
      .other_label = routing->other_label ? routing->other_label(routing->user, index) : -1,
      .step = call->step,
      .layer = r->layer_of[data->layer],
      .evaluation = r->evaluation[half],
      .half = half,
      .first = r->image_first,
      .expert = r->image_expert,
      .weight = r->image_weight,
      .scores = fetch_scores(r, ex, data, b, scored),
      .scored = r->model->blocks[data->layer].moe->router->experts,
  };
  return ditmoe_routing_count(r->ctx, r->routing, &record);
}

static void look(void *user, struct exec *ex, const struct dit_tap_data *data) {
  struct recorder *r = user;
  if (data->point != TAP_ROUTER || r->status != DITMOE_OK) return;
  const struct router_layer *router = r->model->blocks[data->layer].moe->router;
  fetch_plan(r, ex, data->dispatch);
  for (int b = 0, scored = 0; b < data->B && r->status == DITMOE_OK; b++) {
    r->status = count_image(r, ex, data, b, scored);
    scored += is_scored(r, router, b);
  }
}

/* Numbers the forward passes of a half within a step. */
static void number_evaluation(struct recorder *r, enum ditmoe_half half) {
  r->evaluation[half] = r->step[half] == r->call.step ? r->evaluation[half] + 1 : 0;
  r->step[half] = r->call.step;
}

static void begin_batch(struct recorder *r, const struct recorder_call *call) {
  r->batch = call->first;
  for (int half = 0; half < DITMOE_HALVES; half++) r->step[half] = -1;
  for (int i = 0; i < call->count; i++)
    r->counted[i] = ditmoe_routing_has(r->routing, call->first + i);
}

const struct dit_tap *recorder_tap(struct recorder *r, const struct recorder_call *call) {
  if (call->first != r->batch) begin_batch(r, call);
  r->call = *call;
  if (call->conditional) number_evaluation(r, DITMOE_CONDITIONAL);
  if (call->unconditional) number_evaluation(r, DITMOE_UNCONDITIONAL);
  r->tap = (struct dit_tap){r, look};
  return &r->tap;
}

/* Shapes. */

static void describe_layers(const struct dit *model, struct routing_shape *shape) {
  for (int l = 0, at = 0; l < model->config.depth; l++) {
    const struct dit_moe *moe = model->blocks[l].moe;
    if (!moe) continue;
    shape->layer[at] = l;
    shape->layer_experts[at++] = moe->bank.count;
  }
}

/* Experts of every token where all layers have the same number, else 0. */
static int fixed_top_k(const struct dit *model) {
  int top_k = -1;
  for (int l = 0; l < model->config.depth; l++) {
    if (!model->blocks[l].moe) continue;
    const struct router_layer *router = model->blocks[l].moe->router;
    const int own =
        router->router->token_choice ? router_top_k(router, &(struct router_input){0}) : 0;
    if (top_k >= 0 && own != top_k) return 0;
    top_k = own;
  }
  return top_k;
}

enum ditmoe_status routing_shape_of(struct ditmoe_ctx *ctx, const struct dit *model, int steps,
                                    int bins, struct routing_shape *out) {
  const struct dit_config *c = &model->config;
  struct routing_shape shape = {.bins = bins,
                                .steps = steps,
                                .tokens = c->tokens,
                                .side = c->size / c->patch,
                                .labels = c->label_rows,
                                .null_label = c->record.null_label,
                                .uncond_expert = -1};
  for (int l = 0; l < c->depth; l++) {
    const struct dit_moe *moe = model->blocks[l].moe;
    if (!moe) continue;
    shape.layers++;
    if (moe->bank.count <= shape.experts) continue;
    shape.experts = moe->bank.count;
    shape.uncond_expert = moe->router->uncond_expert;
  }
  if (!shape.layers) return fail(ctx, DITMOE_USAGE, "routing: this model has no experts");
  shape.top_k = fixed_top_k(model);
  TRY(shape_alloc(ctx, &shape));
  describe_layers(model, &shape);
  shape_divide_steps(&shape);
  *out = shape;
  return DITMOE_OK;
}

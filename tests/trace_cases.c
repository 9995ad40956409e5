/* Made-up runs for the tests of traces. */
#include "tests/trace_cases.h"

static int32_t layer[LAYERS] = {1, 3}, layer_experts[LAYERS] = {5, 5}, bin_step[] = {0, 1, 3};
static double times[STEPS] = {999, 1.0 / 3, 0};

struct routing_shape shape_of(enum router router, int side) {
  return (struct routing_shape){.layers = LAYERS,
                                .bins = 2,
                                .tokens = side * side,
                                .experts = MOST_E,
                                .labels = 3,
                                .steps = STEPS,
                                .side = side,
                                .top_k = router == TOKEN_CHOICE ? 2 : 0,
                                .uncond_expert = router == UNCOND_EXPERT ? MOST_E - 1 : -1,
                                .null_label = 2,
                                .halves = DITMOE_HALVES,
                                .mass = true,
                                .layer = layer,
                                .layer_experts = layer_experts,
                                .bin_step = bin_step,
                                .time = times};
}

/* The choices of a token: any number of them from some expert on. */
static void add_token(struct sample *sample, int t, unsigned number, int count, int experts) {
  int32_t *end = &sample->first[t + 1];
  *end = sample->first[t];
  for (int i = 0; i < count; i++, ++*end) {
    sample->expert[*end] = (uint16_t)((number + (unsigned)i) % (unsigned)experts);
    sample->weight[*end] = 1.0f / (float)(i + 1 + (int)(number % 7));
  }
}

void make_record(struct sample *sample, const struct routing_shape *shape,
                 struct ditmoe_trace_record where) {
  const bool single = where.half == DITMOE_UNCONDITIONAL && shape->uncond_expert >= 0;
  const int experts = trace_scored(shape, where.layer);
  unsigned seed = (unsigned)where.image * 31 + (unsigned)where.step * 17 +
                  (unsigned)where.layer * 7 + (unsigned)where.half;
  where.label = (int32_t)(where.image % 2);
  where.other_label = (int32_t)(where.image % 3) - 1;
  for (int t = 0; t < shape->tokens; t++) {
    seed = seed * 1103515245 + 12345;
    const int varied = (int)(seed >> 16) % 4;
    add_token(sample, t, single ? (unsigned)shape->uncond_expert : seed >> 8,
              single         ? 1
              : shape->top_k ? shape->top_k
                             : varied,
              shape->uncond_expert >= 0 && !single ? experts : MOST_E);
  }
  for (int i = 0; i < shape->tokens * experts; i++) sample->scores[i] = (float)i / 7 - 1;
  where.first = sample->first;
  where.expert = sample->expert;
  where.weight = sample->weight;
  where.scores = single ? NULL : sample->scores;
  where.scored = single ? 0 : experts;
  sample->record = where;
}

static enum ditmoe_status count_pass(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                     const struct plan *plan, int64_t first,
                                     struct ditmoe_trace_record where) {
  static struct sample sample;
  for (int i = 0; i < LAYERS * DITMOE_HALVES; i++) {
    where.layer = plan->batched ? i / DITMOE_HALVES : i % LAYERS;
    where.half = (enum ditmoe_half)(plan->batched ? i % DITMOE_HALVES : i / LAYERS);
    for (int64_t image = first; image < first + plan->batch && image < plan->end; image++) {
      where.image = image;
      make_record(&sample, &routing->shape, where);
      TRY(ditmoe_routing_count(ctx, routing, &sample.record));
    }
  }
  return DITMOE_OK;
}

static enum ditmoe_status count_run(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                    const struct plan *plan) {
  for (int64_t first = plan->first; first < plan->end; first += plan->batch)
    for (int step = 0; step < STEPS; step++)
      for (int evaluation = 0; evaluation < (step == 1 ? 2 : 1); evaluation++) {
        const struct ditmoe_trace_record where = {.step = step, .evaluation = evaluation};
        TRY(count_pass(ctx, routing, plan, first, where));
      }
  return DITMOE_OK;
}

const char trace_meta[] = "{\"seed\":18446744073709551615,\"model\":\"a \\\"b\\\"\"}";

enum ditmoe_status trace_run(struct ditmoe_ctx *ctx, const struct routing_shape *shape,
                             const struct plan *plans, int count, unsigned what, const char *path,
                             struct ditmoe_routing **out) {
  struct ditmoe_routing *routing;
  enum ditmoe_status status;
  TRY(routing_create(ctx, shape, &routing));
  TRY_DONE(ditmoe_routing_describe(ctx, routing, trace_meta));
  TRY_DONE(ditmoe_routing_trace_begin(ctx, routing, path, what));
  for (int i = 0; i < count; i++) TRY_DONE(count_run(ctx, routing, &plans[i]));
  TRY_DONE(ditmoe_routing_trace_commit(ctx, routing));
done:
  if (status == DITMOE_OK && out)
    *out = routing;
  else
    ditmoe_routing_destroy(routing);
  return status;
}

enum ditmoe_status read_trace(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace,
                              uint64_t *records) {
  struct ditmoe_trace_record record;
  *records = 0;
  for (int end = 0;; ++*records) {
    TRY(ditmoe_trace_next(ctx, trace, &record, &end));
    if (end) return DITMOE_OK;
  }
}

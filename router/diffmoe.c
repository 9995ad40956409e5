/* DiffMoE: the tokens of the whole call form one pool. s = softmax over experts of u W^T; a
 * predictor q = sigmoid(W2 silu(W1 u + b1) + b2) and a threshold per expert tell how many tokens an
 * expert takes, the largest s tells which. So an image's result depends on its batch. */
#include "router/router.h"

struct diffmoe {
  struct router_layer layer;
  const struct linear *predictor_in, *predictor_out; /* D -> D -> E */
  const float *threshold;                            /* [E]         */
};

static void params(struct router_layer *layer, struct params *params, const char *gate, int D) {
  struct diffmoe *own = (struct diffmoe *)layer;
  const int E = layer->experts;
  router_gate(layer, params, gate, D, 0);
  params_matrix(params, &own->predictor_in, D, D, true, PARAM_EXACT, "capacity_predictor.0");
  params_matrix(params, &own->predictor_out, E, D, true, PARAM_EXACT, "capacity_predictor.2");
  params_unused(params, -1, NULL, "ema_decay");
  params_floats(params, &own->threshold, 1, (int64_t[1]){E}, PARAM_FIXED, "expert_threshold");
}

static int64_t assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * in->T * layer->experts;
}

static void route(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
                  struct dispatch *d, struct router_trace *trace) {
  const struct diffmoe *own = (const struct diffmoe *)layer;
  const int E = layer->experts;
  int64_t tokens = (int64_t)in->B * in->T;
  const float *scores = router_softmax_scores(ex, layer, in, trace);
  float *hidden = be_floats(ex, tokens * in->D);
  float *capacity = be_floats(ex, tokens * E);
  be_linear(ex, hidden, act_f32(in->u), own->predictor_in, tokens);
  be_silu(ex, hidden, hidden, tokens * in->D);
  be_linear(ex, capacity, act_f32(hidden), own->predictor_out, tokens);
  be_sigmoid(ex, capacity, capacity, tokens * E);
  be_assign_counted(ex, d, scores, capacity, own->threshold, tokens, E);
  trace->capacity = capacity;
  trace->threshold = own->threshold;
}

static const struct router diffmoe = {.name = "diffmoe",
                                      .size = sizeof(struct diffmoe),
                                      .batch_coupled = true,
                                      .params = params,
                                      .assignments = assignments,
                                      .route = route,
                                      .bwd = router_softmax_bwd};

static const struct mixture diffmoe_mixture = {.kind = "diffmoe",
                                               .router = &diffmoe,
                                               .prefix = "blocks.%d.mlp.",
                                               .gate = "gate_weight",
                                               .second = "expert_threshold",
                                               .shared = "shared_experts."};
MIXTURE_ENTRY(diffmoe_mixture);

/* DiffMoE: the tokens of the whole call form one pool. s = softmax over experts of u W^T; a
 * predictor q = sigmoid(W2 silu(W1 u + b1) + b2) and a threshold per expert tell how many tokens an
 * expert takes, the largest s tells which. So an image's result depends on its batch. */
#include "router/router.h"

static int64_t assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * in->T * layer->experts;
}

static void route(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
                  struct dispatch *d, struct router_trace *trace) {
  int E = layer->experts;
  int64_t tokens = (int64_t)in->B * in->T;
  const float *scores = router_softmax_scores(ex, layer, in, trace);
  float *hidden = be_floats(ex, tokens * in->D);
  float *capacity = be_floats(ex, tokens * E);
  be_linear(ex, hidden, act_f32(in->u), layer->predictor_in, tokens);
  be_silu(ex, hidden, hidden, tokens * in->D);
  be_linear(ex, capacity, act_f32(hidden), layer->predictor_out, tokens);
  be_sigmoid(ex, capacity, capacity, tokens * E);
  be_assign_counted(ex, d, scores, capacity, layer->threshold, tokens, E);
  trace->capacity = capacity;
}

const struct router router_diffmoe = {"diffmoe",   true,  false,
                                      assignments, route, router_softmax_bwd};

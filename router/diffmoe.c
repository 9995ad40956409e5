/* DiffMoE: the tokens of the whole call form one pool. s = softmax over experts of u W^T; a
 * predictor q = sigmoid(W2 silu(W1 u + b1) + b2) and a threshold per expert tell how many tokens an
 * expert takes, the largest s tells which. So an image's result depends on its batch. */
#include "router/router.h"

static int64_t assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * in->T * layer->experts;
}

static void route(struct backend *be, const struct router_layer *layer,
                  const struct router_input *in, struct dispatch *d, struct router_trace *trace) {
  int E = layer->experts;
  int64_t tokens = (int64_t)in->B * in->T;
  const float *scores = router_softmax_scores(be, layer, in, trace);
  float *hidden = be_floats(be, tokens * in->D);
  float *capacity = be_floats(be, tokens * E);
  int32_t *work = be_ints(be, tokens * E);
  be_linear_exact(be, hidden, in->u, layer->predictor_in, tokens);
  be_silu(be, hidden, hidden, tokens * in->D);
  be_linear_exact(be, capacity, hidden, layer->predictor_out, tokens);
  be_sigmoid(be, capacity, capacity, tokens * E);
  be_assign_counted(be, d, 0, scores, capacity, layer->threshold, work, tokens, E);
  trace->capacity = capacity;
}

const struct router router_diffmoe = {"diffmoe", true, false, assignments, route};

/* Token choice: s = softmax over experts of u W^T, the k largest, not renormalised (DiT-MoE,
 * TC-DiT). */
#include "router/router.h"

static int64_t assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * in->T * router_top_k(layer, in);
}

static void route(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
                  struct dispatch *d, struct router_trace *trace) {
  int64_t tokens = (int64_t)in->B * in->T;
  const float *scores = router_softmax_scores(ex, layer, in, trace);
  be_assign_topk(ex, d, scores, tokens, layer->experts, router_top_k(layer, in),
                 router_skip(layer, in));
}

const struct router router_softmax_topk = {"softmax-topk", false, true,
                                           assignments,    route, router_softmax_bwd};

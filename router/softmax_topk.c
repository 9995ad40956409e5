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

static const struct router softmax_topk = {.name = "softmax-topk",
                                           .size = sizeof(struct router_layer),
                                           .token_choice = true,
                                           .needs_top_k = true,
                                           .params = router_gate_alone,
                                           .assignments = assignments,
                                           .route = route,
                                           .bwd = router_softmax_bwd};

static const struct mixture dit_moe = {.kind = "dit-moe",
                                       .router = &softmax_topk,
                                       .prefix = "blocks.%d.moe.",
                                       .gate = "gate.weight",
                                       .shared = "shared_experts."};
MIXTURE_ENTRY(dit_moe);

static const struct mixture tc_dit = {.kind = "tc-dit",
                                      .router = &softmax_topk,
                                      .prefix = "blocks.%d.mlp.",
                                      .gate = "gate.weight",
                                      .shared = "shared_experts."};
MIXTURE_ENTRY(tc_dit);

/* Expert choice per image: a = softmax over experts of u W^T; each expert takes the
 * K = int((T / E) * capacity) tokens of an image with the largest a (EC-DiT). */
#include "router/router.h"

static int tokens_per_expert(const struct router_layer *layer, const struct router_input *in) {
  int count = (int)((double)in->T / layer->experts * layer->capacity);
  return count < in->T ? count : in->T;
}

static int64_t assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * layer->experts * tokens_per_expert(layer, in);
}

static void route(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
                  struct dispatch *d, struct router_trace *trace) {
  const float *scores = router_softmax_scores(ex, layer, in, trace);
  const int K = tokens_per_expert(layer, in);
  be_assign_tokens(ex, d, scores, in->B, in->T, layer->experts, K, (int64_t)layer->experts * K);
}

const struct router router_expert_choice = {"expert-choice", false, false,
                                            assignments,     route, router_softmax_bwd};

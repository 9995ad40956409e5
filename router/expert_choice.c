/* Expert choice per image: a = softmax over experts of u W^T; each expert takes the
 * K = int((T / E) * capacity) tokens of an image with the largest a (EC-DiT). */
#include "router/router.h"

struct expert_choice {
  struct router_layer layer;
  double capacity; /* tokens of an expert as a multiple of T / E */
};

static int tokens_per_expert(const struct router_layer *layer, const struct router_input *in) {
  const double capacity = ((const struct expert_choice *)layer)->capacity;
  int count = (int)((double)in->T / layer->experts * capacity);
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

static const struct router_key keys[] = {
    {.key = {"capacity", NULL, "--capacity", RECORD_NUMBER,
             offsetof(struct expert_choice, capacity), 0, 4096, NULL,
             "the capacity of its experts"}},
};

static const struct router expert_choice = {.name = "expert-choice",
                                            .size = sizeof(struct expert_choice),
                                            .keys = keys,
                                            .key_count = sizeof keys / sizeof *keys,
                                            .params = router_gate_alone,
                                            .assignments = assignments,
                                            .route = route,
                                            .bwd = router_softmax_bwd};

static const struct mixture ec_dit = {.kind = "ec-dit",
                                      .router = &expert_choice,
                                      .prefix = "blocks.%d.mlp.",
                                      .gate = "gate_weight",
                                      .shared = "shared_experts."};
MIXTURE_ENTRY(ec_dit);

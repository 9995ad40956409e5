/* ProMoE's two-step router. Step 1: images of the null class go whole to the unconditional expert
 * and skip step 2. Step 2: z = cosine of a token and the prototype of each expert; its weight is z,
 * sigmoid z or softmax z; then either each token takes its k best experts, or each expert takes its
 * K = max(1, min(int((T / E) * k), T)) best tokens of an image. */
#include "router/router.h"

enum weights { WEIGHTS_IDENTITY, WEIGHTS_SIGMOID, WEIGHTS_SOFTMAX };

struct prototype {
  struct router_layer layer; /* the gate's rows are the prototypes, of norm 1 */
  int weights;               /* enum weights: what becomes of the cosines     */
};

static const struct record_choice weights[] = {{"identity", WEIGHTS_IDENTITY},
                                               {"sigmoid", WEIGHTS_SIGMOID},
                                               {"softmax", WEIGHTS_SOFTMAX},
                                               {NULL, 0}};

static const struct router_key keys[] = {
    {.key = {"router_weight_mode", NULL, "--router-weight-mode", RECORD_CHOICE,
             offsetof(struct prototype, weights), 1, 0, weights,
             "what its router makes of the cosines"}},
    {.key = {"uncond_label", NULL, "--uncond-label", RECORD_INT,
             offsetof(struct prototype, layer.uncond_label), 0, 1 << 30, NULL, NULL},
     .null_label = true},
};

/* With rows of norm 1 a cosine is a product with a unit token. */
static void params(struct router_layer *layer, struct params *params, const char *gate, int D) {
  router_gate(layer, params, gate, D, PARAM_UNIT);
}

/* Cosines [B * T, E] and what they are weighed as. The softmax runs over what competes: the experts
 * of a token, or the tokens of an expert. */
static void weigh(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
                  struct router_trace *trace, bool over_tokens) {
  const int E = layer->experts;
  const int64_t rows = (int64_t)in->B * in->T;
  float *unit = be_floats(ex, rows * in->D), *cosine = be_floats(ex, rows * E);
  const int mode = ((const struct prototype *)layer)->weights;
  float *weight = mode == WEIGHTS_IDENTITY ? cosine : be_floats(ex, rows * E);
  be_normalize_rows(ex, unit, in->u, rows, in->D);
  be_linear(ex, cosine, act_f32(unit), layer->gate, rows);
  if (mode == WEIGHTS_SIGMOID) be_sigmoid(ex, weight, cosine, rows * E);
  if (mode == WEIGHTS_SOFTMAX && over_tokens)
    be_softmax_tokens(ex, weight, cosine, in->B, in->T, E);
  if (mode == WEIGHTS_SOFTMAX && !over_tokens) be_softmax_rows(ex, weight, cosine, rows, E);
  trace->rows = rows;
  trace->cosine = cosine;
  trace->scores = weight;
}

/* Step 1, last: what step 2 chose for images of the null class is replaced. So the operations of a
 * call do not depend on its labels. */
static void assign_null(struct exec *ex, const struct router_layer *layer,
                        const struct router_input *in, struct dispatch *d) {
  if (layer->uncond_expert >= 0)
    be_assign_label(ex, d, in->labels, layer->uncond_label, layer->uncond_expert, in->B, in->T);
}

#define PROMOE_NAMES                                                                               \
  .prefix = "blocks.%d.mlp.", .gate = "cluster_centers", .shared = "shared_expert.",               \
  .family = "ProMoE", .unknown = "whether ProMoE's tokens choose experts or experts tokens"

/* Token choice. */

static int64_t tokens_assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * in->T * router_top_k(layer, in);
}

static void route_tokens(struct exec *ex, const struct router_layer *layer,
                         const struct router_input *in, struct dispatch *d,
                         struct router_trace *trace) {
  weigh(ex, layer, in, trace, false);
  be_assign_topk(ex, d, trace->scores, trace->rows, layer->experts, router_top_k(layer, in),
                 router_skip(layer, in));
  assign_null(ex, layer, in, d);
}

static const struct router token_choice = {.name = "prototype-token-choice",
                                           .size = sizeof(struct prototype),
                                           .token_choice = true,
                                           .needs_top_k = true,
                                           .unconditional = true,
                                           .keys = keys,
                                           .key_count = sizeof keys / sizeof *keys,
                                           .params = params,
                                           .assignments = tokens_assignments,
                                           .route = route_tokens};

static const struct mixture promoe_tc = {
    .kind = "promoe-tc", .alias = "ProMoE token choice", .router = &token_choice, PROMOE_NAMES};
MIXTURE_ENTRY(promoe_tc);

/* Expert choice. */

static int tokens_per_expert(const struct router_layer *layer, const struct router_input *in) {
  int top_k = in->routing && in->routing->top_k > 0 ? in->routing->top_k : layer->top_k;
  int count = (int)((double)in->T / layer->experts * top_k);
  if (count > in->T) count = in->T;
  return count > 1 ? count : 1;
}

/* Assignments of an image: E K, or T to the unconditional expert. */
static int64_t stride(const struct router_layer *layer, const struct router_input *in) {
  int64_t routed = (int64_t)layer->experts * tokens_per_expert(layer, in);
  return routed > in->T ? routed : in->T;
}

static int64_t experts_assignments(const struct router_layer *layer,
                                   const struct router_input *in) {
  return in->B * stride(layer, in);
}

static void route_experts(struct exec *ex, const struct router_layer *layer,
                          const struct router_input *in, struct dispatch *d,
                          struct router_trace *trace) {
  weigh(ex, layer, in, trace, true);
  be_assign_tokens(ex, d, trace->scores, in->B, in->T, layer->experts, tokens_per_expert(layer, in),
                   stride(layer, in));
  assign_null(ex, layer, in, d);
}

static const struct router expert_choice = {.name = "prototype-expert-choice",
                                            .size = sizeof(struct prototype),
                                            .needs_top_k = true,
                                            .unconditional = true,
                                            .keys = keys,
                                            .key_count = sizeof keys / sizeof *keys,
                                            .params = params,
                                            .assignments = experts_assignments,
                                            .route = route_experts};

static const struct mixture promoe_ec = {
    .kind = "promoe-ec", .alias = "ProMoE expert choice", .router = &expert_choice, PROMOE_NAMES};
MIXTURE_ENTRY(promoe_ec);

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

/* What step 2 computes; the softmax runs over what competes: the experts of a token, or the tokens
 * of an expert. */
struct weighed {
  float *unit;   /* [B * T, D] tokens of length 1                    */
  float *cosine; /* [B * T, E]                                       */
  float *weight; /* [B * T, E] what is made of it, cosine if nothing */
};

static struct weighed weigh(struct exec *ex, const struct router_layer *layer,
                            const struct router_input *in) {
  const bool over_tokens = !layer->router->token_choice;
  const int E = layer->experts;
  const int64_t rows = (int64_t)in->B * in->T;
  const int mode = ((const struct prototype *)layer)->weights;
  struct weighed w = {be_floats(ex, rows * in->D), be_floats(ex, rows * E), NULL};
  w.weight = mode == WEIGHTS_IDENTITY ? w.cosine : be_floats(ex, rows * E);
  be_normalize_rows(ex, w.unit, in->u, rows, in->D);
  be_linear(ex, w.cosine, act_f32(w.unit), layer->gate, rows);
  if (mode == WEIGHTS_SIGMOID) be_sigmoid(ex, w.weight, w.cosine, rows * E);
  if (mode == WEIGHTS_SOFTMAX && over_tokens)
    be_softmax_tokens(ex, w.weight, w.cosine, in->B, in->T, E);
  if (mode == WEIGHTS_SOFTMAX && !over_tokens) be_softmax_rows(ex, w.weight, w.cosine, rows, E);
  return w;
}

static void weigh_bwd(struct exec *ex, const struct router_layer *layer,
                      const struct router_input *in, const struct dispatch *d,
                      const struct router_grad *grad, float *du, const float *dweight) {
  const bool over_tokens = !layer->router->token_choice;
  const int E = layer->experts;
  const int64_t rows = (int64_t)in->B * in->T;
  const int mode = ((const struct prototype *)layer)->weights;
  const struct weighed w = weigh(ex, layer, in);
  float *dcosine = be_floats(ex, rows * E), *dunit = be_floats(ex, rows * in->D);
  be_gates_bwd(ex, dcosine, dweight, d, E); /* the unconditional expert has no score */
  if (mode == WEIGHTS_SIGMOID) be_sigmoid_bwd(ex, dcosine, dcosine, w.weight, rows * E);
  if (mode == WEIGHTS_SOFTMAX && over_tokens)
    be_softmax_tokens_bwd(ex, dcosine, dcosine, w.weight, in->B, in->T, E);
  if (mode == WEIGHTS_SOFTMAX && !over_tokens)
    be_softmax_rows_bwd(ex, dcosine, dcosine, w.weight, rows, E);
  be_linear_bwd_weight(ex, &grad->gate, dcosine, act_f32(w.unit), layer->gate, rows);
  be_linear_bwd_input(ex, dunit, dcosine, layer->gate, rows);
  be_normalize_rows_bwd(ex, du, dunit, in->u, rows, in->D);
}

/* Tokens of an expert's choice. */
static int tokens_per_expert(const struct router_layer *layer, const struct router_input *in) {
  int top_k = in->routing && in->routing->top_k > 0 ? in->routing->top_k : layer->top_k;
  int count = (int)((double)in->T / layer->experts * top_k);
  if (count > in->T) count = in->T;
  return count > 1 ? count : 1;
}

/* Assignments of an image. Where experts choose, E K, or T to the unconditional expert. */
static int64_t stride(const struct router_layer *layer, const struct router_input *in) {
  if (layer->router->token_choice) return (int64_t)in->T * router_top_k(layer, in);
  int64_t routed = (int64_t)layer->experts * tokens_per_expert(layer, in);
  return routed > in->T ? routed : in->T;
}

static int64_t assignments(const struct router_layer *layer, const struct router_input *in) {
  return in->B * stride(layer, in);
}

/* Step 1 is the last: what step 2 chose for images of the null class is replaced. So the operations
 * of a call do not depend on its labels. */
static void route(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
                  struct dispatch *d, struct router_trace *trace) {
  const struct weighed w = weigh(ex, layer, in);
  trace->rows = (int64_t)in->B * in->T;
  trace->cosine = w.cosine;
  trace->scores = w.weight;
  if (layer->router->token_choice)
    be_assign_topk(ex, d, w.weight, trace->rows, layer->experts, router_top_k(layer, in),
                   router_skip(layer, in));
  else
    be_assign_tokens(ex, d, w.weight, in->B, in->T, layer->experts, tokens_per_expert(layer, in),
                     stride(layer, in));
  if (layer->uncond_expert >= 0)
    be_assign_label(ex, d, in->labels, layer->uncond_label, layer->uncond_expert, in->B, in->T);
}

#define PROMOE_ROUTER                                                                              \
  .size = sizeof(struct prototype), .needs_top_k = true, .unconditional = true, .keys = keys,      \
  .key_count = sizeof keys / sizeof *keys, .params = params, .assignments = assignments,           \
  .route = route, .bwd = weigh_bwd
static const struct router token_choice = {
    .name = "prototype-token-choice", .token_choice = true, PROMOE_ROUTER};
static const struct router expert_choice = {.name = "prototype-expert-choice", PROMOE_ROUTER};

#define PROMOE_NAMES                                                                               \
  .prefix = "blocks.%d.mlp.", .gate = "cluster_centers", .shared = "shared_expert.",               \
  .family = "ProMoE", .unknown = "whether ProMoE's tokens choose experts or experts tokens"
static const struct mixture promoe_tc = {
    .kind = "promoe-tc", .alias = "ProMoE token choice", .router = &token_choice, PROMOE_NAMES};
MIXTURE_ENTRY(promoe_tc);
static const struct mixture promoe_ec = {
    .kind = "promoe-ec", .alias = "ProMoE expert choice", .router = &expert_choice, PROMOE_NAMES};
MIXTURE_ENTRY(promoe_ec);

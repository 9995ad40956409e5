/* Token choice as in DeepSeek-V3 (arXiv 2412.19437): s = sigmoid(u W^T), experts chosen by s + b
 * from the best groups, weights s over their sum, times a factor (DSMoE and JiTMoE). */
#include "router/router.h"

struct layer {
  struct router_layer base;
  struct biased_choice choice;
  int groups, kept_groups;
  double factor;
};

#define AT(member) offsetof(struct layer, member)
static const struct router_key keys[] = {
    {{"n_group", NULL, NULL, RECORD_INT, AT(groups), 1, 1024, NULL, NULL}, 1, false},
    {{"topk_group", NULL, NULL, RECORD_INT, AT(kept_groups), 0, 1024, NULL, NULL}, 0, false},
    {{"routed_scaling_factor", NULL, NULL, RECORD_NUMBER, AT(factor), 1e-6, 1e6, NULL,
      "the factor of the experts' weights"},
     0,
     false},
};

static void params(struct router_layer *router, struct params *params, const char *gate, int D) {
  struct layer *layer = (struct layer *)router;
  const int E = router->experts, groups = layer->groups;
  layer->choice.groups = groups;
  layer->choice.kept = layer->kept_groups > 0 ? layer->kept_groups : groups;
  layer->choice.factor = (float)layer->factor;
  router_gate(router, params, gate, D, 0);
  params_floats(params, &layer->choice.bias, 1, (int64_t[1]){E}, PARAM_FIXED,
                "gate.e_score_correction_bias");
  if (params->status == DITMOE_OK &&
      (E % groups != 0 || (groups > 1 && E / groups < 2) || layer->choice.kept > groups))
    params->status = fail(params->ctx, DITMOE_MISMATCH,
                          "%s: n_group %d, topk_group %d do not fit %d experts: groups have two or "
                          "more, all as many",
                          params->file->path, groups, layer->choice.kept, E);
}

static int64_t assignments(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->B * in->T * router_top_k(layer, in);
}

static void route(struct exec *ex, const struct router_layer *router, const struct router_input *in,
                  struct dispatch *d, struct router_trace *trace) {
  const struct layer *layer = (const struct layer *)router;
  const int64_t tokens = (int64_t)in->B * in->T, n = tokens * router->experts;
  float *scores = be_floats(ex, n), *ranked = be_floats(ex, n);
  be_linear(ex, scores, act_f32(in->u), router->gate, tokens);
  be_sigmoid(ex, scores, scores, n);
  be_assign_biased(ex, d, ranked, scores, &layer->choice, tokens, router->experts,
                   router_top_k(router, in), router_skip(router, in));
  trace->rows = tokens;
  trace->scores = scores;
  trace->ranked = ranked;
}

static const struct router sigmoid_bias = {.name = "sigmoid-bias",
                                           .size = sizeof(struct layer),
                                           .token_choice = true,
                                           .needs_top_k = true,
                                           .keys = keys,
                                           .key_count = sizeof keys / sizeof *keys,
                                           .params = params,
                                           .assignments = assignments,
                                           .route = route};

#define DSMOE_BLOCKS                                                                               \
  .router = &sigmoid_bias, .prefix = "blocks.%d.mlp.", .gate = "gate.weight",                      \
  .second = "gate.e_score_correction_bias", .experts = "experts.blocks.",                          \
  .shared = "shared_experts.", .adds_input = true
static const struct mixture dsmoe = {
    .kind = "dsmoe", .mlp = &expert_silu, .rotary = true, .free_heads = true, DSMOE_BLOCKS};
MIXTURE_ENTRY(dsmoe);
static const struct mixture jitmoe = {
    .kind = "jitmoe", .told_by = "x_embedder.proj1.weight", DSMOE_BLOCKS};
MIXTURE_ENTRY(jitmoe);

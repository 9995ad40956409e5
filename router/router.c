/* What several routers do. */
#include "router/router.h"

void router_gate(struct router_layer *layer, struct params *params, const char *name, int D,
                 uint32_t flags) {
  params_matrix(params, &layer->gate, layer->experts, D, false,
                flags | PARAM_EXACT | PARAM_BARE | PARAM_PLAIN, name);
}

void router_gate_alone(struct router_layer *layer, struct params *params, const char *gate, int D) {
  router_gate(layer, params, gate, D, 0);
}

int router_skip(const struct router_layer *layer, const struct router_input *in) {
  int skip = in->routing ? in->routing->skip : 0;
  return skip < layer->experts ? skip : layer->experts - 1;
}

int router_top_k(const struct router_layer *layer, const struct router_input *in) {
  int top_k = in->routing && in->routing->top_k > 0 ? in->routing->top_k : layer->top_k;
  int left = layer->experts - router_skip(layer, in);
  return top_k < left ? top_k : left;
}

float *router_softmax_scores(struct exec *ex, const struct router_layer *layer,
                             const struct router_input *in, struct router_trace *trace) {
  const int64_t tokens = (int64_t)in->B * in->T;
  float *scores = be_floats(ex, tokens * layer->experts);
  be_linear(ex, scores, act_f32(in->u), layer->gate, tokens);
  be_softmax_rows(ex, scores, scores, tokens, layer->experts);
  trace->rows = tokens;
  trace->scores = scores;
  return scores;
}

void router_softmax_bwd(struct exec *ex, const struct router_layer *layer,
                        const struct router_input *in, const struct dispatch *d,
                        const struct router_grad *grad, float *du, const float *dweight) {
  const int64_t tokens = (int64_t)in->B * in->T;
  struct router_trace trace = {0};
  const float *scores = router_softmax_scores(ex, layer, in, &trace);
  float *dscores = be_floats(ex, tokens * layer->experts);
  be_gates_bwd(ex, dscores, dweight, d, layer->experts);
  be_softmax_rows_bwd(ex, dscores, dscores, scores, tokens, layer->experts);
  be_linear_bwd_weight(ex, &grad->gate, dscores, act_f32(in->u), layer->gate, tokens);
  be_linear_bwd_input(ex, du, dscores, layer->gate, tokens);
}

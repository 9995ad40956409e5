/* The table of routers. */
#include "router/router.h"

#include <string.h>

extern const struct router router_softmax_topk, router_expert_choice, router_diffmoe,
    router_prototype_tokens, router_prototype_experts;

static const struct router *const routers[] = {
    &router_softmax_topk,     &router_expert_choice,     &router_diffmoe,
    &router_prototype_tokens, &router_prototype_experts,
};

const struct router *router_at(int index) {
  size_t count = sizeof routers / sizeof *routers;
  return index >= 0 && (size_t)index < count ? routers[index] : NULL;
}

const struct router *router_find(const char *name) {
  for (int i = 0; router_at(i); i++)
    if (strcmp(router_at(i)->name, name) == 0) return router_at(i);
  return NULL;
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

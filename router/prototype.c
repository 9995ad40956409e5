/* ProMoE's two-step router. Step 1: images of the null class go whole to the unconditional expert
 * and skip step 2. Step 2: z = cosine of a token and the prototype of each expert; its weight is z,
 * sigmoid z or softmax z; then either each token takes its k best experts, or each expert takes its
 * K = max(1, min(int((T / E) * k), T)) best tokens of an image. */
#include "router/router.h"

static bool is_null(const struct router_layer *layer, const struct router_input *in, int b) {
  return layer->uncond_expert >= 0 && in->labels && in->labels[b] == layer->uncond_label;
}

/* First image after `first` of the other sort. */
static int run_end(const struct router_layer *layer, const struct router_input *in, int first) {
  int end = first + 1;
  while (end < in->B && is_null(layer, in, end) == is_null(layer, in, first)) end++;
  return end;
}

/* Step 1 for images first .. end - 1, each with room for `stride` assignments. */
static void assign_null(struct backend *be, const struct router_layer *layer,
                        const struct router_input *in, struct dispatch *d, int first, int end,
                        int64_t stride) {
  for (int b = first; b < end; b++) {
    be_assign(be, d, b * stride, b * in->T, in->T, layer->uncond_expert, 1.0f);
    be_assign(be, d, b * stride + in->T, 0, stride - in->T, -1, 0.0f);
  }
}

/* Cosines and weights of `images` images. The softmax runs over what competes: the experts of a
 * token, or the tokens of an expert. */
static void weigh(struct backend *be, const struct router_layer *layer, float *cosine,
                  float *weight, float *unit, const float *u, int images,
                  const struct router_input *in, bool over_tokens) {
  int E = layer->experts;
  int64_t rows = (int64_t)images * in->T;
  be_normalize_rows(be, unit, u, rows, in->D);
  be_linear_exact(be, cosine, unit, layer->gate, rows);
  if (layer->weights == WEIGHTS_SIGMOID) be_sigmoid(be, weight, cosine, rows * E);
  if (layer->weights == WEIGHTS_SOFTMAX && over_tokens)
    be_softmax_tokens(be, weight, cosine, images, in->T, E);
  if (layer->weights == WEIGHTS_SOFTMAX && !over_tokens)
    be_softmax_rows(be, weight, cosine, rows, E);
}

/* Step 2 for images first .. end - 1 with weights `weight`. */
typedef void choose(struct backend *be, const struct router_layer *layer,
                    const struct router_input *in, struct dispatch *d, const float *weight,
                    int first, int end);

static void route(struct backend *be, const struct router_layer *layer,
                  const struct router_input *in, struct dispatch *d, struct router_trace *trace,
                  choose *choose_images, bool over_tokens, int64_t stride) {
  int64_t routed = 0;
  for (int b = 0; b < in->B; b++) routed += is_null(layer, in, b) ? 0 : in->T;
  float *unit = be_floats(be, routed * in->D);
  float *cosine = be_floats(be, routed * layer->experts);
  float *weight =
      layer->weights == WEIGHTS_IDENTITY ? cosine : be_floats(be, routed * layer->experts);
  if (be->status != DITMOE_OK) return;
  int64_t row = 0;
  for (int first = 0, end; first < in->B; first = end) {
    end = run_end(layer, in, first);
    if (is_null(layer, in, first)) {
      assign_null(be, layer, in, d, first, end, stride);
      continue;
    }
    int64_t at = row * layer->experts;
    weigh(be, layer, cosine + at, weight + at, unit + row * in->D,
          in->u + (int64_t)first * in->T * in->D, end - first, in, over_tokens);
    choose_images(be, layer, in, d, weight + at, first, end);
    row += (int64_t)(end - first) * in->T;
  }
  trace->rows = routed;
  trace->cosine = cosine;
  trace->scores = weight;
}

/* Token choice. */

static int64_t tokens_stride(const struct router_layer *layer, const struct router_input *in) {
  return (int64_t)in->T * router_top_k(layer, in);
}

static int64_t tokens_assignments(const struct router_layer *layer, const struct router_input *in) {
  return in->B * tokens_stride(layer, in);
}

static void choose_experts(struct backend *be, const struct router_layer *layer,
                           const struct router_input *in, struct dispatch *d, const float *weight,
                           int first, int end) {
  be_assign_topk(be, d, first * tokens_stride(layer, in), weight, first * in->T,
                 (int64_t)(end - first) * in->T, layer->experts, router_top_k(layer, in),
                 router_skip(layer, in));
}

static void route_tokens(struct backend *be, const struct router_layer *layer,
                         const struct router_input *in, struct dispatch *d,
                         struct router_trace *trace) {
  route(be, layer, in, d, trace, choose_experts, false, tokens_stride(layer, in));
}

const struct router router_prototype_tokens = {"prototype-token-choice", false, true,
                                               tokens_assignments, route_tokens};

/* Expert choice. */

static int tokens_per_expert(const struct router_layer *layer, const struct router_input *in) {
  int top_k = in->routing && in->routing->top_k > 0 ? in->routing->top_k : layer->top_k;
  int count = (int)((double)in->T / layer->experts * top_k);
  if (count > in->T) count = in->T;
  return count > 1 ? count : 1;
}

static int64_t experts_stride(const struct router_layer *layer, const struct router_input *in) {
  int64_t routed = (int64_t)layer->experts * tokens_per_expert(layer, in);
  return routed > in->T ? routed : in->T;
}

static int64_t experts_assignments(const struct router_layer *layer,
                                   const struct router_input *in) {
  return in->B * experts_stride(layer, in);
}

static void choose_tokens(struct backend *be, const struct router_layer *layer,
                          const struct router_input *in, struct dispatch *d, const float *weight,
                          int first, int end) {
  int E = layer->experts, K = tokens_per_expert(layer, in);
  int64_t stride = experts_stride(layer, in), used = (int64_t)E * K;
  for (int b = first; b < end; b++) {
    be_assign_tokens(be, d, b * stride, weight + (int64_t)(b - first) * in->T * E, b * in->T, 1,
                     in->T, E, K);
    be_assign(be, d, b * stride + used, 0, stride - used, -1, 0.0f);
  }
}

static void route_experts(struct backend *be, const struct router_layer *layer,
                          const struct router_input *in, struct dispatch *d,
                          struct router_trace *trace) {
  route(be, layer, in, d, trace, choose_tokens, true, experts_stride(layer, in));
}

const struct router router_prototype_experts = {"prototype-expert-choice", false, false,
                                                experts_assignments, route_experts};

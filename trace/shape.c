/* Shapes of tables: room, copies, limits, differences. */
#include "trace/shape.h"

#include <math.h>
#include <string.h>

/* A table of more cells is refused, so that a header of a few bytes cannot ask for all memory.
 * Experts are u16 in records, and the last number stands for none. */
enum { MOST_CELLS = 1 << 26, MOST_LAYERS = 1 << 16, MOST_STEPS = 1 << 24, MOST_EXPERTS = 0xffff };

enum ditmoe_status shape_alloc(struct ditmoe_ctx *ctx, struct routing_shape *shape) {
  const size_t L = (size_t)shape->layers, S = (size_t)shape->bins, steps = (size_t)shape->steps;
  const size_t bytes = steps * sizeof *shape->time + (2 * L + S + 1) * sizeof *shape->layer;
  shape->time = NULL;
  TRY(mem_zalloc(ctx, bytes, 1, "layers and steps", &shape->time));
  shape->layer = (int32_t *)(void *)(shape->time + steps);
  shape->layer_experts = shape->layer + L;
  shape->bin_step = shape->layer_experts + L;
  return DITMOE_OK;
}

enum ditmoe_status shape_copy(struct ditmoe_ctx *ctx, const struct routing_shape *from,
                              struct routing_shape *out) {
  struct routing_shape copy = *from;
  const size_t L = (size_t)from->layers, S = (size_t)from->bins, steps = (size_t)from->steps;
  TRY(shape_alloc(ctx, &copy));
  memcpy(copy.layer, from->layer, L * sizeof *copy.layer);
  memcpy(copy.layer_experts, from->layer_experts, L * sizeof *copy.layer_experts);
  memcpy(copy.bin_step, from->bin_step, (S + 1) * sizeof *copy.bin_step);
  memcpy(copy.time, from->time, steps * sizeof *copy.time);
  *out = copy;
  return DITMOE_OK;
}

void shape_free(struct ditmoe_ctx *ctx, struct routing_shape *shape) {
  mem_free(ctx, shape->time);
  shape->time = NULL;
}

void shape_divide_steps(struct routing_shape *shape) {
  for (int b = 0; b <= shape->bins; b++)
    shape->bin_step[b] = (int32_t)((int64_t)b * shape->steps / shape->bins);
}

static bool too_large(const struct routing_shape *s) {
  const double L = s->layers, S = s->bins, T = s->tokens, E = s->experts, C = s->labels;
  return L * S * T * E > MOST_CELLS || L * C * E > MOST_CELLS || L * E * E > MOST_CELLS ||
         2 * L * s->steps > MOST_CELLS;
}

static const char *numbers_fault(const struct routing_shape *s) {
  if (s->layers < 1 || s->layers > MOST_LAYERS) return "the number of layers";
  if (s->steps < 1 || s->steps > MOST_STEPS) return "the number of steps";
  if (s->bins < 1 || s->bins > s->steps) return "the number of bins";
  if (s->side < 1 || s->tokens != (int64_t)s->side * s->side) return "the number of tokens";
  if (s->experts < 1 || s->experts > MOST_EXPERTS) return "the number of experts";
  if (s->labels < 1) return "the number of labels";
  if (s->top_k < 0 || s->top_k > s->experts) return "top_k";
  if (s->uncond_expert < -1 || s->uncond_expert >= s->experts) return "the unconditional expert";
  if (s->null_label < -1 || s->null_label >= s->labels) return "the null label";
  if (s->halves < 1 || s->halves > DITMOE_HALVES) return "the number of halves";
  return too_large(s) ? "the size of the tables" : NULL;
}

const char *shape_fault(const struct routing_shape *s) {
  const char *fault = numbers_fault(s);
  int32_t largest = 0;
  if (fault) return fault;
  for (int l = 0; l < s->layers; l++) {
    if (s->layer[l] < 0 || (l && s->layer[l] <= s->layer[l - 1])) return "the layers do not ascend";
    if (s->layer_experts[l] < 1) return "a layer without experts";
    if (s->layer_experts[l] > largest) largest = s->layer_experts[l];
  }
  if (largest != s->experts) return "the number of experts";
  if (s->bin_step[0] != 0 || s->bin_step[s->bins] != s->steps)
    return "the bins do not have all steps";
  for (int b = 0; b < s->bins; b++)
    if (s->bin_step[b] >= s->bin_step[b + 1]) return "the steps of the bins do not ascend";
  for (int step = 0; step < s->steps; step++)
    if (!isfinite(s->time[step])) return "the time of a step is no number";
  return NULL;
}

const char *shape_difference(const struct routing_shape *a, const struct routing_shape *b) {
  const size_t L = (size_t)a->layers, S = (size_t)a->bins, steps = (size_t)a->steps;
  if (a->layers != b->layers || memcmp(a->layer, b->layer, L * sizeof *a->layer) != 0)
    return "layers";
  if (a->experts != b->experts ||
      memcmp(a->layer_experts, b->layer_experts, L * sizeof *a->layer_experts) != 0)
    return "experts";
  if (a->tokens != b->tokens || a->side != b->side) return "tokens";
  if (a->labels != b->labels || a->null_label != b->null_label) return "labels";
  if (a->top_k != b->top_k) return "experts of a token";
  if (a->uncond_expert != b->uncond_expert) return "unconditional expert";
  if (a->steps != b->steps) return "steps";
  if (memcmp(a->time, b->time, steps * sizeof *a->time) != 0) return "times of the steps";
  if (a->bins != b->bins || memcmp(a->bin_step, b->bin_step, (S + 1) * sizeof *a->bin_step) != 0)
    return "bins of the steps";
  if (a->halves != b->halves) return "unconditional half";
  if (a->mass != b->mass) return "sums of weights";
  return NULL;
}

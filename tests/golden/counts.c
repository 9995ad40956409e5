/* What the recorder of routing counts against the choices of the fixture: every cell is equal. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Counts [T, E] of one layer that the fixture's tensor makes. */
struct expected {
  struct golden *g;
  const struct layer_plan *plan;
  const int32_t *labels; /* [B] */
  const double *values;  /* of the tensor */
  int64_t count;
  int T, E; /* of the tables, which leave out what comes before the tokens of an image */
  uint32_t *counts;
  bool fits; /* the tensor has the size that the layer needs */
};

static void expect(struct expected *x, int64_t token, double expert) {
  const int64_t place = token % x->plan->T - (x->plan->T - x->T);
  x->fits = x->fits && expert >= 0 && expert < x->E;
  if (x->fits && place >= 0) x->counts[place * x->E + (int)expert]++;
}

/* topk_idx [B, T, k]; what fills up the slots of a token repeats an expert. */
static void expect_topk(struct expected *x) {
  const int64_t tokens = (int64_t)x->plan->B * x->plan->T, k = x->count / tokens;
  x->fits = k > 0 && x->count == k * tokens;
  for (int64_t i = 0; x->fits && i < x->count; i++) {
    bool repeated = false;
    for (int64_t j = i - i % k; j < i; j++) repeated |= x->values[j] == x->values[i];
    if (!repeated) expect(x, i / k, x->values[i]);
  }
}

/* expert_tokens [images with routed tokens, E, K]; the others are with the unconditional expert. */
static void expect_lists(struct expected *x) {
  const int T = x->plan->T, columns = x->plan->columns;
  int64_t routed = 0, at = 0;
  for (int b = 0; b < x->plan->B; b++) routed += !golden_is_null(x->g, x->labels[b]);
  const int64_t K = routed ? x->count / (routed * columns) : 0;
  x->fits = x->count == routed * columns * K;
  for (int b = 0; x->fits && b < x->plan->B; b++) {
    const bool null = golden_is_null(x->g, x->labels[b]);
    for (int t = 0; null && t < T; t++) expect(x, t, columns);
    for (int64_t i = 0; !null && i < columns * K; i++)
      expect(x, (int)x->values[at++], (int)(i / K));
  }
}

/* selected [E, B T] */
static void expect_masks(struct expected *x) {
  const int64_t tokens = (int64_t)x->plan->B * x->plan->T;
  x->fits = x->count == x->plan->columns * tokens;
  for (int64_t i = 0; x->fits && i < x->count; i++)
    if (x->values[i] != 0) expect(x, i % tokens, (double)(i / tokens));
}

static const struct {
  const char *base;
  void (*expect)(struct expected *x);
} choices[] = {
    {"topk_idx", expect_topk}, {"expert_tokens", expect_lists}, {"selected", expect_masks}};

static double differing(const struct expected *x, const uint32_t *counts) {
  double n = 0;
  for (int i = 0; i < x->T * x->E; i++) n += counts[i] != x->counts[i];
  return x->fits ? n : INFINITY;
}

enum ditmoe_status check_counts(struct golden *g, struct case_file *file, const char *base,
                                const struct recording *recording, size_t layer,
                                const int32_t *labels) {
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
  const struct layer_plan *plan = &recording->plans[layer];
  struct expected x = {.g = g, .plan = plan, .labels = labels};
  char name[80], line[96];
  double *values;
  size_t i = 0;
  while (i < sizeof choices / sizeof *choices && strcmp(choices[i].base, base) != 0) i++;
  if (i == sizeof choices / sizeof *choices) return DITMOE_OK;
  ditmoe_routing_info(recording->routing, &info);
  ditmoe_routing_tables(recording->routing, DITMOE_CONDITIONAL, &tables);
  snprintf(name, sizeof name, "%s.%d", base, plan->layer);
  snprintf(line, sizeof line, "%s:counted", name);
  x.T = info.tokens;
  x.E = info.experts;
  TRY(mem_zalloc(g->ctx, (size_t)(x.T * x.E), sizeof *x.counts, "counts", &x.counts));
  enum ditmoe_status status = case_values(file, name, &values, &x.count);
  if (status == DITMOE_OK) {
    x.values = values;
    choices[i].expect(&x);
    case_line(file, line, differing(&x, tables.counts + (int64_t)layer * x.T * x.E), LIMIT_EXACT);
    mem_free(g->ctx, values);
  }
  mem_free(g->ctx, x.counts);
  return status;
}

/* Calls of routers' choices and of the steps of a mixture-of-experts layer. */
#include "bench/ops/run.h"

#include "cli/text.h"

#include <math.h>
#include <stdlib.h>

enum { LEAD = 3 };

/* Scores, with ties and NaN if the shape asks for them; with groups between 0 and 1. */
static float *scores(struct trial *t, int64_t item) {
  const struct shape *s = t->s;
  int64_t n = s->N * item;
  float *values = memory_get((size_t)n, sizeof *values);
  trial_normal(t, values, n);
  for (int64_t i = 0; i < n; i++) {
    if (s->ties) values[i] = roundf(values[i] * 2) / 2;
    if (s->groups) values[i] = 1 / (1 + expf(-values[i]));
    if (s->nans && i % 7 < s->nans) values[i] = NAN;
  }
  float *device = trial_upload(t, values + t->begin * item, t->count * item);
  free(values);
  return device;
}

/* Assignments as results, `slots` for each item. Their tokens count from the first of the run. */
static struct dispatch choices(struct trial *t, int64_t slots) {
  return (struct dispatch){.experts = t->s->E,
                           .capacity = t->count * slots,
                           .expert = trial_results(t, slots),
                           .source = trial_result(t, t->count * slots),
                           .gate = trial_results(t, slots)};
}

void run_assign_topk(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = choices(t, s->K);
  be_assign_topk(t->ex, &d, scores(t, s->E), t->count, s->E, s->K, s->skip);
}

/* Half of the groups are kept. */
void run_assign_biased(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = choices(t, s->K);
  const struct biased_choice choice = {trial_values(t, s->E, 1, 0), s->groups, (s->groups + 1) / 2,
                                       2.5F};
  be_assign_biased(t->ex, &d, trial_results(t, s->E), scores(t, s->E), &choice, t->count, s->E,
                   s->K, s->skip);
}

/* One assignment more for each image than are used. */
void run_assign_tokens(struct trial *t) {
  const struct shape *s = t->s;
  const int64_t stride = (int64_t)s->E * s->K + 1;
  struct dispatch d = choices(t, stride);
  be_assign_tokens(t->ex, &d, scores(t, (int64_t)s->T * s->E), (int)t->count, s->T, s->E, s->K,
                   stride);
}

/* Images with one of three labels; those of label 1 go to the last expert. */
void run_assign_label(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = choices(t, (int64_t)s->T * s->K);
  int32_t *labels = trial_indices(t, 1, 3);
  be_assign_topk(t->ex, &d, scores(t, (int64_t)s->T * s->E), t->count * s->T, s->E, s->K, 0);
  be_assign_label(t->ex, &d, labels, 1, s->E - 1, (int)t->count, s->T);
}

/* Expert e takes about a share e / E of the tokens: the first none, the last perhaps all. */
void run_assign_counted(struct trial *t) {
  const struct shape *s = t->s;
  int64_t n = (int64_t)s->N * s->E;
  struct dispatch d = {.experts = s->E, .tokens = s->N, .capacity = n};
  d.expert = trial_result(t, n);
  d.source = trial_scratch(t, n); /* of unused assignments not defined */
  d.gate = trial_scratch(t, n);
  float *values = scores(t, s->E), *capacity = trial_values(t, n, 1, 0), threshold[TRIAL_EXPERTS];
  for (int e = 0; e < s->E; e++) threshold[e] = 4 - 8 * (float)e / (float)s->E;
  be_assign_counted(t->ex, &d, values, capacity, trial_upload(t, threshold, s->E), s->N, s->E);
  d.offset = trial_result(t, s->E + 1);
  d.token = trial_result(t, n);
  d.weight = trial_result(t, n);
  d.first = trial_result(t, s->N + 1);
  d.row = trial_result(t, n);
  be_dispatch_order(t->ex, &d);
}

static bool is_null(const struct shape *s, int64_t image) { return s->nulls && image % 3 == 1; }

static int32_t expert_by_pattern(struct trial *t, const int32_t *taken, int count) {
  const struct shape *s = t->s;
  if (s->pattern == PATTERN_ONE) return s->E / 2;
  for (;;) {
    int32_t e = (int32_t)trial_below(t, (uint32_t)s->E);
    bool used = s->pattern == PATTERN_EMPTY && e % 2 == 0;
    for (int i = 0; i < count; i++) used = used || taken[i] == e;
    if (!used) return e;
  }
}

/* K experts for each token of N images by the shape's pattern, every seventh choice unused unless
 * the shape is full; a null image goes to the last expert alone. */
static struct dispatch plan(struct trial *t, bool compared) {
  const struct shape *s = t->s;
  int64_t T = s->T, n = s->N * T * s->K, begin = t->begin * T * s->K, own = t->count * T * s->K;
  int32_t *expert = memory_get((size_t)n, sizeof *expert),
          *source = memory_get((size_t)n, sizeof *source);
  float *gate = memory_get((size_t)n, sizeof *gate);
  trial_normal(t, gate, n);
  for (int64_t i = 0; i < n; i++) {
    int64_t token = i / s->K, first = token * s->K;
    bool null = is_null(s, token / T);
    source[i] = (int32_t)(token - t->begin * T);
    expert[i] = null ? (i == first ? s->E - 1 : -1)
                     : expert_by_pattern(t, expert + first, (int)(i - first));
    if (s->ties) gate[i] = 0.5F;
    if (s->nans && i % 5 == 0) gate[i] = NAN;
  }
  for (int64_t i = 6; i < n && !s->full; i += 7) expert[i] = -1;
  struct dispatch d = {s->E, (int)(t->count * T), own, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                       NULL};
  void *(*take)(struct trial *, int64_t) = compared ? trial_result : trial_scratch;
  d.expert = trial_upload(t, expert + begin, own);
  d.source = trial_upload(t, source + begin, own);
  d.gate = trial_upload(t, gate + begin, own);
  d.offset = take(t, s->E + 1);
  d.token = take(t, own);
  d.weight = take(t, own);
  d.first = take(t, d.tokens + 1);
  d.row = take(t, own);
  be_dispatch_order(t->ex, &d);
  free(expert);
  free(source);
  free(gate);
  return d;
}

void run_dispatch_order(struct trial *t) { plan(t, true); }

void run_combine_rows(struct trial *t) {
  int D = t->s->D;
  struct dispatch d = plan(t, false);
  float *rows = trial_items(t, (int64_t)t->s->T * t->s->K * D);
  float *add = t->s->add ? trial_items(t, (int64_t)t->s->T * D) : NULL;
  be_combine_rows(t->ex, trial_result(t, (int64_t)d.tokens * D), rows, &d, add, D);
}

/* E experts of the shape's kinds. Mixed: SwiGLU and GELU of different widths, zero, copy. */
struct expert_set {
  struct expert expert[TRIAL_EXPERTS];
  struct expert_bank bank;
  struct expert_wave wave;
};

static struct expert make_expert(struct trial *t, int e) {
  const struct shape *s = t->s;
  static const struct expert_kind *const mixed[] = {&expert_swiglu, &expert_gelu, &expert_zero,
                                                    &expert_copy};
  const struct expert_kind *kind = s->kinds == KINDS_SWIGLU ? &expert_swiglu
                                   : s->kinds == KINDS_GELU ? &expert_gelu
                                   : s->kinds == KINDS_FREE ? mixed[2 + e % 2]
                                                            : mixed[e % 4];
  if (kind->rows != ROWS_PRODUCT) return (struct expert){.kind = kind};
  int hidden = s->kinds == KINDS_MIXED && e > 0 ? s->F / 2 + e : s->F;
  if (hidden > s->F) hidden = s->F;
  bool gelu = kind == &expert_gelu;
  return (struct expert){kind, hidden, trial_linear(t, s->D, hidden, 1, !gelu, gelu),
                         trial_linear(t, hidden, s->D, 1, false, gelu)};
}

static void make_experts(struct trial *t, struct expert_set *set) {
  const struct shape *s = t->s;
  for (int e = 0; e < s->E; e++) {
    t->poisoned = s->poison && e == s->E / 2;
    set->expert[e] = make_expert(t, e);
  }
  t->poisoned = false;
  set->bank = (struct expert_bank){s->E, s->D, s->F, t->ex->compute, set->expert};
  set->wave = (struct expert_wave){.bank = &set->bank, .count = s->E};
}

void run_experts_in(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = plan(t, false);
  struct expert_set set;
  make_experts(t, &set);
  struct act x = trial_acts(t, (int64_t)s->T * s->D);
  be_experts_in(t->ex, trial_act_result(t, d.capacity * s->F), x, &d, &set.wave);
}

void run_experts_out(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = plan(t, false);
  struct expert_set set;
  make_experts(t, &set);
  struct act x = trial_acts(t, (int64_t)s->T * s->D);
  struct act h = trial_acts(t, (int64_t)s->T * s->K * s->F);
  be_experts_out(t->ex, trial_result(t, d.capacity * s->D), h, x, &d, &set.wave);
}

/* All steps; the items are images. */
void run_moe(struct trial *t) {
  const struct shape *s = t->s;
  struct expert_set set;
  make_experts(t, &set);
  struct dispatch d = plan(t, false);
  struct act x = trial_acts(t, (int64_t)s->T * s->D);
  struct act h = trial_act_scratch(t, d.capacity * s->F);
  float *rows = trial_scratch(t, d.capacity * s->D);
  float *add = s->add ? trial_items(t, (int64_t)s->T * s->D) : NULL;
  be_experts_in(t->ex, h, x, &d, &set.wave);
  be_experts_out(t->ex, rows, h, x, &d, &set.wave);
  be_combine_rows(t->ex, trial_results(t, (int64_t)s->T * s->D), rows, &d, add, s->D);
}

/* Calls of routers' choices and of the steps of a mixture-of-experts layer. */
#include "bench/ops/run.h"

#include "cli/text.h"

#include <math.h>
#include <stdlib.h>

enum { LEAD = 3 };

/* Scores, with ties and NaN if the shape asks for them. */
static float *scores(struct trial *t, int64_t item) {
  const struct shape *s = t->s;
  int64_t n = s->N * item;
  float *values = memory_get((size_t)n, sizeof *values);
  trial_normal(t, values, n);
  for (int64_t i = 0; i < n; i++) {
    if (s->ties) values[i] = roundf(values[i] * 2) / 2;
    if (s->nans && i % 7 < s->nans) values[i] = NAN;
  }
  float *device = trial_upload(t, values + t->begin * item, t->count * item);
  free(values);
  return device;
}

/* Assignments as results, `slots` for each item, that start LEAD before the first one. */
static struct dispatch choices(struct trial *t, int64_t slots) {
  struct dispatch d = {.experts = t->s->E, .capacity = LEAD + t->count * slots};
  d.expert = (int32_t *)trial_results(t, slots) - LEAD;
  d.source = (int32_t *)trial_results(t, slots) - LEAD;
  d.gate = (float *)trial_results(t, slots) - LEAD;
  return d;
}

void run_assign(struct trial *t) {
  struct dispatch d = choices(t, 1);
  be_assign(t->be, &d, LEAD, (int32_t)t->begin + 5, t->count, 2, 0.25F);
}

void run_assign_topk(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = choices(t, s->K);
  float *values = scores(t, s->E);
  be_assign_topk(t->be, &d, LEAD, values, (int32_t)t->begin, t->count, s->E, s->K, s->skip);
}

void run_assign_tokens(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = choices(t, (int64_t)s->E * s->K);
  float *values = scores(t, (int64_t)s->T * s->E);
  be_assign_tokens(t->be, &d, LEAD, values, (int32_t)t->begin * s->T, (int)t->count, s->T, s->E,
                   s->K);
}

/* Expert e takes about a share e / E of the tokens: the first none, the last perhaps all. */
void run_assign_counted(struct trial *t) {
  const struct shape *s = t->s;
  int64_t n = (int64_t)s->N * s->E;
  struct dispatch d = {.experts = s->E, .capacity = LEAD + n};
  d.expert = (int32_t *)trial_result(t, n) - LEAD;
  d.source = (int32_t *)trial_scratch(t, n) - LEAD; /* of unused assignments not defined */
  d.gate = (float *)trial_scratch(t, n) - LEAD;
  float *values = scores(t, s->E), *capacity = trial_values(t, n, 1, 0), threshold[TRIAL_EXPERTS];
  for (int e = 0; e < s->E; e++) threshold[e] = 4 - 8 * (float)e / (float)s->E;
  be_assign_counted(t->be, &d, LEAD, values, capacity, trial_upload(t, threshold, s->E),
                    trial_scratch(t, n), s->N, s->E);
  d = (struct dispatch){s->E,
                        s->N,
                        n,
                        d.expert + LEAD,
                        d.source + LEAD,
                        d.gate + LEAD,
                        trial_result(t, s->E + 1),
                        trial_result(t, n),
                        trial_result(t, n),
                        trial_result(t, s->N + 1),
                        trial_result(t, n)};
  be_dispatch_order(t->be, &d);
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
  be_dispatch_order(t->be, &d);
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
  be_combine_rows(t->be, trial_result(t, (int64_t)d.tokens * D), rows, &d, add, D);
}

/* E experts of the shape's kinds. Mixed: SwiGLU and GELU of different widths, zero, copy. */
struct expert_set {
  struct expert expert[TRIAL_EXPERTS];
  const struct expert *list[TRIAL_EXPERTS];
};

static struct expert make_expert(struct trial *t, int e) {
  const struct shape *s = t->s;
  static const enum expert_kind mixed[] = {EXPERT_SWIGLU, EXPERT_GELU, EXPERT_ZERO, EXPERT_COPY};
  enum expert_kind kind = s->kinds == KINDS_SWIGLU ? EXPERT_SWIGLU
                          : s->kinds == KINDS_GELU ? EXPERT_GELU
                          : s->kinds == KINDS_FREE ? mixed[2 + e % 2]
                                                   : mixed[e % 4];
  if (kind >= EXPERT_ZERO) return (struct expert){.kind = kind};
  int hidden = s->kinds == KINDS_MIXED && e > 0 ? s->F / 2 + e : s->F;
  if (hidden > s->F) hidden = s->F;
  bool gelu = kind == EXPERT_GELU;
  return (struct expert){kind, hidden, trial_linear(t, s->D, hidden, 1, !gelu, gelu),
                         trial_linear(t, hidden, s->D, 1, false, gelu)};
}

static struct expert_set make_experts(struct trial *t) {
  struct expert_set set;
  for (int e = 0; e < t->s->E; e++) {
    t->poisoned = t->s->poison && e == t->s->E / 2;
    set.expert[e] = make_expert(t, e);
  }
  t->poisoned = false;
  return set;
}

static const struct expert *const *list_of(struct expert_set *set, int E) {
  for (int e = 0; e < E; e++) set->list[e] = &set->expert[e];
  return set->list;
}

void run_experts_in(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = plan(t, false);
  struct expert_set set = make_experts(t);
  struct act *x = trial_acts(t, (int64_t)s->T * s->D);
  be_experts_in(t->be, trial_act_result(t, d.capacity * s->F), x, &d, list_of(&set, s->E), s->D,
                s->F);
}

void run_experts_out(struct trial *t) {
  const struct shape *s = t->s;
  struct dispatch d = plan(t, false);
  struct expert_set set = make_experts(t);
  struct act *x = trial_acts(t, (int64_t)s->T * s->D);
  struct act *h = trial_acts(t, (int64_t)s->T * s->K * s->F);
  be_experts_out(t->be, trial_result(t, d.capacity * s->D), h, x, &d, list_of(&set, s->E), s->D,
                 s->F);
}

/* All steps; the items are images. */
void run_moe(struct trial *t) {
  const struct shape *s = t->s;
  struct expert_set set = make_experts(t);
  const struct expert *const *experts = list_of(&set, s->E);
  struct dispatch d = plan(t, false);
  struct act *x = trial_acts(t, (int64_t)s->T * s->D);
  struct act *h = trial_act_scratch(t, d.capacity * s->F);
  float *rows = trial_scratch(t, d.capacity * s->D);
  float *add = s->add ? trial_items(t, (int64_t)s->T * s->D) : NULL;
  be_experts_in(t->be, h, x, &d, experts, s->D, s->F);
  be_experts_out(t->be, rows, h, x, &d, experts, s->D, s->F);
  be_combine_rows(t->be, trial_results(t, (int64_t)s->T * s->D), rows, &d, add, s->D);
}

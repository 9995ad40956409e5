/* Scores and plans of the routers. A choice must equal the fixture's wherever the margin that the
 * fixture records for it exceeds ten times our error in the scores that decide it. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double MARGIN = 10;

/* How a fixture arranges the scores of a layer. */
enum layout {
  TOKENS_EXPERTS,        /* [B T, E], all images             */
  IMAGES_EXPERTS_TOKENS, /* [B, E, T], only the routed images */
  EXPERTS_TOKENS         /* [E, B T]                         */
};

static enum layout layout_of(const struct layer_plan *plan) {
  if (strstr(plan->router, "expert-choice")) return IMAGES_EXPERTS_TOKENS;
  return strcmp(plan->router, "diffmoe") == 0 ? EXPERTS_TOKENS : TOKENS_EXPERTS;
}

/* One layer's routing under comparison. */
struct routing_check {
  struct case_file *file;
  const struct layer_plan *plan;
  enum layout layout;
  char name[80]; /* of the tensor at hand */
  bool *null;    /* [B] images of the unconditional expert */
  int *slot;     /* [B] number of the image among the routed ones */
  int routed;    /* images */
};

/* Scores of the fixture, and how far ours are off. */
struct scores {
  double *golden; /* NULL: the fixture has none */
  enum layout layout;
  double error; /* the largest difference */
};

static int64_t score_count(const struct routing_check *c, enum layout layout) {
  const int64_t images = layout == IMAGES_EXPERTS_TOKENS ? c->routed : c->plan->B;
  return images * c->plan->T * c->plan->columns;
}

static int64_t score_at(const struct routing_check *c, enum layout layout, int b, int t, int e) {
  const int64_t T = c->plan->T, E = c->plan->columns;
  if (layout == IMAGES_EXPERTS_TOKENS) return (c->slot[b] * E + e) * T + t;
  if (layout == EXPERTS_TOKENS) return e * (c->plan->B * T) + b * T + t;
  return (b * T + t) * E + e;
}

/* Our score error against the fixture's tensor; rel-L2 in *l2. Both infinite if they do not fit. */
static void measure_scores(const struct routing_check *c, struct scores *s, const float *ours,
                           int64_t count, double *l2) {
  const int T = c->plan->T, E = c->plan->columns;
  double difference = 0, norm = 0;
  *l2 = s->error = INFINITY;
  if (!ours || count != score_count(c, s->layout) || c->plan->rows != (int64_t)c->plan->B * T)
    return;
  s->error = 0;
  for (int b = 0; b < c->plan->B; b++)
    for (int i = 0; !c->null[b] && i < T * E; i++) {
      double golden = s->golden[score_at(c, s->layout, b, i / E, i % E)];
      double d = fabs((double)ours[(int64_t)b * T * E + i] - golden);
      difference += d * d;
      norm += golden * golden;
      s->error = fmax(s->error, d);
    }
  *l2 = difference == 0 ? 0 : sqrt(difference / norm);
  if (!isfinite(*l2)) *l2 = s->error = INFINITY;
}

static enum ditmoe_status read_scores(const struct routing_check *c, const char *base,
                                      enum layout layout, const float *ours, struct scores *out,
                                      double *l2) {
  char name[80];
  int64_t count;
  *out = (struct scores){.layout = layout};
  snprintf(name, sizeof name, "%s.%d", base, c->plan->layer);
  if (!checkpoint_find(c->file->checkpoint, name)) return DITMOE_OK;
  TRY(case_values(c->file, name, &out->golden, &count));
  measure_scores(c, out, ours, count, l2);
  return DITMOE_OK;
}

/* The scores that compete: those of the router, what it ranked by instead, which fixtures do not
 * have, or the cosines behind them. */
static enum ditmoe_status competing_scores(const struct routing_check *c, struct scores *out) {
  double l2;
  TRY(read_scores(c, "router_scores", c->layout, c->plan->scores, out, &l2));
  for (int64_t i = 0; out->golden && c->plan->ranked && i < score_count(c, out->layout); i++)
    out->golden[i] = (double)c->plan->ranked[i];
  if (out->golden) return DITMOE_OK;
  return read_scores(c, "cos_sim", c->layout, c->plan->cosine, out, &l2);
}

static enum ditmoe_status check_scores(const struct routing_check *c) {
  const bool cosine = !strncmp(c->name, "cos_sim", 7), capacity = !strncmp(c->name, "capacity", 8);
  const float *ours = cosine ? c->plan->cosine : capacity ? c->plan->capacity : c->plan->scores;
  struct scores scores;
  double l2 = INFINITY;
  char base[80];
  snprintf(base, sizeof base, "%.*s", (int)(strrchr(c->name, '.') - c->name), c->name);
  TRY(read_scores(c, base, capacity ? TOKENS_EXPERTS : c->layout, ours, &scores, &l2));
  mem_free(c->file->ctx, scores.golden);
  case_line(c->file, c->name, l2, LIMIT_FORWARD);
  return DITMOE_OK;
}

/* Margins. */

static int descending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (x > y);
}

/* Distance between the values of rank `rank` and rank + 1 of n sorted ones, counted from 1. */
static double gap(const double *sorted, int64_t n, int64_t rank) {
  return rank < 1 || rank >= n ? INFINITY : sorted[rank - 1] - sorted[rank];
}

/* The scores that compete for a token, sorted. */
static void rank_experts(const struct routing_check *c, const struct scores *s, int b, int t,
                         double *sorted) {
  const int E = c->plan->columns;
  for (int e = 0; e < E; e++) sorted[e] = s->golden[score_at(c, s->layout, b, t, e)];
  qsort(sorted, (size_t)E, sizeof *sorted, descending);
}

/* Those that compete for expert e in `images` images from b on. */
static void rank_tokens(const struct routing_check *c, const struct scores *s, int b, int images,
                        int e, double *sorted) {
  const int T = c->plan->T;
  for (int i = 0; i < images * T; i++)
    sorted[i] = s->golden[score_at(c, s->layout, b + i / T, i % T, e)];
  qsort(sorted, (size_t)images * (size_t)T, sizeof *sorted, descending);
}

/* Token choice. */

static int expert_of(const struct layer_plan *plan, int32_t row) {
  int e = 0;
  while (e + 1 < plan->experts && row >= plan->offset[e + 1]) e++;
  return e;
}

/* Experts and weights of a token in the order of addition; slots without a row repeat the last
 * expert with weight 0. */
static void token_choice(const struct layer_plan *plan, int token, int k, double *experts,
                         double *weights) {
  const int32_t *rows = plan->row + plan->first[token];
  const int n = plan->first[token + 1] - plan->first[token];
  for (int j = 0; j < k; j++) {
    int32_t row = n > 0 ? rows[j < n ? j : n - 1] : -1;
    experts[j] = row < 0 ? -1 : expert_of(plan, row);
    weights[j] = j < n ? (double)plan->weight[row] : 0;
  }
  if (n > k) experts[0] = -1;
}

static void swap(double *a, double *b) {
  const double kept = *a;
  *a = *b;
  *b = kept;
}

/* Puts the experts of a token into the order of what they were ranked by. */
static void rank_choice(const struct layer_plan *plan, int token, int k, double *experts,
                        double *weights) {
  const float *ranked = plan->ranked + (int64_t)token * plan->columns;
  for (int j = 1; j < k; j++)
    for (int i = j; i > 0 && ranked[(int)experts[i]] > ranked[(int)experts[i - 1]]; i--) {
      swap(&experts[i], &experts[i - 1]);
      swap(&weights[i], &weights[i - 1]);
    }
}

static bool contains(const double *values, int k, double value) {
  for (int j = 0; j < k; j++)
    if (values[j] == value) return true;
  return false;
}

/* topk_idx and topk_weight, [.., k] over all tokens: wrong tokens, and the error of the weights of
 * those that are equal. */
struct topk {
  int k;
  double *index, *weight; /* of the fixture; weight may be NULL */
  struct scores scores;
  double *ours, *gates, *sorted; /* [k], [k], [E] */
  double wrong, difference, norm;
};

/* Whether a different choice is wrong: another set is if the margin after the k-th score is wide,
 * another order of the same set if the margins around the place are. */
static bool choice_is_wrong(const struct routing_check *c, const struct topk *k,
                            const double *golden) {
  const int K = k->k, E = c->plan->columns;
  const double tolerance = MARGIN * k->scores.error;
  for (int j = 0; j < K; j++)
    if (!contains(golden, K, k->ours[j])) return gap(k->sorted, E, K) > tolerance;
  for (int j = 0; j < K; j++) {
    double before = gap(k->sorted, E, j), after = j + 1 < K ? gap(k->sorted, E, j + 1) : INFINITY;
    if (k->ours[j] != golden[j] && before > tolerance && after > tolerance) return true;
  }
  return false;
}

static void topk_token(const struct routing_check *c, struct topk *k, int b, int t) {
  const int token = b * c->plan->T + t;
  const double *golden = k->index + (int64_t)token * k->k;
  token_choice(c->plan, token, k->k, k->ours, k->gates);
  if (c->plan->ranked && k->ours[0] >= 0) rank_choice(c->plan, token, k->k, k->ours, k->gates);
  if (memcmp(k->ours, golden, (size_t)k->k * sizeof *golden) != 0) {
    bool wrong = c->null[b] || !k->scores.golden;
    if (!wrong) {
      rank_experts(c, &k->scores, b, t, k->sorted);
      wrong = choice_is_wrong(c, k, golden);
    }
    k->wrong += wrong;
    return;
  }
  for (int j = 0; k->weight && j < k->k; j++) {
    double weight = k->weight[(int64_t)token * k->k + j], d = k->gates[j] - weight;
    k->difference += d * d;
    k->norm += weight * weight;
  }
}

static enum ditmoe_status topk_read(const struct routing_check *c, struct topk *k, bool weights) {
  struct ditmoe_ctx *ctx = c->file->ctx;
  const int64_t tokens = (int64_t)c->plan->B * c->plan->T;
  char name[80];
  int64_t count, weight_count = -1;
  snprintf(name, sizeof name, "topk_idx.%d", c->plan->layer);
  TRY(case_values(c->file, name, &k->index, &count));
  if (weights) TRY(case_values(c->file, c->name, &k->weight, &weight_count));
  if (count == 0 || count % tokens != 0 || (weights && weight_count != count))
    return fail(ctx, DITMOE_FORMAT, "%s: %s does not fit %lld tokens", c->file->name, c->name,
                (long long)tokens);
  k->k = (int)(count / tokens);
  TRY(competing_scores(c, &k->scores));
  TRY(mem_alloc(ctx, (size_t)k->k, sizeof(double), "choice", &k->ours));
  TRY(mem_alloc(ctx, (size_t)k->k, sizeof(double), "choice", &k->gates));
  return mem_alloc(ctx, (size_t)c->plan->columns, sizeof(double), "scores", &k->sorted);
}

static enum ditmoe_status check_topk(const struct routing_check *c) {
  const bool weights = !strncmp(c->name, "topk_weight", 11);
  struct topk k = {0};
  enum ditmoe_status status = topk_read(c, &k, weights);
  for (int i = 0; status == DITMOE_OK && i < c->plan->B * c->plan->T; i++)
    topk_token(c, &k, i / c->plan->T, i % c->plan->T);
  if (status == DITMOE_OK && weights)
    case_line(c->file, c->name, k.difference == 0 ? 0 : sqrt(k.difference / k.norm), LIMIT_FORWARD);
  if (status == DITMOE_OK && !weights) case_line(c->file, c->name, k.wrong, LIMIT_EXACT);
  double *const owned[] = {k.index, k.weight, k.scores.golden, k.ours, k.gates, k.sorted};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) mem_free(c->file->ctx, owned[i]);
  return status;
}

/* Expert choice. */

/* expert_tokens and expert_gates, [routed images, E, K], tokens of an image ascending. */
struct expert_lists {
  int64_t K;
  double *tokens, *gates; /* of the fixture; gates may be NULL */
  struct scores scores;
  double *sorted; /* [T] */
  double wrong, difference, norm;
};

static void expert_list(const struct routing_check *c, struct expert_lists *l, int b, int e) {
  const struct layer_plan *plan = c->plan;
  const int64_t at = ((int64_t)c->slot[b] * plan->columns + e) * l->K;
  int32_t row = plan->offset[e];
  int64_t n = 0;
  bool equal = true;
  while (row < plan->offset[e + 1] && plan->token[row] < b * plan->T) row++;
  const int32_t first = row;
  for (; row < plan->offset[e + 1] && plan->token[row] < (b + 1) * plan->T; row++, n++)
    equal = equal && n < l->K && plan->token[row] - b * plan->T == l->tokens[at + n];
  if (!equal || n != l->K) {
    bool wrong = !l->scores.golden || n != l->K;
    if (!wrong) {
      rank_tokens(c, &l->scores, b, 1, e, l->sorted);
      wrong = gap(l->sorted, plan->T, l->K) > MARGIN * l->scores.error;
    }
    l->wrong += wrong;
    return;
  }
  for (int64_t j = 0; l->gates && j < l->K; j++) {
    double d = (double)plan->weight[first + j] - l->gates[at + j];
    l->difference += d * d;
    l->norm += l->gates[at + j] * l->gates[at + j];
  }
}

static enum ditmoe_status lists_read(const struct routing_check *c, struct expert_lists *l,
                                     bool gates) {
  const int64_t lists = (int64_t)c->routed * c->plan->columns;
  char name[80];
  int64_t count, gate_count = -1;
  snprintf(name, sizeof name, "expert_tokens.%d", c->plan->layer);
  TRY(case_values(c->file, name, &l->tokens, &count));
  if (gates) TRY(case_values(c->file, c->name, &l->gates, &gate_count));
  if ((lists ? count % lists : count) != 0 || (gates && gate_count != count))
    return fail(c->file->ctx, DITMOE_FORMAT, "%s: %s does not fit %lld lists", c->file->name,
                c->name, (long long)lists);
  l->K = lists ? count / lists : 0;
  TRY(competing_scores(c, &l->scores));
  return mem_alloc(c->file->ctx, (size_t)c->plan->T, sizeof(double), "scores", &l->sorted);
}

static enum ditmoe_status check_lists(const struct routing_check *c) {
  const bool gates = !strncmp(c->name, "expert_gates", 12);
  struct expert_lists l = {0};
  enum ditmoe_status status = lists_read(c, &l, gates);
  for (int b = 0; status == DITMOE_OK && b < c->plan->B; b++)
    for (int e = 0; !c->null[b] && e < c->plan->columns; e++) expert_list(c, &l, b, e);
  if (status == DITMOE_OK && gates)
    case_line(c->file, c->name, l.difference == 0 ? 0 : sqrt(l.difference / l.norm), LIMIT_FORWARD);
  if (status == DITMOE_OK && !gates) case_line(c->file, c->name, l.wrong, LIMIT_EXACT);
  double *const owned[] = {l.tokens, l.gates, l.scores.golden, l.sorted};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) mem_free(c->file->ctx, owned[i]);
  return status;
}

/* cond_rows [B]: 1 unless all tokens of the image are, alone, with the unconditional expert. */
static enum ditmoe_status check_conditional(const struct routing_check *c) {
  const struct layer_plan *plan = c->plan;
  double *golden, wrong = 0;
  int64_t count;
  TRY(case_values(c->file, c->name, &golden, &count));
  for (int b = 0; count == plan->B && b < plan->B; b++) {
    bool null = plan->experts > plan->columns;
    for (int t = b * plan->T; null && t < (b + 1) * plan->T; t++)
      null = plan->first[t + 1] - plan->first[t] == 1 &&
             expert_of(plan, plan->row[plan->first[t]]) == plan->columns;
    wrong += golden[b] != !null;
  }
  case_line(c->file, c->name, count == plan->B ? wrong : INFINITY, LIMIT_EXACT);
  mem_free(c->file->ctx, golden);
  return DITMOE_OK;
}

/* DiffMoE. */

/* Distance of the nearest prediction of the fixture to the expert's threshold. */
static double threshold_margin(const struct routing_check *c, const struct scores *capacity,
                               int e) {
  double margin = INFINITY;
  const int64_t S = (int64_t)c->plan->B * c->plan->T, E = c->plan->columns;
  for (int64_t s = 0; s < S; s++)
    margin = fmin(margin, fabs(capacity->golden[s * E + e] - (double)c->plan->threshold[e]));
  return margin;
}

static bool taken(const struct layer_plan *plan, int e, int token) {
  for (int32_t row = plan->offset[e]; row < plan->offset[e + 1]; row++)
    if (plan->token[row] == token) return true;
  return false;
}

/* Whether expert e takes other tokens than those of the mask [S] although its margins are wide. */
static bool selection_is_wrong(const struct routing_check *c, const struct scores *s,
                               const double *mask, int e, double *sorted) {
  const struct layer_plan *plan = c->plan;
  const int S = plan->B * plan->T;
  int64_t chosen = 0;
  bool equal = true;
  for (int token = 0; token < S; token++) {
    chosen += mask[token] != 0;
    equal = equal && (mask[token] != 0) == taken(plan, e, token);
  }
  if (equal || !s->golden) return !equal;
  rank_tokens(c, s, 0, plan->B, e, sorted);
  return gap(sorted, S, chosen) > MARGIN * s->error;
}

/* selected [E, S] masks, or tokens_per_expert [E]: wrong experts whose count is decided. */
static enum ditmoe_status check_counted(const struct routing_check *c) {
  struct ditmoe_ctx *ctx = c->file->ctx;
  const struct layer_plan *plan = c->plan;
  const bool masks = !strncmp(c->name, "selected", 8);
  const int E = plan->columns, S = plan->B * plan->T;
  double *golden = NULL, *sorted = NULL, wrong = INFINITY, l2;
  struct scores capacity = {0}, scores = {0};
  int64_t count;
  enum ditmoe_status status;
  TRY_DONE(case_values(c->file, c->name, &golden, &count));
  TRY_DONE(mem_alloc(ctx, (size_t)S, sizeof *sorted, "scores", &sorted));
  TRY_DONE(read_scores(c, "capacity_pred_sigmoid", TOKENS_EXPERTS, plan->capacity, &capacity, &l2));
  TRY_DONE(competing_scores(c, &scores));
  if (count == (masks ? (int64_t)E * S : E)) wrong = 0;
  for (int e = 0; wrong < INFINITY && e < E; e++) {
    bool decided = !capacity.golden || !plan->threshold ||
                   threshold_margin(c, &capacity, e) > MARGIN * capacity.error;
    if (!decided) continue;
    wrong += masks ? selection_is_wrong(c, &scores, golden + (int64_t)e * S, e, sorted)
                   : golden[e] != plan->offset[e + 1] - plan->offset[e];
  }
  case_line(c->file, c->name, wrong, LIMIT_EXACT);
done:
  mem_free(ctx, capacity.golden);
  mem_free(ctx, scores.golden);
  mem_free(ctx, sorted);
  mem_free(ctx, golden);
  return status;
}

static const struct {
  const char *base;
  enum ditmoe_status (*check)(const struct routing_check *c);
} checks[] = {
    {"router_scores", check_scores},
    {"cos_sim", check_scores},
    {"capacity_pred_sigmoid", check_scores},
    {"topk_idx", check_topk},
    {"topk_weight", check_topk},
    {"expert_tokens", check_lists},
    {"expert_gates", check_lists},
    {"cond_rows", check_conditional},
    {"selected", check_counted},
    {"tokens_per_expert", check_counted},
};

bool golden_is_null(const struct golden *g, int32_t label) {
  const cJSON *moe = golden_field(g->manifest, "moe");
  return cJSON_IsTrue(golden_field(moe, "use_uncond_expert")) &&
         label == case_number(g->manifest, "uncond_label", -1);
}

/* Which images the fixture sends to the unconditional expert. */
static enum ditmoe_status find_null_images(struct golden *g, struct routing_check *c,
                                           const int32_t *labels) {
  const int B = c->plan->B;
  TRY(mem_zalloc(g->ctx, (size_t)B, sizeof *c->null, "images", &c->null));
  TRY(mem_zalloc(g->ctx, (size_t)B, sizeof *c->slot, "images", &c->slot));
  for (int b = 0; b < B; b++) {
    c->null[b] = golden_is_null(g, labels[b]);
    c->slot[b] = c->routed;
    c->routed += !c->null[b];
  }
  return DITMOE_OK;
}

enum ditmoe_status check_routing(struct golden *g, struct case_file *file, const char *base,
                                 const struct layer_plan *plan, const int32_t *labels) {
  struct routing_check c = {.file = file, .plan = plan, .layout = layout_of(plan)};
  enum ditmoe_status status = DITMOE_OK;
  snprintf(c.name, sizeof c.name, "%s.%d", base, plan->layer);
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
    if (strcmp(base, checks[i].base) != 0) continue;
    status = find_null_images(g, &c, labels);
    if (status == DITMOE_OK) status = checks[i].check(&c);
  }
  mem_free(g->ctx, c.null);
  mem_free(g->ctx, c.slot);
  return status;
}

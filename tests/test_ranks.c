/* The five steps of the executor apart, as a parallel one takes them: ranks that have half of the
 * tokens and half of the experts each give the bits of one machine. Messages are copies by way of
 * the host. */
#include "gradient_problem.h"
#include "synthetic.h"

#include <stdlib.h>
#include <string.h>

enum { RANKS = 2, TOKENS = 14, OWN = TOKENS / RANKS, CHOICES = 3, ROWS = TOKENS * CHOICES };
enum { ARENA_BYTES = 8 << 20 };

/* Tokens on the host, and which experts take them (-1: none) with what weight. */
struct tokens {
  int count, assigned;
  float *x, *y; /* [count, D] */
  int32_t expert[ROWS], source[ROWS];
  float gate[ROWS];
};

/* x as the experts of a bank see it on a device, a plan for it, and the experts' rows [R, D]. */
struct layer_pass {
  struct exec *ex;
  float *x, *rows;
  struct dispatch plan;
};

static size_t row_bytes(const struct expert_bank *bank) {
  return (size_t)bank->width * sizeof(float);
}

/* Step 1. */
static struct layer_pass order(struct exec *ex, const struct tokens *t,
                               const struct expert_bank *bank) {
  struct layer_pass p = {.ex = ex};
  const size_t n = (size_t)t->assigned;
  p.x = be_floats(ex, (int64_t)t->count * bank->width);
  p.rows = be_floats(ex, (int64_t)t->assigned * bank->width);
  be_upload(ex, p.x, t->x, (size_t)t->count * row_bytes(bank));
  be_dispatch_alloc(ex, &p.plan, bank->count, t->count, t->assigned);
  be_upload(ex, p.plan.expert, t->expert, n * sizeof *t->expert);
  be_upload(ex, p.plan.source, t->source, n * sizeof *t->source);
  be_upload(ex, p.plan.gate, t->gate, n * sizeof *t->gate);
  be_dispatch_order(ex, &p.plan);
  return p;
}

/* Step 3, which has step 2 in it where all is on one machine. */
static void run_experts(struct layer_pass *p, const struct expert_bank *bank) {
  const struct expert_wave wave = {.bank = bank, .count = bank->count};
  struct act x = be_narrowed(p->ex, bank->input, p->x, (int64_t)p->plan.tokens * bank->width);
  struct act h = be_acts(p->ex, bank->input, p->plan.capacity * bank->hidden);
  be_experts_in(p->ex, h, x, &p->plan, &wave);
  be_experts_out(p->ex, p->rows, h, x, &p->plan, &wave);
}

/* Steps 4 and 5; `add` stands for what a shared expert gives. */
static void combine(struct tokens *t, struct layer_pass *p, const float *add, int D) {
  float *y = be_floats(p->ex, (int64_t)t->count * D);
  be_combine_rows(p->ex, y, p->rows, &p->plan, add, D);
  be_download(p->ex, t->y, y, (size_t)t->count * (size_t)D * sizeof *y);
  assert_ok(p->ex->ctx, p->ex->status);
}

static void run_whole(struct exec *ex, struct tokens *t, const struct expert_bank *bank) {
  struct layer_pass p = order(ex, t, bank);
  run_experts(&p, bank);
  combine(t, &p, p.x, bank->width);
}

/* A rank's own tokens, their plan, and how many rows each expert of all ranks gets; rows [R, D] on
 * the host in the order of the plan, of x and then of the experts. */
struct rank {
  struct tokens t;
  struct layer_pass pass;
  int32_t counts[DIT_MAX_EXPERTS];
  float *rows;
};

/* Step 2: rows for all experts leave their rank. */
static void gather(struct rank *r, struct exec *ex, const struct expert_bank *whole) {
  r->pass = order(ex, &r->t, whole);
  be_dispatch_rows(ex, r->counts, &r->pass.plan);
  int64_t n = 0;
  for (int e = 0; e < whole->count; e++) n += r->counts[e];
  be_gather_rows(ex, r->pass.rows, r->pass.x, r->pass.plan.token, n, whole->width);
  be_download(ex, r->rows, r->pass.rows, (size_t)n * row_bytes(whole));
}

/* A message between a rank and the one that has the experts first .. first + count - 1: rows
 * become tokens of that one, from t->count on, or its results go back. */
static void exchange(struct rank *r, struct tokens *t, int first, const struct expert_bank *own,
                     bool back) {
  float *row = r->rows;
  for (int e = 0; e < first; e++) row += (int64_t)r->counts[e] * own->width;
  for (int e = 0; e < own->count; e++)
    for (int i = 0; i < r->counts[first + e]; i++, row += own->width) {
      const int at = t->count++;
      float *const x = t->x + (int64_t)at * own->width, *const y = t->y + (int64_t)at * own->width;
      t->expert[at] = e, t->source[at] = at, t->gate[at] = 1;
      memcpy(back ? row : x, back ? y : row, row_bytes(own));
    }
}

/* Step 3 where the experts are: each row is a token with one expert, and combining with weights of
 * 1 brings the results into the order in which the rows came. */
static void serve(struct exec *ex, struct rank rank[RANKS], const struct expert_bank *own,
                  int first) {
  struct tokens t = {.x = calloc(ROWS, row_bytes(own)), .y = calloc(ROWS, row_bytes(own))};
  assert_true(t.x && t.y);
  for (int r = 0; r < RANKS; r++) exchange(&rank[r], &t, first, own, false);
  t.assigned = t.count;
  struct layer_pass p = order(ex, &t, own);
  run_experts(&p, own);
  combine(&t, &p, NULL, own->width);
  t.count = 0;
  for (int r = 0; r < RANKS; r++) exchange(&rank[r], &t, first, own, true);
  free(t.x);
  free(t.y);
}

static void run_ranks(struct exec ex[RANKS], const struct tokens *all, float *y,
                      const struct expert_bank *whole) {
  struct rank ranks[RANKS];
  const int D = whole->width, half = whole->count / RANKS;
  for (int r = 0; r < RANKS; r++) {
    struct tokens *t = &ranks[r].t;
    *t = (struct tokens){OWN, OWN * CHOICES, all->x + r * OWN * D, y + r * OWN * D, {0}, {0}, {0}};
    memcpy(t->expert, all->expert + r * t->assigned, sizeof t->expert / RANKS);
    memcpy(t->gate, all->gate + r * t->assigned, sizeof t->gate / RANKS);
    memcpy(t->source, all->source, sizeof t->source / RANKS);
    ranks[r].rows = calloc(OWN * CHOICES, row_bytes(whole));
    assert_non_null(ranks[r].rows);
    gather(&ranks[r], &ex[r], whole);
  }
  for (int r = 0; r < RANKS; r++) {
    struct expert_bank own = *whole;
    own.expert += r * half;
    own.count = r + 1 < RANKS ? half : whole->count - r * half;
    serve(&ex[r], ranks, &own, r * half);
  }
  for (int r = 0; r < RANKS; r++) {
    struct layer_pass *p = &ranks[r].pass;
    be_upload(p->ex, p->rows, ranks[r].rows, OWN * CHOICES * row_bytes(whole));
    combine(&ranks[r].t, p, p->x, D);
    free(ranks[r].rows);
  }
}

static void check_layer(struct exec *ex, struct exec ranks[RANKS], const struct expert_bank *bank) {
  struct tokens t = {TOKENS,
                     ROWS,
                     random_values((int64_t)TOKENS * bank->width, 1),
                     calloc(TOKENS, row_bytes(bank)),
                     {0},
                     {0},
                     {0}};
  float *y = calloc(TOKENS, row_bytes(bank)), *gate = random_values(ROWS, 1);
  assert_true(t.y && y);
  for (int i = 0; i < ROWS; i++) { /* all experts, some choices unused, tokens with none */
    t.expert[i] = i % 11 == 5 || i / CHOICES == 4 ? -1 : (i * 7 + i / 5) % bank->count;
    t.source[i] = i / CHOICES;
    t.gate[i] = gate[i];
  }
  ex->arena.used = 0;
  for (int r = 0; r < RANKS; r++) ranks[r].arena.used = 0;
  run_whole(ex, &t, bank);
  run_ranks(ranks, &t, y, bank);
  assert_memory_equal(y, t.y, TOKENS * row_bytes(bank));
  free(gate);
  free(t.x);
  free(t.y);
  free(y);
}

/* Every layer of a model. */
static void check_model(const struct synthetic *spec, const char *backend, const char *dtype) {
  struct opened o;
  struct exec ranks[RANKS];
  const char *path = temporary_path("ranks.safetensors");
  synthetic_write(spec, path);
  model_open(&o, path, backend, NULL, dtype, 1);
  assert_ok(test_ctx(), exec_reserve(&o.ex, ARENA_BYTES));
  for (int r = 0; r < RANKS; r++) {
    assert_ok(test_ctx(), exec_open(&ranks[r], test_ctx(), o.ex.device));
    assert_ok(test_ctx(), exec_reserve(&ranks[r], ARENA_BYTES));
  }
  int layers = 0;
  for (int layer = 0; layer < o.model->config.depth; layer++)
    if (o.model->blocks[layer].moe) {
      check_layer(&o.ex, ranks, &o.model->blocks[layer].moe->bank);
      layers++;
    }
  assert_true(layers > 1);
  for (int r = 0; r < RANKS; r++) exec_close(&ranks[r]);
  model_close(&o);
}

static void test_ranks(void **state) {
  (void)state;
  static const struct synthetic *const specs[] = {&synthetic_uneven, &synthetic_prototypes};
  for (int i = 0; i < 2; i++) {
    check_model(specs[i], "ref", "f32");
    check_model(specs[i], "ref", "bf16");
    check_model(specs[i], "cpu", "f32");
    check_model(specs[i], "cpu", "bf16");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ranks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

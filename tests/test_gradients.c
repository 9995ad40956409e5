/* Gradients of every backend that has them against finite differences of its forward operations:
 * linear layers, modulated LayerNorm, attention and experts alone, and two chains whose activations
 * survive in an arena that keeps them.
 *
 * The loss is sum(r y) with random r. Derivatives come from the five-point formula
 * (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, whose error is of order h^4. */
#include "backend/backend.h"
#include "base/rng.h"
#include "tests/support.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BLOCKS = 12, ARENA_BYTES = 1 << 20 };

/* Truncation (of the order of h^4 = 6e-8) and the rounding of f32 results (6e-8 / h) then give
 * about 3e-5; a wrong term gives 1e-2 and more. */
static const float step = 1.0F / 64;
static const double limit = 1e-4;

/* What the loss is differentiated by. Gradients of parameters accumulate, those of inputs are
 * written. */
struct block {
  const char *name;
  bool parameter;
  int64_t n;
  float *value, *gradient; /* host   */
  float *x, *dx;           /* device, during a pass */
};

struct problem {
  struct exec *ex;
  /* Makes y of the blocks; with dy not NULL also the gradients. Returns y on the device. */
  float *(*pass)(struct problem *p, const float *dy);
  int64_t outputs;
  float *r, *y;
  int blocks;
  struct block block[MAX_BLOCKS];
  struct linear *linear[MAX_BLOCKS]; /* of this pass */
  int linears;
};

static float *random_values(int64_t n, double scale) {
  static uint64_t draws;
  float *values = malloc((size_t)n * sizeof *values);
  assert_non_null(values);
  rng_normal(values, n, 7, draws++, 0, RNG_INITIAL_NOISE);
  for (int64_t i = 0; i < n; i++) values[i] = (float)(values[i] * scale);
  return values;
}

static void add_block(struct problem *p, const char *name, bool parameter, int64_t n) {
  assert_true(p->blocks < MAX_BLOCKS);
  struct block *block = &p->block[p->blocks++];
  *block = (struct block){
      name, parameter, n, random_values(n, parameter ? 0.3 : 1), calloc((size_t)n, sizeof(float)),
      NULL, NULL};
  assert_non_null(block->gradient);
}

static float *to_device(struct problem *p, const float *values, int64_t n) {
  float *device = be_floats(p->ex, n);
  be_upload(p->ex, device, values, (size_t)n * sizeof *device);
  return device;
}

/* One pass in the emptied arena; the loss. */
static double evaluate(struct problem *p, bool backward) {
  p->ex->arena.used = 0;
  for (struct block *b = p->block; b < p->block + p->blocks; b++) {
    b->x = to_device(p, b->value, b->n);
    b->dx = to_device(p, b->gradient, b->n);
  }
  const float *dy = to_device(p, p->r, p->outputs), *y = p->pass(p, backward ? dy : NULL);
  be_download(p->ex, p->y, y, (size_t)p->outputs * sizeof *y);
  for (struct block *b = p->block; backward && b < p->block + p->blocks; b++)
    be_download(p->ex, b->gradient, b->dx, (size_t)b->n * sizeof *b->dx);
  while (p->linears > 0) p->ex->device->ops->linear_destroy(p->ex, p->linear[--p->linears]);
  assert_ok(p->ex->ctx, p->ex->status);
  double sum = 0;
  for (int64_t i = 0; i < p->outputs; i++) sum += (double)p->y[i] * p->r[i];
  return sum;
}

static float derivative(struct problem *p, float *x) {
  static const float at[4] = {1, -1, 2, -2};
  double f[4];
  float saved = *x;
  for (int i = 0; i < 4; i++) {
    *x = saved + at[i] * step;
    f[i] = evaluate(p, false);
  }
  *x = saved;
  return (float)((8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * (double)step));
}

/* Another backward pass doubles the gradients of parameters and leaves the others. */
static void check_second_pass(struct problem *p) {
  float *first[MAX_BLOCKS];
  for (int i = 0; i < p->blocks; i++) {
    struct block *b = &p->block[i];
    first[i] = malloc((size_t)b->n * sizeof(float));
    assert_non_null(first[i]);
    for (int64_t j = 0; j < b->n; j++) first[i][j] = b->gradient[j] * (b->parameter ? 2 : 1);
  }
  evaluate(p, true);
  for (int i = 0; i < p->blocks; i++) {
    assert_within(p->block[i].name, relative_l2(p->block[i].gradient, first[i], p->block[i].n),
                  1e-6);
    free(first[i]);
  }
}

static void check(struct problem *p) {
  p->r = random_values(p->outputs, 1);
  p->y = random_values(p->outputs, 1);
  evaluate(p, true);
  for (struct block *b = p->block; b < p->block + p->blocks; b++) {
    float *numeric = malloc((size_t)b->n * sizeof *numeric);
    assert_non_null(numeric);
    for (int64_t i = 0; i < b->n; i++) numeric[i] = derivative(p, &b->value[i]);
    assert_within(b->name, relative_l2(b->gradient, numeric, b->n), limit);
    free(numeric);
  }
  check_second_pass(p);
}

static void finish(struct problem *p) {
  for (struct block *b = p->block; b < p->block + p->blocks; b++) free(b->value), free(b->gradient);
  free(p->r);
  free(p->y);
}

/* A layer of this pass from blocks `at` (weight) and at + 1 (bias); paired: halves of both. */
static struct linear *layer(struct problem *p, const float *weight, const float *bias, int in,
                            int out, bool paired) {
  struct tensor w[2], b[2];
  struct linear_source source = {.parts = 1 + paired, .paired = paired};
  for (int i = 0; i <= paired; i++) {
    w[i] =
        (struct tensor){"weight", DT_F32, 2, {out, in}, (int64_t)out * in, weight + i * out * in};
    b[i] = (struct tensor){"bias", DT_F32, 1, {out}, out, bias ? bias + i * out : NULL};
    source.weight[i] = &w[i];
    source.bias[i] = bias ? &b[i] : NULL;
  }
  struct linear **linear = &p->linear[p->linears++];
  assert_ok(p->ex->ctx, p->ex->device->ops->linear_create(p->ex, &source, linear));
  return *linear;
}

/* Gradients are of the compute type f32, in which activations are floats. */
enum { ROWS = 5, IN = 7, OUT = 4 };

static float *linear_pass(struct problem *p, const float *dy, bool paired) {
  struct block *x = &p->block[0], *w = &p->block[1], *b = &p->block[2];
  struct linear *linear = layer(p, w->value, b->value, IN, OUT, paired);
  const struct expert expert = {&expert_swiglu, OUT, linear, NULL};
  float *y = be_floats(p->ex, ROWS * OUT);
  if (paired)
    be_hidden(p->ex, act_f32(y), act_f32(x->x), &expert, ROWS);
  else
    be_linear(p->ex, y, act_f32(x->x), linear, ROWS);
  if (dy) p->ex->device->ops->linear_bwd(p->ex, x->dx, w->dx, b->dx, dy, x->x, linear, ROWS);
  return y;
}

static float *plain_pass(struct problem *p, const float *dy) { return linear_pass(p, dy, false); }
static float *paired_pass(struct problem *p, const float *dy) { return linear_pass(p, dy, true); }

static void setup_linear(struct problem *p, bool paired) {
  p->pass = paired ? paired_pass : plain_pass;
  p->outputs = ROWS * OUT;
  add_block(p, "x", false, ROWS * IN);
  add_block(p, "weight", true, (1 + paired) * OUT * IN);
  add_block(p, "bias", true, (1 + paired) * OUT);
}

static void setup_plain(struct problem *p) { setup_linear(p, false); }
static void setup_paired(struct problem *p) { setup_linear(p, true); }

enum { B = 2, T = 3, H = 2, HEAD = 3, D = H * HEAD };
static const float eps = 1e-6F;

static float *norm_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0], *m = &p->block[1];
  float *y = be_floats(p->ex, B * T * D);
  be_norm_modulate(p->ex, act_f32(y), x->x, m->x, m->x + D, 2 * D, B, T, D, eps);
  if (dy)
    p->ex->device->ops->norm_modulate_bwd(p->ex, x->dx, m->dx, m->dx + D, dy, x->x, m->x + D, 2 * D,
                                          B, T, D, eps);
  return y;
}

static void setup_norm(struct problem *p) {
  p->pass = norm_pass;
  p->outputs = B * T * D;
  add_block(p, "x", false, B * T * D);
  add_block(p, "shift and scale", false, B * 2 * D);
}

static float *attention_pass(struct problem *p, const float *dy) {
  struct block *qkv = &p->block[0];
  float *y = be_floats(p->ex, B * T * D);
  be_attention(p->ex, act_f32(y), NULL, qkv->x, B, T, H, HEAD);
  if (dy) p->ex->device->ops->attention_bwd(p->ex, qkv->dx, dy, qkv->x, B, T, H, HEAD);
  return y;
}

static void setup_attention(struct problem *p) {
  p->pass = attention_pass;
  p->outputs = B * T * D;
  add_block(p, "qkv", false, B * T * 3 * D);
}

/* A SwiGLU expert with biases, a GELU expert, one that copies, one that gives 0, and one without
 * rows; six tokens with two experts each. */
enum { E = 5, F = 4, TOKENS = B * T, R = 2 * TOKENS };

struct layer_of_experts {
  struct expert expert[E];
  struct expert_bank bank;
  struct expert_grad grad[E];
  struct dispatch d;
};

static void make_layer(struct problem *p, struct layer_of_experts *l, struct block *b) {
  static const int32_t expert[R] = {0, 1, 1, 0, 2, 0, 1, 3, 3, 2, 0, 1};
  static const float gate[R] = {0.5F, 0.25F, 1, -1, 0.75F, 2, 0.5F, 0.5F, 1, 1, 0.25F, 0.125F};
  int32_t source[R];
  for (int i = 0; i < R; i++) source[i] = i / 2;
  be_dispatch_alloc(p->ex, &l->d, E, TOKENS, R);
  be_upload(p->ex, l->d.expert, expert, sizeof expert);
  be_upload(p->ex, l->d.source, source, sizeof source);
  be_upload(p->ex, l->d.gate, gate, sizeof gate);
  be_dispatch_order(p->ex, &l->d);
  struct linear *in = layer(p, b[0].value, b[1].value, D, F, true);
  struct linear *out = layer(p, b[2].value, b[3].value, F, D, false);
  l->expert[0] = (struct expert){&expert_swiglu, F, in, out};
  l->expert[1] = (struct expert){&expert_gelu, F, layer(p, b[4].value, b[5].value, D, F, false),
                                 layer(p, b[6].value, b[7].value, F, D, false)};
  l->expert[2] = (struct expert){.kind = &expert_copy};
  l->expert[3] = (struct expert){.kind = &expert_zero};
  l->expert[4] = l->expert[0];
  l->bank = (struct expert_bank){E, D, F, DT_F32, l->expert};
  for (int e = 0; e < E; e++) l->grad[e] = (struct expert_grad){0};
  l->grad[0] = (struct expert_grad){b[0].dx, b[0].dx + F * D, b[2].dx, b[1].dx, b[3].dx};
  l->grad[1] = (struct expert_grad){b[4].dx, NULL, b[6].dx, b[5].dx, b[7].dx};
}

static float *run_experts(struct problem *p, const struct layer_of_experts *l, float *x) {
  float *y = be_floats(p->ex, R * D), *h = be_floats(p->ex, R * F);
  const struct expert_wave wave = {.bank = &l->bank, .count = E};
  be_experts_in(p->ex, act_f32(h), act_f32(x), &l->d, &wave);
  be_experts_out(p->ex, y, act_f32(h), act_f32(x), &l->d, &wave);
  return y;
}

/* Rows of tokens [TOKENS, D], and the sum of each token's rows. All R assignments are used. */
static float *rows_of(struct problem *p, const float *tokens, const struct dispatch *d) {
  float *rows = be_floats(p->ex, R * D);
  be_gather_rows(p->ex, rows, tokens, d->token, R, D);
  return rows;
}

static void sum_rows(struct problem *p, float *sums, const float *rows, struct dispatch d) {
  float ones[R];
  for (int r = 0; r < R; r++) ones[r] = 1;
  d.weight = to_device(p, ones, R);
  be_combine_rows(p->ex, sums, rows, &d, NULL, D);
}

static void weigh_rows(struct problem *p, float *rows, const struct dispatch *d) {
  float host[R * D], weight[R];
  be_download(p->ex, host, rows, sizeof host);
  be_download(p->ex, weight, d->weight, sizeof weight);
  for (int i = 0; i < R * D; i++) host[i] *= weight[i / D];
  be_upload(p->ex, rows, host, sizeof host);
}

/* dx [TOKENS, D] of dy [R, D] and the x of all experts. */
static void experts_back(struct problem *p, float *dx, const struct layer_of_experts *l,
                         const float *dy, const float *x) {
  float *rows = rows_of(p, x, &l->d), *drows = be_floats(p->ex, R * D);
  p->ex->device->ops->experts_bwd(p->ex, drows, l->grad, dy, rows, &l->d, &l->bank);
  sum_rows(p, dx, drows, l->d);
}

static float *experts_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0];
  struct layer_of_experts l;
  make_layer(p, &l, p->block + 1);
  float *y = run_experts(p, &l, x->x);
  if (dy) experts_back(p, x->dx, &l, dy, x->x);
  return y;
}

static void add_experts(struct problem *p) {
  add_block(p, "gate and up", true, 2 * F * D);
  add_block(p, "gate and up bias", true, 2 * F);
  add_block(p, "down", true, D * F);
  add_block(p, "down bias", true, D);
  add_block(p, "fc1", true, F * D);
  add_block(p, "fc1 bias", true, F);
  add_block(p, "fc2", true, D * F);
  add_block(p, "fc2 bias", true, D);
}

static void setup_experts(struct problem *p) {
  p->pass = experts_pass;
  p->outputs = R * D;
  add_block(p, "x", false, TOKENS * D);
  add_experts(p);
}

/* linear(attention(linear(LN(x)))) */
static float *block_pass(struct problem *p, const float *dy) {
  struct exec *ex = p->ex;
  const struct backend_ops *ops = ex->device->ops;
  struct block *x = &p->block[0], *m = &p->block[1], *qkv_w = &p->block[2], *out_w = &p->block[4];
  struct linear *qkv = layer(p, qkv_w[0].value, qkv_w[1].value, D, 3 * D, false);
  struct linear *out = layer(p, out_w[0].value, out_w[1].value, D, D, false);
  float *y = be_floats(ex, B * T * D);
  float *u = be_floats(ex, B * T * D), *a = be_floats(ex, B * T * 3 * D);
  be_norm_modulate(ex, act_f32(u), x->x, m->x, m->x + D, 2 * D, B, T, D, eps);
  be_linear(ex, a, act_f32(u), qkv, B * T);
  float *o = be_floats(ex, B * T * D);
  be_attention(ex, act_f32(o), NULL, a, B, T, H, HEAD);
  be_linear(ex, y, act_f32(o), out, B * T);
  if (!dy) return y;
  float *d_o = be_floats(ex, B * T * D), *da = be_floats(ex, B * T * 3 * D);
  float *du = be_floats(ex, B * T * D);
  ops->linear_bwd(ex, d_o, out_w[0].dx, out_w[1].dx, dy, o, out, B * T);
  ops->attention_bwd(ex, da, d_o, a, B, T, H, HEAD);
  ops->linear_bwd(ex, du, qkv_w[0].dx, qkv_w[1].dx, da, u, qkv, B * T);
  ops->norm_modulate_bwd(ex, x->dx, m->dx, m->dx + D, du, x->x, m->x + D, 2 * D, B, T, D, eps);
  return y;
}

static void setup_block(struct problem *p) {
  setup_norm(p);
  p->pass = block_pass;
  add_block(p, "qkv", true, 3 * D * D);
  add_block(p, "qkv bias", true, 3 * D);
  add_block(p, "out", true, D * D);
  add_block(p, "out bias", true, D);
}

/* Sum over its experts of weight * expert(LN(x)), by the steps of the executor and back. */
static float *moe_pass(struct problem *p, const float *dy) {
  struct exec *ex = p->ex;
  struct block *x = &p->block[0], *m = &p->block[1];
  struct layer_of_experts l;
  make_layer(p, &l, p->block + 2);
  float *y = be_floats(ex, TOKENS * D);
  float *u = be_floats(ex, TOKENS * D);
  be_norm_modulate(ex, act_f32(u), x->x, m->x, m->x + D, 2 * D, B, T, D, eps);
  be_combine_rows(ex, y, run_experts(p, &l, u), &l.d, NULL, D);
  if (!dy) return y;
  float *d_out = rows_of(p, dy, &l.d), *du = be_floats(ex, TOKENS * D);
  weigh_rows(p, d_out, &l.d);
  experts_back(p, du, &l, d_out, u);
  ex->device->ops->norm_modulate_bwd(ex, x->dx, m->dx, m->dx + D, du, x->x, m->x + D, 2 * D, B, T,
                                     D, eps);
  return y;
}

static void setup_moe(struct problem *p) {
  setup_norm(p);
  p->pass = moe_pass;
  add_experts(p);
}

static bool has_gradients(const struct backend_ops *ops) {
  return ops->linear_bwd && ops->norm_modulate_bwd && ops->attention_bwd && ops->experts_bwd;
}

static void check_backends(void (*setup)(struct problem *p)) {
  int checked = 0;
  for (int i = 0; backend_name(i); i++) {
    struct exec ex;
    if (backend_open(&ex, test_ctx(), backend_name(i), NULL, 1) != DITMOE_OK) continue;
    if (has_gradients(ex.device->ops)) {
      struct problem p = {.ex = &ex};
      assert_ok(test_ctx(), exec_reserve(&ex, ARENA_BYTES));
      setup(&p);
      check(&p);
      finish(&p);
      checked++;
    }
    exec_close(&ex);
  }
  assert_int_not_equal(checked, 0);
}

#define GRADIENT_TEST(name)                                                                        \
  static void test_##name(void **state) {                                                          \
    (void)state;                                                                                   \
    check_backends(setup_##name);                                                                  \
  }
GRADIENT_TEST(plain)
GRADIENT_TEST(paired)
GRADIENT_TEST(norm)
GRADIENT_TEST(attention)
GRADIENT_TEST(experts)
GRADIENT_TEST(block)
GRADIENT_TEST(moe)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain),   cmocka_unit_test(test_paired),
      cmocka_unit_test(test_norm),    cmocka_unit_test(test_attention),
      cmocka_unit_test(test_experts), cmocka_unit_test(test_block),
      cmocka_unit_test(test_moe),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

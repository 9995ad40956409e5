/* Gradients against finite differences. */
#include "tests/gradient_problem.h"

#include "base/rng.h"

#include <stdlib.h>

enum { ARENA_BYTES = 1 << 20 };

/* Truncation (of the order of h^4 = 6e-8) and the rounding of f32 results (6e-8 / h) then give
 * about 3e-5; a wrong term gives 1e-2 and more. */
static const float step = 1.0F / 64;
static const double limit = 1e-4;

float *random_values(int64_t n, double scale) {
  static uint64_t draws;
  float *values = malloc((size_t)n * sizeof *values);
  assert_non_null(values);
  rng_normal(values, n, 7, draws++, 0, RNG_INITIAL_NOISE);
  for (int64_t i = 0; i < n; i++) values[i] = (float)(values[i] * scale);
  return values;
}

struct block *add_block(struct problem *p, const char *name, bool parameter, int64_t n) {
  assert_true(p->blocks < MAX_BLOCKS);
  struct block *block = &p->block[p->blocks++];
  *block = (struct block){
      name, parameter, n, random_values(n, parameter ? 0.3 : 1), calloc((size_t)n, sizeof(float)),
      NULL, NULL};
  assert_non_null(block->gradient);
  return block;
}

float *to_device(struct problem *p, const float *values, int64_t n) {
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
  int64_t total = 0;
  for (int i = 0; i < p->blocks; i++) total += p->block[i].n;
  float *expected = malloc((size_t)total * sizeof *expected + 1), *at = expected;
  assert_non_null(expected);
  for (struct block *b = p->block; b < p->block + p->blocks; b++)
    for (int64_t j = 0; j < b->n; j++) *at++ = b->gradient[j] * (b->parameter ? 2 : 1);
  evaluate(p, true);
  at = expected;
  for (struct block *b = p->block; b < p->block + p->blocks; at += b->n, b++)
    assert_within(b->name, relative_l2(b->gradient, at, b->n), 1e-6);
  free(expected);
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

struct linear *layer(struct problem *p, const float *weight, const float *bias, int in, int out,
                     bool paired) {
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

struct linear_grad grad_of(const struct block *weight) {
  return (struct linear_grad){weight[0].dx, weight[1].dx};
}

static bool has_gradients(const struct gradient_ops *ops) {
  return ops->linear_bwd_input && ops->linear_bwd_weight && ops->hidden_bwd && ops->experts_bwd;
}

void check_gradients(void (*setup)(struct problem *p), const void *user) {
  int checked = 0;
  for (int i = 0; backend_name(i); i++) {
    struct exec ex;
    if (backend_open(&ex, test_ctx(), backend_name(i), NULL, 1) != DITMOE_OK) continue;
    if (has_gradients(&ex.device->ops->bwd)) {
      struct problem p = {.ex = &ex, .user = user};
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

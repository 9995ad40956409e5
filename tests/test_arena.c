/* The arena behind a backend: in every compute type a dry run sizes it to the byte, and one
 * that is too small fails once and for all without a crash. */
#include "backend/backend.h"
#include "tests/support.h"

enum { TOKENS = 6, WIDTH = 33, CHOSEN = 2, EXPERTS = 3 };

/* A forward pass: it takes memory, gives some back, and returns the sum of its result. */
static float forward(struct exec *ex) {
  struct dispatch d;
  float sum = 0, host[TOKENS * WIDTH];
  for (int i = 0; i < TOKENS * WIDTH; i++) host[i] = (float)(i % 7);
  float *x = be_floats(ex, TOKENS * WIDTH), *y = be_floats(ex, TOKENS * WIDTH);
  be_upload(ex, x, host, sizeof host);
  for (int layer = 0; layer < 3; layer++) {
    size_t mark = arena_mark(&ex->arena);
    float *s = be_floats(ex, TOKENS * WIDTH);
    be_silu(ex, s, x, TOKENS * WIDTH);
    struct act narrow = be_narrowed(ex, ex->compute, s, TOKENS * WIDTH);
    float *u = be_floats(ex, TOKENS * WIDTH);
    be_widen(ex, u, narrow, TOKENS * WIDTH);
    be_dispatch_alloc(ex, &d, EXPERTS, TOKENS, TOKENS * CHOSEN);
    float *scores = be_floats(ex, TOKENS * EXPERTS), *rows = be_floats(ex, d.capacity * WIDTH);
    be_softmax_rows(ex, scores, u, TOKENS, EXPERTS);
    be_assign_topk(ex, &d, scores, TOKENS, EXPERTS, CHOSEN, 0);
    be_dispatch_order(ex, &d);
    be_gather_rows(ex, rows, u, d.token, d.capacity, WIDTH); /* every assignment is used */
    be_combine_rows(ex, y, rows, &d, u, WIDTH);
    be_add(ex, x, x, y, TOKENS * WIDTH);
    arena_reset(&ex->arena, mark);
  }
  be_download(ex, host, x, sizeof host);
  for (int i = 0; i < TOKENS * WIDTH; i++) sum += host[i];
  return sum;
}

static size_t measured(struct exec *ex) {
  struct exec dry = exec_dry(ex);
  forward(&dry);
  return dry.arena.peak;
}

static void test_exact_size(void **state) {
  struct exec *ex = *state;
  assert_ok(ex->ctx, exec_reserve(ex, 1 << 20));
  float expected = forward(ex);
  size_t peak = ex->arena.peak, bytes = measured(ex);
  assert_int_equal(bytes, peak);
  assert_ok(ex->ctx, exec_reserve(ex, bytes));
  uint64_t allocations = ex->ctx->allocations;
  assert_true(forward(ex) == expected);
  assert_ok(ex->ctx, ex->status);
  assert_int_equal(ex->arena.peak, bytes);
  assert_int_equal(ex->ctx->allocations, allocations);
}

/* In every size up to the right one: the failure is recorded, later operations do nothing. */
static void test_too_small(void **state) {
  struct exec *ex = *state;
  size_t bytes = measured(ex);
  for (size_t less = 64; less <= bytes; less += 64) {
    assert_ok(ex->ctx, exec_reserve(ex, bytes - less));
    forward(ex);
    assert_fails(ex->ctx, DITMOE_FAILED, "activation memory", ex->status);
    float value = 1;
    be_silu(ex, &value, &value, 1);
    assert_true(value == 1);
    exec_clear(ex);
  }
  assert_ok(ex->ctx, exec_reserve(ex, bytes));
  forward(ex);
  assert_ok(ex->ctx, ex->status);
}

/* Conversions take memory in bf16 alone, where activations have two bytes. */
static void test_act_size(void **state) {
  enum { N = 1 << 12 };
  struct exec *ex = *state;
  assert_ok(ex->ctx, exec_reserve(ex, 1 << 20));
  float *x = be_floats(ex, N);
  size_t used = ex->arena.used;
  be_narrowed(ex, ex->compute, x, N);
  size_t taken = ex->arena.used - used;
  assert_int_equal(taken, ex->compute == DT_BF16 ? N * 2 : 0);
  assert_non_null(be_acts(ex, ex->compute, N).data);
  assert_int_equal(ex->arena.used - used - taken, ex->compute == DT_BF16 ? N * 2 : N * 4);
}

static void test_first_error_stays(void **state) {
  struct exec *ex = *state;
  exec_fail(ex, DITMOE_NONFINITE);
  exec_fail(ex, DITMOE_DEVICE);
  assert_int_equal(ex->status, DITMOE_NONFINITE);
  exec_clear(ex);
  assert_null(be_floats(ex, -1));
  assert_null(be_floats(ex, INT64_MAX));
  assert_int_equal(ex->status, DITMOE_FAILED);
  exec_clear(ex);
}

static int open_backend(void **state, const char *name, const char *dtype) {
  static struct exec ex;
  *state = &ex;
  return backend_open(&ex, test_ctx(), name, NULL, 1) != DITMOE_OK ||
         backend_compute(&ex, dtype) != DITMOE_OK;
}

static int open_default(void **state) { return open_backend(state, NULL, "f32"); }
static int open_default_bf16(void **state) { return open_backend(state, NULL, "bf16"); }
static int open_ref(void **state) { return open_backend(state, "ref", "f32"); }
static int open_ref_bf16(void **state) { return open_backend(state, "ref", "bf16"); }

static int close_backend(void **state) {
  exec_close(*state);
  return 0;
}

#define ON(test, open) cmocka_unit_test_setup_teardown(test, open, close_backend)

int main(void) {
  const struct CMUnitTest tests[] = {
      ON(test_exact_size, open_ref),        ON(test_exact_size, open_ref_bf16),
      ON(test_exact_size, open_default),    ON(test_exact_size, open_default_bf16),
      ON(test_too_small, open_ref),         ON(test_too_small, open_ref_bf16),
      ON(test_too_small, open_default),     ON(test_too_small, open_default_bf16),
      ON(test_act_size, open_ref),          ON(test_act_size, open_ref_bf16),
      ON(test_first_error_stays, open_ref),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

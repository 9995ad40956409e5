/* The arena behind a backend: in every compute type a dry run sizes it to the byte, a kept one
 * holds every activation, and one that is too small fails once and for all without a crash. */
#include "backend/backend.h"
#include "tests/support.h"

enum { TOKENS = 6, WIDTH = 33, CHOSEN = 2, EXPERTS = 3 };

/* A forward pass: it takes memory, gives some back, and returns the sum of its result. */
static float forward(struct backend *be) {
  struct dispatch d;
  float sum = 0, host[TOKENS * WIDTH];
  for (int i = 0; i < TOKENS * WIDTH; i++) host[i] = (float)(i % 7);
  float *x = be_floats(be, TOKENS * WIDTH), *y = be_floats(be, TOKENS * WIDTH);
  be_upload(be, x, host, sizeof host);
  for (int layer = 0; layer < 3; layer++) {
    size_t mark = arena_mark(&be->arena);
    float *s = be_floats(be, TOKENS * WIDTH);
    be_silu(be, s, x, TOKENS * WIDTH);
    const struct act *narrow = be_narrowed(be, s, TOKENS * WIDTH);
    float *u = be_floats(be, TOKENS * WIDTH);
    be_widen(be, u, narrow, TOKENS * WIDTH);
    be_dispatch_alloc(be, &d, EXPERTS, TOKENS, TOKENS * CHOSEN);
    float *scores = be_floats(be, TOKENS * EXPERTS), *rows = be_floats(be, d.capacity * WIDTH);
    be_softmax_rows(be, scores, u, TOKENS, EXPERTS);
    be_assign_topk(be, &d, 0, scores, 0, TOKENS, EXPERTS, CHOSEN, 0);
    be_dispatch_order(be, &d);
    be_gather_rows(be, rows, u, d.token, d.capacity, WIDTH); /* every assignment is used */
    be_combine_rows(be, y, rows, &d, u, WIDTH);
    be_add(be, x, x, y, TOKENS * WIDTH);
    arena_reset(&be->arena, mark);
  }
  be_download(be, host, x, sizeof host);
  for (int i = 0; i < TOKENS * WIDTH; i++) sum += host[i];
  return sum;
}

static size_t measured(struct backend *be, bool keep) {
  backend_measure(be, keep);
  forward(be);
  assert_ok(be->ctx, be->status);
  return be->arena.peak;
}

static void test_exact_size(void **state) {
  struct backend *be = *state;
  assert_ok(be->ctx, backend_arena(be, 1 << 20, false));
  float expected = forward(be);
  size_t peak = be->arena.peak;
  for (int keep = 0; keep <= 1; keep++) {
    size_t bytes = measured(be, keep);
    if (!keep) assert_int_equal(bytes, peak);
    if (keep) assert_true(bytes > 2 * peak);
    assert_ok(be->ctx, backend_arena(be, bytes, keep));
    uint64_t allocations = be->ctx->allocations;
    assert_true(forward(be) == expected);
    assert_ok(be->ctx, be->status);
    assert_int_equal(be->arena.peak, bytes);
    assert_int_equal(be->ctx->allocations, allocations);
  }
}

/* In every size up to the right one: the failure is recorded, later operations do nothing. */
static void test_too_small(void **state) {
  struct backend *be = *state;
  size_t bytes = measured(be, false);
  for (size_t less = 64; less <= bytes; less += 64) {
    assert_ok(be->ctx, backend_arena(be, bytes - less, false));
    forward(be);
    assert_fails(be->ctx, DITMOE_FAILED, "activation memory", be->status);
    float value = 1;
    be_silu(be, &value, &value, 1);
    assert_true(value == 1);
    backend_clear(be);
  }
  assert_ok(be->ctx, backend_arena(be, bytes, false));
  forward(be);
  assert_ok(be->ctx, be->status);
}

/* Conversions take memory in bf16 alone, where activations have two bytes. */
static void test_act_size(void **state) {
  enum { N = 1 << 12 };
  struct backend *be = *state;
  assert_ok(be->ctx, backend_arena(be, 1 << 20, false));
  float *x = be_floats(be, N);
  size_t used = be->arena.used;
  be_narrowed(be, x, N);
  size_t taken = be->arena.used - used;
  assert_int_equal(taken, be->dtype == DT_BF16 ? N * 2 : 0);
  assert_non_null(be_acts(be, N));
  assert_int_equal(be->arena.used - used - taken, be->dtype == DT_BF16 ? N * 2 : N * 4);
}

static void test_first_error_stays(void **state) {
  struct backend *be = *state;
  backend_fail(be, DITMOE_NONFINITE);
  backend_fail(be, DITMOE_DEVICE);
  assert_int_equal(be->status, DITMOE_NONFINITE);
  backend_clear(be);
  backend_measure(be, false);
  assert_null(be_floats(be, -1));
  assert_null(be_floats(be, INT64_MAX));
  assert_int_equal(be->status, DITMOE_FAILED);
  backend_clear(be);
}

static int open_backend(void **state, const char *name, const char *dtype) {
  static struct backend be;
  *state = &be;
  return backend_init(&be, test_ctx(), name, NULL, 1) != DITMOE_OK ||
         backend_compute(&be, dtype) != DITMOE_OK;
}

static int open_default(void **state) { return open_backend(state, NULL, "f32"); }
static int open_default_bf16(void **state) { return open_backend(state, NULL, "bf16"); }
static int open_ref(void **state) { return open_backend(state, "ref", "f32"); }
static int open_ref_bf16(void **state) { return open_backend(state, "ref", "bf16"); }

static int close_backend(void **state) {
  backend_fini(*state);
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

/* The reference backend against values worked out by hand, in f32, where activations are floats,
 * and what bf16 changes. Other backends are compared with it. */
#include "backend/backend.h"
#include "tests/support.h"

#include <math.h>
#include <string.h>

static int open_ref(void **state) {
  static struct exec ex;
  *state = &ex;
  return backend_open(&ex, test_ctx(), "ref", NULL, 0) != DITMOE_OK;
}

static int close_ref(void **state) {
  exec_close(*state);
  return 0;
}

static void assert_near(const float *value, const double *expected, int n, double limit) {
  for (int i = 0; i < n; i++) assert_within("the difference", fabs(value[i] - expected[i]), limit);
}

static void assert_floats(const float *value, const float *expected, int n) {
  for (int i = 0; i < n; i++) assert_true(value[i] == expected[i]);
}

static void assert_ints(const int32_t *value, const int32_t *expected, int n) {
  for (int i = 0; i < n; i++) assert_int_equal(value[i], expected[i]);
}

static void test_single_values(void **state) {
  float x[4] = {-2, 0, 1, 30}, y[4];
  be_silu(*state, y, x, 4);
  assert_near(y, (double[]){-0.2384058440442351, 0, 0.7310585786300049, 30}, 4, 1e-7);
  be_sigmoid(*state, y, x, 4);
  assert_near(y, (double[]){0.11920292202211755, 0.5, 0.7310585786300049, 1}, 4, 1e-7);
  be_tanh_clamp(*state, y, x, 3, 4);
  assert_near(y, (double[]){-1.7483488360, 0, 0.9645382126, 3}, 4, 1e-7);
  be_relu(*state, y, x, 4);
  assert_near(y, (double[]){0, 0, 1, 30}, 4, 0);
}

/* Variances as small as epsilon: 1 / sqrt(v + eps) is 1 / sqrt(2 v). */
static void test_norms(void **state) {
  float x[8] = {1e-3F, -1e-3F, 1e-3F, -1e-3F, 3, 1, 3, 1}, y[8];
  float shift[4] = {0, 0, 0.5F, 0}, scale[4] = {0, 1, 0, 0};
  double r = sqrt(0.5), one = 1 / sqrt(1 + 1e-6);
  be_norm_modulate(*state, act_f32(y), x, shift, scale, 4, 1, 2, 4, 1e-6F);
  assert_near(y, (double[]){r, -2 * r, r + 0.5, -r, one, -2 * one, one + 0.5, -one}, 8, 1e-7);

  float qkv[6] = {1e-3F, -1e-3F, 1e-3F, -1e-3F, 5, 7}, two[2] = {2, 2}, none[2] = {0, 0};
  const struct qk_norm norm = {two, none, two, shift + 2, 1e-6F};
  be_qk_norm(*state, qkv, qkv, &norm, 1, 1, 2);
  assert_near(qkv, (double[]){2 * r, -2 * r, 2 * r + 0.5, -2 * r, 5, 7}, 6, 2e-7);

  float weight[2] = {1, 2}, bias[2] = {0, 1};
  be_group_norm(*state, act_f32(y), x, weight, bias, 1, 2, 2, 1, 1e-6F, false);
  assert_near(y, (double[]){r, 1 - 2 * r, r, 1 - 2 * r}, 4, 1e-7);

  float unit[4] = {3, 4, 0, 0};
  be_normalize_rows(*state, y, unit, 2, 2);
  assert_near(y, (double[]){0.6, 0.8, 0, 0}, 4, 1e-7);
}

static void test_softmax(void **state) {
  float x[4] = {0, 1, 100, 100}, y[4], z[2] = {NAN, 1};
  be_softmax_rows(*state, y, x, 2, 2);
  assert_near(y, (double[]){0.2689414213699951, 0.7310585786300049, 0.5, 0.5}, 4, 1e-7);
  be_softmax_tokens(*state, y, x, 1, 2, 2);
  assert_near(y, (double[]){0, 1.011221492685904e-43, 1, 1}, 4, 1e-7);
  be_softmax_rows(*state, y, z, 1, 2);
  assert_true(isnan(y[0]) && isnan(y[1]));
}

static void test_attention(void **state) {
  /* [T 2][q, k, v][H 2][d 1]: logits of head 0: (0, 1), (0, 0); of head 1 all equal. */
  float qkv[12] = {1, 0, 0, 5, 10, 1, 0, 0, 1, 5, 20, 3}, o[4], lse[4];
  double p = 0.7310585786300049;
  be_attention(*state, act_f32(o), lse, qkv, 1, 2, 2, 1);
  assert_near(o, (double[]){10 + 10 * p, 2, 15, 2}, 4, 1e-5);
  assert_near(
      lse,
      (double[]){1.3132616875182228, 0.6931471805599453, 0.6931471805599453, 0.6931471805599453}, 4,
      1e-6);
}

static void test_patches(void **state) {
  float x[32], rows[32], back[32], expected[8] = {0, 1, 4, 5, 16, 17, 20, 21};
  for (int i = 0; i < 32; i++) x[i] = (float)i;
  be_patchify(*state, rows, x, 1, 2, 4, 4, 2);
  assert_floats(rows, expected, 8); /* channel, then row and column of the patch */
  assert_true(rows[8] == 2 && rows[16] == 8);
  be_unpatchify(*state, back, x, 1, 2, 4, 4, 2);
  /* row 0 of channel 0: places 0 and 1 of patch 0, then of patch 1; channels alternate */
  assert_floats(back, (float[]){0, 2, 8, 10, 4, 6, 12, 14}, 8);
  assert_true(back[16] == 1);
}

static void test_choices(void **state) {
  int32_t expert[12], source[12];
  float gate[12];
  struct dispatch d = {.experts = 4, .tokens = 3, .expert = expert, .source = source, .gate = gate};
  float scores[12] = {1, 3, 3, 2, NAN, NAN, -1, NAN, 5, 5, 5, 5};
  be_assign_topk(*state, &d, scores, 3, 4, 3, 0);
  assert_ints(expert, (int32_t[]){1, 2, 3, 2, 0, 1, 0, 1, 2}, 9);
  assert_ints(source, (int32_t[]){0, 0, 0, 1, 1, 1, 2, 2, 2}, 9);
  assert_true(gate[0] == 3 && gate[2] == 2 && isnan(gate[4]));
  be_assign_topk(*state, &d, scores, 1, 4, 2, 1);
  assert_ints(expert, (int32_t[]){2, 3}, 2);

  float by_token[12] = {1, 9, 0, 4, 9, 0, 2, 9, 0, 4, 1, 0}; /* T 4, E 3 */
  be_assign_tokens(*state, &d, by_token, 1, 4, 3, 2, 7);
  assert_ints(expert, (int32_t[]){0, 0, 1, 1, 2, 2, -1}, 7);
  assert_ints(source, (int32_t[]){1, 3, 0, 1, 0, 1}, 6);

  float capacity[8] = {0.9F, 0.1F, 0.5F, 0.1F, 0.9F, 0.1F, 0.2F, 0.1F}, threshold[2] = {0.5F, 0.5F};
  be_assign_counted(*state, &d, by_token, capacity, threshold, 4, 2);
  /* expert 0 takes two of the scores 1 0 9 2, expert 1 none */
  assert_ints(expert, (int32_t[]){0, 0, -1, -1, -1, -1, -1, -1}, 8);
  assert_ints(source, (int32_t[]){2, 3}, 2);
  assert_floats(gate, (float[]){9, 2}, 2);

  d.capacity = 8; /* two images of three tokens; the second has the label */
  be_assign_label(*state, &d, (int32_t[]){6, 5}, 5, 3, 2, 3);
  assert_ints(expert, (int32_t[]){0, 0, -1, -1, 3, 3, 3, -1}, 8);
  assert_ints(source + 4, (int32_t[]){3, 4, 5}, 3);
  assert_floats(gate + 4, (float[]){1, 1, 1}, 3);
}

static void test_order(void **state) {
  /* Token 0: experts 2 and 0 with equal weights; token 1: 1 and 2; token 2: a NaN, an unused
   * one. */
  int32_t expert[7] = {2, 0, 2, 1, 0, -1, 2}, source[7] = {0, 0, 1, 1, 2, 2, 2};
  int32_t offset[4], token[7], first[4], row[7];
  float gate[7] = {0.5F, 0.5F, 0.75F, 0.25F, NAN, 1, -1}, weight[7];
  struct dispatch d = {3, 3, 7, expert, source, gate, offset, token, weight, first, row};
  be_dispatch_order(*state, &d);
  assert_ints(offset, (int32_t[]){0, 2, 3, 6}, 4);
  assert_ints(token, (int32_t[]){0, 2, 1, 0, 1, 2}, 6);
  assert_ints(first, (int32_t[]){0, 2, 4, 6}, 4);
  assert_ints(row, (int32_t[]){0, 3, 4, 2, 5, 1}, 6);
  assert_true(weight[0] == 0.5F && isnan(weight[1]) && weight[4] == 0.75F);

  float rows[6] = {1, 0, 2, 4, 8, 16}, add[3] = {1, 2, 3}, y[3];
  weight[1] = 0;
  be_combine_rows(*state, y, rows, &d, NULL, 1);
  assert_floats(y, (float[]){2.5F, 6.5F, -16}, 3);
  be_combine_rows(*state, y, rows, &d, add, 1);
  assert_floats(y, (float[]){3.5F, 8.5F, -13}, 3);
}

/* A layer of one input and one output, with two weights paired. */
static struct linear *make_layer(struct exec *ex, float first, float second) {
  struct tensor w[2] = {{"w", DT_F32, 2, {1, 1}, 1, &first}, {"w", DT_F32, 2, {1, 1}, 1, &second}};
  struct linear_source source = {.parts = 1, .weight = {&w[0], &w[1]}};
  struct linear *linear;
  if (second != 0) source.parts = 2, source.paired = true;
  assert_ok(ex->ctx, ex->device->ops->linear_create(ex, &source, &linear));
  return linear;
}

/* One expert of each kind; token 0 goes to SwiGLU and copy, token 1 to all others. */
static void test_experts(void **state) {
  enum { R = 5 };
  const double silu[2] = {0.7310585786300049, -0.2384058440442351};
  struct exec *ex = *state;
  int32_t expert[R] = {0, 3, 0, 1, 2}, source[R] = {0, 0, 1, 1, 1}, offset[5], token[R], first[3],
          row[R];
  float gate[R] = {0}, weight[R], x[2] = {1, -2}, h[R], y[R];
  struct dispatch d = {4, 2, R, expert, source, gate, offset, token, weight, first, row};
  struct linear *layer[3] = {make_layer(ex, 1, 2), make_layer(ex, 3, 0), make_layer(ex, 1, 0)};
  struct expert experts[4] = {{&expert_swiglu, 1, layer[0], layer[1]},
                              {&expert_gelu, 1, layer[2], layer[1]},
                              {.kind = &expert_zero},
                              {.kind = &expert_copy}};
  const struct expert_bank bank = {4, 1, 1, DT_F32, experts};
  const struct expert_wave all = {.bank = &bank, .count = 4};
  const struct expert_wave waves[2] = {{&bank, 2, (int32_t[]){0, 3}},
                                       {&bank, 2, (int32_t[]){1, 2}}};
  be_hidden(ex, act_f32(h), act_f32(x), &experts[0], 2);
  assert_near(h, (double[]){2 * silu[0], -4 * silu[1]}, 2, 1e-7);
  be_hidden(ex, act_f32(h), act_f32(x), &experts[1], 2);
  assert_near(h, (double[]){0.8411919906, -0.0454023059}, 2, 1e-7);
  be_dispatch_order(ex, &d);
  be_experts_in(ex, act_f32(h), act_f32(x), &d, &all);
  assert_near(h, (double[]){2 * silu[0], -4 * silu[1], -0.0454023059}, 3, 1e-7);
  be_experts_out(ex, y, act_f32(h), act_f32(x), &d, &all);
  assert_near(y, (double[]){6 * silu[0], -12 * silu[1], -0.1362069177, 0, 1}, 5, 4e-7);
  float again[5]; /* in waves */
  for (int i = 0; i < 2; i++) {
    be_experts_in(ex, act_f32(h), act_f32(x), &d, &waves[i]);
    be_experts_out(ex, again, act_f32(h), act_f32(x), &d, &waves[i]);
  }
  assert_floats(again, y, 5);
  for (int i = 0; i < 3; i++) ex->device->ops->linear_destroy(ex, layer[i]);
}

/* Zeros to the right and at the bottom only, steps of two: the windows start at (0, 0), (0,
 * 2)... */
static void test_convolution(void **state) {
  struct exec *ex = *state;
  float kernel[9] = {1, 0, 0, 0, 0, 0, 0, 0, 10}, bias[1] = {0.5F}, x[16], y[4];
  struct tensor w = {"weight", DT_F32, 4, {1, 1, 3, 3}, 9, kernel};
  struct tensor b = {"bias", DT_F32, 1, {1}, 1, bias};
  const struct conv_window window = {.stride = 2, .after = {1, 1}};
  struct conv *conv;
  for (int i = 0; i < 16; i++) x[i] = (float)i;
  assert_ok(ex->ctx, ex->device->ops->conv_create(ex, &w, &b, &window, &conv));
  be_conv2d(ex, y, act_f32(x), conv, 1, 4, 4);
  assert_floats(y, (float[]){100.5F, 2.5F, 8.5F, 10.5F}, 4);
  ex->device->ops->conv_destroy(ex, conv);

  float image[12];
  be_upsample2x(ex, act_f32(image), x + 1, 1, 1, 2, 1);
  assert_floats(image, (float[]){1, 1, 2, 2, 1, 1, 2, 2}, 8);
  be_channels_last(ex, image, x, 1, 2, 3);
  assert_floats(image, (float[]){0, 3, 1, 4, 2, 5}, 6);
  be_channels_first(ex, image, x, 1, 2, 3);
  assert_floats(image, (float[]){0, 2, 4, 1, 3, 5}, 6);
}

/* A kernel of one row and three columns, every second column, two images; relu into channel 1 of 3.
 */
static void test_convolution_relu(void **state) {
  struct exec *ex = *state;
  float kernel[3] = {1, 10, 100}, x[6] = {1, 2, -3, -1, -2, 3}, y[12];
  struct tensor w = {"weight", DT_F32, 4, {1, 1, 1, 3}, 3, kernel};
  const struct conv_window window = {.stride = 2, .before = {0, 1}, .after = {0, 1}};
  struct conv *conv;
  for (int i = 0; i < 12; i++) y[i] = 7;
  assert_ok(ex->ctx, ex->device->ops->conv_create(ex, &w, NULL, &window, &conv));
  assert_int_equal(conv_size(conv, 0, 1), 1);
  assert_int_equal(conv_size(conv, 1, 3), 2);
  be_conv2d_relu(ex, &(struct conv_branch){conv, act_f32(y), 3, 1, NULL}, 1, act_f32(x), 2, 1, 3);
  assert_floats(y, (float[]){7, 210, 7, 7, 0, 7, 7, 0, 7, 7, 28, 7}, 12);
  ex->device->ops->conv_destroy(ex, conv);
}

static void test_pooling(void **state) {
  float x[12] = {-1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12}, y[24];
  for (int i = 0; i < 24; i++) y[i] = 7;
  assert_int_equal(pool_size(147, 2, 0), 73);
  assert_int_equal(pool_size(8, 1, 1), 8);
  be_max_pool(*state, act_f32(y), 2, 1, act_f32(x), 1, 3, 4, 1, 1, 0); /* one channel */
  assert_floats(y, (float[]){7, -1, 7, -2, 7}, 5);
  be_max_pool(*state, act_f32(y), 1, 0, act_f32(x), 1, 3, 4, 1, 1, 1);
  assert_floats(y, (float[]){-1, -1, -2, -3, -1, -1, -2, -3, -5, -5, -6, -7}, 12);
  const float mixed[12] = {1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12}; /* two channels */
  for (int i = 0; i < 18; i++) y[i] = 7;
  be_avg_pool_relu(*state, act_f32(y), 3, 1, mixed, 1, 3, 2, 2);
  assert_floats(y, (float[]){7, 4, 0, 7, 4, 0, 7, 6, 0, 7, 6, 0, 7, 8, 0, 7, 8, 0}, 18);
  be_mean_pixels(*state, y, act_f32(x), 2, 3, 2);
  assert_floats(y, (float[]){-3, -4, -9, -10}, 4);
  be_take_channels(*state, y, act_f32(x), 3, 4, 2);
  assert_floats(y, (float[]){-1, -2, -5, -6, -9, -10}, 6);
}

/* Three stacked parts, the second without a bias; two paired ones. */
static void test_linear(void **state) {
  struct exec *ex = *state;
  float values[2] = {1, 2}, bias[1] = {10}, x[4] = {1, 1, 0, 3}, y[6];
  uint16_t halves[2] = {0x3c00, 0xc000}, brains[2] = {0x3f80, 0x4040}; /* 1, -2; 1, 3 */
  struct tensor w[3] = {{"f32", DT_F32, 2, {1, 2}, 2, values},
                        {"f16", DT_F16, 2, {1, 2}, 2, halves},
                        {"bf16", DT_BF16, 2, {1, 2}, 2, brains}};
  struct tensor b = {"bias", DT_F32, 1, {1}, 1, bias};
  struct linear_source stacked = {3, false, DT_F32, {&w[0], &w[1], &w[2]}, {&b, NULL, &b}};
  struct linear_source pair = {2, true, DT_F32, {&w[0], &w[2]}, {NULL, NULL}};
  struct linear *linear;
  assert_ok(ex->ctx, ex->device->ops->linear_create(ex, &stacked, &linear));
  be_linear(ex, y, act_f32(x), linear, 2);
  assert_floats(y, (float[]){13, -1, 14, 16, -6, 19}, 6);
  ex->device->ops->linear_destroy(ex, linear);
  assert_ok(ex->ctx, ex->device->ops->linear_create(ex, &pair, &linear));
  assert_true(linear->out == 1 && linear->in == 2);
  be_hidden(ex, act_f32(y), act_f32(x), &(struct expert){&expert_swiglu, 1, linear, NULL}, 1);
  assert_near(y, (double[]){4 * 3 / (1 + exp(-3))}, 1, 1e-6);
  ex->device->ops->linear_destroy(ex, linear);
}

/* Weights and activations are rounded, ties to even, and nothing else is. */
static void test_bf16(void **state) {
  (void)state;
  struct exec ex;
  assert_ok(test_ctx(), backend_open(&ex, test_ctx(), "ref", NULL, 1));
  assert_ok(test_ctx(), backend_compute(&ex, "bf16"));
  const float step = 1.0F / 128; /* from 1 to the next value */
  float x[4] = {1 + step / 2, 1 + 1.5F * step, 3.4e38F, 2}, y[4], bias[1] = {1 + step / 2};
  uint16_t brains[4];
  struct act acts = {brains, DT_BF16};
  be_narrow(&ex, acts, x, 4);
  be_widen(&ex, y, acts, 4);
  assert_floats(y, (float[]){1, 1 + 2 * step, INFINITY, 2}, 4);

  struct tensor w = {"w", DT_F32, 2, {1, 2}, 2, x}, b = {"b", DT_F32, 1, {1}, 1, bias};
  struct linear_source source = {.parts = 1, .weight = {&w}, .bias = {&b}};
  struct linear *linear;
  for (int exact = 0; exact <= 1; exact++) {
    source.input = exact ? DT_F32 : DT_BF16;
    assert_ok(ex.ctx, ex.device->ops->linear_create(&ex, &source, &linear));
    assert_int_equal(linear->input, source.input);
    if (exact)
      be_linear(&ex, &y[1], act_f32((float[]){2, 1}), linear, 1);
    else
      be_linear(&ex, &y[0], (struct act){(uint16_t[]){0x4000, 0x3f80}, DT_BF16}, linear, 1);
    if (!exact) { /* weights for one type do not meet another */
      be_linear(&ex, &y[2], act_f32(x), linear, 1);
      assert_fails(ex.ctx, DITMOE_FAILED, "a product for BF16 is given F32", ex.status);
      exec_clear(&ex);
    }
    ex.device->ops->linear_destroy(&ex, linear);
  }
  assert_floats(y, (float[]){4 + 2.5F * step, 4 + 3 * step}, 2);

  be_upsample2x(&ex, acts, x, 1, 1, 1, 1);
  assert_int_equal(brains[3], 0x3f80);
  exec_close(&ex);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_single_values), cmocka_unit_test(test_norms),
      cmocka_unit_test(test_softmax),       cmocka_unit_test(test_attention),
      cmocka_unit_test(test_patches),       cmocka_unit_test(test_choices),
      cmocka_unit_test(test_order),         cmocka_unit_test(test_convolution),
      cmocka_unit_test(test_linear),        cmocka_unit_test(test_experts),
      cmocka_unit_test(test_bf16),          cmocka_unit_test(test_convolution_relu),
      cmocka_unit_test(test_pooling),
  };
  return cmocka_run_group_tests(tests, open_ref, close_ref);
}

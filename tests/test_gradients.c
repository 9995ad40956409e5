/* The gradient of every operation, on every backend that has them, against finite differences of
 * the forward operation. Blocks of the model are in test_gradients_model.c. */
#include "tests/gradient_problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Dense operations. */

enum { ROWS = 5, IN = 7, OUT = 4 };

static float *linear_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0], *w = &p->block[1];
  struct linear *linear = layer(p, w[0].value, w[1].value, IN, OUT, false);
  const struct linear_grad grad = grad_of(w);
  float *y = be_floats(p->ex, ROWS * OUT);
  be_linear(p->ex, y, act_f32(x->x), linear, ROWS);
  if (!dy) return y;
  be_linear_bwd_input(p->ex, x->dx, dy, linear, ROWS);
  be_linear_bwd_weight(p->ex, &grad, dy, act_f32(x->x), linear, ROWS);
  return y;
}

static void setup_linear(struct problem *p) {
  p->pass = linear_pass;
  p->outputs = ROWS * OUT;
  add_block(p, "x", false, ROWS * IN);
  add_block(p, "weight", true, OUT * IN);
  add_block(p, "bias", true, OUT);
}

static const struct expert_kind relu = {"relu", ROWS_PRODUCT, ACTIVATION_RELU};

static bool is_swiglu(const struct problem *p) { return p->user == &expert_swiglu; }

static float *hidden_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0], *w = &p->block[1];
  struct linear *in = layer(p, w[0].value, w[1].value, IN, OUT, is_swiglu(p));
  const struct expert expert = {p->user, OUT, in, NULL};
  const struct linear_grad grad = grad_of(w);
  float *h = be_floats(p->ex, ROWS * OUT), *dsums = be_floats(p->ex, ROWS * 2 * OUT);
  be_hidden(p->ex, act_f32(h), act_f32(x->x), &expert, ROWS);
  if (!dy) return h;
  be_hidden_bwd(p->ex, dsums, dy, act_f32(x->x), &expert, ROWS);
  be_linear_bwd_input(p->ex, x->dx, dsums, in, ROWS);
  be_linear_bwd_weight(p->ex, &grad, dsums, act_f32(x->x), in, ROWS);
  return h;
}

static void setup_hidden(struct problem *p) {
  p->pass = hidden_pass;
  p->outputs = ROWS * OUT;
  add_block(p, "x", false, ROWS * IN);
  add_block(p, "weight", true, (1 + is_swiglu(p)) * OUT * IN);
  struct block *bias = add_block(p, "bias", true, (1 + is_swiglu(p)) * OUT);
  /* Far from the corner of a ReLU, on both sides. */
  for (int i = 0; p->user == &relu && i < OUT; i++) bias->value[i] = i % 2 ? 5 : -5;
}

/* y = op(x), gradients of x or of y. */
static float *single_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0];
  float *y = be_floats(p->ex, x->n);
  const bool silu = strcmp(p->user, "silu") == 0;
  if (silu)
    be_silu(p->ex, y, x->x, x->n);
  else
    be_sigmoid(p->ex, y, x->x, x->n);
  if (dy && silu) be_silu_bwd(p->ex, x->dx, dy, x->x, x->n);
  if (dy && !silu) be_sigmoid_bwd(p->ex, x->dx, dy, y, x->n);
  return y;
}

static void setup_single(struct problem *p) {
  p->pass = single_pass;
  p->outputs = 9;
  add_block(p, "x", false, 9);
}

static float *add_rows_pass(struct problem *p, const float *dy) {
  float *y = be_floats(p->ex, ROWS * IN);
  be_fill(p->ex, y, 0, ROWS * IN * sizeof *y);
  be_add_rows(p->ex, y, p->block[0].x, ROWS, IN);
  if (dy) be_add_rows_bwd(p->ex, p->block[0].dx, dy, ROWS, IN);
  return y;
}

static void setup_add_rows(struct problem *p) {
  p->pass = add_rows_pass;
  p->outputs = ROWS * IN;
  add_block(p, "row", true, IN);
}

/* Blocks of a transformer. */

enum { B = 2, T = 3, H = 2, HEAD = 3, D = H * HEAD };
static const float eps = 1e-6F;

static float *norm_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0], *m = &p->block[1], *w = p->blocks > 2 ? &p->block[2] : NULL;
  const struct row_norm norm = {w ? w->x : NULL, eps};
  float *y = be_floats(p->ex, B * T * D);
  be_norm_modulate(p->ex, act_f32(y), x->x, m->x, m->x + D, 2 * D, B, T, D, &norm);
  if (!dy) return y;
  const struct modulation_grad grad = {m->dx, m->dx + D, w ? w->dx : NULL};
  be_norm_modulate_bwd(p->ex, x->dx, &grad, dy, x->x, m->x + D, 2 * D, B, T, D, &norm);
  return y;
}

static void setup_norm(struct problem *p) {
  p->pass = norm_pass;
  p->outputs = B * T * D;
  add_block(p, "x", false, B * T * D);
  add_block(p, "shift and scale", false, B * 2 * D);
}

static void setup_rms_norm(struct problem *p) {
  setup_norm(p);
  add_block(p, "weight", true, D);
}

/* Gates are every other row, the rows between them are not touched. */
static float *gated_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0], *y = &p->block[1], *gate = &p->block[2];
  float *out = be_floats(p->ex, B * T * D);
  be_gated_add(p->ex, out, x->x, gate->x + D, 2 * D, y->x, B, T, D);
  if (!dy) return out;
  be_copy(p->ex, x->dx, dy, B * T * D * sizeof *dy);
  be_gated_add_bwd(p->ex, gate->dx + D, y->dx, dy, gate->x + D, 2 * D, y->x, B, T, D);
  return out;
}

static void setup_gated(struct problem *p) {
  p->pass = gated_pass;
  p->outputs = B * T * D;
  add_block(p, "x", false, B * T * D);
  add_block(p, "y", false, B * T * D);
  add_block(p, "gate", false, B * 2 * D);
}

static float *qk_norm_pass(struct problem *p, const float *dy) {
  struct block *qkv = &p->block[0], *w = &p->block[1];
  const struct qk_norm norm = {w[0].x, w[1].x, w[2].x, w[3].x, eps};
  const struct qk_norm_grad grad = {w[0].dx, w[1].dx, w[2].dx, w[3].dx};
  float *y = be_floats(p->ex, qkv->n);
  be_qk_norm(p->ex, y, qkv->x, &norm, B * T, H, HEAD);
  if (dy) be_qk_norm_bwd(p->ex, qkv->dx, &grad, dy, qkv->x, &norm, B * T, H, HEAD);
  return y;
}

static void setup_qk_norm(struct problem *p) {
  p->pass = qk_norm_pass;
  p->outputs = B * T * 3 * D;
  struct block *qkv = add_block(p, "qkv", false, B * T * 3 * D);
  for (int i = 0; i < B * T * 3 * D; i++) /* no three of nearly one value, whose norm is steep */
    qkv->value[i] += (float)(i % HEAD * 3 - 3);
  add_block(p, "q weight", true, HEAD);
  add_block(p, "q bias", true, HEAD);
  add_block(p, "k weight", true, HEAD);
  add_block(p, "k bias", true, HEAD);
}

static float *qk_rms_pass(struct problem *p, const float *dy) {
  struct block *qkv = &p->block[0], *w = &p->block[1];
  const struct qk_norm norm = {.q_weight = w[0].x, .k_weight = w[1].x, .eps = eps};
  const struct qk_norm_grad grad = {.q_weight = w[0].dx, .k_weight = w[1].dx};
  float *y = be_floats(p->ex, qkv->n);
  be_qk_norm(p->ex, y, qkv->x, &norm, B * T, H, HEAD);
  if (dy) be_qk_norm_bwd(p->ex, qkv->dx, &grad, dy, qkv->x, &norm, B * T, H, HEAD);
  return y;
}

static void setup_qk_rms(struct problem *p) {
  p->pass = qk_rms_pass;
  p->outputs = B * T * 3 * D;
  add_block(p, "qkv", false, B * T * 3 * D);
  add_block(p, "q weight", true, HEAD);
  add_block(p, "k weight", true, HEAD);
}

enum { TURNED = 8, TURNED_QKV = B * T * 3 * H * TURNED };

/* The gradient is the rotation back. */
static float *rotate_pass(struct problem *p, const float *dy) {
  struct block *qkv = &p->block[0];
  float cosine[T * TURNED / 2], sine[T * TURNED / 2];
  for (int i = 0; i < T * TURNED / 2; i++) {
    cosine[i] = cosf(0.3F * (float)i);
    sine[i] = sinf(0.3F * (float)i);
  }
  const struct rope rope = {to_device(p, cosine, T * TURNED / 2),
                            to_device(p, sine, T * TURNED / 2), p->user != NULL};
  float *y = be_floats(p->ex, TURNED_QKV);
  be_copy(p->ex, y, qkv->x, TURNED_QKV * sizeof *y);
  be_qk_rotate(p->ex, y, &rope, 1, B, T, H, TURNED);
  if (!dy) return y;
  be_copy(p->ex, qkv->dx, dy, TURNED_QKV * sizeof *dy);
  be_qk_rotate(p->ex, qkv->dx, &rope, -1, B, T, H, TURNED);
  return y;
}

static void setup_rotate(struct problem *p) {
  p->pass = rotate_pass;
  p->outputs = TURNED_QKV;
  add_block(p, "qkv", false, TURNED_QKV);
}

static float *attention_pass(struct problem *p, const float *dy) {
  struct block *qkv = &p->block[0];
  float *y = be_floats(p->ex, B * T * D), *lse = be_floats(p->ex, B * H * T);
  be_attention(p->ex, act_f32(y), lse, qkv->x, B, T, H, HEAD);
  if (dy) be_attention_bwd(p->ex, qkv->dx, dy, qkv->x, act_f32(y), lse, B, T, H, HEAD);
  return y;
}

static void setup_attention(struct problem *p) {
  p->pass = attention_pass;
  p->outputs = B * T * D;
  add_block(p, "qkv", false, B * T * 3 * D);
}

enum { CHANNELS = 3, HEIGHT = 4, WIDTH = 6, PATCH = 2, LATENTS = B * CHANNELS * HEIGHT * WIDTH };

static float *patchify_pass(struct problem *p, const float *dy) {
  float *y = be_floats(p->ex, LATENTS);
  be_patchify(p->ex, y, p->block[0].x, B, CHANNELS, HEIGHT, WIDTH, PATCH);
  if (dy) be_patchify_bwd(p->ex, p->block[0].dx, dy, B, CHANNELS, HEIGHT, WIDTH, PATCH);
  return y;
}

static float *unpatchify_pass(struct problem *p, const float *dy) {
  float *y = be_floats(p->ex, LATENTS);
  be_unpatchify(p->ex, y, p->block[0].x, B, CHANNELS, HEIGHT, WIDTH, PATCH);
  if (dy) be_unpatchify_bwd(p->ex, p->block[0].dx, dy, B, CHANNELS, HEIGHT, WIDTH, PATCH);
  return y;
}

static void setup_patches(struct problem *p) {
  p->outputs = LATENTS;
  add_block(p, "x", false, LATENTS);
}

static void setup_patchify(struct problem *p) {
  setup_patches(p);
  p->pass = patchify_pass;
}

static void setup_unpatchify(struct problem *p) {
  setup_patches(p);
  p->pass = unpatchify_pass;
}

/* Routing. */

enum { E = 5, F = 4, TOKENS = B * T, R = 2 * TOKENS };

static float *gather_pass(struct problem *p, const float *dy) {
  static const int32_t index[ROWS] = {3, 0, 3, 1, 3};
  float *y = be_floats(p->ex, ROWS * IN);
  int32_t *at = be_ints(p->ex, ROWS);
  be_upload(p->ex, at, index, sizeof index);
  be_gather_rows(p->ex, y, p->block[0].x, at, ROWS, IN);
  if (dy) be_gather_rows_bwd(p->ex, p->block[0].dx, dy, at, ROWS, IN);
  return y;
}

static void setup_gather(struct problem *p) {
  p->pass = gather_pass;
  p->outputs = ROWS * IN;
  add_block(p, "table", true, OUT * IN);
}

static float *normalize_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0];
  float *y = be_floats(p->ex, ROWS * IN);
  be_normalize_rows(p->ex, y, x->x, ROWS, IN);
  if (dy) be_normalize_rows_bwd(p->ex, x->dx, dy, x->x, ROWS, IN);
  return y;
}

static void setup_normalize(struct problem *p) {
  p->pass = normalize_pass;
  p->outputs = ROWS * IN;
  add_block(p, "x", false, ROWS * IN);
}

static float *softmax_rows_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0];
  float *y = be_floats(p->ex, TOKENS * E);
  be_softmax_rows(p->ex, y, x->x, TOKENS, E);
  if (dy) be_softmax_rows_bwd(p->ex, x->dx, dy, y, TOKENS, E);
  return y;
}

static float *softmax_tokens_pass(struct problem *p, const float *dy) {
  struct block *x = &p->block[0];
  float *y = be_floats(p->ex, TOKENS * E);
  be_softmax_tokens(p->ex, y, x->x, B, T, E);
  if (dy) be_softmax_tokens_bwd(p->ex, x->dx, dy, y, B, T, E);
  return y;
}

static void setup_scores(struct problem *p) {
  p->outputs = TOKENS * E;
  add_block(p, "x", false, TOKENS * E);
}

static void setup_softmax_rows(struct problem *p) {
  setup_scores(p);
  p->pass = softmax_rows_pass;
}

static void setup_softmax_tokens(struct problem *p) {
  setup_scores(p);
  p->pass = softmax_tokens_pass;
}

/* A SwiGLU expert with biases, a GELU expert of another width, one that copies, one that gives 0,
 * and one without rows, all in one bank; six tokens with two experts each. */
enum { F_GELU = 3 };

struct layer_of_experts {
  struct expert expert[E];
  struct expert_grad grad[E];
  struct expert_bank bank;
  struct expert_wave wave;
  struct dispatch d;
};

/* Weights of the plan: the scores [TOKENS, E] of what is chosen. */
static void make_plan(struct problem *p, struct dispatch *d, const float *scores) {
  static const int32_t expert[R] = {0, 1, 1, 0, 2, 0, 1, 3, 3, 2, 0, 1};
  float host[TOKENS * E], gate[R];
  int32_t source[R];
  be_download(p->ex, host, scores, sizeof host);
  for (int i = 0; i < R; i++) source[i] = i / 2, gate[i] = host[i / 2 * E + expert[i]];
  be_dispatch_alloc(p->ex, d, E, TOKENS, R);
  be_upload(p->ex, d->expert, expert, sizeof expert);
  be_upload(p->ex, d->source, source, sizeof source);
  be_upload(p->ex, d->gate, gate, sizeof gate);
  be_dispatch_order(p->ex, d);
}

static void make_experts(struct problem *p, struct layer_of_experts *l, const struct block *b) {
  struct linear *in = layer(p, b[0].value, b[1].value, D, F, true);
  struct linear *out = layer(p, b[2].value, b[3].value, F, D, false);
  l->expert[0] = l->expert[4] = (struct expert){&expert_swiglu, F, in, out};
  l->expert[1] =
      (struct expert){&expert_gelu, F_GELU, layer(p, b[4].value, b[5].value, D, F_GELU, false),
                      layer(p, b[6].value, b[7].value, F_GELU, D, false)};
  l->expert[2] = (struct expert){.kind = &expert_copy};
  l->expert[3] = (struct expert){.kind = &expert_zero};
  l->bank = (struct expert_bank){E, D, F, DT_F32, l->expert};
  l->wave = (struct expert_wave){.bank = &l->bank, .count = E};
  memset(l->grad, 0, sizeof l->grad);
  l->grad[0] = l->grad[4] = (struct expert_grad){grad_of(&b[0]), grad_of(&b[2])};
  l->grad[1] = (struct expert_grad){grad_of(&b[4]), grad_of(&b[6])};
}

/* Sum over its experts of score * expert(x), by the steps of the executor and back. */
static float *experts_pass(struct problem *p, const float *dy) {
  struct exec *ex = p->ex;
  struct block *x = &p->block[0], *scores = &p->block[1];
  struct layer_of_experts l;
  make_experts(p, &l, p->block + 2);
  make_plan(p, &l.d, scores->x);
  float *y = be_floats(ex, TOKENS * D), *rows = be_floats(ex, R * D), *h = be_floats(ex, R * F);
  be_experts_in(ex, act_f32(h), act_f32(x->x), &l.d, &l.wave);
  be_experts_out(ex, rows, act_f32(h), act_f32(x->x), &l.d, &l.wave);
  be_combine_rows(ex, y, rows, &l.d, NULL, D);
  if (!dy) return y;
  float *drows = be_floats(ex, R * D), *dx = be_floats(ex, R * D), *dweight = be_floats(ex, R);
  be_combine_rows_bwd(ex, drows, dweight, dy, rows, &l.d, D);
  be_experts_bwd(ex, dx, l.grad, drows, act_f32(x->x), act_f32(h), &l.d, &l.wave);
  be_dispatch_bwd(ex, x->dx, dx, &l.d, D);
  be_gates_bwd(ex, scores->dx, dweight, &l.d, E);
  return y;
}

static void setup_experts(struct problem *p) {
  p->pass = experts_pass;
  p->outputs = TOKENS * D;
  add_block(p, "x", false, TOKENS * D);
  add_block(p, "scores", false, TOKENS * E);
  add_block(p, "gate and up", true, 2 * F * D);
  add_block(p, "gate and up bias", true, 2 * F);
  add_block(p, "down", true, D * F);
  add_block(p, "down bias", true, D);
  add_block(p, "fc1", true, F_GELU * D);
  add_block(p, "fc1 bias", true, F_GELU);
  add_block(p, "fc2", true, D * F_GELU);
  add_block(p, "fc2 bias", true, D);
}

/* Images. */

enum { SIDE = 5, WIDE = 6, CHANNELS_IN = 4, CHANNELS_OUT = 3, GROUPS = 2 };

/* As an AutoencoderKL has them: 3 x 3, its shortcuts and the quantiser's 1 x 1, and the encoder's
 * step down, padded below and to the right. */
struct convolution {
  int kernel;
  struct conv_window window;
};
static const struct convolution conv_3x3 = {3, {1, {1, 1}, {1, 1}}};
static const struct convolution conv_1x1 = {1, {1, {0, 0}, {0, 0}}};
static const struct convolution conv_down = {3, {2, {0, 0}, {1, 1}}};

static float *conv_pass(struct problem *p, const float *dy) {
  const struct convolution *c = p->user;
  struct block *x = &p->block[0], *w = &p->block[1];
  const struct tensor weight = {
      "weight", DT_F32, 4, {CHANNELS_OUT, CHANNELS_IN, c->kernel, c->kernel}, w[0].n, w[0].value};
  const struct tensor bias = {"bias", DT_F32, 1, {CHANNELS_OUT}, CHANNELS_OUT, w[1].value};
  const struct linear_grad grad = grad_of(w);
  struct conv *conv;
  assert_ok(p->ex->ctx, p->ex->device->ops->conv_create(p->ex, &weight, &bias, &c->window, &conv));
  float *y = be_floats(p->ex, p->outputs);
  be_conv2d(p->ex, y, act_f32(x->x), conv, B, SIDE, WIDE);
  if (dy) be_conv2d_bwd_input(p->ex, x->dx, dy, conv, B, SIDE, WIDE);
  if (dy) be_conv2d_bwd_weight(p->ex, &grad, dy, act_f32(x->x), conv, B, SIDE, WIDE);
  p->ex->device->ops->conv_destroy(p->ex, conv);
  return y;
}

static void setup_conv(struct problem *p) {
  const struct convolution *c = p->user;
  const struct conv_window *w = &c->window;
  const int rows = (SIDE + w->before[0] + w->after[0] - c->kernel) / w->stride + 1;
  const int columns = (WIDE + w->before[1] + w->after[1] - c->kernel) / w->stride + 1;
  p->pass = conv_pass;
  p->outputs = (int64_t)B * rows * columns * CHANNELS_OUT;
  add_block(p, "x", false, B * SIDE * WIDE * CHANNELS_IN);
  add_block(p, "weight", true, (int64_t)CHANNELS_OUT * CHANNELS_IN * c->kernel * c->kernel);
  add_block(p, "bias", true, CHANNELS_OUT);
}

static float *group_norm_pass(struct problem *p, const float *dy) {
  const bool *silu = p->user;
  struct block *x = &p->block[0], *w = &p->block[1];
  const struct linear_grad grad = grad_of(w);
  float *y = be_floats(p->ex, x->n);
  be_group_norm(p->ex, act_f32(y), x->x, w[0].x, w[1].x, B, SIDE * WIDE, CHANNELS_IN, GROUPS, eps,
                *silu);
  if (dy)
    be_group_norm_bwd(p->ex, x->dx, &grad, dy, x->x, w[0].x, w[1].x, B, SIDE * WIDE, CHANNELS_IN,
                      GROUPS, eps, *silu);
  return y;
}

static void setup_group_norm(struct problem *p) {
  p->pass = group_norm_pass;
  p->outputs = B * SIDE * WIDE * CHANNELS_IN;
  add_block(p, "x", false, p->outputs);
  add_block(p, "weight", true, CHANNELS_IN);
  add_block(p, "bias", true, CHANNELS_IN);
}

static float *upsample_pass(struct problem *p, const float *dy) {
  float *y = be_floats(p->ex, p->outputs);
  be_upsample2x(p->ex, act_f32(y), p->block[0].x, B, SIDE, WIDE, CHANNELS_IN);
  if (dy) be_upsample2x_bwd(p->ex, p->block[0].dx, dy, B, SIDE, WIDE, CHANNELS_IN);
  return y;
}

static void setup_upsample(struct problem *p) {
  p->pass = upsample_pass;
  p->outputs = 4 * B * SIDE * WIDE * CHANNELS_IN;
  add_block(p, "x", false, B * SIDE * WIDE * CHANNELS_IN);
}

/* What a backend lacks is an error that names it. */
static void test_unsupported(void **state) {
  (void)state;
  struct exec ex;
  const struct linear w = {.input = DT_F32};
  assert_ok(test_ctx(), backend_open(&ex, test_ctx(), "cpu", NULL, 1));
  be_linear_bwd_input(&ex, NULL, NULL, &w, 0);
  assert_fails(test_ctx(), DITMOE_DEVICE, "operation linear_bwd_input is unsupported", ex.status);
  exec_close(&ex);
}

#define GRADIENT_TEST(name, setup, user)                                                           \
  static void test_##name(void **state) {                                                          \
    (void)state;                                                                                   \
    check_gradients(setup, user);                                                                  \
  }
GRADIENT_TEST(linear, setup_linear, NULL)
GRADIENT_TEST(gelu, setup_hidden, &expert_gelu)
GRADIENT_TEST(swiglu, setup_hidden, &expert_swiglu)
GRADIENT_TEST(relu, setup_hidden, &relu)
GRADIENT_TEST(silu, setup_single, "silu")
GRADIENT_TEST(sigmoid, setup_single, "sigmoid")
GRADIENT_TEST(add_rows, setup_add_rows, NULL)
GRADIENT_TEST(norm, setup_norm, NULL)
GRADIENT_TEST(gated, setup_gated, NULL)
GRADIENT_TEST(qk_norm, setup_qk_norm, NULL)
GRADIENT_TEST(rms_norm, setup_rms_norm, NULL)
GRADIENT_TEST(qk_rms, setup_qk_rms, NULL)
GRADIENT_TEST(rotate_halves, setup_rotate, NULL)
GRADIENT_TEST(rotate_adjacent, setup_rotate, "adjacent")
GRADIENT_TEST(silu_layer, setup_hidden, &expert_silu)
GRADIENT_TEST(attention, setup_attention, NULL)
GRADIENT_TEST(patchify, setup_patchify, NULL)
GRADIENT_TEST(unpatchify, setup_unpatchify, NULL)
GRADIENT_TEST(gather, setup_gather, NULL)
GRADIENT_TEST(normalize, setup_normalize, NULL)
GRADIENT_TEST(softmax_rows, setup_softmax_rows, NULL)
GRADIENT_TEST(softmax_tokens, setup_softmax_tokens, NULL)
GRADIENT_TEST(experts, setup_experts, NULL)
GRADIENT_TEST(conv_3x3, setup_conv, &conv_3x3)
GRADIENT_TEST(conv_1x1, setup_conv, &conv_1x1)
GRADIENT_TEST(conv_down, setup_conv, &conv_down)
GRADIENT_TEST(group_norm, setup_group_norm, &(const bool){false})
GRADIENT_TEST(group_norm_silu, setup_group_norm, &(const bool){true})
GRADIENT_TEST(upsample, setup_upsample, NULL)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_linear),
      cmocka_unit_test(test_gelu),
      cmocka_unit_test(test_swiglu),
      cmocka_unit_test(test_relu),
      cmocka_unit_test(test_silu),
      cmocka_unit_test(test_sigmoid),
      cmocka_unit_test(test_add_rows),
      cmocka_unit_test(test_norm),
      cmocka_unit_test(test_gated),
      cmocka_unit_test(test_qk_norm),
      cmocka_unit_test(test_attention),
      cmocka_unit_test(test_patchify),
      cmocka_unit_test(test_unpatchify),
      cmocka_unit_test(test_gather),
      cmocka_unit_test(test_normalize),
      cmocka_unit_test(test_softmax_rows),
      cmocka_unit_test(test_softmax_tokens),
      cmocka_unit_test(test_experts),
      cmocka_unit_test(test_conv_3x3),
      cmocka_unit_test(test_conv_1x1),
      cmocka_unit_test(test_conv_down),
      cmocka_unit_test(test_group_norm),
      cmocka_unit_test(test_group_norm_silu),
      cmocka_unit_test(test_upsample),
      cmocka_unit_test(test_rms_norm),
      cmocka_unit_test(test_qk_rms),
      cmocka_unit_test(test_rotate_halves),
      cmocka_unit_test(test_rotate_adjacent),
      cmocka_unit_test(test_silu_layer),
      cmocka_unit_test(test_unsupported),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

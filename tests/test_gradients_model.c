/* The backward pass of the model itself against finite differences of its forward pass, on the
 * reference backend in f32: every block of the fixtures' models, so that each form of attention,
 * router and expert is met, and whole models.
 *
 * The choices of the routers are replayed, their weights are computed anew: so the loss is smooth
 * and means what the gradients mean. The loss is sum(r y), summed in f64; the derivative along a
 * direction v is compared with gradient . v, where v is half the gradient's own direction, half a
 * random one. */
#include "base/rng.h"
#include "dit/embed.h"
#include "dit/grads.h"
#include "tests/golden/golden.h"
#include "tests/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 16, B = 2 };

/* Of a difference, against the norm of the gradient or 1. The rounding of f32 results alone gives a
 * derivative 5e-5, seen where the gradient is 0, as that of the bias of k, which moves all logits
 * of a query alike; through all layers 2e-4. */
static const double block_limit = 1e-4, model_limit = 4e-4;

/* A parameter or an input with its gradient, both in the memory of the reference backend. */
struct group {
  char name[48];
  float *value;
  const float *gradient;
  int64_t n;
};

struct subject {
  struct golden g;
  cJSON *manifest;
  struct exec ex;
  struct dit *model;
  struct dit_acts acts;
  struct dit_grads grads;
  struct dit_input in;
  struct dit_replay replay;
  int32_t *expert[MAX_LAYERS], *source[MAX_LAYERS]; /* choices of the routers, to be replayed */
  struct group *groups;
  int count, capacity;
  float *out;
  const float *r;
  int64_t outputs;
};

static float *normal(int64_t n, double scale) {
  static uint64_t draws;
  float *values = malloc((size_t)n * sizeof *values);
  assert_non_null(values);
  rng_normal(values, n, 11, draws++, 0, RNG_INITIAL_NOISE);
  for (int64_t i = 0; i < n; i++) values[i] = (float)(values[i] * scale);
  return values;
}

static void add_group(struct subject *s, const char *name, const float *value,
                      const float *gradient, int64_t n) {
  if (s->count == s->capacity) {
    s->capacity = 2 * s->capacity + 64;
    s->groups = realloc(s->groups, (size_t)s->capacity * sizeof *s->groups);
    assert_non_null(s->groups);
  }
  struct group *group = &s->groups[s->count++];
  *group = (struct group){.value = (float *)(uintptr_t)value, .gradient = gradient, .n = n};
  snprintf(group->name, sizeof group->name, "%s", name);
}

/* The reference backend keeps weight [total, in], then bias [total]. */
static void add_linear(struct subject *s, const char *name, const struct linear *w,
                       const struct linear_grad *grad) {
  const int64_t total = (int64_t)w->out << w->paired;
  char full[64];
  snprintf(full, sizeof full, "%s weight", name);
  add_group(s, full, w->data, grad->weight, total * w->in);
  snprintf(full, sizeof full, "%s bias", name);
  add_group(s, full, (float *)w->data + total * w->in, grad->bias, total);
}

static void add_expert(struct subject *s, const char *name, const struct expert *expert,
                       const struct expert_grad *grad) {
  char full[48];
  snprintf(full, sizeof full, "%s in", name);
  add_linear(s, full, expert->in, &grad->in);
  snprintf(full, sizeof full, "%s out", name);
  add_linear(s, full, expert->out, &grad->out);
}

static void add_embedder(struct subject *s, const struct dit_embedder *embedder,
                         const struct dit_embedder_grad *grad) {
  const struct dit_config *c = &s->model->config;
  add_linear(s, "time in", embedder->time_in, &grad->time_in);
  add_linear(s, "time out", embedder->time_out, &grad->time_out);
  add_group(s, "labels", embedder->labels, grad->labels, (int64_t)c->label_rows * c->width);
}

static void add_block(struct subject *s, int layer) {
  const struct dit_block *block = &s->model->blocks[layer];
  const struct dit_block_grad *grad = &s->grads.blocks[layer];
  const struct qk_norm *norm = &block->qk_norm;
  const int d = s->model->config.head_dim;
  add_linear(s, "modulation", block->modulation, &grad->modulation);
  add_linear(s, "qkv", block->qkv, &grad->qkv);
  add_linear(s, "proj", block->proj, &grad->proj);
  if (s->model->config.qk_norm) {
    add_group(s, "q weight", norm->q_weight, grad->qk_norm.q_weight, d);
    add_group(s, "q bias", norm->q_bias, grad->qk_norm.q_bias, d);
    add_group(s, "k weight", norm->k_weight, grad->qk_norm.k_weight, d);
    add_group(s, "k bias", norm->k_bias, grad->qk_norm.k_bias, d);
  }
  if (block->mlp) add_expert(s, "mlp", block->mlp, &grad->mlp);
  if (!block->moe) return;
  if (block->moe->shared) add_expert(s, "shared", block->moe->shared, &grad->mlp);
  const struct linear *gate = block->moe->router->gate;
  add_group(s, "router", gate->data, grad->router.gate.weight, (int64_t)gate->out * gate->in);
  for (int e = 0; e < block->moe->bank.count; e++) {
    char name[24];
    snprintf(name, sizeof name, "expert %d", e);
    if (expert_has_weights(&block->moe->bank.expert[e]))
      add_expert(s, name, &block->moe->bank.expert[e], &grad->experts[e]);
  }
}

/* Choices. */

static void keep_choice(struct subject *s, int layer) {
  if (!s->model->blocks[layer].moe) return;
  const struct dispatch *d = &s->acts.blocks[layer].plan;
  const size_t bytes = (size_t)d->capacity * sizeof(int32_t);
  s->expert[layer] = malloc(bytes);
  s->source[layer] = malloc(bytes);
  assert_true(s->expert[layer] && s->source[layer]);
  memcpy(s->expert[layer], d->expert, bytes);
  memcpy(s->source[layer], d->source, bytes);
}

/* Chosen before, weighed by what the router computes now. */
static void fill(void *user, struct exec *ex, int layer, struct dispatch *d) {
  const struct subject *s = user;
  const struct router_layer *router = s->model->blocks[layer].moe->router;
  const struct router_input in = dit_router_input(s->model, &s->acts.blocks[layer], &s->in);
  struct router_trace trace = {0};
  struct dispatch own;
  be_dispatch_alloc(ex, &own, d->experts, d->tokens, d->capacity);
  router->router->route(ex, router, &in, &own, &trace);
  if (!be_active(ex)) return;
  for (int64_t a = 0; a < d->capacity; a++) {
    const int32_t e = s->expert[layer][a], t = s->source[layer][a];
    d->expert[a] = e;
    d->source[a] = t;
    d->gate[a] = e >= 0 && e < router->experts ? trace.scores[(int64_t)t * router->experts + e] : 1;
  }
}

/* Losses. */

static double loss_of(const struct subject *s, const float *y) {
  double sum = 0;
  assert_ok(s->ex.ctx, s->ex.status);
  for (int64_t i = 0; i < s->outputs; i++) sum += (double)y[i] * s->r[i];
  return sum;
}

/* Of block `layer`, whose x_in, x_out and silu_c stand in s->acts. */
static double block_loss(struct subject *s, int layer) {
  struct dit_block_acts *a = &s->acts.blocks[layer];
  const size_t mark = arena_mark(&s->ex.arena);
  dit_block_carve(&s->ex, s->model, layer, a, &s->in, true);
  dit_block(&s->ex, s->model, layer, a, &s->in);
  arena_reset(&s->ex.arena, mark);
  return loss_of(s, a->x_out);
}

static double model_loss(struct subject *s, int layer) {
  (void)layer;
  const size_t mark = arena_mark(&s->ex.arena);
  dit_forward_keep(&s->ex, s->model, &s->acts, s->out, &s->in);
  arena_reset(&s->ex.arena, mark);
  return loss_of(s, s->out);
}

typedef double loss_function(struct subject *s, int layer);

static double along(struct subject *s, loss_function *loss, int layer, const struct group *g,
                    const float *v) {
  static const double at[4] = {1, -1, 2, -2};
  const double h = 1.0 / 32;
  double f[4];
  float *saved = malloc((size_t)g->n * sizeof *saved);
  assert_non_null(saved);
  memcpy(saved, g->value, (size_t)g->n * sizeof *saved);
  for (int i = 0; i < 4; i++) {
    for (int64_t j = 0; j < g->n; j++) g->value[j] = (float)(saved[j] + at[i] * h * v[j]);
    f[i] = loss(s, layer);
  }
  memcpy(g->value, saved, (size_t)g->n * sizeof *saved);
  free(saved);
  return (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
}

static double norm_of(const float *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
  return sqrt(sum);
}

static void check_group(struct subject *s, loss_function *loss, int layer, const struct group *g) {
  float *v = normal(g->n, 1);
  const double length = norm_of(g->gradient, g->n), random = norm_of(v, g->n);
  double expected = 0;
  for (int64_t i = 0; i < g->n; i++) {
    v[i] = (float)(v[i] / random + (length > 0 ? g->gradient[i] / length : 0));
    expected += (double)v[i] * g->gradient[i];
  }
  const double numeric = along(s, loss, layer, g, v);
  char what[128];
  snprintf(what, sizeof what, "%s, layer %d, %s: %.6g for %.6g", s->g.folder, layer, g->name,
           expected, numeric);
  assert_within(what, fabs(numeric - expected),
                (loss == block_loss ? block_limit : model_limit) * fmax(length, 1));
  free(v);
}

/* Subjects. */

static void open_subject(struct subject *s, const char *folder, bool own_embedder) {
  char path[512];
  *s = (struct subject){.g = {.ctx = test_ctx(), .ex = &s->ex, .folder = folder}};
  snprintf(path, sizeof path, "%s/manifest.json", folder);
  char *text = file_bytes(path, NULL);
  s->g.manifest = s->manifest = cJSON_Parse(text);
  free(text);
  assert_non_null(s->manifest);
  assert_ok(test_ctx(), backend_open(&s->ex, test_ctx(), "ref", NULL, 1));
  assert_ok(test_ctx(), golden_load(&s->g, NULL, NULL, false, &s->model));
  assert_true(s->model->config.depth <= MAX_LAYERS);
  if (own_embedder) { /* block 1 uses the model's as one of its own */
    s->model->blocks[1].embedder = &s->model->embedder;
    s->model->block_embedders = &s->model->embedder;
  }
  assert_ok(test_ctx(), dit_acts_init(test_ctx(), s->model, KEEP_ALL, &s->acts));
  assert_ok(test_ctx(), dit_grads_alloc(&s->ex, s->model, &s->grads));
  s->replay = (struct dit_replay){s, fill};
  s->in = (struct dit_input){.B = B};
}

static void close_subject(struct subject *s) {
  for (int layer = 0; layer < MAX_LAYERS; layer++) free(s->expert[layer]), free(s->source[layer]);
  free(s->groups);
  dit_grads_free(&s->ex, s->model, &s->grads);
  dit_acts_fini(test_ctx(), &s->acts);
  if (s->model->block_embedders == &s->model->embedder)
    s->model->blocks[1].embedder = NULL, s->model->block_embedders = NULL;
  dit_close(&s->ex, s->model);
  exec_close(&s->ex);
  cJSON_Delete(s->manifest);
}

/* The memory of one block with all that its gradient takes, by a dry run. */
struct block_run {
  struct subject *s;
  int layer;
  float *x_in, *x_out, *silu_c, *dx, *dsilu_c;
};

static size_t bytes_of_run(const struct exec *ex, void (*run)(struct exec *ex, void *user),
                           void *user) {
  struct exec dry = exec_dry(ex);
  run(&dry, user);
  return dry.arena.peak;
}

static void run_block(struct exec *ex, void *user) {
  struct block_run *run = user;
  struct subject *s = run->s;
  const struct dit_config *c = &s->model->config;
  const int64_t n = (int64_t)B * c->tokens * c->width;
  struct dit_block_acts *a = &s->acts.blocks[run->layer];
  a->x_in = run->x_in = be_floats(ex, n);
  a->x_out = run->x_out = be_floats(ex, n);
  a->silu_c = run->silu_c = be_floats(ex, (int64_t)B * c->width);
  run->dx = be_floats(ex, n);
  run->dsilu_c = be_floats(ex, (int64_t)B * c->width);
  if (!be_active(ex)) {
    dit_block_carve(ex, s->model, run->layer, a, &s->in, true);
    dit_block(ex, s->model, run->layer, a, &s->in);
    dit_block_bwd(ex, s->model, run->layer, a, run->dx, run->dsilu_c, &s->grads.blocks[run->layer],
                  &s->in);
  }
}

static void check_block(struct subject *s, int layer) {
  const struct dit_config *c = &s->model->config;
  const int64_t n = (int64_t)B * c->tokens * c->width, nc = (int64_t)B * c->width;
  struct dit_block_acts *a = &s->acts.blocks[layer];
  struct block_run run = {.s = s, .layer = layer};
  float *x = normal(n, 1), *condition = normal(nc, 0.5), *r = normal(n, 1);
  s->in.replay = &s->replay; /* so that its memory counts */
  assert_ok(test_ctx(), exec_reserve(&s->ex, bytes_of_run(&s->ex, run_block, &run)));
  run_block(&s->ex, &run);
  memcpy(run.x_in, x, (size_t)n * sizeof *x);
  memcpy(run.silu_c, condition, (size_t)nc * sizeof *condition);
  memcpy(run.dx, r, (size_t)n * sizeof *r);
  memset(run.dsilu_c, 0, (size_t)nc * sizeof *condition);
  memset(s->grads.values, 0, s->grads.count * sizeof(float));
  s->r = r;
  s->outputs = n;

  const size_t mark = arena_mark(&s->ex.arena);
  s->in.replay = NULL;
  dit_block_carve(&s->ex, s->model, layer, a, &s->in, true);
  dit_block(&s->ex, s->model, layer, a, &s->in);
  keep_choice(s, layer);
  s->in.replay = &s->replay;
  dit_block_bwd(&s->ex, s->model, layer, a, run.dx, run.dsilu_c, &s->grads.blocks[layer], &s->in);
  arena_reset(&s->ex.arena, mark);
  assert_ok(test_ctx(), s->ex.status);

  s->count = 0;
  add_group(s, "x", run.x_in, run.dx, n);
  add_group(s, "silu(c)", run.silu_c, run.dsilu_c, nc);
  add_block(s, layer);
  for (int i = 0; i < s->count; i++) check_group(s, block_loss, layer, &s->groups[i]);
  free(x);
  free(condition);
  free(r);
}

/* Every block of a model; the first image is of the class that goes to the unconditional expert,
 * where there is one. */
static void test_blocks(void **state) {
  const char *folder = *state;
  struct subject s;
  open_subject(&s, fixture_path(folder), false);
  for (int layer = 0; layer < s.model->config.depth; layer++) {
    const struct dit_moe *moe = s.model->blocks[layer].moe;
    int32_t labels[B] = {0, 1};
    if (moe && moe->router->uncond_expert >= 0) labels[0] = moe->router->uncond_label;
    s.in.labels = labels;
    check_block(&s, layer);
  }
  close_subject(&s);
}

/* A whole pass forth and back. */
struct model_run {
  struct subject *s;
  float *x, *time, *dx, *dout;
  int32_t *labels;
};

static void run_model(struct exec *ex, void *user) {
  struct model_run *run = user;
  struct subject *s = run->s;
  const struct dit_config *c = &s->model->config;
  const int64_t plane = (int64_t)c->size * c->size, n = dit_images(&s->in) * c->channels * plane;
  run->x = be_floats(ex, n);
  run->dx = be_floats(ex, n);
  run->time = be_floats(ex, B);
  run->labels = be_ints(ex, B);
  s->out = be_floats(ex, s->outputs);
  run->dout = be_floats(ex, s->outputs);
  s->in.x = run->x, s->in.time = run->time, s->in.labels = run->labels;
  if (be_active(ex)) return;
  dit_forward_keep(ex, s->model, &s->acts, s->out, &s->in);
  dit_backward(ex, s->model, &s->acts, run->dx, &s->grads, run->dout, &s->in);
}

/* Gradients: recomputing blocks from their inputs must give the bits of keeping everything. */
static void differentiate(struct subject *s, struct model_run *run, enum dit_keep keep) {
  const size_t mark = arena_mark(&s->ex.arena);
  s->acts.keep = keep;
  memset(s->grads.values, 0, s->grads.count * sizeof(float));
  dit_forward_keep(&s->ex, s->model, &s->acts, s->out, &s->in);
  dit_backward(&s->ex, s->model, &s->acts, run->dx, &s->grads, run->dout, &s->in);
  arena_reset(&s->ex.arena, mark);
  assert_ok(test_ctx(), s->ex.status);
}

static size_t bytes_of(struct subject *s, struct model_run *run, enum dit_keep keep) {
  s->acts.keep = keep;
  return bytes_of_run(&s->ex, run_model, run);
}

static void add(float *sum, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

static void check_model(struct subject *s, struct model_run *run) {
  const struct dit_config *c = &s->model->config;
  const int64_t image = (int64_t)c->channels * c->size * c->size;
  s->count = 0;
  add_group(s, "x", run->x, run->dx, dit_images(&s->in) * image);
  add_linear(s, "patch embedding", s->model->patch_embed, &s->grads.patch_embed);
  add_group(s, "positions", s->model->grid.pos_embed, s->grads.pos_embed,
            (int64_t)c->tokens * c->width);
  add_embedder(s, &s->model->embedder, &s->grads.embedder);
  add_linear(s, "final modulation", s->model->final_modulation, &s->grads.final_modulation);
  add_linear(s, "final", s->model->final_linear, &s->grads.final_linear);
  add_block(s, 0);
  for (int i = 0; i < s->count; i++) check_group(s, model_loss, 0, &s->groups[i]);
}

struct model_case {
  const char *folder;
  int halves;
  bool own_embedder;
};

static void test_whole(void **state) {
  const struct model_case *given = *state;
  struct subject s;
  struct model_run run = {.s = &s};
  open_subject(&s, fixture_path(given->folder), given->own_embedder);
  const struct dit_config *c = &s.model->config;
  s.in.halves = given->halves;
  s.in.replay = &s.replay;
  s.outputs = (int64_t)B * c->out_channels * c->size * c->size;
  const size_t bytes = bytes_of(&s, &run, KEEP_ALL), least = bytes_of(&s, &run, KEEP_INPUTS);
  assert_true(least < bytes);
  assert_ok(test_ctx(), exec_reserve(&s.ex, bytes));
  run_model(&s.ex, &run);
  const int64_t n = dit_images(&s.in) * (int64_t)c->channels * c->size * c->size;
  float *x = normal(n, 1), *r = normal(s.outputs, 1);
  memcpy(run.x, x, (size_t)n * sizeof *x);
  memcpy(run.dout, r, (size_t)s.outputs * sizeof *r);
  for (int b = 0; b < B; b++)
    run.time[b] = 0.3f + 0.4f * (float)b, run.labels[b] = given->halves > 1 ? b : 1;
  s.r = r;

  s.in.replay = NULL;
  differentiate(&s, &run, KEEP_INPUTS);
  float *kept = malloc((s.grads.count + (size_t)n) * sizeof *kept);
  assert_non_null(kept);
  memcpy(kept, s.grads.values, s.grads.count * sizeof *kept);
  memcpy(kept + s.grads.count, run.dx, (size_t)n * sizeof *kept);
  differentiate(&s, &run, KEEP_ALL);
  assert_memory_equal(kept, s.grads.values, s.grads.count * sizeof *kept);
  assert_memory_equal(kept + s.grads.count, run.dx, (size_t)n * sizeof *kept);
  for (int layer = 0; layer < c->depth; layer++) keep_choice(&s, layer);
  s.in.replay = &s.replay;
  if (given->own_embedder) { /* the same weights in two places; what follows them in memory, too */
    const float *own = s.grads.blocks[1].embedder.time_in.weight;
    const struct dit_embedder *e = &s.model->embedder;
    add(s.grads.embedder.time_in.weight, own,
        (int64_t)e->time_in->out * (e->time_in->in + 1) +
            (int64_t)e->time_out->out * (e->time_out->in + 1) + (int64_t)c->label_rows * c->width);
  }
  check_model(&s, &run);
  free(kept);
  free(x);
  free(r);
  close_subject(&s);
}

/* A router without a gradient is an error that names it. */
static void test_untrainable(void **state) {
  (void)state;
  struct subject s;
  open_subject(&s, fixture_path("promoe/promoe_tc"), false);
  const int layer = s.model->config.depth - 1;
  struct dit_moe *moe = s.model->blocks[layer].moe;
  struct router router = *moe->router->router;
  struct block_run run = {.s = &s, .layer = layer};
  struct dit_block_acts *a = &s.acts.blocks[layer];
  const int32_t labels[B] = {0, 1};
  router.bwd = NULL;
  moe->router->router = &router;
  s.in.labels = labels;
  assert_ok(test_ctx(), exec_reserve(&s.ex, bytes_of_run(&s.ex, run_block, &run)));
  memset(s.ex.arena.base, 0, s.ex.arena.capacity);
  run_block(&s.ex, &run);
  dit_block_carve(&s.ex, s.model, layer, a, &s.in, true);
  dit_block(&s.ex, s.model, layer, a, &s.in);
  assert_ok(test_ctx(), s.ex.status);
  dit_block_bwd(&s.ex, s.model, layer, a, run.dx, run.dsilu_c, &s.grads.blocks[layer], &s.in);
  assert_fails(test_ctx(), DITMOE_FAILED, "router prototype-token-choice has no gradient",
               s.ex.status);
  close_subject(&s);
}

/* Every allocation that fails is an error after which nothing is held. */
static void test_no_memory(void **state) {
  (void)state;
  struct subject s;
  struct dit_grads grads;
  struct dit_acts acts;
  open_subject(&s, fixture_path("dit_moe/b_mixed"), true);
  for (int64_t at = 0, failed = 1; failed; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    const int64_t held = faulty_held();
    s.ex.ctx = ctx;
    const bool good = dit_grads_alloc(&s.ex, s.model, &grads) == DITMOE_OK;
    const bool also = dit_acts_init(ctx, s.model, KEEP_ALL, &acts) == DITMOE_OK;
    failed = faulty_fired();
    assert_int_equal(good && also, !failed);
    if (good) dit_grads_free(&s.ex, s.model, &grads);
    if (also) dit_acts_fini(ctx, &acts);
    assert_int_equal(faulty_held(), held);
    s.ex.ctx = test_ctx();
    ditmoe_ctx_destroy(ctx);
  }
  close_subject(&s);
}

#define BLOCKS_OF(folder)                                                                          \
  { folder, test_blocks, NULL, NULL, (void *)(uintptr_t)(folder) }

static struct model_case whole[] = {
    {"promoe/dit_dense_qknorm", 1, false},
    {"promoe/promoe_tc", 2, false},
    {"dit_moe/b_mixed", 1, true},
};

int main(void) {
  const struct CMUnitTest tests[] = {
      BLOCKS_OF("promoe/dit_dense"),
      BLOCKS_OF("promoe/dit_dense_qknorm"),
      BLOCKS_OF("dit_moe/b_mixed"),
      BLOCKS_OF("dit_moe/c_flash_qknorm"),
      BLOCKS_OF("promoe/tcdit_swiglu_shared"),
      BLOCKS_OF("promoe/promoe_tc"),
      BLOCKS_OF("promoe/promoe_tc_sigmoid_top2"),
      BLOCKS_OF("promoe/promoe_tc_softmax_top2"),
      BLOCKS_OF("promoe/promoe_ec"),
      BLOCKS_OF("promoe/promoe_ec_sigmoid"),
      BLOCKS_OF("promoe/promoe_ec_softmax_qknorm"),
      BLOCKS_OF("promoe/ecdit_swiglu_shared"),
      BLOCKS_OF("promoe/diffmoe"),
      BLOCKS_OF("promoe/diffmoe_shared_qknorm"),
      {"whole promoe/dit_dense_qknorm", test_whole, NULL, NULL, &whole[0]},
      {"whole promoe/promoe_tc", test_whole, NULL, NULL, &whole[1]},
      {"whole dit_moe/b_mixed", test_whole, NULL, NULL, &whole[2]},
      cmocka_unit_test(test_untrainable),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* DSMoE, JiTMoE and LightningDiT beyond the fixtures: variants of their files, what follows from
 * the tensors, and what is refused. */
#include "support.h"

#include "dit/config.h"
#include "dit/families.h"
#include "dit/grads.h"
#include "dit/positions.h"
#include "io/formats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DSMOE   "dsmoe/dsmoe_groups_rms/bare.safetensors"
#define ROTARY  "dsmoe/dsmoe_tiny/bare.safetensors"
#define JITMOE  "jitmoe/jitmoe_tiny/bare.safetensors"
#define LDIT    "lightningdit/ldit_tiny/bare.safetensors"
#define GATE    "\"heads\":4,\"top_k\":2,\"routed_scaling_factor\":2"
#define CONTEXT "\"top_k\":2,\"n_group\":2,\"routed_scaling_factor\":2.5,\"in_context_start\":2"

/* A file under construction. */
struct variant {
  struct ditmoe_checkpoint *original;
  struct tensor *tensors;
  size_t count;
  float *values[8]; /* of tensors that were made */
  char *names[64];  /* of tensors that were added */
  int made, named;
};

static void variant_begin(struct variant *v, const char *fixture) {
  *v = (struct variant){.original = checkpoint_of(fixture_path(fixture))};
  v->tensors = calloc(v->original->count + 64, sizeof *v->tensors);
  assert_non_null(v->tensors);
  v->count = v->original->count;
  memcpy(v->tensors, v->original->tensors, v->count * sizeof *v->tensors);
}

static void variant_drop(struct variant *v, const char *part) {
  size_t kept = 0;
  for (size_t i = 0; i < v->count; i++)
    if (!strstr(v->tensors[i].name, part)) v->tensors[kept++] = v->tensors[i];
  v->count = kept;
}

/* Tensors whose names begin with `from`, once more with `to` in its place. */
static void variant_copy(struct variant *v, const char *from, const char *to) {
  for (size_t i = 0, count = v->count; i < count; i++) {
    if (strncmp(v->tensors[i].name, from, strlen(from)) != 0) continue;
    char name[128];
    snprintf(name, sizeof name, "%s%s", to, v->tensors[i].name + strlen(from));
    v->tensors[v->count] = v->tensors[i];
    v->tensors[v->count++].name = v->names[v->named++] = strdup(name);
  }
}

/* A tensor [n] of ones, or of small steps for a bias. */
static void variant_add(struct variant *v, const char *name, int n) {
  float *values = malloc((size_t)n * sizeof *values);
  assert_non_null(values);
  for (int i = 0; i < n; i++) values[i] = strstr(name, "bias") ? 0.1F * (float)i : 1;
  v->values[v->made++] = values;
  v->names[v->named] = strdup(name);
  v->tensors[v->count++] = (struct tensor){.name = v->names[v->named++],
                                           .dtype = DT_F32,
                                           .rank = 1,
                                           .shape = {n},
                                           .elements = n,
                                           .data = values};
}

static const char *variant_end(struct variant *v) {
  const char *path = temporary_path("variant.safetensors");
  assert_ok(test_ctx(),
            safetensors_write(test_ctx(), path, v->tensors, v->count, DT_COUNT, NULL, 0));
  for (int i = 0; i < v->made; i++) free(v->values[i]);
  for (int i = 0; i < v->named; i++) free(v->names[i]);
  free(v->tensors);
  ditmoe_checkpoint_close(v->original);
  return path;
}

/* Opened on the reference backend. */
struct opened {
  struct exec ex;
  struct dit *model;
};

static enum ditmoe_status try_open(struct opened *o, const char *path, const char *members) {
  struct ditmoe_checkpoint *file = checkpoint_of(path);
  char record[512];
  snprintf(record, sizeof record, "{%s}", members);
  *o = (struct opened){0};
  assert_ok(test_ctx(), backend_open(&o->ex, test_ctx(), "ref", NULL, 1));
  enum ditmoe_status status = dit_open(&o->ex, file, record, &o->model);
  ditmoe_checkpoint_close(file);
  if (status != DITMOE_OK) exec_close(&o->ex);
  return status;
}

static void open_file(struct opened *o, const char *path, const char *members) {
  assert_ok(test_ctx(), try_open(o, path, members));
}

static void close_file(struct opened *o) {
  dit_close(&o->ex, o->model);
  exec_close(&o->ex);
}

/* out of one image of a fixed pattern; free() it. */
static float *predict(struct opened *o, int64_t *n) {
  const struct dit_config *c = &o->model->config;
  const int64_t plane = (int64_t)c->size * c->size;
  float *x = malloc((size_t)(c->channels * plane) * sizeof *x);
  float *out = malloc((size_t)(c->out_channels * plane) * sizeof *out);
  assert_true(x && out);
  for (int64_t i = 0; i < c->channels * plane; i++) x[i] = sinf(0.37F * (float)i);
  const struct dit_input in = {.x = x, .time = (float[]){0.4F}, .labels = (int32_t[]){3}, .B = 1};
  assert_ok(test_ctx(), exec_reserve(&o->ex, dit_predict_bytes(&o->ex, o->model, NULL, 1)));
  assert_ok(test_ctx(), dit_predict(&o->ex, o->model, out, &in));
  free(x);
  *n = c->out_channels * plane;
  return out;
}

/* The same in f64 of a grid of queries and keys: what they have in common depends on the distance
 * of their places alone. */
static void test_rotary_distance(void **state) {
  (void)state;
  enum { ROWS = 3, COLS = 5, PAIRS = 6 };
  float cosines[ROWS * COLS * PAIRS], sines[ROWS * COLS * PAIRS];
  rope_table(cosines, sines, ROWS, COLS, PAIRS);
  for (int j = 0; j < PAIRS; j++) {
    const double frequency = pow(10000, -(j % 3) / 3.0);
    for (int n = 0; n < ROWS * COLS; n++) {
      const double angle = (j < 3 ? n / COLS : n % COLS) * frequency;
      assert_true(fabs((double)cosines[n * PAIRS + j] - cos(angle)) < 1e-6);
      assert_true(fabs((double)sines[n * PAIRS + j] - sin(angle)) < 1e-6);
    }
  }
}

/* What is told by tensors. */
static void test_told(void **state) {
  (void)state;
  struct opened o;
  open_file(&o, fixture_path(ROTARY), GATE ",\"input_size\":8");
  assert_int_equal(o.model->config.positions, POSITIONS_NONE);
  assert_int_equal(o.model->config.rope, ROPE_HALVES);
  assert_string_equal(o.model->config.family->name, "dsmoe");
  assert_false(o.model->config.rms_norm);
  assert_ptr_equal(o.model->blocks[0].mlp->kind, &expert_silu);
  close_file(&o);
  open_file(&o, fixture_path(DSMOE), GATE);
  assert_int_equal(o.model->config.positions, POSITIONS_STORED);
  assert_int_equal(o.model->config.rope, ROPE_NONE);
  assert_int_equal(o.model->config.head_dim, 8);
  assert_int_equal(o.model->config.inner, 32);
  assert_true(o.model->config.rms_norm && !o.model->config.rms_final);
  assert_true(o.model->blocks[1].moe->adds_input);
  close_file(&o);
  open_file(&o, fixture_path(JITMOE), CONTEXT);
  assert_int_equal(o.model->config.prefix, 3);
  assert_int_equal(o.model->config.reduced, 16);
  assert_int_equal(o.model->config.record.prediction, FLOW_PREDICTS_CLEAN);
  assert_true(o.model->config.record.pixels && !o.model->config.qk_bias);
  close_file(&o);
}

/* The first two blocks are dense, then the one that was a mixture. */
static void test_dense_blocks(void **state) {
  (void)state;
  struct variant v;
  struct opened o;
  int64_t n;
  variant_begin(&v, DSMOE);
  variant_drop(&v, "blocks.1.mlp.");
  variant_copy(&v, "blocks.0.mlp.", "blocks.1.mlp.");
  open_file(&o, variant_end(&v), GATE);
  assert_int_equal(o.model->config.experts[0] + o.model->config.experts[1], 0);
  assert_int_equal(o.model->config.experts[2], 8);
  free(predict(&o, &n));
  close_file(&o);

  variant_begin(&v, JITMOE);
  for (int layer = 1; layer < 4; layer += 2) {
    char prefix[32];
    snprintf(prefix, sizeof prefix, "blocks.%d.mlp.", layer);
    variant_drop(&v, prefix);
    variant_copy(&v, "blocks.0.mlp.", prefix);
  }
  open_file(&o, variant_end(&v), "\"in_context_start\":0");
  assert_string_equal(o.model->config.record.kind->kind, "dit");
  assert_string_equal(o.model->config.family->name, "jit");
  free(predict(&o, &n));
  close_file(&o);
}

/* Queries eight times as large, as they are before their norm. */
static void scale_queries(struct opened *o) {
  for (int layer = 0; layer < o->model->config.depth; layer++) {
    const struct linear *qkv = o->model->blocks[layer].qkv;
    float *weight = qkv->data, *bias = weight + (int64_t)qkv->out * qkv->in;
    for (int64_t i = 0; i < (int64_t)qkv->out / 3 * qkv->in; i++) weight[i] *= 8;
    for (int i = 0; i < qkv->out / 3; i++) bias[i] *= 8;
  }
}

/* LightningDiT with norms of q and k: RMSNorm without, LayerNorm with biases. */
static void test_qk_norms(void **state) {
  (void)state;
  for (int kind = 0; kind < 3; kind++) { /* no norm, RMSNorm, LayerNorm */
    struct variant v;
    struct opened o;
    int64_t n;
    variant_begin(&v, LDIT);
    for (int layer = 0; layer < 3; layer++)
      for (int part = 0; part < 2 * kind && kind; part++) {
        char name[64];
        snprintf(name, sizeof name, "blocks.%d.attn.%c_norm.%s", layer, part % 2 ? 'k' : 'q',
                 part < 2 ? "weight" : "bias");
        if (layer == 0) variant_add(&v, name, 12);
        if (layer > 0) {
          char first[64];
          snprintf(first, sizeof first, "blocks.0.attn.%c_norm.%s", part % 2 ? 'k' : 'q',
                   part < 2 ? "weight" : "bias");
          variant_copy(&v, first, name);
        }
      }
    open_file(&o, variant_end(&v), "\"heads\":4");
    assert_int_equal(o.model->config.qk_norm, kind > 0);
    assert_int_equal(o.model->config.qk_bias, kind == 2);
    if (kind) assert_true(o.model->config.record.qk_norm_eps == (kind == 1 ? 1e-6 : 1e-5));
    float *before = predict(&o, &n);
    scale_queries(&o);
    float *after = predict(&o, &n);
    const double change = relative_l2(after, before, n);
    if (kind) assert_within("the norm takes the size of q away", change, 1e-4);
    if (!kind) assert_true(change > 1e-2);
    free(before);
    free(after);
    close_file(&o);
  }
}

static const struct refusal {
  const char *file, *members, *text;
  enum ditmoe_status code;
} refusals[] = {
    {ROTARY, GATE, "input_size", DITMOE_USAGE},
    {ROTARY, GATE ",\"input_size\":8,\"n_group\":4", "do not fit 6 experts", DITMOE_MISMATCH},
    {ROTARY, GATE ",\"input_size\":8,\"n_group\":6", "two or more", DITMOE_MISMATCH},
    {ROTARY, GATE ",\"input_size\":8,\"n_group\":2,\"topk_group\":3", "topk_group 3",
     DITMOE_MISMATCH},
    {ROTARY, "\"heads\":4,\"top_k\":2,\"input_size\":8", "routed_scaling_factor", DITMOE_USAGE},
    {ROTARY, "\"heads\":8,\"top_k\":2,\"routed_scaling_factor\":2,\"input_size\":8", "quarters",
     DITMOE_MISMATCH},
    {JITMOE, "\"top_k\":2,\"routed_scaling_factor\":2.5", "in_context_start", DITMOE_USAGE},
    {JITMOE, "\"top_k\":2,\"routed_scaling_factor\":2.5,\"in_context_start\":4", "there are 4",
     DITMOE_MISMATCH},
    {LDIT, "\"heads\":4,\"latent_mean\":[0,0],\"latent_std\":[1,1]", "latent_mean for 2 channels",
     DITMOE_MISMATCH},
    {LDIT, "\"heads\":4,\"latent_mean\":[0,0,0,0,0,0,0,0]", "latent_std for 0", DITMOE_MISMATCH},
    {LDIT, "\"heads\":4,\"latent_std\":[0]", "list of numbers", DITMOE_USAGE},
    {LDIT, "\"heads\":4,\"prediction\":\"noise\"", "velocity, x", DITMOE_USAGE},
    {JITMOE, CONTEXT ",\"heads\":2", "is for 4 heads, not 2; check --heads", DITMOE_MISMATCH},
};

static void test_refusals(void **state) {
  (void)state;
  struct opened o;
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
    assert_fails(test_ctx(), refusals[i].code, refusals[i].text,
                 try_open(&o, fixture_path(refusals[i].file), refusals[i].members));
}

/* Without its tables, a LightningDiT is like any other dense model. */
static void test_unknown_family(void **state) {
  (void)state;
  struct variant v;
  struct opened o;
  variant_begin(&v, LDIT);
  variant_drop(&v, "feat_rope");
  assert_fails(test_ctx(), DITMOE_USAGE, "give --family",
               try_open(&o, variant_end(&v), "\"heads\":4"));
}

/* Statistics of a file become members of the record. */
static void test_statistics(void **state) {
  (void)state;
  char *text = NULL;
  struct opened o;
  assert_ok(test_ctx(),
            ditmoe_latent_statistics(
                test_ctx(), fixture_path("lightningdit/ldit_tiny/latents_stats.pt"), &text));
  char members[1024];
  snprintf(members, sizeof members, "\"heads\":4,%.*s", (int)strlen(text) - 2, text + 1);
  struct ditmoe_checkpoint *file =
      checkpoint_of(fixture_path("lightningdit/ldit_tiny/euler.safetensors"));
  float *mean = tensor_f32(file, "latent_mean", NULL), *std = tensor_f32(file, "latent_std", NULL);
  char record[1200];
  snprintf(record, sizeof record, "{%s}", members);
  struct ditmoe_checkpoint *model = checkpoint_of(fixture_path(LDIT));
  assert_ok(test_ctx(), backend_open(&o.ex, test_ctx(), "ref", NULL, 1));
  assert_ok(test_ctx(), dit_open(&o.ex, model, record, &o.model));
  for (int c = 0; c < 8; c++) {
    assert_true((float)o.model->config.record.latent_mean.values[c] == mean[c]);
    assert_true((float)o.model->config.record.latent_std.values[c] == std[c]);
  }
  close_file(&o);
  ditmoe_checkpoint_close(model);
  ditmoe_checkpoint_close(file);
  free(text);
  free(mean);
  free(std);
  assert_fails(test_ctx(), DITMOE_MISMATCH, "no statistics of latents",
               ditmoe_latent_statistics(test_ctx(), fixture_path(LDIT), &text));
}

/* In-context tokens cannot be trained yet, and the backward pass says so. */
static void test_no_gradient(void **state) {
  (void)state;
  struct opened o;
  struct dit_acts acts;
  struct dit_grads grads = {0};
  open_file(&o, fixture_path(JITMOE), CONTEXT);
  assert_ok(test_ctx(), dit_acts_init(test_ctx(), o.model, KEEP_INPUTS, &acts));
  dit_backward(&o.ex, o.model, &acts, NULL, &grads, NULL, &(struct dit_input){.B = 1});
  assert_fails(test_ctx(), DITMOE_FAILED, "in-context tokens have no gradient", o.ex.status);
  dit_acts_fini(test_ctx(), &acts);
  close_file(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rotary_distance), cmocka_unit_test(test_told),
      cmocka_unit_test(test_dense_blocks),    cmocka_unit_test(test_qk_norms),
      cmocka_unit_test(test_refusals),        cmocka_unit_test(test_unknown_family),
      cmocka_unit_test(test_statistics),      cmocka_unit_test(test_no_gradient),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

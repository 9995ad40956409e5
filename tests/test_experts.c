/* Experts that are not in memory all the time: the executor's contract with a store, for every
 * router and every kind of expert. */
#include "support.h"
#include "synthetic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Holds one expert at a time: a bank in which all others have lost their weights. */
struct one_expert {
  struct expert_store store;
  const struct dit *model;
  struct expert experts[DIT_MAX_EXPERTS];
  struct expert_bank bank;
  int32_t index;
  int waves, skipped;
  int fails_at; /* wave of the run that cannot be loaded, -1: none */
};

static bool one_wave(struct expert_store *self, struct exec *ex, int layer, int number,
                     const int32_t *rows, struct expert_wave *out) {
  struct one_expert *one = (struct one_expert *)(void *)self;
  const struct expert_bank *whole = &one->model->blocks[layer].moe->bank;
  assert_true((rows != NULL) == self->wants_rows);
  if (number == 0) one->index = -1;
  while (++one->index < whole->count && rows && rows[one->index] == 0) one->skipped++;
  if (one->index >= whole->count) return false;
  if (one->waves++ == one->fails_at) {
    exec_fail(ex, fail(ex->ctx, DITMOE_FORMAT, "expert %d cannot be read", (int)one->index));
    return false;
  }
  for (int e = 0; e < whole->count; e++)
    one->experts[e] = (struct expert){.kind = whole->expert[e].kind};
  one->experts[one->index] = whole->expert[one->index];
  one->bank = *whole;
  one->bank.expert = one->experts;
  *out = (struct expert_wave){.bank = &one->bank, .count = 1, .index = &one->index};
  return true;
}

enum { BATCH = 3, NULL_IMAGES = 2 };

static float *predict(struct opened *o) {
  float *out = malloc(BATCH * model_output_size(o) * sizeof *out);
  assert_non_null(out);
  model_predict(o, out, 0, BATCH, NULL_IMAGES, NULL);
  return out;
}

static void check_store(const char *path, const char *record, const char *backend) {
  struct opened o;
  model_open_with(&o, path,
                  &(struct ditmoe_model_options){
                      .backend = backend, .dtype = "f32", .record = record, .threads = 1});
  float *resident = predict(&o);
  for (int counted = 0; counted < 2; counted++) {
    struct one_expert one = {
        .store = {counted, one_wave}, .model = o.model, .index = -1, .fails_at = -1};
    o.model->store = &one.store;
    float *waves = predict(&o);
    assert_memory_equal(waves, resident, BATCH * model_output_size(&o) * sizeof *waves);
    assert_true(one.waves > 2);
    if (!counted) assert_int_equal(one.skipped, 0);
    free(waves);
  }
  free(resident);
  model_close(&o);
}

static void test_every_router(void **state) {
  (void)state;
#define RECORD(rest) "{\"objective\": \"rf\", " rest "}"
  static const struct {
    const char *path, *record;
  } models[] = {
      {"dit_moe/b_mixed/bare.safetensors", RECORD("\"heads\": 6, \"top_k\": 1")},
      {"promoe/promoe_tc/bare.safetensors",
       RECORD("\"kind\": \"promoe-tc\", \"heads\": 4, \"top_k\": 1,"
              "\"router_weight_mode\": \"identity\"")},
      {"promoe/promoe_ec_softmax_qknorm/bare.safetensors",
       RECORD("\"kind\": \"promoe-ec\", \"heads\": 4, \"top_k\": 2,"
              "\"router_weight_mode\": \"softmax\"")},
      {"promoe/tcdit_swiglu_shared/bare.safetensors", RECORD("\"heads\": 4, \"top_k\": 2")},
      {"promoe/ecdit_swiglu_shared/bare.safetensors", RECORD("\"heads\": 4, \"capacity\": 2")},
      {"promoe/diffmoe/bare.safetensors", RECORD("\"heads\": 4")},
  };
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    check_store(fixture_path(models[i].path), models[i].record, "cpu");
    check_store(fixture_path(models[i].path), models[i].record, "ref");
  }
}

/* SwiGLU, GELU, zero and copy experts of many widths. */
static void test_every_kind(void **state) {
  (void)state;
  static const struct synthetic *const specs[] = {&synthetic_uneven, &synthetic_prototypes};
  for (int i = 0; i < 2; i++) {
    const char *path = temporary_path("experts.safetensors");
    synthetic_write(specs[i], path);
    check_store(path, NULL, "cpu");
    check_store(path, NULL, "ref");
  }
}

/* A failed load ends the prediction with its own error, whichever it is. */
static void test_failed_load(void **state) {
  (void)state;
  struct opened o;
  const char *path = temporary_path("experts.safetensors");
  synthetic_write(&synthetic_uneven, path);
  model_open(&o, path, "cpu", NULL, "f32", 1);
  float *x = calloc(model_output_size(&o), sizeof *x), *out = malloc(model_output_size(&o) * 4);
  assert_true(x && out);
  const float time = 0.5F;
  const int32_t label = 0;
  const struct dit_input in = {.x = x, .time = &time, .labels = &label, .B = 1};
  assert_ok(test_ctx(), exec_reserve(&o.ex, dit_predict_bytes(&o.ex, o.model, NULL, 1)));
  for (int at = 0; at < 17; at++) { /* 4 + 10 + 3 experts */
    struct one_expert one = {.store = {false, one_wave}, .model = o.model, .fails_at = at};
    o.model->store = &one.store;
    assert_fails(test_ctx(), DITMOE_FORMAT, "cannot be read",
                 dit_predict(&o.ex, o.model, out, &in));
    assert_int_equal(one.waves, at + 1);
    assert_int_equal(o.ex.arena.used, 0);
    exec_clear(&o.ex);
  }
  free(x);
  free(out);
  model_close(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_router),
      cmocka_unit_test(test_every_kind),
      cmocka_unit_test(test_failed_load),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

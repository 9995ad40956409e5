/* Checkpoints that are good files and bad models: what opening and one call of each must give. */
#include "api/handles.h"
#include "io/json.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the models run, and the relative L2 error of a good one. */
struct execution {
  const char *backend, *dtype;
  double error;
};

static const char record[] = "{\"heads\":2,\"top_k\":1,\"objective\":\"ddpm\"}";

/* One call on the stored input; compares with the stored output if it is good. */
static enum ditmoe_status run(const char *file, const char *io, const struct execution *execution,
                              double *error) {
  struct ditmoe_ctx *ctx = test_ctx();
  const struct ditmoe_model_options options = {
      .backend = execution->backend, .dtype = execution->dtype, .record = record, .threads = 1};
  struct ditmoe_model *model = NULL;
  TRY(ditmoe_model_open(ctx, fixture_path(file), &options, &model));
  struct ditmoe_checkpoint *checkpoint = checkpoint_of(fixture_path(io));
  float *x = tensor_f32(checkpoint, "x", NULL), *expected = tensor_f32(checkpoint, "out", NULL);
  int64_t *t = tensor_i64(checkpoint, "t", NULL), *y = tensor_i64(checkpoint, "y", NULL);
  const float time = (float)t[0];
  const int32_t label = (int32_t)y[0];
  float out[8 * 16];
  const struct dit_input in = {.x = x, .time = &time, .labels = &label, .B = 1};
  struct exec *ex = &model->ex;
  ex->ctx = ctx;
  assert_ok(ctx, exec_reserve(ex, dit_predict_bytes(ex, model->dit, NULL, 1)));
  enum ditmoe_status status = dit_predict(ex, model->dit, out, &in);
  bool finite = true;
  for (int i = 0; i < 8 * 16; i++) finite = finite && isfinite(out[i]);
  if (status == DITMOE_OK && !finite) status = diagnose_nonfinite(ex, model->dit, out, &in, 1, 1);
  *error = relative_l2(out, expected, 8 * 16);
  free(x), free(expected), free(t), free(y);
  ditmoe_checkpoint_close(checkpoint);
  ditmoe_model_close(model);
  return status;
}

static bool accepted(const cJSON *entry, int status) {
  const cJSON *also = cJSON_GetObjectItem(entry, "exit_also"), *item;
  if (cJSON_GetObjectItem(entry, "exit")->valueint == status) return true;
  if (cJSON_IsNumber(also) && also->valueint == status) return true;
  cJSON_ArrayForEach(item, also) if (item->valueint == status) return true;
  return false;
}

static bool is_model(const char *file) {
  return strncmp(file, "npy_", 4) != 0 && strncmp(file, "npz_", 4) != 0 &&
         strncmp(file, "png_", 4) != 0 && (strstr(file, ".pt") || strstr(file, ".safetensors"));
}

/* Every file of the list, on both backends. */
static void test_expected_status(void **state) {
  const struct execution *execution = *state;
  cJSON *list = NULL;
  int checked = 0, wrong = 0;
  assert_ok(test_ctx(), json_read(test_ctx(), fixture_path("bad/expected.json"), &list));
  const cJSON *entry;
  cJSON_ArrayForEach(entry, list) {
    const char *file = cJSON_GetObjectItem(entry, "file")->valuestring;
    char path[128];
    double error = 0;
    if (!is_model(file)) continue;
    snprintf(path, sizeof path, "bad/%s", file);
    const char *io = strncmp(file, "ck_nan_unused", 13) == 0 ? "bad/ck_nan_unused_io.safetensors"
                                                             : "bad/control_io.safetensors";
    int status = (int)run(path, io, execution, &error);
    const char *message = status ? ditmoe_errmsg(test_ctx()) : "";
    bool good = accepted(entry, status) && (status != 0 || error <= execution->error) &&
                (status == 0 || status == 7 || strstr(message, file)) && !strchr(message, '\n');
    if (!good)
      print_message("%s: status %d, error %g, message: %s\n", file, status, error, message);
    wrong += !good;
    checked++;
  }
  cJSON_Delete(list);
  assert_true(checked > 100);
  assert_int_equal(wrong, 0);
}

/* The messages name what the user needs. */
static void test_messages(void **state) {
  static const struct {
    const char *file, *text;
  } cases[] = {
      {"bad/ck_missing.pt", "missing blocks.0.moe.experts.1.up_proj.weight [16,16]"},
      {"bad/ck_extra.pt", "unexpected blocks.0.extra.weight"},
      {"bad/ck_misshaped.pt", "blocks.0.moe.experts.1.up_proj.weight is [15,16], expected [16,16]"},
      {"bad/ck_int64.pt", "blocks.0.moe.experts.1.up_proj.weight is of type I64"},
      {"bad/ck_expert_gap.pt", "missing blocks.0.moe.experts.2."},
      {"bad/ck_nan.pt", "step 1 of 1: NaN or infinite values in the output of expert 1 of block 0; "
                        "tensor blocks.0.moe.experts.1.up_proj.weight holds such values"},
      {"bad/ck_inf.pt", "tensor blocks.0.moe.experts.1.up_proj.weight holds such values"},
      {"bad/ck_nan_router.pt", "the router of block 0; tensor blocks.0.moe.gate.weight"},
  };
  double error;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_true(run(cases[i].file, "bad/control_io.safetensors", *state, &error) != DITMOE_OK);
    if (!strstr(ditmoe_errmsg(test_ctx()), cases[i].text))
      fail_msg("%s: \"%s\" is not in \"%s\"", cases[i].file, cases[i].text,
               ditmoe_errmsg(test_ctx()));
  }
  assert_ok(test_ctx(),
            run("bad/ck_nan_unused.pt", "bad/ck_nan_unused_io.safetensors", *state, &error));
  assert_non_null(strstr(test_warning(), "blocks.0.moe.experts.2."));
}

/* What the weights do not tell, and what contradicts them. */
static void test_record(void **state) {
  (void)state;
  static const struct {
    const char *record, *text;
    enum ditmoe_status status;
  } cases[] = {
      {"{\"top_k\":1,\"objective\":\"ddpm\"}", "--heads", DITMOE_USAGE},
      {"{\"heads\":2,\"objective\":\"ddpm\"}", "--top-k", DITMOE_USAGE},
      {"{\"heads\":2,\"top_k\":1}", "--objective", DITMOE_USAGE},
      {"{\"heads\":3,\"top_k\":1,\"objective\":\"rf\"}", "3 heads do not divide", DITMOE_MISMATCH},
      {"{\"heads\":2,\"top_k\":4,\"objective\":\"rf\"}", "top-k 4 of 3 experts", DITMOE_MISMATCH},
      {"{\"heads\":2,\"top_k\":1,\"objective\":\"rf\",\"kind\":\"promoe-tc\"}", "says promoe-tc",
       DITMOE_MISMATCH},
      {"{\"heads\":2,\"top_k\":1,\"objective\":\"rf\",\"zero_experts\":1}",
       "unexpected blocks.0.moe.experts.2.", DITMOE_MISMATCH},
      {"{\"heads\":2,\"top_k\":1,\"objective\":\"rf\",\"null_label\":9}", "null label 9",
       DITMOE_MISMATCH},
      {"{\"heads\":\"2\"}", "\"heads\" must be a number", DITMOE_USAGE},
      {"{\"objective\":\"vp\"}", "\"objective\" must be one of: ddpm, rf", DITMOE_USAGE},
      {"{\"head\":2}", "unknown member \"head\"", DITMOE_USAGE},
      {"[2]", "not a JSON object", DITMOE_USAGE},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct ditmoe_model_options options = {.backend = "ref", .record = cases[i].record};
    struct ditmoe_model *model = NULL;
    assert_fails(
        test_ctx(), cases[i].status, cases[i].text,
        ditmoe_model_open(test_ctx(), fixture_path("bad/control.safetensors"), &options, &model));
    assert_null(model);
  }
}

static void check_mentioned(const char *page, const struct record_key *key) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "`%s`", key->name);
  if (!strstr(page, quoted)) fail_msg("docs/RECORD.md does not mention %s", quoted);
}

/* The page on the record knows every member. */
static void test_record_page(void **state) {
  (void)state;
  char *page = file_bytes(source_path("docs/RECORD.md"), NULL);
  for (int f = 0; f < REC_FIELDS; f++) check_mentioned(page, record_key((enum record_field)f));
  const struct mixture *mixture;
  for (int i = 0; (mixture = mixture_at(i)); i++)
    for (int k = 0; mixture->router && k < mixture->router->key_count; k++)
      check_mentioned(page, &mixture->router->keys[k].key);
  free(page);
}

int main(void) {
  static struct execution ref = {"ref", "f32", 3e-6}, cpu = {"cpu", "f32", 3e-6},
                          ref_bf16 = {"ref", "bf16", 1e-2}, cpu_bf16 = {"cpu", "bf16", 1e-2};
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_prestate(test_expected_status, &ref),
      cmocka_unit_test_prestate(test_expected_status, &cpu),
      cmocka_unit_test_prestate(test_expected_status, &ref_bf16),
      cmocka_unit_test_prestate(test_expected_status, &cpu_bf16),
      cmocka_unit_test_prestate(test_messages, &ref),
      cmocka_unit_test_prestate(test_messages, &cpu),
      cmocka_unit_test_prestate(test_messages, &cpu_bf16),
      cmocka_unit_test(test_record),
      cmocka_unit_test(test_record_page),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

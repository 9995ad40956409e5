/* Whose model a file is of: by tensors, by arguments of the training program, by the record. */
#include "pickle_emit.h"
#include "support.h"

#include "dit/families.h"
#include "io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The dense model of sit/sit_tiny with these arguments, and maybe one tensor more. */
static const char *write_model(const char *args, const char *extra) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_checkpoint *file;
  const char *path = temporary_path("model.safetensors");
  static const float value = 1;
  char key[] = CHECKPOINT_ARGS, text[256], name[64];
  snprintf(text, sizeof text, "%s", args ? args : "");
  snprintf(name, sizeof name, "%s", extra ? extra : "");
  const struct checkpoint_entry entry = {key, text};
  assert_ok(
      ctx, ditmoe_checkpoint_open(ctx, fixture_path("sit/sit_tiny/bare.safetensors"), NULL, &file));
  struct tensor *tensors = calloc(file->count + 1, sizeof *tensors);
  memcpy(tensors, file->tensors, file->count * sizeof *tensors);
  tensors[file->count] = (struct tensor){
      .name = name, .dtype = DT_F32, .rank = 1, .shape = {1}, .elements = 1, .data = &value};
  assert_ok(ctx, safetensors_write(ctx, path, tensors, file->count + (extra != NULL), DT_COUNT,
                                   &entry, args != NULL));
  free(tensors);
  ditmoe_checkpoint_close(file);
  return path;
}

static void check_member(const cJSON *record, const char *name, const char *expected) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(record, name);
  char *text = item ? cJSON_PrintUnformatted(item) : strdup("absent");
  if (strcmp(text, expected) != 0) fail_msg("\"%s\" is %s, expected %s", name, text, expected);
  free(text);
}

static const struct told {
  const char *args, *extra, *record, *family; /* family NULL: none that is known */
  const char *why, *objective, *direction, *scale;
} told[] = {
    {"{\"model\":\"SiT-XL/2\",\"path_type\":\"Linear\",\"prediction\":\"velocity\"}", NULL, "",
     "sit", "args.model is SiT-XL/2", "\"rf\"", "\"0to1\"", "1"},
    {"{\"model\":\"SiT-S/8\"}", NULL, "", "sit", "args.model is SiT-S/8", "\"rf\"", "\"0to1\"",
     "1"},
    {"{\"model\":\"DiT-B/4\"}", NULL, "", "dit", "args.model is DiT-B/4", "\"ddpm\"", "absent",
     "1"},
    {"{\"model\":\"SiT-L/2\",\"encoder_depth\":8}", NULL, "", "repa", "args.encoder_depth",
     "\"rf\"", "\"1to0\"", "1"},
    {"{\"model\":\"SiT-L/2\"}", "projectors.0.0.weight", "", "repa", "tensor projectors.0.0.weight",
     "\"rf\"", "\"1to0\"", "1"},
    {NULL, NULL, ",\"objective\":\"ddpm\"", "dit", "with this objective", "\"ddpm\"", "absent",
     "1"},
    {NULL, NULL, ",\"family\":\"promoe-dit\"", "promoe-dit", "--family", "\"rf\"", "\"1to0\"",
     "1000"},
    {NULL, NULL, ",\"objective\":\"rf\",\"time_direction\":\"0to1\"", "sit", "kind dit", "\"rf\"",
     "\"0to1\"", "1"},
    {NULL, NULL, ",\"objective\":\"rf\",\"time_scale\":1000", "promoe-dit", "kind dit", "\"rf\"",
     "\"1to0\"", "1000"},
    {"{\"model\":\"SiT-XL/2\"}", NULL, ",\"objective\":\"ddpm\"", NULL, NULL, "\"ddpm\"", "absent",
     "1"},
};

static void test_told(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
    const struct told *t = &told[i];
    char record[128];
    struct ditmoe_model *model;
    struct ditmoe_model_info info;
    snprintf(record, sizeof record, "{\"heads\":4%s}", t->record);
    const struct ditmoe_model_options options = {.record = record};
    assert_ok(test_ctx(),
              ditmoe_model_open(test_ctx(), write_model(t->args, t->extra), &options, &model));
    ditmoe_model_info(model, &info);
    if (!t->family) assert_null(info.family);
    if (t->family) {
      assert_string_equal(info.family, t->family);
      if (!strstr(info.family_why, t->why)) fail_msg("why: %s", info.family_why);
    }
    assert_int_equal(info.ignored_tensors, t->extra != NULL);
    cJSON *complete = cJSON_Parse(ditmoe_model_record(model));
    check_member(complete, "objective", t->objective);
    check_member(complete, "time_direction", t->direction);
    check_member(complete, "time_scale", t->scale);
    cJSON_Delete(complete);
    ditmoe_model_close(model);
  }
}

static void test_refused(void **state) {
  static const struct {
    const char *args, *extra, *record;
    enum ditmoe_status status;
    const char *text;
  } cases[] = {
      {NULL, NULL, "", DITMOE_USAGE, "those of sit, dit, promoe-dit have the same tensors"},
      {NULL, NULL, ",\"objective\":\"rf\"", DITMOE_USAGE, "--time-direction"},
      {"{\"model\":\"JiT\"}", NULL, "", DITMOE_USAGE, "give --family, --preset or --objective"},
      {NULL, NULL, ",\"family\":\"sora\"", DITMOE_USAGE, "\"sora\" is not one of: dit-moe"},
      {NULL, NULL, ",\"family\":\"promoe\"", DITMOE_MISMATCH, "not of family promoe"},
      {NULL, NULL, ",\"family\":\"sit\",\"time_direction\":\"1to0\"", DITMOE_USAGE,
       "another \"time_direction\""},
      {"{\"model\":\"SiT-XL/2\",\"path_type\":\"GVP\"}", NULL, "", DITMOE_MISMATCH,
       "trained with path_type GVP"},
      {"{\"model\":\"SiT-XL/2\",\"prediction\":\"score\"}", NULL, "", DITMOE_MISMATCH,
       "trained with prediction score"},
      {"{\"model\":\"SiT-XL/2\"}", "projector.weight", "", DITMOE_MISMATCH,
       "unexpected projector.weight"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char record[128];
    struct ditmoe_model *model;
    snprintf(record, sizeof record, "{\"heads\":4%s}", cases[i].record);
    const struct ditmoe_model_options options = {.record = record};
    const char *path = write_model(cases[i].args, cases[i].extra);
    assert_fails(test_ctx(), cases[i].status, cases[i].text,
                 ditmoe_model_open(test_ctx(), path, &options, &model));
  }
}

/* What a file alone tells. */
static void test_described(void **state) {
  static const struct {
    const char *path, *text;
  } cases[] = {
      {"sit/sit_tiny/bare.safetensors", "one of sit, dit, promoe-dit, whose tensors are the same"},
      {"repa/repa_tiny/last.pt", "repa: tensor projectors.0.0.weight"},
      {"dit_moe/b_mixed/bare.safetensors", "dit-moe: its tensors are of kind dit-moe"},
      {"promoe/diffmoe/bare.safetensors", "diffmoe: its tensors are of kind diffmoe"},
      {"diffusers_dit/pipeline", "dit-diffusers: tensor transformer_blocks.0.norm1.linear.weight"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct ditmoe_checkpoint *file;
    char text[200];
    assert_ok(test_ctx(),
              ditmoe_checkpoint_open(test_ctx(), fixture_path(cases[i].path), NULL, &file));
    assert_ok(test_ctx(), ditmoe_checkpoint_family(test_ctx(), file, text, sizeof text));
    assert_string_equal(text, cases[i].text);
    ditmoe_checkpoint_close(file);
  }
}

/* Every row is whole: its record is one, and no other row has its name. */
static void test_table(void **state) {
  const struct family *family;
  (void)state;
  for (int i = 0; (family = family_at(i)); i++) {
    struct dit_record record = {0};
    char kind[32];
    assert_ptr_equal(family_find(family->name), family);
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(family->kinds, " "), family->kinds);
    assert_non_null(mixture_find(kind));
    if (!family->record) continue;
    const struct record_origin origin = {family->name, RECORD_GIVEN, NULL};
    assert_ok(test_ctx(), record_read_text(test_ctx(), &record, &origin, family->record));
    record_free(test_ctx(), &record);
  }
}

/* Arguments of a PyTorch file: {"model": {"w": tensor}, "args": put()}. */
static const char *args_of(void (*put_args)(struct bytes *b), char *text, size_t size) {
  static struct bytes b;
  static const float value = 1;
  struct ditmoe_checkpoint *file;
  const struct view view = {"Float", "0", 1, 0, 1, {1}, {1}};
  const struct storage storage = {"0", &value, 1, sizeof value};
  b.size = 0;
  put_legacy_header(&b);
  PUT(&b, "\x80\x02}(");
  put_text(&b, "model");
  PUT(&b, "}");
  put_text(&b, "w");
  put_tensor(&b, &view);
  PUT(&b, "s");
  put_text(&b, "args");
  put_args(&b);
  PUT(&b, "u.");
  put_storages(&b, &storage, 1);
  const char *path = temporary_path("args.pt");
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), path, b.data, b.size));
  assert_ok(test_ctx(), ditmoe_checkpoint_open(test_ctx(), path, NULL, &file));
  const char *found = ditmoe_checkpoint_metadata(file, CHECKPOINT_ARGS);
  snprintf(text, size, "%s", found ? found : "none");
  ditmoe_checkpoint_close(file);
  return text;
}

static void put_members(struct bytes *b) {
  PUT(b, "}(");
  put_text(b, "model");
  put_text(b, "SiT-S/2");
  put_text(b, "depth");
  put_int(b, 12);
  put_text(b, "resume");
  PUT(b, "N");
  put_text(b, "half");
  PUT(b, "\x88");
  put_text(b, "model");
  put_text(b, "again");
  put_int(b, 3);
  put_text(b, "no name");
  put_text(b, "Depth");
  put_int(b, 8);
  PUT(b, "u");
}

static void put_namespace(struct bytes *b) {
  PUT(b, "cargparse\nNamespace\n)Rq\x01"); /* remembered before it has its attributes */
  put_members(b);
  PUT(b, "b0h\x01");
}

static void put_list(struct bytes *b) { PUT(b, "]"); }

static void test_arguments(void **state) {
  char text[256];
  const char *expected = "{\"model\":\"SiT-S/2\",\"depth\":12,\"half\":true,\"Depth\":8}";
  (void)state;
  assert_string_equal(args_of(put_members, text, sizeof text), expected);
  assert_string_equal(args_of(put_namespace, text, sizeof text), expected);
  assert_string_equal(args_of(put_list, text, sizeof text), "none");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_told),      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_described), cmocka_unit_test(test_table),
      cmocka_unit_test(test_arguments),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

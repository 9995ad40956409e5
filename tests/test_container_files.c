/* Checkpoints as files on disk: recorded examples, every element type of safetensors, shards of
 * PyTorch files, folders with variants and averages. */
#include "programs.h"

#include "io/formats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *case_path(const char *name) {
  char path[200];
  snprintf(path, sizeof path, "tests/data/cases/%s", name);
  return source_path(path);
}

/* Files of torch.save. */
static void test_recorded(void **state) {
  (void)state;
  static const struct {
    const char *file, *key;
    int64_t count;
    float values[6];
    const char *warning;
  } cases[] = {
      {"04-ema-under-another-key/model_ema.pt", "model_ema", 2, {2, 2}, NULL},
      {"04-ema-under-another-key/state_dict_ema.pt", "state_dict_ema", 2, {2, 2}, NULL},
      {"05-negative-view/neg.pt", NULL, 6, {-0.0f, -1, -2, -3, -4, -5}, NULL},
      {"06-harmless-globals/bfloat16.pt", "model", 6, {0, 1, 2, 3, 4, 5}, NULL},
      {"06-harmless-globals/bytes.pt", "model", 6, {0, 1, 2, 3, 4, 5}, NULL},
      {"06-harmless-globals/counter.pt", "model", 6, {0, 1, 2, 3, 4, 5}, NULL},
      {"06-harmless-globals/device.pt", "model", 6, {0, 1, 2, 3, 4, 5}, NULL},
      {"06-harmless-globals/size.pt", "model", 6, {0, 1, 2, 3, 4, 5}, NULL},
      {"09-ema-without-weights/decay.pt", "model", 2, {1, 1}, "ema has no weights"},
      {"09-ema-without-weights/empty.pt", "model", 2, {1, 1}, "ema has no weights"},
      {"10-deepspeed/module.pt", "module", 2, {2, 2}, NULL},
      {"10-deepspeed/param-shapes.pt", "module", 2, {2, 2}, NULL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t count;
    struct ditmoe_checkpoint *c = checkpoint_of(case_path(cases[i].file));
    const char *key = ditmoe_checkpoint_key(c);
    print_message("%s\n", cases[i].file);
    assert_string_equal(key ? key : "", cases[i].key ? cases[i].key : "");
    float *values = tensor_f32(c, "w", &count);
    assert_int_equal(count, cases[i].count);
    assert_memory_equal(values, cases[i].values, (size_t)count * sizeof *values);
    if (cases[i].warning) assert_non_null(strstr(test_warning(), cases[i].warning));
    free(values);
    ditmoe_checkpoint_close(c);
  }
}

/* Every element type is listed; values are needed for conversion alone. */
static void test_types(void **state) {
  (void)state;
  static const char *const files[] = {"f8_e4m3", "u16", "u32"};
  for (int i = 0; i < 3; i++) {
    struct outcome o = run(
        "@info --tensors @source/tests/data/cases/13-safetensors-dtypes/%s.safetensors", files[i]);
    assert_exit(o, 0, "");
    assert_non_null(strstr(o.out, "tensors: 2"));
  }
  static const struct {
    const char *type, *narrow;
    size_t bits;
  } types[] = {{"BOOL", "BOOL", 8},       {"F4", "F4", 4},       {"F6_E2M3", "F6_E2M3", 6},
               {"F6_E3M2", "F6_E3M2", 6}, {"U8", "U8", 8},       {"I8", "I8", 8},
               {"F8_E5M2", "F32", 8},     {"F8_E4M3", "F32", 8}, {"F8_E8M0", "F8_E8M0", 8},
               {"I16", "I16", 16},        {"U16", "U16", 16},    {"F16", "F32", 16},
               {"BF16", "F32", 16},       {"I32", "I32", 32},    {"U32", "U32", 32},
               {"F32", "F32", 32},        {"C64", "C64", 64},    {"F64", "F32", 64},
               {"I64", "I64", 64},        {"U64", "U64", 64},    {"F8_E4M3FNUZ", "F8_E4M3FNUZ", 8}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    uint8_t file[300] = {0};
    struct ditmoe_checkpoint *c;
    const size_t bytes = types[i].bits; /* of 8 elements */
    const int header =
        snprintf((char *)file + 8, sizeof file - 8,
                 "{\"w\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%zu]}}",
                 types[i].type, bytes);
    file[0] = (uint8_t)header;
    for (size_t j = 0; j < bytes; j++) file[8 + header + (int)j] = (uint8_t)(j % 4 * 0x11);
    assert_ok(test_ctx(), checkpoint_open_bytes(test_ctx(), "types", file,
                                                8 + (size_t)header + bytes, NULL, &c));
    struct ditmoe_tensor_info info;
    ditmoe_checkpoint_tensor(c, 0, &info);
    assert_string_equal(info.dtype, types[i].type);
    assert_int_equal(info.bytes, bytes);
    /* Kept as they are, then floating ones widened. */
    const char *path = temporary_path("types.safetensors");
    assert_ok(test_ctx(), ditmoe_checkpoint_write(test_ctx(), c, path, NULL, NULL));
    struct ditmoe_checkpoint *same = checkpoint_of(path);
    assert_int_equal(same->tensors[0].dtype, c->tensors[0].dtype);
    assert_memory_equal(same->tensors[0].data, c->tensors[0].data, bytes);
    ditmoe_checkpoint_close(same);
    assert_ok(test_ctx(), ditmoe_checkpoint_write(test_ctx(), c, path, "f32", NULL));
    same = checkpoint_of(path);
    assert_string_equal(dtype_name(same->tensors[0].dtype), types[i].narrow);
    ditmoe_checkpoint_close(same);
    ditmoe_checkpoint_close(c);
  }
  const struct tensor quantised = {"w", DT_QINT8, 1, {2}, 2, "ab"};
  assert_fails(test_ctx(), DITMOE_MISMATCH, "tensor w: its type is QINT8",
               safetensors_write(test_ctx(), temporary_path("q.safetensors"), &quantised, 1,
                                 DT_COUNT, NULL, 0));
}

static void write_text(const char *path, const char *text) {
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), path, text, strlen(text)));
}

static void assert_tiny(struct ditmoe_checkpoint *c) {
  struct ditmoe_checkpoint *tiny = checkpoint_of(case_path("00-tiny/tiny.safetensors"));
  assert_int_equal(c->count, tiny->count);
  for (size_t i = 0; i < c->count; i++) {
    assert_string_equal(c->tensors[i].name, tiny->tensors[i].name);
    assert_memory_equal(c->tensors[i].data, tiny->tensors[i].data, tensor_bytes(&tiny->tensors[i]));
  }
  ditmoe_checkpoint_close(tiny);
  ditmoe_checkpoint_close(c);
}

static void test_torch_shards(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_checkpoint *c = checkpoint_of(case_path("21-torch-shards"));
  assert_string_equal(ditmoe_checkpoint_format(c), "pytorch-sharded");
  assert_tiny(c);
  assert_tiny(checkpoint_of(case_path("21-torch-shards/diffusion_pytorch_model.bin.index.json")));
  assert_shell("mkdir -p s && cp \"$DITMOE_SOURCE\"/tests/data/cases/21-torch-shards/* "
               "\"$DITMOE_SOURCE\"/tests/data/cases/04-*/model_ema.pt s/");
  const char *index = temporary_path("s/any.index.json");
  static const char *const refused[][2] = {
      {"{\"weight_map\":{\"w\":\"model_ema.pt\"}}",
       "must not be a training dictionary (model_ema)"},
      {"{\"weight_map\":{\"w\":\"diffusion_pytorch_model-00001-of-00002.bin\"}}",
       "tensor w is not in its shard"},
      {"{\"weight_map\":{\"pos_embed\":\"diffusion_pytorch_model-00001-of-00002.bin\",\"x\":"
       "\"diffusion_pytorch_model-00002-of-00002.bin\"}}",
       "is not in its shard"},
      {"{\"weight_map\":{\"w\":\"any.index.json\"}}", "must be a safetensors file or one of"}};
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    write_text(index, refused[i][0]);
    assert_fails(ctx, DITMOE_FORMAT, refused[i][1], ditmoe_checkpoint_open(ctx, index, NULL, &c));
  }
}

/* A file of one tensor w with this value. */
static void write_value(const char *path, float value) {
  const struct tensor w = {"w", DT_F32, 1, {1}, 1, &value};
  assert_ok(test_ctx(), safetensors_write(test_ctx(), path, &w, 1, DT_COUNT, NULL, 0));
}

/* One file after the other is added to a folder; each is preferred to those before it. */
static void test_folders(void **state) {
  (void)state;
  static const struct {
    const char *file, *left;
  } steps[] = {
      {"unet/model.fp16.safetensors", NULL},
      {"transformer/diffusion_pytorch_model.non_ema.safetensors", "unet"},
      {"transformer/diffusion_pytorch_model.fp16.safetensors",
       "diffusion_pytorch_model.non_ema.safetensors, unet"},
      {"transformer/diffusion_pytorch_model.safetensors",
       "diffusion_pytorch_model.fp16.safetensors, unet"},
      {"model.safetensors", "transformer, unet"},
      {"model.ema.safetensors", "model.safetensors, transformer, unet"},
      {"ema.safetensors", "model.ema.safetensors, transformer, unet"},
      {"ema/model.safetensors", "ema.safetensors, transformer, unet"},
      {"transformer_ema/diffusion_pytorch_model.safetensors",
       "ema, ema.safetensors, transformer, unet"},
  };
  assert_shell("mkdir -p f/unet f/transformer f/ema f/transformer_ema");
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    char file[200];
    snprintf(file, sizeof file, "f/%s", steps[i].file);
    write_value(temporary_path(file), (float)i);
    struct ditmoe_checkpoint *c = checkpoint_of(temporary_path("f"));
    float value;
    memcpy(&value, c->tensors[0].data, sizeof value);
    assert_true(value == (float)i);
    const char *left = ditmoe_checkpoint_left(c);
    assert_string_equal(left ? left : "", steps[i].left ? steps[i].left : "");
    ditmoe_checkpoint_close(c);
  }
  struct outcome o = run("@info f");
  assert_exit(o, 0, "");
  assert_non_null(strstr(o.out, "not_taken: ema, ema.safetensors, transformer, unet"));
}

/* A prefix that hides a transformer is named. */
static void test_unknown_prefix(void **state) {
  (void)state;
  struct ditmoe_checkpoint *tiny = checkpoint_of(case_path("00-tiny/tiny.safetensors"));
  struct tensor tensors[40];
  char names[40][200];
  for (size_t i = 0; i < tiny->count; i++) {
    snprintf(names[i], sizeof names[i], "my.student.%s", tiny->tensors[i].name);
    tensors[i] = tiny->tensors[i];
    tensors[i].name = names[i];
  }
  assert_ok(test_ctx(), safetensors_write(test_ctx(), temporary_path("p.safetensors"), tensors,
                                          tiny->count, DT_COUNT, NULL, 0));
  assert_exit(run("@sample -m p.safetensors --heads 2 --objective ddpm --vae none -n 1 -o o/"), 4,
              "prefix \"my.student.\": --key my.student");
  assert_exit(run("@info p.safetensors --key my.student"), 0, "");
  assert_exit(run("@info p.safetensors --key ema"), 2, "leave the key out");
  struct ditmoe_checkpoint *c;
  assert_ok(test_ctx(),
            ditmoe_checkpoint_open(test_ctx(), temporary_path("p.safetensors"), "my.student", &c));
  assert_tiny(c);
  ditmoe_checkpoint_close(tiny);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_recorded),       cmocka_unit_test(test_types),
      cmocka_unit_test(test_torch_shards),   cmocka_unit_test(test_folders),
      cmocka_unit_test(test_unknown_prefix),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

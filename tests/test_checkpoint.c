/* Good checkpoints of every format and form, the writer, configuration files and outputs. */
#include "support.h"

#include "io/formats.h"
#include "pickle_emit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t bytes_of(const struct tensor *t) {
  return (size_t)t->elements * dtype_size(t->dtype);
}

/* The same names, types, shapes and bits. */
static void assert_same(const struct ditmoe_checkpoint *a, const struct ditmoe_checkpoint *b) {
  assert_int_equal(a->count, b->count);
  for (size_t i = 0; i < a->count; i++) {
    const struct tensor *x = &a->tensors[i], *y = &b->tensors[i];
    assert_string_equal(x->name, y->name);
    assert_int_equal(x->dtype, y->dtype);
    assert_int_equal(x->rank, y->rank);
    assert_memory_equal(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape);
    assert_memory_equal(x->data, y->data, bytes_of(x));
    assert_ptr_equal(checkpoint_find(a, x->name), x);
  }
}

static void test_formats(void **state) {
  (void)state;
  static const struct {
    const char *file, *format, *key, *same_as;
  } cases[] = {
      {"dit_moe/b_mixed/bare.pt", "pytorch-zip", NULL, "dit_moe/b_mixed/bare.safetensors"},
      {"dit_moe/b_mixed/bare_legacy.pt", "pytorch-legacy", NULL,
       "dit_moe/b_mixed/bare.safetensors"},
      {"dit_moe/b_mixed/ema_only.pt", "pytorch-zip", "ema", "dit_moe/b_mixed/bare.safetensors"},
      {"dit_moe/b_mixed/0050000.pt", "pytorch-zip", "ema", "dit_moe/b_mixed/bare.safetensors"},
      {"promoe/dit_dense/ckpt_step_1000.pth", "pytorch-zip", "ema_model_state_dict",
       "promoe/dit_dense/bare.safetensors"},
      {"upcycle/upcycled.pt", "pytorch-zip", NULL, "upcycle/upcycled.safetensors"},
      {"bad/control.pt", "pytorch-zip", NULL, "bad/control.safetensors"},
      {"bad/control_legacy.pt", "pytorch-legacy", NULL, "bad/control.safetensors"},
      {"bad/zip_deflated.pt", "pytorch-zip", NULL, "bad/control.safetensors"},
      {"bad/zip_traversal.pt", "pytorch-zip", NULL, "bad/control.safetensors"},
      {"bad/ck_module_prefix.pt", "pytorch-zip", NULL, "bad/control.safetensors"},
      {"bad/ck_module_prefix.safetensors", "safetensors", NULL, "bad/control.safetensors"},
      {"diffusers_dit/pipeline", "safetensors", NULL,
       "diffusers_dit/pipeline/transformer/diffusion_pytorch_model.safetensors"},
      {"diffusers_dit/pipeline/transformer/diffusion_pytorch_model.bin", "pytorch-zip", NULL,
       "diffusers_dit/pipeline/transformer/"},
  };
  size_t compared = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (access(fixture_path(cases[i].file), R_OK) != 0 ||
        access(fixture_path(cases[i].same_as), R_OK) != 0) {
      print_message("not among the fixtures: %s\n", cases[i].file);
      continue;
    }
    struct ditmoe_checkpoint *a = checkpoint_of(fixture_path(cases[i].file));
    struct ditmoe_checkpoint *b = checkpoint_of(fixture_path(cases[i].same_as));
    assert_string_equal(ditmoe_checkpoint_format(a), cases[i].format);
    if (cases[i].key) assert_string_equal(ditmoe_checkpoint_key(a), cases[i].key);
    if (!cases[i].key) assert_null(ditmoe_checkpoint_key(a));
    assert_same(a, b);
    ditmoe_checkpoint_close(a);
    ditmoe_checkpoint_close(b);
    compared++;
  }
  assert_true(compared >= 5);
}

static void test_lookups(void **state) {
  (void)state;
  struct ditmoe_checkpoint *c = checkpoint_of(fixture_path("bad/control.safetensors"));
  struct ditmoe_tensor_info info;
  ditmoe_checkpoint_tensor(c, 0, &info);
  assert_string_equal(info.dtype, "F32");
  assert_string_equal(info.name, "blocks.0.adaLN_modulation.1.bias");
  assert_int_equal(info.rank, 1);
  assert_int_equal(info.bytes, (uint64_t)info.shape[0] * 4);
  assert_int_equal(ditmoe_checkpoint_count(c), 31);
  assert_null(checkpoint_find(c, "blocks.0.adaLN_modulation.1.bia"));
  assert_string_equal(checkpoint_nearest(c, "blocks.0.adaLN_modulation.2.bias"), info.name);
  assert_string_equal(checkpoint_nearest(c, "block.0.moe.gate.weight"), "blocks.0.moe.gate.weight");
  assert_null(checkpoint_nearest(c, "decoder.conv_in"));
  assert_null(ditmoe_checkpoint_metadata(c, "nothing"));
  ditmoe_checkpoint_close(c);
  ditmoe_checkpoint_close(NULL);
}

/* Views that a checkpoint may hold, over one shared storage 0, 1, .. 11. */
static void test_views(void **state) {
  (void)state;
  static const struct {
    struct view view;
    float expected[12];
  } cases[] = {
      {{"Float", "s", 12, 0, 2, {3, 4}, {4, 1}}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
      {{"Float", "s", 12, 0, 2, {4, 3}, {1, 4}}, {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}},
      {{"Float", "s", 12, 5, 1, {3}, {1}}, {5, 6, 7}},
      {{"Float", "s", 12, 1, 2, {2, 3}, {6, 2}}, {1, 3, 5, 7, 9, 11}},
      {{"Float", "s", 12, 7, 2, {2, 3}, {0, 0}}, {7, 7, 7, 7, 7, 7}},
      {{"Float", "s", 12, 11, 0, {0}, {0}}, {11}},
      {{"Float", "s", 12, 3, 3, {1, 2, 1}, {INT64_MAX, 1, INT64_MAX}}, {3, 4}},
      {{"Float", "s", 12, 12, 2, {0, 5}, {5, 1}}, {0}},
      {{"Float", "s", 12, 0, 4, {2, 1, 3, 2}, {6, 9, 2, 1}},
       {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
  };
  enum { COUNT = sizeof cases / sizeof *cases };
  struct bytes file = {.size = 0};
  float numbers[12];
  for (int i = 0; i < 12; i++) numbers[i] = (float)i;
  put_legacy_header(&file);
  PUT(&file, "\x80\x02}(");
  for (int i = 0; i < COUNT; i++) {
    put_text(&file, (char[]){(char)('a' + i), '\0'});
    /* Every second one as a parameter. */
    if (i % 2) PUT(&file, "ctorch._utils\n_rebuild_parameter\n(");
    put_tensor(&file, &cases[i].view);
    if (i % 2) PUT(&file, "\x88}tR");
  }
  PUT(&file, "u.");
  put_storages(&file, &(struct storage){"s", numbers, 12, 4}, 1);
  struct ditmoe_checkpoint *c;
  assert_ok(test_ctx(), checkpoint_open_bytes(test_ctx(), "views", file.data, file.size, NULL, &c));
  assert_int_equal(c->count, COUNT);
  for (int i = 0; i < COUNT; i++) {
    const struct tensor *t = &c->tensors[i];
    assert_int_equal(t->rank, cases[i].view.rank);
    assert_memory_equal(t->shape, cases[i].view.shape, (size_t)t->rank * sizeof *t->shape);
    assert_memory_equal(t->data, cases[i].expected, bytes_of(t));
    const uint8_t *data = t->data;
    bool in_place = data >= file.data && data <= file.data + file.size;
    assert_int_equal(in_place, i != 1 && i != 3 && i != 4);
  }
  ditmoe_checkpoint_close(c);
}

/* Every storage class, in a dictionary as Python 2 made it: OrderedDict of a list of pairs. */
static void test_storage_types(void **state) {
  (void)state;
  static const struct {
    const char *type;
    enum dtype dtype;
  } types[] = {{"Float", DT_F32}, {"Half", DT_F16}, {"BFloat16", DT_BF16}, {"Double", DT_F64},
               {"Long", DT_I64},  {"Int", DT_I32},  {"Short", DT_I16},     {"Char", DT_I8},
               {"Byte", DT_U8},   {"Bool", DT_BOOL}};
  enum { COUNT = sizeof types / sizeof *types };
  static const uint64_t bits[2] = {0x0100000001000001, 1};
  struct storage storages[COUNT];
  struct bytes file = {.size = 0};
  put_legacy_header(&file);
  PUT(&file, "\x80\x02}");
  put_text(&file, "model");
  PUT(&file, "ccollections\nOrderedDict\n](");
  for (int i = 0; i < COUNT; i++) {
    PUT(&file, "](");
    put_text(&file, types[i].type);
    put_tensor(&file, &(struct view){types[i].type, types[i].type, 2, 0, 1, {2}, {1}});
    PUT(&file, "e");
    storages[i] = (struct storage){types[i].type, bits, 2, dtype_size(types[i].dtype)};
  }
  PUT(&file, "e\x85Rs.");
  put_storages(&file, storages, COUNT);
  struct ditmoe_checkpoint *c;
  assert_ok(test_ctx(), checkpoint_open_bytes(test_ctx(), "types", file.data, file.size, NULL, &c));
  assert_string_equal(c->key, "model");
  assert_int_equal(c->count, COUNT);
  for (int i = 0; i < COUNT; i++) {
    const struct tensor *t = checkpoint_find(c, types[i].type);
    assert_non_null(t);
    assert_int_equal(t->dtype, types[i].dtype);
    assert_memory_equal(t->data, bits, 2 * dtype_size(t->dtype));
  }
  ditmoe_checkpoint_close(c);
}

/* What else a training dictionary holds is passed over, and which entry is taken: {"args":
 * Namespace(lr=1e-4), "opt": {0: (1.5, None, True, -7, 2^70)}, FIRST: {..}, SECOND: {..}}. */
static void put_training(struct bytes *b, const char *first, const char *second) {
  put_legacy_header(b);
  PUT(b, "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(");
  put_text(b, "args");
  PUT(b, "\x8c\x08"
         "argparse\x8c\x09Namespace\x93)\x81\x94}\x8c\x02lrG\x3f\x1a\x36\xe2\xeb\x1c\x43\x2dsb");
  put_text(b, "opt");
  PUT(b, "}K\x00(G\x3f\xf8\x00\x00\x00\x00\x00\x00N\x88J\xf9\xff\xff\xff"
         "\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x40ts");
  const char *names[] = {first, second};
  for (int i = 0; i < 2; i++) {
    put_text(b, names[i]);
    PUT(b, "}");
    put_text(b, names[i]);
    put_tensor(b, &(struct view){"Float", "s", 1, 0, 1, {1}, {1}});
    PUT(b, "s}"
           "X\x09\x00\x00\x00_metadata}sb"); /* attributes of a dictionary */
  }
  PUT(b, "u.");
  put_storages(b, &(struct storage){"s", &(float){1}, 1, 4}, 1);
}

static void test_preferred_key(void **state) {
  (void)state;
  static const char *const cases[][3] = {{"model", "ema", "ema"},
                                         {"model", "ema_model_state_dict", "ema_model_state_dict"},
                                         {"model_state_dict", "model", "model"},
                                         {"state_dict", "model_state_dict", "model_state_dict"},
                                         {"state_dict", "other", "state_dict"}};
  struct ditmoe_checkpoint *c;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file = {.size = 0};
    put_training(&file, cases[i][0], cases[i][1]);
    assert_ok(test_ctx(),
              checkpoint_open_bytes(test_ctx(), "keys", file.data, file.size, NULL, &c));
    assert_string_equal(c->key, cases[i][2]);
    assert_string_equal(c->tensors[0].name, cases[i][2]);
    ditmoe_checkpoint_close(c);
  }
}

static void test_explicit_key(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct bytes file = {.size = 0};
  struct ditmoe_checkpoint *c;
  put_training(&file, "model", "ema");
  assert_ok(ctx, checkpoint_open_bytes(ctx, "keys", file.data, file.size, "model", &c));
  assert_string_equal(ditmoe_checkpoint_key(c), "model");
  assert_string_equal(c->tensors[0].name, "model");
  ditmoe_checkpoint_close(c);
  assert_fails(ctx, DITMOE_USAGE, "not there; the keys of this file are: args, opt, model, ema",
               checkpoint_open_bytes(ctx, "keys", file.data, file.size, "weights", &c));
  assert_fails(ctx, DITMOE_USAGE, "a Namespace",
               checkpoint_open_bytes(ctx, "keys", file.data, file.size, "args", &c));
  assert_fails(ctx, DITMOE_MISMATCH, "no tensors under key opt",
               checkpoint_open_bytes(ctx, "keys", file.data, file.size, "opt", &c));
  assert_fails(ctx, DITMOE_USAGE, "no keys",
               ditmoe_checkpoint_open(ctx, fixture_path("bad/control.safetensors"), "ema", &c));
}

static void write_part(const char *path, const struct ditmoe_checkpoint *c, size_t from,
                       size_t to) {
  struct checkpoint_entry entry = {(char[]){"format"}, (char[]){"pt"}};
  assert_ok(test_ctx(),
            safetensors_write(test_ctx(), path, c->tensors + from, to - from, DT_COUNT, &entry, 1));
}

static void write_index(const char *path, const struct ditmoe_checkpoint *c, size_t split,
                        const char *second) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fprintf(file, "{\n \"metadata\": {\"total_size\": 1},\n \"weight_map\": {");
  for (size_t i = 0; i < c->count; i++)
    fprintf(file, "%s\n  \"%s\": \"%s\"", i ? "," : "", c->tensors[i].name,
            i < split ? "part-1.safetensors" : second);
  fprintf(file, "}}\n");
  fclose(file);
}

static void test_shards(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_checkpoint *whole = checkpoint_of(fixture_path("bad/control.safetensors")), *c;
  const size_t split = 12;
  mkdir(temporary_path("shards"), 0777);
  mkdir(temporary_path("shards/transformer"), 0777);
  const char *index = temporary_path("shards/transformer/any.index.json");
  write_part(temporary_path("shards/transformer/part-1.safetensors"), whole, 0, split);
  write_part(temporary_path("shards/transformer/part-2.safetensors"), whole, split, whole->count);
  write_index(index, whole, split, "part-2.safetensors");
  c = checkpoint_of(index);
  assert_string_equal(c->format, "safetensors-sharded");
  assert_same(c, whole);
  assert_int_equal(c->metadata_count, 1);
  ditmoe_checkpoint_close(c);
  c = checkpoint_of(temporary_path("shards"));
  assert_same(c, whole);
  ditmoe_checkpoint_close(c);

  index = temporary_path("shards/transformer/any.index.json");
  write_index(index, whole, split + 1, "part-2.safetensors"); /* one tensor in the wrong shard */
  assert_fails(ctx, DITMOE_FORMAT, whole->tensors[split].name,
               ditmoe_checkpoint_open(ctx, index, NULL, &c));
  static const char *const refused[][2] = {{"../part-2.safetensors", "plain file name"},
                                           {"/etc/passwd", "plain file name"},
                                           {"..", "plain file name"},
                                           {"", "plain file name"},
                                           {"part-3.safetensors", "part-3.safetensors"},
                                           {"any.index.json", "must be a safetensors file"}};
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    write_index(index, whole, split, refused[i][0]);
    assert_fails(ctx, DITMOE_FORMAT, refused[i][1], ditmoe_checkpoint_open(ctx, index, NULL, &c));
  }
  write_part(temporary_path("shards/transformer/part-2.safetensors"), whole, split - 1,
             whole->count); /* a tensor in both */
  index = temporary_path("shards/transformer/any.index.json");
  write_index(index, whole, split, "part-2.safetensors");
  assert_fails(ctx, DITMOE_FORMAT, "occurs twice", ditmoe_checkpoint_open(ctx, index, NULL, &c));
  ditmoe_checkpoint_close(whole);
}

static void test_write(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_checkpoint *a = checkpoint_of(fixture_path("bad/control.pt")), *b;
  const char *path = temporary_path("written.safetensors");
  assert_ok(ctx,
            ditmoe_checkpoint_write(ctx, a, path, NULL, "{\"kind\": \"a\\\"b\\\\\n\xc3\xbc\"}"));
  b = checkpoint_of(path);
  assert_same(a, b);
  assert_string_equal(ditmoe_checkpoint_metadata(b, "ditmoe"),
                      "{\"kind\": \"a\\\"b\\\\\n\xc3\xbc\"}");
  assert_string_equal(ditmoe_checkpoint_metadata(b, "format"), "pt");
  for (size_t i = 0; i < b->count; i++) assert_int_equal((uintptr_t)b->tensors[i].data % 4, 0);
  /* A second conversion keeps the record, or replaces it. */
  const char *again = temporary_path("again.safetensors");
  assert_ok(ctx, ditmoe_checkpoint_write(ctx, b, again, NULL, NULL));
  size_t size, other_size;
  char *bytes = file_bytes(path, &size), *other = file_bytes(again, &other_size);
  assert_int_equal(size, other_size);
  assert_memory_equal(bytes, other, size);
  free(bytes);
  free(other);
  assert_ok(ctx, ditmoe_checkpoint_write(ctx, b, again, "f32", "{}"));
  ditmoe_checkpoint_close(b);
  b = checkpoint_of(again);
  assert_string_equal(ditmoe_checkpoint_metadata(b, "ditmoe"), "{}");
  assert_int_equal(b->metadata_count, 2);
  ditmoe_checkpoint_close(b);
  assert_fails(ctx, DITMOE_USAGE, "f32, bf16, f16",
               ditmoe_checkpoint_write(ctx, a, again, "int8", NULL));
  ditmoe_checkpoint_close(a);
}

/* Conversion gives the bits that torch gives. */
static void test_write_halves(void **state) {
  (void)state;
  static const char *const cases[][2] = {{"f16", "dit_moe/c_flash_qknorm/bare_fp16.pt"},
                                         {"bf16", "dit_moe/c_flash_qknorm/bare_bf16.pt"}};
  const char *source = fixture_path("dit_moe/c_flash_qknorm/bare.safetensors");
  struct ditmoe_checkpoint *a = checkpoint_of(source);
  int compared = 0;
  for (int i = 0; i < 2; i++) {
    if (access(fixture_path(cases[i][1]), R_OK) != 0) continue;
    const char *path = temporary_path("half.safetensors");
    assert_ok(test_ctx(), ditmoe_checkpoint_write(test_ctx(), a, path, cases[i][0], NULL));
    struct ditmoe_checkpoint *b = checkpoint_of(path);
    struct ditmoe_checkpoint *c = checkpoint_of(fixture_path(cases[i][1]));
    assert_same(b, c);
    ditmoe_checkpoint_close(b);
    ditmoe_checkpoint_close(c);
    compared++;
  }
  ditmoe_checkpoint_close(a);
  assert_true(compared > 0);
}

/* Types side by side: wide ones first, integers untouched; and a value that f16 cannot hold. */
static void test_write_mixed(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const int64_t integers[2] = {-1, INT64_MAX};
  const double doubles[2] = {0.1, INFINITY};
  float singles[2] = {65519.9f, NAN};
  const struct tensor tensors[] = {
      {"bool", DT_BOOL, 1, {3}, 3, "\0\1\1"}, {"double", DT_F64, 2, {1, 2}, 2, doubles},
      {"empty", DT_F32, 2, {0, 7}, 0, NULL},  {"integer", DT_I64, 1, {2}, 2, integers},
      {"scalar", DT_F32, 0, {0}, 1, singles}, {"single \"\\", DT_F32, 1, {2}, 2, singles}};
  const char *path = temporary_path("mixed.safetensors");
  struct ditmoe_checkpoint *c;
  assert_ok(ctx, safetensors_write(ctx, path, tensors, 6, DT_COUNT, NULL, 0));
  c = checkpoint_of(path);
  for (int i = 0; i < 6; i++) {
    const struct tensor *t = checkpoint_find(c, tensors[i].name);
    assert_non_null(t);
    assert_int_equal((uintptr_t)t->data % dtype_size(t->dtype), 0);
    if (t->elements) assert_memory_equal(t->data, tensors[i].data, bytes_of(t));
  }
  ditmoe_checkpoint_close(c);
  assert_ok(ctx, safetensors_write(ctx, path, tensors, 6, DT_F16, NULL, 0));
  c = checkpoint_of(path);
  assert_int_equal(checkpoint_find(c, "double")->dtype, DT_F16);
  assert_memory_equal(checkpoint_find(c, "double")->data, "\x66\x2e\x00\x7c", 4);
  assert_int_equal(checkpoint_find(c, "integer")->dtype, DT_I64);
  ditmoe_checkpoint_close(c);
  assert_ok(ctx, safetensors_write(ctx, path, tensors, 6, DT_BF16, NULL, 0));
  c = checkpoint_of(path);
  assert_memory_equal(checkpoint_find(c, "double")->data, "\xcd\x3d\x80\x7f", 4);
  assert_memory_equal(checkpoint_find(c, "scalar")->data, "\x80\x47", 2);
  ditmoe_checkpoint_close(c);
  singles[0] = 65520;
  assert_fails(ctx, DITMOE_NONFINITE, "scalar",
               safetensors_write(ctx, temporary_path("no"), tensors, 6, DT_F16, NULL, 0));
  assert_int_not_equal(access(temporary_path("no"), F_OK), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_formats),       cmocka_unit_test(test_lookups),
      cmocka_unit_test(test_views),         cmocka_unit_test(test_storage_types),
      cmocka_unit_test(test_preferred_key), cmocka_unit_test(test_explicit_key),
      cmocka_unit_test(test_shards),        cmocka_unit_test(test_write),
      cmocka_unit_test(test_write_halves),  cmocka_unit_test(test_write_mixed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

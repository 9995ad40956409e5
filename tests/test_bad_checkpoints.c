/* Broken and hostile checkpoints: the recorded set, truncation, mutation, crafted pickles and
 * failing allocations. Each ends in a status and one line; nothing is executed. */
#include "support.h"

#include "io/formats.h"
#include "io/json.h"
#include "pickle_emit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *ending) {
  size_t length = strlen(text), size = strlen(ending);
  return length >= size && strcmp(text + length - size, ending) == 0;
}

static bool is_expected(const cJSON *entry, int status) {
  const char *file = cJSON_GetObjectItem(entry, "file")->valuestring;
  int code = cJSON_GetObjectItem(entry, "exit")->valueint;
  /* Faults that only show when a model is made of the tensors. */
  if (strncmp(file, "ck_", 3) == 0 || strcmp(file, "st_empty_tensor_ok.safetensors") == 0) code = 0;
  if (status == code) return true;
  const cJSON *also;
  cJSON_ArrayForEach(also, cJSON_GetObjectItem(entry, "exit_also")) {
    if (status == also->valueint) return true;
  }
  return false;
}

/* "error naming file and tensor NAME", "forbidden global NAME": the name is in the message. */
static void assert_names(const char *message, const char *expected, const char *introduction) {
  char name[100];
  const char *from = strstr(expected, introduction);
  if (!from || sscanf(from + strlen(introduction), " %99[^ ;,]", name) != 1) return;
  if (!strstr(message, name)) print_error("\"%s\" is not in: %s\n", name, message);
  assert_non_null(strstr(message, name));
}

static void test_recorded_set(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  cJSON *list;
  const cJSON *entry;
  int tried = 0;
  assert_ok(ctx, json_read(ctx, fixture_path("bad/expected.json"), &list));
  cJSON_ArrayForEach(entry, list) {
    const char *file = cJSON_GetObjectItem(entry, "file")->valuestring;
    const char *expected = cJSON_GetObjectItem(entry, "expected")->valuestring;
    if (!ends_with(file, ".pt") && !ends_with(file, ".pth") && !ends_with(file, ".safetensors"))
      continue;
    char path[300];
    snprintf(path, sizeof path, "bad/%s", file);
    struct ditmoe_checkpoint *checkpoint = NULL;
    int status = (int)ditmoe_checkpoint_open(ctx, fixture_path(path), NULL, &checkpoint);
    const char *message = status ? ditmoe_errmsg(ctx) : "";
    if (!is_expected(entry, status)) print_error("%s: status %d: %s\n", file, status, message);
    assert_true(is_expected(entry, status));
    if (status) {
      assert_non_null(strstr(message, file));
      assert_null(strchr(message, '\n'));
      assert_names(message, expected, "file and tensor");
      assert_names(message, expected, "forbidden global");
    }
    if (strstr(expected, "storage type")) assert_non_null(strstr(message, "torch."));
    ditmoe_checkpoint_close(checkpoint);
    tried++;
  }
  cJSON_Delete(list);
  assert_true(tried > 100);
  assert_int_not_equal(access("PWNED_BY_CHECKPOINT", F_OK), 0);
  assert_int_not_equal(access(fixture_path("../PWNED_BY_CHECKPOINT"), F_OK), 0);
  assert_int_not_equal(access(fixture_path("bad/../../PWNED_BY_CHECKPOINT"), F_OK), 0);
}

/* Opens a copy that ends where its memory ends, so that a sanitizer sees any read beyond it. */
static enum ditmoe_status open_copy(const char *bytes, size_t size) {
  struct ditmoe_checkpoint *checkpoint = NULL;
  char *copy = malloc(size ? size : 1);
  if (size) memcpy(copy, bytes, size);
  enum ditmoe_status status =
      checkpoint_open_bytes(test_ctx(), "copy", copy, size, NULL, &checkpoint);
  ditmoe_checkpoint_close(checkpoint);
  free(copy);
  return status;
}

static const char *const controls[] = {"bad/control.pt", "bad/control_legacy.pt",
                                       "bad/control.safetensors", "bad/zip_deflated.pt"};
enum { CONTROLS = sizeof controls / sizeof *controls };

static void test_truncation(void **state) {
  (void)state;
  for (int i = 0; i < CONTROLS; i++) {
    size_t size;
    char *bytes = file_bytes(fixture_path(controls[i]), &size);
    assert_int_equal(open_copy(bytes, size), DITMOE_OK);
    for (size_t part = 0; part < 64; part++)
      assert_int_equal(open_copy(bytes, size * part / 64), DITMOE_FORMAT);
    for (size_t less = 1; less <= 64; less++)
      assert_int_equal(open_copy(bytes, size - less), DITMOE_FORMAT);
    free(bytes);
  }
}

/* Any outcome but a crash is right. */
static void test_mutation(void **state) {
  (void)state;
  uint32_t random = 1;
  for (int i = 0; i < CONTROLS; i++) {
    size_t size;
    char *bytes = file_bytes(fixture_path(controls[i]), &size);
    for (int round = 0; round < 500; round++) {
      random = random * 1664525u + 1013904223u;
      /* Half of the changes near an end, where the structure is. */
      size_t at = (random >> 4) % (round % 2 ? size : size / 16);
      if (round % 4 == 0) at = size - 1 - at;
      char old = bytes[at];
      bytes[at] = (char)(random >> 24);
      (void)open_copy(bytes, size);
      bytes[at] = old;
    }
    free(bytes);
  }
}

/* Objects of a legacy file, each refused with these words. */
static void test_pickles(void **state) {
  (void)state;
#define CASE(program, words)                                                                       \
  { program, sizeof(program) - 1, words }
  static const struct {
    const char *program;
    size_t size;
    const char *words;
  } cases[] = {
      CASE("cnt\nsystem\nX\2\0\0\0ls\x85R.", "nt.system"),
      CASE("\x8c\x03\x1b[2\x8c\x01m\x93.", "?[2.m"),
      CASE("}X\1\0\0\0acos\nsystem\ns.", "os.system"),
      CASE("(ios\nsystem\n.", "os.system"),
      CASE("(icollections\nOrderedDict\n.", "INST"),
      CASE("(o.", "OBJ"),
      CASE("\x82\x01.", "EXT1"),
      CASE("\x83\1\0.", "EXT2"),
      CASE("\x84\1\0\0\0.", "EXT4"),
      CASE("ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
      CASE("P1\n.", "PERSID"),
      CASE("I1\n.", "opcode INT"),
      CASE("\x97.", "NEXT_BUFFER"),
      CASE("\x80\x06.", "protocol newer"),
      CASE("K\1K\2a.", "added to an integer"),
      CASE("}K\2a.", "added to a dictionary"),
      CASE("](K\1e]K\1K\2s.", "added to a list"),
      CASE(")K\1K\2s.", "added to a tuple"),
      CASE("}(K\1u.", "without a value"),
      CASE("(K\1d.", "without a value"),
      CASE("K\1}b.", "set on an integer"),
      CASE("}Nb.", "from None"),
      CASE("K\1)R.", "not a function"),
      CASE("ctorch\nFloatStorage\n)R.", "not a function"),
      CASE("ccollections\nOrderedDict\n]R.", "without a tuple"),
      CASE("ccollections\nOrderedDict\n]K\1a\x85R.", "than pairs"),
      CASE("ccollections\nOrderedDict\nK\1\x85R.", "than pairs"),
      CASE("cargparse\nNamespace\nK\1\x85R.", "Namespace with arguments"),
      CASE("ctorch._utils\n_rebuild_tensor_v2\n)R.", "not made of"),
      CASE("ctorch._utils\n_rebuild_parameter\n(K\1\x88}tR.", "not made of a tensor"),
      CASE("ctorch._utils\n_rebuild_tensor\n)R.", "torch._utils._rebuild_tensor"),
      CASE("ctorch\nUntypedStorage\n.", "torch.UntypedStorage is not supported"),
      CASE("(K\1tQ.", "not a storage"),
      CASE("K\1Q.", "not a storage"),
      CASE("(X\7\0\0\0storageccollections\nOrderedDict\nX\1\0\0\0aX\3\0\0\0cpuK\1tQ.",
           "not a storage"),
      CASE("(X\7\0\0\0storagectorch\nIntStorage\nX\1\0\0\0aX\3\0\0\0cpuJ\xff\xff\xff\xfftQ.",
           "not a storage"),
      CASE("K\1K\2\x93.", "not a string"),
      CASE("\x85.", "stack is empty"),
      CASE("K\1(\x85.", "stack is empty"),
      CASE("K\1(0.", "stack is empty"),
      CASE("(2.", "stack is empty"),
      CASE("s.", "stack is empty"),
      CASE("q\0.", "stack is empty"),
      CASE("\x94.", "stack is empty"),
      CASE("}b.", "stack is empty"),
      CASE(".", "stack is empty"),
      CASE("t.", "no mark"),
      CASE("1.", "no mark"),
      CASE("h\7.", "never stored"),
      CASE("}r\xff\xff\xff\xffj\xff\xff\xff\xff.", "never stored"),
      CASE("\x8b\xff\xff\xff\x7f.", "longer than the file"),
      CASE("\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "longer than the file"),
      CASE("\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "longer than the file"),
      CASE("\xfe.", "undefined opcode 0xfe"),
      CASE("ctorch", "in the middle"),
  };
#undef CASE
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file = {.size = 0};
    struct ditmoe_checkpoint *checkpoint;
    put_legacy_header(&file);
    put(&file, cases[i].program, cases[i].size);
    put_storages(&file, NULL, 0);
    assert_fails(
        test_ctx(), DITMOE_FORMAT, cases[i].words,
        checkpoint_open_bytes(test_ctx(), "crafted", file.data, file.size, NULL, &checkpoint));
  }
}

/* One tensor "w" of a storage with 12 elements; what is wrong with it, or with the storage. */
static void test_views(void **state) {
  (void)state;
  static const struct {
    struct view view;
    const char *words;
  } cases[] = {
      {{"Float", "s", 12, 0, 2, {3, 4}, {4, 2}}, "beyond its storage"},
      {{"Float", "s", 12, 12, 0, {0}, {0}}, "beyond its storage"},
      {{"Float", "s", 12, 13, 1, {0}, {1}}, "beyond its storage"},
      {{"Float", "s", 12, 0, 2, {2, 2}, {INT64_MAX, INT64_MAX}}, "beyond its storage"},
      {{"Float", "s", 12, 0, 3, {2, 2, 2}, {INT64_MAX, INT64_MAX, 2}}, "beyond its storage"},
      {{"Float", "s", 12, INT64_MAX, 1, {2}, {INT64_MAX}}, "beyond its storage"},
      {{"Float", "s", 12, -1, 1, {1}, {1}}, "negative"},
      {{"Float", "s", 12, 0, 1, {-1}, {1}}, "negative"},
      {{"Float", "s", 12, 0, 1, {1}, {-1}}, "negative"},
      {{"Float", "s", 12, 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {0}}, "8 dimensions"},
      {{"Float", "s", 12, 0, 2, {INT64_MAX, 2}, {0, 0}}, "overflows"},
      {{"Float", "s", 12, 0, 1, {INT64_MAX / 2}, {0}}, "out of proportion"},
      {{"Float", "s", 12, 0, 2, {1 << 20, 1 << 10}, {0, 0}}, "out of proportion"},
      {{"Float", "s", 11, 0, 1, {1}, {1}}, "not there in full"},
      {{"Float", "s", 13, 0, 1, {1}, {1}}, "not there in full"},
      {{"Double", "s", 12, 0, 1, {1}, {1}}, "not there in full"},
      {{"Float", "t", 12, 0, 1, {1}, {1}}, "does not fit"},
  };
  float numbers[12] = {0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file = {.size = 0};
    struct ditmoe_checkpoint *checkpoint;
    put_legacy_header(&file);
    PUT(&file, "}");
    put_text(&file, "w");
    put_tensor(&file, &cases[i].view);
    PUT(&file, "s.");
    put_storages(&file, &(struct storage){"s", numbers, 12, 4}, 1);
    assert_fails(
        test_ctx(), DITMOE_FORMAT, cases[i].words,
        checkpoint_open_bytes(test_ctx(), "crafted", file.data, file.size, NULL, &checkpoint));
  }
}

/* Names and rests of an otherwise good legacy file. */
static void test_legacy_details(void **state) {
  (void)state;
  static const struct {
    const char *object, *words;
    size_t size;
    int rest;
  } cases[] = {{"}(K\5hZu.", "instead of a string", 8, 0},
               {"}(X\1\0\0\0ahZX\1\0\0\0ahZu.", "occurs twice", 20, 0},
               {"}(X\1\0\0\0\xffhZu.", "not UTF-8", 12, 0},
               {"}(X\3\0\0\0a\0bhZu.", "control characters", 14, 0},
               {"}(X\1\0\0\0ahZu.", "after the last storage", 12, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes file = {.size = 0};
    struct ditmoe_checkpoint *checkpoint;
    put_legacy_header(&file);
    put_tensor(&file, &(struct view){"Float", "s", 1, 0, 1, {1}, {1}});
    PUT(&file, "qZ0");
    put(&file, cases[i].object, cases[i].size);
    put_storages(&file, &(struct storage){"s", &(float){1}, 1, 4}, 1);
    if (cases[i].rest) PUT(&file, "x");
    assert_fails(
        test_ctx(), DITMOE_FORMAT, cases[i].words,
        checkpoint_open_bytes(test_ctx(), "crafted", file.data, file.size, NULL, &checkpoint));
  }
}

/* A list of n pairs used n times would make n^2 entries. */
static void test_repeated_pairs(void **state) {
  (void)state;
  enum { PAIRS = 30000, SIZE = 1 << 20 };
  struct bytes header = {.size = 0};
  put_legacy_header(&header);
  char *bytes = malloc(SIZE), *end = bytes;
  memcpy(end, header.data, header.size);
  end += header.size;
  end += sprintf(end, "ccollections\nOrderedDict\nqA](");
  for (int i = 0; i < PAIRS; i++) end = (char *)memcpy(end, "NN\x86", 3) + 3;
  end += sprintf(end, "e\x85qB0");
  for (int i = 0; i < PAIRS; i++) end = (char *)memcpy(end, "hAhBR0", 6) + 6;
  *end++ = '.';
  assert_int_equal(open_copy(bytes, (size_t)(end - bytes)), DITMOE_FORMAT);
  assert_non_null(strstr(ditmoe_errmsg(test_ctx()), "too long"));
  free(bytes);
}

/* Every allocation may fail; each failure is reported and nothing stays behind. */
static void test_no_memory(void **state) {
  (void)state;
  for (int i = 0; i < CONTROLS; i++) {
    int64_t at = 0;
    for (bool fired = true; fired; at++) {
      struct ditmoe_ctx *ctx = faulty_ctx(at);
      struct ditmoe_checkpoint *checkpoint = NULL;
      enum ditmoe_status status =
          ditmoe_checkpoint_open(ctx, fixture_path(controls[i]), NULL, &checkpoint);
      fired = faulty_fired();
      assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
      ditmoe_checkpoint_close(checkpoint);
      assert_int_equal(faulty_held(), 0);
      ditmoe_ctx_destroy(ctx);
    }
    assert_true(at > 20);
  }
}

/* The same for an index of shards, and for writing, which leaves no file behind. */
static void test_no_memory_to_write(void **state) {
  (void)state;
  struct ditmoe_checkpoint *control = checkpoint_of(fixture_path("bad/control.safetensors"));
  const char *shard = temporary_path("shard"), *index = temporary_path("index");
  bool fired = true;
  for (int64_t at = 0; fired; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    enum ditmoe_status status = ditmoe_checkpoint_write(ctx, control, shard, "f16", "{}");
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    assert_int_equal(access(shard, F_OK) == 0, !fired);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
  static const char text[] = "{\"weight_map\": {\"pos_embed\": \"shard\"}}";
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), index, text, strlen(text)));
  fired = true;
  for (int64_t at = 0; fired; at++) {
    struct ditmoe_ctx *ctx = faulty_ctx(at);
    struct ditmoe_checkpoint *checkpoint = NULL;
    enum ditmoe_status status = ditmoe_checkpoint_open(ctx, index, NULL, &checkpoint);
    fired = faulty_fired();
    assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
    ditmoe_checkpoint_close(checkpoint);
    assert_int_equal(faulty_held(), 0);
    ditmoe_ctx_destroy(ctx);
  }
  ditmoe_checkpoint_close(control);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_recorded_set),
      cmocka_unit_test(test_truncation),
      cmocka_unit_test(test_mutation),
      cmocka_unit_test(test_pickles),
      cmocka_unit_test(test_views),
      cmocka_unit_test(test_legacy_details),
      cmocka_unit_test(test_repeated_pairs),
      cmocka_unit_test(test_no_memory),
      cmocka_unit_test(test_no_memory_to_write),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

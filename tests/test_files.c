/* Files of wrong kinds, outputs that appear complete or not at all, and configuration files. */
#include "support.h"

#include "io/file.h"
#include "io/formats.h"
#include "io/json.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_kinds(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_checkpoint *checkpoint;
  mkdir(temporary_path("folder"), 0777);
  assert_int_equal(mkfifo(temporary_path("pipe"), 0666), 0);
  assert_int_equal(symlink("loop", temporary_path("loop")), 0);
  const struct {
    const char *path, *words;
  } cases[] = {{temporary_path("folder"), "a folder without"},
               {temporary_path("pipe"), "is a pipe"},
               {temporary_path("loop"), "symbolic link"},
               {"/dev/zero", "is a device"},
               {"/nonexistent/file.pt", "/nonexistent/file.pt: cannot be read: No such file"},
               {"", "No such file"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_fails(ctx, DITMOE_FORMAT, cases[i].words,
                 ditmoe_checkpoint_open(ctx, cases[i].path, NULL, &checkpoint));
  char *huge = calloc(1, 100000);
  memset(huge, 'x', 99999);
  assert_fails(ctx, DITMOE_FORMAT, "too long",
               ditmoe_checkpoint_open(ctx, huge, NULL, &checkpoint));
  free(huge);
}

static void test_strangers(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git-lfs pointer"},
      {"<!DOCTYPE html><html>", "an HTML page"},
      {"<HTML>", "an HTML page"},
      {"GGUF\3", "GGUF"},
      {"\x1f\x8b\x08", "gzip"},
      {"\x93NUMPY\1", "NumPy"},
      {"{\"a\": 1}", "no index of shards"},
      {"{\"abcd\":{}}", "no index of shards"},
      {"PK\3\4", "zip archive"},
      {"\x80\x02K\1.", "not one of torch.save"},
      {"?", "neither a PyTorch nor a safetensors file"},
      {"", "is empty"}};
  struct ditmoe_checkpoint *checkpoint;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_fails(test_ctx(), DITMOE_FORMAT, cases[i][1],
                 checkpoint_open_bytes(test_ctx(), "stranger", cases[i][0], strlen(cases[i][0]),
                                       NULL, &checkpoint));
}

static void test_output(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  struct file_output output;
  size_t size;
  mkdir(temporary_path("out"), 0777);
  const char *path = temporary_path("out/file");
  assert_ok(ctx, ditmoe_file_write(ctx, path, "first", 5));
  assert_ok(ctx, file_output_open(ctx, path, &output));
  fputs("second", output.stream);
  fflush(output.stream);
  char *bytes = file_bytes(path, &size); /* the old content until the new one is complete */
  assert_string_equal(bytes, "first");
  free(bytes);
  file_output_abandon(ctx, &output);
  assert_int_equal(files_in(temporary_path("out")), 1);
  assert_ok(ctx, ditmoe_file_write(ctx, path, "third", 5));
  bytes = file_bytes(path, &size);
  assert_string_equal(bytes, "third");
  free(bytes);
  assert_ok(ctx, ditmoe_file_write(ctx, path, NULL, 0));
  assert_int_equal(files_in(temporary_path("out")), 1);
}

static void test_output_refused(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  static const char bytes[1 << 20];
  mkdir(temporary_path("full"), 0777);
  assert_fails(ctx, DITMOE_OUTPUT, "a folder",
               ditmoe_file_write(ctx, temporary_path("full"), "x", 1));
  assert_fails(ctx, DITMOE_OUTPUT, "/dev/full: cannot be written: it is a device",
               ditmoe_file_write(ctx, "/dev/full", "x", 1));
  assert_fails(ctx, DITMOE_OUTPUT, "No such file",
               ditmoe_file_write(ctx, temporary_path("missing/file"), "x", 1));
  assert_fails(ctx, DITMOE_OUTPUT, "No such file", ditmoe_file_write(ctx, "", "x", 1));
  /* A limit on file sizes stands for a full disk. */
  struct rlimit old, limit;
  getrlimit(RLIMIT_FSIZE, &old);
  limit = (struct rlimit){.rlim_cur = 100000, .rlim_max = old.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  enum ditmoe_status status =
      ditmoe_file_write(ctx, temporary_path("full/file"), bytes, sizeof bytes);
  setrlimit(RLIMIT_FSIZE, &old);
  assert_fails(ctx, DITMOE_OUTPUT, "the disk may be full", status);
  assert_int_equal(files_in(temporary_path("full")), 0);
}

static void test_read(void **state) {
  (void)state;
  struct ditmoe_ctx *ctx = test_ctx();
  const char *path = temporary_path("text");
  char *bytes;
  size_t size;
  assert_ok(ctx, ditmoe_file_write(ctx, path, "12345", 5));
  assert_ok(ctx, file_read(ctx, path, 5, &bytes, &size));
  assert_int_equal(size, 5);
  assert_string_equal(bytes, "12345");
  mem_free(ctx, bytes);
  assert_fails(ctx, DITMOE_FORMAT, "limit of 4", file_read(ctx, path, 4, &bytes, &size));
}

static enum ditmoe_status parse(const char *text, size_t size) {
  cJSON *tree = NULL;
  enum ditmoe_status status = json_parse(test_ctx(), "options", text, size, &tree);
  cJSON_Delete(tree);
  return status;
}

static void test_json(void **state) {
  (void)state;
#define CASE(text, words)                                                                          \
  { text, sizeof(text) - 1, words }
  static const struct {
    const char *text;
    size_t size;
    const char *words;
  } cases[] = {
      CASE("{\"a\": [1, {\"b\": \"\\\"{[\\u00fc\"}], \"A\": null}\n", NULL),
      CASE(" 3 ", NULL),
      CASE("{\"a\": {\"x\": 1}, \"b\": {\"x\": 1}}", NULL),
      CASE("{\"a\": 1, \"b\": {\"x\": 1, \"y\": 2, \"x\": 3}}", "\"x\" occurs twice"),
      CASE("{\"a\": 1, \"\\u0061\": 2}", "\"a\" occurs twice"),
      CASE("", "is empty"),
      CASE("  \n", "is empty"),
      CASE("{\n\"a\": 1,\n}", "line 3"),
      CASE("{\"a\": 1} x", "a syntax error"),
      CASE("{\"a\": 1 // comment\n}", "a syntax error"),
      CASE("{\"a\": NaN}", "a syntax error"),
      CASE("{\"a\": 1e400}", "range of doubles"),
      CASE("\xef\xbb\xbf{}", NULL),
      CASE("\xef\xbb\xbf", "is empty"),
      CASE("\xef\xbb\xbf{\n1}", "line 2"),
      CASE("{\"a\":\xef\xbb\xbf 1}", "a syntax error"),
      CASE("\xff\xfe{\0}\0", "UTF-16"),
      CASE("\xfe\xff\0{\0}", "UTF-16"),
      CASE("{\"a\xff\": 1}", "not UTF-8"),
      CASE("{\"a\": \"\\\xff\"}", "not UTF-8"),
      CASE("{\"a\0\": 1}", "not UTF-8 text"),
      CASE("{\"a\\u0000b\": 1}", "zero character"),
      CASE("{\"a\\\\u0000\": 1}", NULL),
      CASE("\"\\", "a syntax error"),
  };
#undef CASE
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    enum ditmoe_status status = parse(cases[i].text, cases[i].size);
    if (cases[i].words)
      assert_fails(test_ctx(), DITMOE_FORMAT, cases[i].words, status);
    else
      assert_ok(test_ctx(), status);
  }
}

static void test_json_limits(void **state) {
  (void)state;
  enum { SIZE = 1 << 20 };
  char *text = malloc(SIZE + 2);
  memset(text, '[', SIZE / 2);
  memset(text + SIZE / 2, ']', SIZE / 2);
  assert_fails(test_ctx(), DITMOE_FORMAT, "deeper than 64", parse(text, SIZE));
  assert_ok(test_ctx(), parse(text + SIZE / 2 - 64, 128));
  assert_fails(test_ctx(), DITMOE_FORMAT, "deeper than 64", parse(text + SIZE / 2 - 65, 130));
  memset(text, ' ', SIZE);
  text[0] = '1';
  assert_ok(test_ctx(), parse(text, SIZE));
  assert_fails(test_ctx(), DITMOE_FORMAT, "1 MB", parse(text, SIZE + 1));
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_kinds),       cmocka_unit_test(test_strangers),
      cmocka_unit_test(test_output),      cmocka_unit_test(test_output_refused),
      cmocka_unit_test(test_read),        cmocka_unit_test(test_json),
      cmocka_unit_test(test_json_limits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* ditmoe-bench on shapes so small that nobody would time them. */
#include "tests/programs.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY  "--depth 1 --experts 2 --image-size 32 "
#define QUICK "--threads 1 --reps 2 --warm-up 0 --no-share "

/* The lines of JSON that a run printed; cJSON_Delete. */
static cJSON *rows_of(struct outcome outcome) {
  cJSON *rows = cJSON_CreateArray();
  assert_exit(outcome, 0, "");
  for (char *line = strtok(outcome.out, "\n"); line; line = strtok(NULL, "\n")) {
    cJSON *row = cJSON_Parse(line);
    if (!row) fail_msg("not JSON: %s", line);
    cJSON_AddItemToArray(rows, row);
  }
  return rows;
}

static double number(const cJSON *row, const char *name) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, name);
  if (!cJSON_IsNumber(item)) fail_msg("%s is not a number", name);
  return item->valuedouble;
}

static const char *text(const cJSON *row, const char *name) {
  const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, name));
  if (!value) fail_msg("%s is not text", name);
  return value;
}

static bool is_null(const cJSON *row, const char *name) {
  return cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(row, name));
}

/* What every row has. */
static void check_row(const cJSON *row) {
  static const char *const texts[] = {"what", "shape",    "backend", "dtype",  "tier",
                                      "cpu",  "compiler", "commit",  "version"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    assert_int_not_equal(strlen(text(row, texts[i])), 0);
  assert_true(number(row, "threads") >= 1);
  assert_true(number(row, "batch") >= 1);
  assert_true(number(row, "reps") >= 1);
  assert_true(number(row, "ms_median") >= number(row, "ms_min"));
  assert_true(cJSON_HasObjectItem(row, "share_of_peak"));
}

static const cJSON *at(const cJSON *rows, int index) {
  const cJSON *row = cJSON_GetArrayItem(rows, index);
  if (!row) fail_msg("only %d rows", cJSON_GetArraySize(rows));
  return row;
}

static void steps_are_timed(void **state) {
  (void)state;
  cJSON *rows =
      rows_of(run("@bench --step S/2,B/4 --guided --dtype f32,bf16,bf16 --json " TINY QUICK));
  static const char *const types[] = {"f32", "bf16", "bf16"};
  assert_int_equal(cJSON_GetArraySize(rows), 6);
  for (int i = 0; i < 6; i++) {
    const cJSON *row = at(rows, i);
    check_row(row);
    assert_string_equal(text(row, "what"), "step");
    assert_string_equal(text(row, "shape"),
                        i < 3 ? "S/2-2E2A depth 1 32 px guided" : "B/4-2E2A depth 1 32 px guided");
    assert_string_equal(text(row, "dtype"), types[i % 3]);
    assert_true(number(row, "ms_min") > 0 && number(row, "gflops") > 0);
    assert_true(number(row, "gb_per_s") > 0 && is_null(row, "share_of_peak"));
  }
  cJSON_Delete(rows);
}

static void recordings_are_timed(void **state) {
  (void)state;
  static const char *const names[] = {"off",   "off again",        "counts", "counts and weights",
                                      "trace", "trace with scores"};
  cJSON *rows = rows_of(run("@bench --routing --guided --json " TINY "--threads 1 --reps 2"));
  const int count = sizeof names / sizeof *names;
  assert_int_equal(cJSON_GetArraySize(rows), count);
  for (int i = 0; i < count; i++) {
    char shape[80];
    snprintf(shape, sizeof shape, "S/2-2E2A depth 1 32 px guided, %s", names[i]);
    check_row(at(rows, i));
    assert_string_equal(text(at(rows, i), "what"), "routing");
    assert_string_equal(text(at(rows, i), "shape"), shape);
  }
  cJSON_Delete(rows);
}

/* Operations add up to the whole. */
static void a_profile_adds_up(void **state) {
  (void)state;
  cJSON *rows = rows_of(run("@bench --profile --format jsonl " TINY QUICK));
  const cJSON *row;
  double shares = 0, calls = 0;
  const int count = cJSON_GetArraySize(rows);
  cJSON_ArrayForEach(row, rows) {
    check_row(row);
    if (strcmp(text(row, "what"), "profile") != 0) continue;
    assert_string_equal(text(row, "of"), "step");
    shares += number(row, "share_of_whole");
    calls += strcmp(text(row, "operation"), "linear") == 0 ? number(row, "calls") : 0;
  }
  assert_true(count > 15);
  assert_true(calls >= 8);
  assert_string_equal(text(at(rows, count - 3), "operation"), "all operations");
  assert_string_equal(text(at(rows, count - 2), "operation"), "between them");
  assert_string_equal(text(at(rows, count - 1), "operation"), "whole");
  double all = number(at(rows, count - 3), "ms_median"),
         whole = number(at(rows, count - 1), "ms_min");
  assert_true(all > 0 && whole > 0 && number(at(rows, count - 1), "share_of_whole") == 1);
  assert_true(shares > 2.9 &&
              shares < 3.1); /* each operation, all of them and the rest, the whole */
  cJSON_Delete(rows);
}

static void shares_of_a_peak_are_reported(void **state) {
  (void)state;
  cJSON *rows = rows_of(run("@bench --dtype bf16 --reps 1 --warm-up 0 --json " TINY));
  assert_true(number(at(rows, 0), "share_of_peak") > 0);
  assert_true(number(at(rows, 0), "peak_gflops") > number(at(rows, 0), "gflops"));
  cJSON_Delete(rows);
  rows = rows_of(run("@bench --peak --dtype bf16 --reps 1 --warm-up 0 --json"));
  const cJSON *row;
  int ours = 0;
  cJSON_ArrayForEach(row, rows) {
    check_row(row);
    assert_true(number(row, "gflops") > 0);
    ours += strcmp(text(row, "what"), "peak: own") == 0;
  }
  assert_int_equal(ours, 2);
  cJSON_Delete(rows);
}

static void a_checkpoint_is_made_and_loaded(void **state) {
  (void)state;
  struct outcome made = run("@bench --make XL/2 --seed 5 -o xl.safetensors --json " TINY);
  assert_exit(made, 0, "");
  cJSON *object = cJSON_Parse(made.out);
  double parameters = number(object, "parameters");
  assert_string_equal(text(object, "dtype"), "bf16");
  cJSON_Delete(object);
  struct outcome info = run("@info xl.safetensors --model --json");
  assert_exit(info, 0, "");
  object = cJSON_Parse(info.out);
  const cJSON *model = cJSON_GetObjectItemCaseSensitive(object, "model");
  assert_true(number(object, "parameters") == parameters);
  assert_int_equal((int)number(model, "width"), 1152);
  assert_string_equal(text(model, "objective"), "rf");
  cJSON_Delete(object);
  cJSON *rows = rows_of(run("@bench --load xl.safetensors --batch 2 --guided --json"));
  assert_int_equal(cJSON_GetArraySize(rows), 2);
  assert_true(number(at(rows, 0), "file_bytes") > 2 * parameters);
  assert_true(number(at(rows, 1), "peak_rss_bytes") > 1e6);
  assert_true(number(at(rows, 1), "ms_min") > number(at(rows, 0), "ms_min"));
  cJSON_Delete(rows);
  assert_exit(run("@bench --make S/2 --dtype f32 -o s.safetensors " TINY
                  "&& @bench --make S/2 --dtype f32 -o t.safetensors " TINY
                  "&& cmp s.safetensors t.safetensors"),
              0, "");
}

static void decoders_and_runs_are_timed(void **state) {
  (void)state;
  cJSON *rows = rows_of(run("@bench --decoder taesd --image-size 32 --json " QUICK));
  check_row(at(rows, 0));
  assert_true(number(at(rows, 0), "gflops") > 0);
  cJSON_Delete(rows);
  rows = rows_of(run("@bench --decoder --image-size 16 --json " QUICK));
  assert_string_equal(text(at(rows, 0), "shape"), "kl 16 px");
  cJSON_Delete(rows);
  rows = rows_of(
      run("@bench --sample S/2 --decoder taesd --steps 2 --guided --batch 3 --json " TINY QUICK));
  assert_int_equal(cJSON_GetArraySize(rows), 3);
  double parts = number(at(rows, 1), "ms_min") + number(at(rows, 2), "ms_min");
  check_row(at(rows, 0));
  assert_true(number(at(rows, 0), "ms_min") >= 0.99 * parts);
  cJSON_Delete(rows);
}

static void write_text(const char *name, const char *content) {
  FILE *file = fopen(temporary_path(name), "w");
  assert_non_null(file);
  fputs(content, file);
  assert_int_equal(fclose(file), 0);
}

static void operations_are_timed(void **state) {
  (void)state;
  write_text("ops.txt", "# comments, empty lines and blanks are skipped\n\n"
                        "  linear\tN=5 in=16 out=24 bias=1 # so is this\n"
                        "silu N=100\n"
                        "attention N=2 T=4 H=2 d=8 scale=0.5\n"
                        "moe N=2 T=16 E=4 K=2 D=32 F=64 full=1 pattern=empty kinds=gelu");
  cJSON *rows = rows_of(run("@bench --ops ops.txt --dtype f32,bf16 --json " QUICK));
  assert_int_equal(cJSON_GetArraySize(rows), 8);
  for (int i = 0; i < 8; i++) {
    check_row(at(rows, i));
    assert_true(number(at(rows, i), "ms_min") > 0 && number(at(rows, i), "gb_per_s") > 0);
    assert_string_equal(text(at(rows, i), "dtype"), i % 2 ? "bf16" : "f32");
  }
  assert_string_equal(text(at(rows, 0), "what"), "linear");
  assert_string_equal(text(at(rows, 0), "shape"), "N=5 in=16 out=24 bias=1");
  assert_true(is_null(at(rows, 2), "gflops")); /* not a product */
  assert_true(number(at(rows, 6), "gflops") > 0);
  cJSON_Delete(rows);
}

static void wrong_shape_files_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *line, *text;
    int code;
  } cases[] = {
      {"conjure N=1", "bad.txt:2: no operation \"conjure\"", DITMOE_FORMAT},
      {"linear N=1 in=2", "bad.txt:2: linear needs out", DITMOE_FORMAT},
      {"linear N=0 in=2 out=2", "bad.txt:2: linear needs N", DITMOE_FORMAT},
      {"linear N=1 in=2 out", "bad.txt:2: expected key=value", DITMOE_FORMAT},
      {"linear N=1 in=2 out=2x", "bad.txt:2: out", DITMOE_FORMAT},
      {"linear N=1 in=2 out=-2", "bad.txt:2: out", DITMOE_FORMAT},
      {"linear N=1 in=2 out=2 T=4", "bad.txt:2: linear has no key \"T\"", DITMOE_FORMAT},
      {"linear N=1 in=2 out=2 dtype=i8", "bad.txt:2: dtype", DITMOE_FORMAT},
      {"moe N=1 T=1 E=4 K=5 D=8 F=8", "bad.txt:2: moe: K", DITMOE_FORMAT},
      {"moe N=1 T=1 E=999 K=2 D=8 F=8", "bad.txt:2: moe: E", DITMOE_FORMAT},
      {"patchify N=1 C=4 size=9 width=8 patch=2", "bad.txt:2: patchify: size", DITMOE_FORMAT},
      {"patchify N=1 C=4 size=8 width=9 patch=2", "bad.txt:2: patchify: size or width",
       DITMOE_FORMAT},
      {"linear N=4000000 in=4000000 out=4000000", "linear: ", DITMOE_NOMEM},
      {"", "bad.txt: holds no case", DITMOE_FORMAT},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char content[128];
    snprintf(content, sizeof content, "# the second line\n%s\n", cases[i].line);
    write_text("bad.txt", content);
    assert_exit(run("@bench --ops bad.txt " QUICK), cases[i].code, cases[i].text);
  }
  assert_exit(run("@bench --ops missing.txt " QUICK), DITMOE_FORMAT, "missing.txt");
}

/* Every line of them is understood; what they measure takes too long here. */
static void shipped_shapes_are_valid(void **state) {
  (void)state;
  static const char *const names[] = {"dit_moe", "experts"};
  for (int i = 0; i < 2; i++)
    assert_exit(run("(cat @source/bench/shapes/%s.txt; echo end) > all.txt; "
                    "@bench --ops all.txt " QUICK,
                    names[i]),
                DITMOE_FORMAT, "no operation \"end\"");
}

static void results_are_printed_and_written(void **state) {
  (void)state;
  struct outcome table = run("@bench " TINY QUICK);
  assert_exit(table, 0, "");
  assert_non_null(strstr(table.out, "ms min"));
  assert_non_null(strstr(table.out, "compiler"));
  table = run("@bench --format md -o rows.md " TINY QUICK "&& cat rows.md");
  assert_exit(table, 0, "");
  assert_non_null(strstr(table.out, "| what | shape |"));
  assert_non_null(strstr(table.out, "| step | S/2-2E2A depth 1 32 px |"));
  assert_exit(run("@bench -o rows.md " TINY QUICK), DITMOE_OUTPUT, "--force");
  assert_exit(run("@bench -o rows.md --force --json " TINY QUICK "&& grep -q '^{' rows.md"), 0, "");
}

static void wrong_options_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *arguments, *text;
    int code;
  } cases[] = {
      {"--step XXL/2", "XXL/2", DITMOE_USAGE},
      {"--step S/3", "S/3", DITMOE_USAGE},
      {"--step ,", "--step", DITMOE_USAGE},
      {"--step S/2,M/2", "M/2", DITMOE_USAGE},
      {"--dtype f16", "f16", DITMOE_USAGE},
      {"--tier mmx", "mmx", DITMOE_USAGE},
      {"--threads 1,0", "--threads", DITMOE_USAGE},
      {"--top-k 9", "--top-k", DITMOE_USAGE},
      {"--image-size 100", "--image-size", DITMOE_USAGE},
      {"--guided --batch 3", "--batch", DITMOE_USAGE},
      {"--step G/2 --experts 1000", "GiB", DITMOE_NOMEM},
      {"--peak --step S/2", "--peak", DITMOE_USAGE},
      {"--peak --experts 4", "--experts has no effect with --peak", DITMOE_USAGE},
      {"--load x --reps 3", "--reps has no effect with --load", DITMOE_USAGE},
      {"--load missing.pt", "missing.pt", DITMOE_FORMAT},
      {"--load x --dtype f32,bf16", "--load", DITMOE_USAGE},
      {"--decoder vq", "vq", DITMOE_USAGE},
      {"--decoder --batch 2", "--batch", DITMOE_USAGE},
      {"--make S/2", "--output", DITMOE_USAGE},
      {"--make S/2 --dtype f16 -o x", "f16", DITMOE_USAGE},
      {"--make S/2 --json --threads 2 -o x", "--threads", DITMOE_USAGE},
      {"--force", "--force", DITMOE_USAGE},
      {"--json --format md", "--format", DITMOE_USAGE},
      {"-o missing/rows", "missing/rows", DITMOE_OUTPUT},
      {"-o .", "folder", DITMOE_OUTPUT},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    assert_exit(run("@bench %s", cases[i].arguments), cases[i].code, cases[i].text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steps_are_timed),
      cmocka_unit_test(recordings_are_timed),
      cmocka_unit_test(a_profile_adds_up),
      cmocka_unit_test(shares_of_a_peak_are_reported),
      cmocka_unit_test(a_checkpoint_is_made_and_loaded),
      cmocka_unit_test(decoders_and_runs_are_timed),
      cmocka_unit_test(operations_are_timed),
      cmocka_unit_test(wrong_shape_files_are_refused),
      cmocka_unit_test(shipped_shapes_are_valid),
      cmocka_unit_test(results_are_printed_and_written),
      cmocka_unit_test(wrong_options_are_refused),
  };
  return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}

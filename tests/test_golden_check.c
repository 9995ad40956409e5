/* The golden checker itself: it passes folders of fixtures, fails every output tensor that is
 * changed, and everything that it does not know or that nothing was compared with. */
#include "io/checkpoint.h"
#include "io/json.h"
#include "tests/support.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A folder of links to the files of a fixture folder. */
static const char *linked_folder(const char *fixture) {
  static int number;
  static char folder[1024];
  char name[32], from[2048], to[2048];
  snprintf(name, sizeof name, "case%d", number++);
  snprintf(folder, sizeof folder, "%s", temporary_path(name));
  assert_int_equal(mkdir(folder, 0700), 0);
  DIR *files = opendir(fixture_path(fixture));
  assert_non_null(files);
  for (struct dirent *entry; (entry = readdir(files));) {
    if (entry->d_name[0] == '.') continue;
    snprintf(from, sizeof from, "%s/%s", fixture_path(fixture), entry->d_name);
    snprintf(to, sizeof to, "%s/%s", folder, entry->d_name);
    assert_int_equal(symlink(from, to), 0);
  }
  closedir(files);
  return folder;
}

/* Exit status of the checker on a folder; free() its output. */
static int check_with(const char *options, const char *folder, char **output) {
  char command[4096];
  size_t size = 0;
  snprintf(command, sizeof command, "'%s' %s --threads 1 '%s' 2>&1",
           program_path("tests/golden_check"), options, folder);
  FILE *pipe = popen(command, "r");
  assert_non_null(pipe);
  FILE *text = open_memstream(output, &size);
  for (int c; (c = getc(pipe)) != EOF;) putc(c, text);
  fclose(text);
  int status = pclose(pipe);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static int check(const char *folder, char **output) {
  return check_with("--backend ref", folder, output);
}

/* Whether the output has a line that fails and contains `text`. */
static bool fails_at(const char *output, const char *text) {
  for (const char *line = output; line; line = strchr(line, '\n')) {
    line += *line == '\n';
    size_t length = strcspn(line, "\n");
    const char *found = strstr(line, text), *fail = strstr(line, "FAIL");
    if (found && fail && found < line + length && fail < line + length) return true;
  }
  return false;
}

/* Changes the first element of an integer tensor; of a floating one the largest in its first half,
 * which keeps away from the last image: it has the null class and no scores. */
static void *changed(const struct tensor *tensor) {
  const size_t size = dtype_size(tensor->dtype);
  char *copy = malloc((size_t)tensor->elements * size);
  assert_non_null(copy);
  memcpy(copy, tensor->data, (size_t)tensor->elements * size);
  if (tensor->dtype == DT_I64) {
    int64_t first;
    memcpy(&first, copy, sizeof first);
    first = first == 0 ? 1 : first - 1;
    memcpy(copy, &first, sizeof first);
    return copy;
  }
  float largest = 0, value;
  int64_t at = 0;
  assert_int_equal(tensor->dtype, DT_F32);
  for (int64_t i = 0; i < (tensor->elements + 1) / 2; i++) {
    tensor_read_f32(&value, tensor, i, 1);
    if (fabsf(value) > fabsf(largest)) largest = value, at = i;
  }
  value = 1.01f * largest;
  memcpy(copy + (size_t)at * size, &value, size);
  return copy;
}

static bool is_input(const char *name) {
  return !strcmp(name, "z") || !strcmp(name, "y") || !strcmp(name, "y_null");
}

/* Writes `file` into the folder with its results of one type changed; counts them. Integers go
 * apart from floats: scores decide which choices are clear, and weights are those of equal choices.
 */
static int change_file(const char *folder, const char *fixture, const char *file, enum dtype dtype,
                       const char **names) {
  char path[2048];
  int count = 0;
  snprintf(path, sizeof path, "%s/%s", fixture_path(fixture), file);
  struct ditmoe_checkpoint *checkpoint = checkpoint_of(path);
  struct tensor *tensors = calloc(checkpoint->count, sizeof *tensors);
  assert_non_null(tensors);
  for (size_t i = 0; i < checkpoint->count; i++) {
    tensors[i] = checkpoint->tensors[i];
    const char *name = tensors[i].name;
    if (tensors[i].dtype != dtype || is_input(name)) continue;
    tensors[i].data = changed(&tensors[i]);
    names[count++] = strdup(name);
  }
  snprintf(path, sizeof path, "%s/%s", folder, file);
  assert_int_equal(unlink(path), 0);
  assert_ok(test_ctx(),
            safetensors_write(test_ctx(), path, tensors, checkpoint->count, DT_COUNT, NULL, 0));
  for (size_t i = 0; i < checkpoint->count; i++)
    if (tensors[i].data != checkpoint->tensors[i].data) free((void *)tensors[i].data);
  free(tensors);
  ditmoe_checkpoint_close(checkpoint);
  return count;
}

static void expect_failures(const char *fixture, const char *file, enum dtype dtype) {
  const char *names[128];
  char *output, line[256];
  const char *folder = linked_folder(fixture);
  const int count = change_file(folder, fixture, file, dtype, names);
  const int status = check(folder, &output);
  if (count > 0) assert_int_equal(status, 1);
  for (int i = 0; i < count; i++) {
    snprintf(line, sizeof line, "%s:%s ", file, names[i]);
    if (!fails_at(output, line)) fail_msg("%s: the changed %s passes\n%s", fixture, line, output);
    free((char *)names[i]);
  }
  free(output);
}

static void test_changed_tensors_fail(void **state) {
  static const struct {
    const char *fixture;
    bool sampled;
  } cases[] = {{"promoe/promoe_tc", true},
               {"promoe/promoe_ec", true},
               {"promoe/diffmoe", true},
               {"promoe/ecdit_swiglu_shared", false},
               {"promoe/tcdit_swiglu_shared", false}};
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    expect_failures(cases[i].fixture, "outputs.safetensors", DT_I64);
    expect_failures(cases[i].fixture, "outputs.safetensors", DT_F32);
    if (cases[i].sampled) expect_failures(cases[i].fixture, "sample10.safetensors", DT_F32);
  }
}

/* Edits of a manifest, and what the failing line says. */

static void set_text(cJSON *object, const char *key, const char *text) {
  assert_true(cJSON_ReplaceItemInObjectCaseSensitive(object, key, cJSON_CreateString(text)));
}

static cJSON *first_of(cJSON *manifest, const char *list) {
  return cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(manifest, list), 0);
}

static void edit_kind(cJSON *m) { set_text(m, "kind", "hologram"); }
static void edit_function(cJSON *m) { set_text(first_of(m, "calls"), "function", "backward"); }
static void edit_sampler(cJSON *m) { set_text(first_of(m, "runs"), "sampler", "leapfrog"); }
static void edit_output(cJSON *m) { set_text(first_of(m, "calls"), "output", "nothing"); }
static void edit_weights(cJSON *m) { set_text(m, "weights", "inputs.safetensors"); }
static void drop_call(cJSON *m) {
  cJSON_DeleteItemFromArray(cJSON_GetObjectItemCaseSensitive(m, "calls"), 1);
}
static void drop_runs(cJSON *m) { cJSON_DeleteItemFromObjectCaseSensitive(m, "runs"); }
static void drop_intermediates(cJSON *m) {
  cJSON_DeleteItemFromObjectCaseSensitive(first_of(m, "calls"), "intermediates");
}
static void add_tensor(cJSON *m) {
  cJSON *files = cJSON_GetObjectItemCaseSensitive(m, "files");
  cJSON *file = cJSON_GetObjectItemCaseSensitive(files, "outputs.safetensors");
  cJSON_AddObjectToObject(cJSON_GetObjectItemCaseSensitive(file, "tensors"), "ghost");
}
static void add_file(cJSON *m) {
  cJSON_AddObjectToObject(cJSON_GetObjectItemCaseSensitive(m, "files"), "ghost.safetensors");
}
static void equal_weights(cJSON *m) {
  cJSON *other;
  cJSON_ArrayForEach(other, cJSON_GetObjectItemCaseSensitive(m, "weights_also"))
      cJSON_ReplaceItemInObjectCaseSensitive(other, "equal", cJSON_CreateTrue());
}

static const char PROMOE[] = "promoe/promoe_tc", DIT_MOE[] = "dit_moe/c_flash_qknorm";

static const struct {
  const char *fixture;
  void (*edit)(cJSON *manifest);
  const char *expected;
} edits[] = {
    {PROMOE, edit_kind, "hologram"},
    {PROMOE, edit_function, "backward"},
    {PROMOE, edit_sampler, "leapfrog"},
    {PROMOE, edit_output, "nothing"},
    {PROMOE, edit_weights, "inputs"},
    {PROMOE, drop_call, "outputs.safetensors:out_cond "},
    {PROMOE, drop_runs, "final_cfg1.5 "},
    {PROMOE, drop_intermediates, "outputs.safetensors:topk_idx.1 "},
    {PROMOE, add_tensor, "ghost"},
    {PROMOE, add_file, "ghost"},
    {DIT_MOE, equal_weights, "bare_bf16.pt:same bits"},
};

static void write_manifest(const char *folder, const cJSON *manifest) {
  char path[2048];
  char *text = cJSON_Print(manifest);
  assert_non_null(text);
  snprintf(path, sizeof path, "%s/manifest.json", folder);
  assert_int_equal(unlink(path), 0);
  assert_ok(test_ctx(), ditmoe_file_write(test_ctx(), path, text, strlen(text)));
  cJSON_free(text);
}

static void test_edited_manifests_fail(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
    cJSON *manifest = NULL;
    char *output;
    char path[256];
    const char *folder = linked_folder(edits[i].fixture);
    snprintf(path, sizeof path, "%s/manifest.json", edits[i].fixture);
    assert_ok(test_ctx(), json_read(test_ctx(), fixture_path(path), &manifest));
    edits[i].edit(manifest);
    write_manifest(folder, manifest);
    int status = check(folder, &output);
    if (status != 1 || !fails_at(output, edits[i].expected))
      fail_msg("edit %zu: exit status %d, no failure at \"%s\"\n%s", i, status, edits[i].expected,
               output);
    free(output);
    cJSON_Delete(manifest);
  }
}

static void test_unchanged_folder_passes(void **state) {
  char *output;
  (void)state;
  assert_int_equal(check(linked_folder(PROMOE), &output), 0);
  assert_non_null(strstr(output, ", 0 failed\n"));
  free(output);
}

/* Writes weights whose attention is `factor` sharper in q, k and v. */
static void sharpen(const char *folder, const char *fixture, float factor) {
  char path[2048];
  snprintf(path, sizeof path, "%s/bare.safetensors", fixture_path(fixture));
  struct ditmoe_checkpoint *checkpoint = checkpoint_of(path);
  struct tensor *tensors = calloc(checkpoint->count, sizeof *tensors);
  assert_non_null(tensors);
  for (size_t i = 0; i < checkpoint->count; i++) {
    tensors[i] = checkpoint->tensors[i];
    if (!strstr(tensors[i].name, "attn.qkv.weight")) continue;
    float *values = tensor_f32(checkpoint, tensors[i].name, NULL);
    for (int64_t j = 0; j < tensors[i].elements; j++) values[j] *= factor;
    tensors[i].data = values;
  }
  snprintf(path, sizeof path, "%s/bare.safetensors", folder);
  assert_int_equal(unlink(path), 0);
  assert_ok(test_ctx(),
            safetensors_write(test_ctx(), path, tensors, checkpoint->count, DT_COUNT, NULL, 0));
  for (size_t i = 0; i < checkpoint->count; i++)
    if (tensors[i].data != checkpoint->tensors[i].data) free((void *)(uintptr_t)tensors[i].data);
  free(tensors);
  ditmoe_checkpoint_close(checkpoint);
}

/* bf16 is near f32 on a fixture, and far where attention amplifies every rounding. */
static void test_bf16(void **state) {
  (void)state;
  char *output;
  assert_int_equal(check_with("--dtype bf16 --backend ref", linked_folder(PROMOE), &output), 0);
  assert_non_null(strstr(output, "outputs.safetensors:out, plans of f32"));
  assert_non_null(strstr(output, "sample10.safetensors:final_cfg1.5, plans of f32"));
  assert_non_null(strstr(output, ", 0 failed\n"));
  free(output);
  const char *folder = linked_folder(PROMOE);
  sharpen(folder, PROMOE, 20);
  assert_int_equal(check_with("--dtype bf16 --backend ref", folder, &output), 1);
  assert_true(fails_at(output, "outputs.safetensors:out, plans of f32"));
  assert_true(fails_at(output, "outputs.safetensors:out_cond, "));
  free(output);
}

/* All tiers by default; one that is missing is no failure, one that does not exist is. */
static void test_tiers(void **state) {
  (void)state;
  char *output, options[64];
  assert_int_equal(check_with("--dtype bf16", fixture_path("vae/taesd"), &output), 0);
  for (int i = 0; i < TIERS; i++) {
    char *one;
    snprintf(options, sizeof options, "--dtype bf16 --tier %s", tiers[i]);
    int status = check_with(options, fixture_path("vae/taesd"), &one);
    if (status != 0) assert_int_equal(status, 77);
    snprintf(options, sizeof options, status == 0 ? "tier %s," : "processor has no %s;", tiers[i]);
    assert_non_null(strstr(one, options));
    assert_non_null(strstr(output, options));
    free(one);
  }
  free(output);
  assert_int_equal(check_with("--tier sse", fixture_path("vae/taesd"), &output), 1);
  free(output);
  assert_int_equal(check_with("--dtype bf16", fixture_path("rng"), &output), 0);
  assert_non_null(strstr(output, "nothing to compute in bf16"));
  free(output);
}

static void test_missing_folder_and_wrong_option(void **state) {
  char *output;
  (void)state;
  assert_int_equal(check(temporary_path("nowhere"), &output), 1);
  free(output);
  assert_int_equal(check("--frobnicate", &output), 2);
  free(output);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_unchanged_folder_passes),
      cmocka_unit_test(test_changed_tensors_fail),
      cmocka_unit_test(test_edited_manifests_fail),
      cmocka_unit_test(test_bf16),
      cmocka_unit_test(test_tiers),
      cmocka_unit_test(test_missing_folder_and_wrong_option),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* --preset: every row gives its protocol to a small model of its family, and is in the docs. */
#include "tests/programs.h"

#include "io/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Small models, by the beginning of the preset's name. */
static const struct model {
  const char *preset, *arguments;
} models[] = {
    {"dit-xl", "-m @fixtures/diffusers_dit/facebook_dit/DiT-tiny.safetensors --heads 4"},
    {"dit-moe-s",
     "-m @fixtures/dit_moe/b_mixed/bare.safetensors --heads 6 --top-k 1 --objective ddpm"},
    {"dit-moe-b",
     "-m @fixtures/dit_moe/b_mixed/bare.safetensors --heads 6 --top-k 1 --objective ddpm"},
    {"dit-moe-",
     "-m @fixtures/dit_moe/b_mixed/bare.safetensors --heads 6 --top-k 1 --objective rf"},
    {"promoe",
     "-m @fixtures/promoe/promoe_tc/bare.safetensors --kind promoe-tc --objective rf --heads 4 "
     "--top-k 1 --router-weight-mode identity"},
    {"sit", "-m @fixtures/sit/sit_tiny/bare.safetensors --heads 4"},
    {"repa", "-m @fixtures/repa/repa_tiny/last.pt --heads 4"},
    {"lightningdit", "-m @fixtures/lightningdit/ldit_tiny/bare.safetensors --heads 4"},
};

static const char *model_of(const char *preset) {
  for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
    if (strncmp(preset, models[i].preset, strlen(models[i].preset)) == 0)
      return models[i].arguments;
  fail_msg("no model for --preset %s", preset);
  return NULL;
}

static const char *member(const cJSON *object, const char *name) {
  return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

/* The value of NAME in "NAME=VALUE ..." */
static void setting_of(const char *settings, const char *name, char out[32]) {
  const char *at = strstr(settings, name);
  assert_non_null(at);
  snprintf(out, 32, "%.*s", (int)strcspn(at + strlen(name), " "), at + strlen(name));
}

static cJSON *list_presets(void) {
  cJSON *list = cJSON_Parse(run("@sample --list-presets --json").out);
  assert_true(cJSON_GetArraySize(list) >= 16);
  return list;
}

static void every_preset_plans(void **state) {
  (void)state;
  cJSON *list = list_presets();
  const cJSON *preset;
  cJSON_ArrayForEach(preset, list) {
    const char *name = member(preset, "name"), *settings = member(preset, "settings");
    char sampler[32], steps[32], expected[64];
    setting_of(settings, "sampler=", sampler);
    setting_of(settings, "steps=", steps);
    struct outcome plan =
        run("@sample %s --preset %s --vae none --dry-run --json", model_of(name), name);
    assert_exit(plan, 0, "");
    snprintf(expected, sizeof expected, "\"sampler\": \"%s\"", sampler);
    assert_non_null(strstr(plan.out, expected));
    const bool points = strstr(settings, "family=lightningdit") ||
                        (strstr(settings, "family=sit") && strcmp(sampler, "heun") == 0);
    snprintf(expected, sizeof expected, "\"steps\": %d,", atoi(steps) - points);
    assert_non_null(strstr(plan.out, expected));
    assert_non_null(strstr(plan.out, "\"images\": 50000"));
    assert_non_null(strstr(plan.err, "is for a model of width"));
  }
  cJSON_Delete(list);
}

static void docs_have_every_preset(void **state) {
  (void)state;
  cJSON *list = list_presets();
  char *page = file_bytes(source_path("docs/PRESETS.md"), NULL);
  const cJSON *preset;
  cJSON_ArrayForEach(preset, list) {
    char quoted[64];
    const char *result = member(preset, "result");
    snprintf(quoted, sizeof quoted, "`%s`", member(preset, "name"));
    const char *row = strstr(page, quoted);
    if (!row) fail_msg("docs/PRESETS.md does not mention %s", quoted);
    const char *end = strchr(row, '\n'), *found = result ? strstr(row, result) : row;
    if (!found || found > end) fail_msg("docs/PRESETS.md has another result for %s", quoted);
  }
  free(page);
  cJSON_Delete(list);
}

#define SIT                                                                                        \
  "@sample -m @fixtures/sit/sit_tiny/bare.safetensors --heads 4 --vae none --progress none -q "    \
  "--format png "

/* Explicit options win, the preset is in the metadata, and the image can be made again. */
static void presets_are_recorded(void **state) {
  (void)state;
  assert_exit(run(SIT "--preset sit-xl-2-256 --steps 4 -c 1,2 -o a/"), 0, "");
  assert_exit(run("test -f a/000001.png -a ! -f a/000002.png"), 0, "");
  const struct outcome settings = run("cat a/run.json");
  assert_non_null(strstr(settings.out, "\"preset\":\t\"sit-xl-2-256\""));
  assert_non_null(strstr(settings.out, "\"steps\":\t\"4\""));
  assert_non_null(strstr(settings.out, "\"cfg-scale\":\t\"1.5\""));
  assert_non_null(strstr(settings.out, "\"sampler\":\t\"sde\""));
  assert_exit(run("@sample --reproduce a/000001.png -q --progress none -o b/"), 0, "");
  assert_exit(run("cmp a/000001.png b/000001.png"), 0, "");
  /* The same by hand. */
  assert_exit(run(SIT "--family sit --sampler sde --cfg-scale 1.5 --steps 4 -c 1,2 "
                      "--disable-image-metadata -o c/"),
              0, "");
  assert_exit(run(SIT "--preset sit-xl-2-256 --steps 4 -c 1,2 --disable-image-metadata -o d/"), 0,
              "");
  assert_exit(run("cmp c/000001.png d/000001.png"), 0, "");
}

/* Bare dense weights are refused until something tells whose they are; a wrong preset is, too. */
static void untold_models_are_refused(void **state) {
  (void)state;
  assert_exit(run(SIT "-n 1 --steps 4 -o e/"), 2, "give --family, --preset or --objective");
  assert_exit(run(SIT "-n 1 --steps 4 --objective rf -o e/"), 2, "--time-direction");
  assert_exit(run(SIT "-n 1 --steps 4 --preset promoe-b -o e/"), 4, "not of family promoe");
  assert_exit(run(SIT "-n 1 --steps 4 --preset sit-xl-2-256 --objective ddpm -o e/"), 2,
              "family sit has another \"objective\"");
}

/* An image depends on (seed, index) alone, whatever the batch. */
static void stochastic_images_stand_alone(void **state) {
  (void)state;
  assert_exit(run(SIT "--preset sit-xl-2-256 --steps 4 -c 1,2,3 -b 3 -o f/"), 0, "");
  assert_exit(run(SIT "--preset sit-xl-2-256 --steps 4 -c 1,2,3 -b 1 -t 1 -o g/"), 0, "");
  assert_exit(run("cmp f/000002.png g/000002.png"), 0, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_preset_plans),
      cmocka_unit_test(docs_have_every_preset),
      cmocka_unit_test(presets_are_recorded),
      cmocka_unit_test(untold_models_are_refused),
      cmocka_unit_test(stochastic_images_stand_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

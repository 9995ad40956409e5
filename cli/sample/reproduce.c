/* --reproduce: settings out of the metadata of a PNG. The entry "ditmoe" is JSON that
 * sample_metadata wrote; since anybody may have edited it, every member is checked like a command
 * line. */
#include "cli/sample/sample.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { METADATA_MAX_BYTES = 1 << 20 };

bool sample_selected(const struct sample *run, int64_t index) {
  return !run->settings.reproduce || run->origin.index < 0 || index == run->origin.index;
}

int64_t sample_selected_count(const struct sample *run) {
  return run->settings.reproduce && run->origin.index >= 0 ? 1 : run->labels.count;
}

void sample_origin_free(struct sample_origin *origin) {
  free(origin->model);
  free(origin->vae);
  free(origin->model_sha256);
  free(origin->vae_sha256);
  free(origin->record);
  free(origin->unit.classes);
  *origin = (struct sample_origin){0};
}

static enum ditmoe_status malformed(const struct sample *run, const char *member) {
  return report_error(DITMOE_FORMAT, "%s: its settings have no proper \"%s\"",
                      run->settings.reproduce, member);
}

/* Members. */

static const cJSON *get(const cJSON *object, const char *name) {
  return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool get_whole(const cJSON *item, double high, int64_t *out) {
  if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= high)) return false;
  *out = (int64_t)item->valuedouble;
  return (double)*out == item->valuedouble;
}

/* {"path": ..., "sha256": ...} */
static bool get_file(const cJSON *object, char **path, char **sha256) {
  const char *p = cJSON_GetStringValue(get(object, "path"));
  const char *digest = cJSON_GetStringValue(get(object, "sha256"));
  if (!p || !digest || strlen(digest) != 64) return false;
  *path = text_copy(p);
  *sha256 = text_copy(digest);
  return true;
}

static bool get_unit(const cJSON *object, struct sample_labels *unit) {
  const cJSON *labels = get(object, "labels"), *item;
  if (!get_whole(get(object, "first"), 1e15, &unit->first) || !cJSON_IsArray(labels)) return false;
  unit->count = cJSON_GetArraySize(labels);
  unit->total = unit->first + unit->count;
  unit->rule = LABELS_GIVEN;
  unit->class_count = unit->count;
  unit->classes = memory_get((size_t)unit->count, sizeof *unit->classes);
  int32_t *out = unit->classes;
  cJSON_ArrayForEach(item, labels) {
    int64_t label;
    if (!get_whole(item, INT32_MAX, &label)) return false;
    *out++ = (int32_t)label;
  }
  return unit->count > 0;
}

static enum ditmoe_status read_members(struct sample *run, const cJSON *object) {
  struct sample_origin *origin = &run->origin;
  const cJSON *index = get(object, "index"), *vae = get(object, "vae"),
              *record = get(object, "record");
  origin->index = -1;
  origin->force = cJSON_IsTrue(get(object, "force"));
  if (!get_file(get(object, "model"), &origin->model, &origin->model_sha256))
    return malformed(run, "model");
  if (!cJSON_IsNull(vae) && !get_file(vae, &origin->vae, &origin->vae_sha256))
    return malformed(run, "vae");
  if (!get_unit(get(object, "unit"), &origin->unit)) return malformed(run, "unit");
  if (index && !get_whole(index, 1e15, &origin->index)) return malformed(run, "index");
  int64_t at = origin->index - origin->unit.first;
  if (index && (at < 0 || at >= origin->unit.count)) return malformed(run, "index");
  if (record) origin->record = json_text(record, false);
  return DITMOE_OK;
}

/* Options. */

/* What the user gave must agree with the image; with --force it wins. */
static enum ditmoe_status merge(struct sample *run, const struct option *option,
                                const char *value) {
  if (option_source(&run->options, option) != FROM_USER) {
    if (!value) return DITMOE_OK;
    bool read = option_set(&run->options, option, value, option->name, FROM_IMAGE) == DITMOE_OK;
    return read ? DITMOE_OK : malformed(run, option->name);
  }
  char *given = option_value(&run->options, option);
  enum ditmoe_status status = DITMOE_OK;
  if ((!value || strcmp(given, value) != 0) && !run->settings.force)
    status = report_error(DITMOE_USAGE, "--%s %s contradicts %s, which has %s; --force insists",
                          option->name, given, run->settings.reproduce, value ? value : "none");
  free(given);
  return status;
}

static enum ditmoe_status read_options(struct sample *run, const cJSON *settings) {
  const struct option *option;
  const cJSON *item;
  cJSON_ArrayForEach(item, settings) {
    option = option_find(&sample_program, item->string, strlen(item->string));
    if (!option || !(option->traits & OPTION_DECIDES) || !cJSON_IsString(item))
      return malformed(run, item->string);
  }
  for (size_t i = 0; (option = option_at(&sample_program, i)); i++)
    if (option->traits & OPTION_DECIDES)
      TRY(merge(run, option, cJSON_GetStringValue(get(settings, option->name))));
  return DITMOE_OK;
}

/* Options that choose what the image already says. */
static enum ditmoe_status refuse_others(const struct sample *run) {
  static const char *const names[] = {"class",          "class-file",  "num-samples",
                                      "label-sampling", "index-range", "allow-null",
                                      "record",         "resume",      "latents-stats"};
  const struct option *option;
  for (size_t i = 0; (option = option_at(&sample_program, i)); i++) {
    bool refused = option->traits & OPTION_IN_RECORD;
    for (size_t j = 0; j < sizeof names / sizeof names[0]; j++)
      refused = refused || strcmp(option->name, names[j]) == 0;
    if (refused && option_source(&run->options, option) == FROM_USER)
      return report_error(DITMOE_USAGE,
                          "--%s contradicts --reproduce, which takes it from the image",
                          option->name);
  }
  return DITMOE_OK;
}

static enum ditmoe_status set_file(struct sample *run, const char *name, const char *path) {
  const struct option *option = option_find(&sample_program, name, strlen(name));
  if (option_source(&run->options, option) == FROM_USER) return DITMOE_OK;
  if (strcmp(path, "none") != 0 && access(path, R_OK) != 0)
    return report_error(DITMOE_FORMAT, "%s: was made with %s, which is not here; give --%s",
                        run->settings.reproduce, path, name);
  return option_set(&run->options, option, path, name, FROM_IMAGE);
}

enum ditmoe_status sample_read_image(struct sample *run) {
  const char *path = run->settings.reproduce;
  TRY(refuse_others(run));
  char *text = memory_get(METADATA_MAX_BYTES, 1);
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_image_text(run->ctx, path, "ditmoe", text, METADATA_MAX_BYTES));
  cJSON *object = status == DITMOE_OK ? cJSON_Parse(text) : NULL;
  free(text);
  TRY(status);
  status = cJSON_IsObject(object) ? read_members(run, object) : malformed(run, "ditmoe");
  if (status == DITMOE_OK) status = read_options(run, get(object, "options"));
  const char *version = cJSON_GetStringValue(get(object, "version"));
  if (status == DITMOE_OK && (!version || strcmp(version, DITMOE_VERSION) != 0))
    report_warning("%s: was made by version %s, this is %s", path, version ? version : "unknown",
                   DITMOE_VERSION);
  cJSON_Delete(object);
  TRY(status);
  TRY(set_file(run, "model", run->origin.model));
  return set_file(run, "vae", run->origin.vae ? run->origin.vae : "none");
}

static enum ditmoe_status same_file(const struct sample *run, const char *path,
                                    const char *expected, const char *found) {
  if (strcmp(expected ? expected : "", found) == 0) return DITMOE_OK;
  if (run->settings.force) {
    report_warning("%s: not the file that %s was made with", path, run->settings.reproduce);
    return DITMOE_OK;
  }
  return report_error(DITMOE_MISMATCH,
                      "%s: not the file that %s was made with (SHA-256 %.10s, expected %.10s); "
                      "--force uses it",
                      path, run->settings.reproduce, *found ? found : "none",
                      expected ? expected : "none");
}

enum ditmoe_status sample_verify_origin(struct sample *run) {
  TRY(sample_hash_finish(run));
  TRY(same_file(run, run->settings.model, run->origin.model_sha256, run->model_sha256));
  return same_file(run, run->vae_path ? run->vae_path : "--vae none", run->origin.vae_sha256,
                   run->vae_sha256);
}

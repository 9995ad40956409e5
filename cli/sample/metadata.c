/* What an image says about itself, what a run must be to go on, and the JSON that both have. */
#include "cli/sample/work.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const char PIXEL_FORMULA[] = "trunc(clamp(127.5 x + 128, 0, 255))";
static const char LEVEL_FORMULA[] = "round(clamp(255 (x + 1) / 2, 0, 255))"; /* of images */

cJSON *sample_options_json(const struct sample *run, unsigned traits) {
  const struct option *option;
  cJSON *object = cJSON_CreateObject();
  for (size_t i = 0; (option = option_at(&sample_program, i)); i++) {
    char *value =
        traits == 0 || option->traits & traits ? option_value(&run->options, option) : NULL;
    if (value) cJSON_AddStringToObject(object, option->name, value);
    free(value);
  }
  return object;
}

void sample_add_model(const struct sample *run, cJSON *object) {
  cJSON *model = cJSON_AddObjectToObject(object, "model");
  cJSON_AddStringToObject(model, "path", run->settings.model);
  cJSON_AddStringToObject(model, "sha256", run->model_sha256);
  cJSON_AddStringToObject(model, "kind", run->info.kind);
  cJSON_AddStringToObject(model, "objective", run->info.objective);
  if (!run->decoder) {
    cJSON_AddNullToObject(object, "vae");
  } else {
    cJSON *vae = cJSON_AddObjectToObject(object, "vae");
    cJSON_AddStringToObject(vae, "path", run->vae_path);
    cJSON_AddStringToObject(vae, "sha256", run->vae_sha256);
    cJSON_AddStringToObject(vae, "kind", run->decoder_info.kind);
  }
}

void sample_add_execution(const struct sample *run, cJSON *object) {
  cJSON_AddStringToObject(object, "dtype", run->info.dtype);
  cJSON_AddStringToObject(object, "backend", run->info.backend);
  cJSON_AddStringToObject(object, "tier", run->info.tier);
  cJSON_AddStringToObject(object, "pixels", run->info.pixels ? LEVEL_FORMULA : PIXEL_FORMULA);
}

void sample_add_program(cJSON *object) {
  cJSON_AddNumberToObject(object, "schema", 1);
  cJSON_AddStringToObject(object, "program", "ditmoe-sample");
  cJSON_AddStringToObject(object, "version", DITMOE_VERSION);
}

void sample_add_class(const struct sample *run, cJSON *object, int32_t label) {
  char *title = class_title(&run->classes, label);
  cJSON_AddNumberToObject(object, "label", label);
  cJSON_AddStringToObject(object, "class", title);
  free(title);
}

/* Images. */

/* The indices that an image depends on: itself, its block, or for the grid all of it. */
static void find_unit(const struct sample *run, int64_t index, int64_t *first, int64_t *count) {
  const struct sample_labels *labels = &run->labels;
  *first = index < 0 ? labels->first : index / run->unit * run->unit;
  *count = labels->first + labels->count - *first;
  int64_t most = index < 0 ? run->grid.count : run->unit;
  if (*count > most) *count = most;
}

/* Whether the sampler is one for models of the other objective. */
static bool is_forced(const struct sample *run) {
  int i = 0;
  while (strcmp(ditmoe_sampler_name(i), run->plan.sampler) != 0) i++;
  return strcmp(ditmoe_sampler_objective(i), run->info.objective) != 0;
}

static char *image_json(const struct sample *run, int64_t index) {
  int64_t first, count;
  find_unit(run, index, &first, &count);
  int32_t *labels = sample_label_list(run, first, count);
  cJSON *object = cJSON_CreateObject();
  sample_add_program(object);
  if (index >= 0) {
    json_add_whole(object, "index", (uint64_t)index);
    sample_add_class(run, object, sample_label(run, index));
  }
  json_add_whole(object, "seed", run->settings.seed);
  cJSON_AddItemToObject(object, "options", sample_options_json(run, OPTION_DECIDES));
  if (run->record) cJSON_AddRawToObject(object, "record", run->record);
  cJSON_AddBoolToObject(object, "force", is_forced(run));
  cJSON *out = cJSON_AddObjectToObject(object, "unit");
  json_add_whole(out, "first", (uint64_t)first);
  cJSON_AddItemToObject(out, "labels", cJSON_CreateIntArray(labels, (int)count));
  free(labels);
  sample_add_model(run, object);
  sample_add_execution(run, object);
  char *text = json_text(object, false);
  cJSON_Delete(object);
  return text;
}

/* The form that programs for web interfaces read: a line of prompt, then "Name: value" pairs. */
static char *image_parameters(const struct sample *run, int64_t index) {
  int32_t label = index < 0 ? 0 : sample_label(run, index);
  char *title = class_title(&run->classes, label), *stem = path_stem(run->settings.model);
  char *first = index < 0 ? text_format("grid of %lld images", (long long)run->grid.count)
                          : text_format("class %d %s", label, title);
  char *scale = text_number(run->settings.cfg_scale);
  char *text = text_format(
      "%s\nSteps: %d, Sampler: %s, CFG scale: %s%s, Seed: %llu, Size: %dx%d, Model: %s, "
      "Model hash: %.10s, RNG: %s, Version: ditmoe %s",
      first, run->plan.steps, run->plan.sampler, scale, strpbrk(scale, ".e") ? "" : ".0",
      (unsigned long long)run->settings.seed, run->width, run->height, text_sanitize(stem),
      run->model_sha256, run->settings.rng, DITMOE_VERSION);
  char *utf8 = text_utf8(text);
  free(title);
  free(stem);
  free(first);
  free(scale);
  free(text);
  return utf8;
}

void sample_metadata(const struct sample *run, int64_t index, char **parameters, char **json) {
  *parameters = image_parameters(run, index);
  *json = image_json(run, index);
}

/* The identity of a run. */

static void add(cJSON *identity, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(cJSON *identity, const char *name, const char *format, ...) {
  char text[160];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  cJSON_AddStringToObject(identity, name, text);
}

static unsigned crc_of_classes(const struct sample_labels *labels) {
  uLong crc = crc32(0, NULL, 0);
  for (int64_t i = 0; i < labels->class_count; i++) {
    char text[16];
    int length = snprintf(text, sizeof text, "%d,", labels->classes[i]);
    crc = crc32(crc, (const Bytef *)text, (uInt)length);
  }
  return (unsigned)crc;
}

cJSON *sample_identity(const struct sample *run) {
  const struct sample_labels *labels = &run->labels;
  const char *record = ditmoe_model_record(run->model);
  int64_t end = labels->first + labels->count;
  char *name = sample_file_name(&run->names, labels->first);
  cJSON *identity = sample_options_json(run, OPTION_DECIDES | OPTION_IN_RECORD | OPTION_OF_RUN);
  add(identity, "version", "%s", DITMOE_VERSION);
  add(identity, "model-sha256", "%s", run->model_sha256);
  add(identity, "vae-sha256", "%s", run->decoder ? run->vae_sha256 : "none");
  add(identity, "record-crc32", "%08x",
      (unsigned)crc32(0, (const Bytef *)record, (uInt)strlen(record)));
  add(identity, "num-samples", "%lld", (long long)labels->total);
  add(identity, "index-range", "%lld:%lld", (long long)labels->first, (long long)end);
  add(identity, "label-sampling", "%s", sample_label_rule(run));
  add(identity, "classes", "%lld", (long long)labels->class_count);
  add(identity, "classes-crc32", "%08x", crc_of_classes(labels));
  add(identity, "output", "%s", strrchr(name, '.') + 1);
  if (!run->names.npz)
    add(identity, "image-metadata", "%s", run->settings.disable_image_metadata ? "false" : "true");
  free(name);
  return identity;
}

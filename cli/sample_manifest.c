/* What a run says about itself: the metadata of an image, and the manifest beside the images. */
#include "cli/sample.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static const char PIXEL_FORMULA[] = "trunc(clamp(127.5 x + 128, 0, 255))";

void sample_time(char text[32]) {
  time_t now = time(NULL);
  struct tm utc;
  gmtime_r(&now, &utc);
  strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static char *print_json(cJSON *json, bool pretty) {
  char *text = pretty ? cJSON_Print(json) : cJSON_PrintUnformatted(json);
  cJSON_Delete(json);
  if (!text) exit((int)report_error(DITMOE_NOMEM, "not enough memory"));
  return text;
}

static void add_whole(cJSON *object, const char *name, uint64_t value) {
  char *text = text_format("%llu", (unsigned long long)value);
  cJSON_AddRawToObject(object, name, text);
  free(text);
}

/* Options with any of these traits (0: all) that have a value, as text. */
static cJSON *options_json(const struct sample *run, unsigned traits) {
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

static cJSON *sources_json(const struct sample *run) {
  const struct option *option;
  cJSON *object = cJSON_CreateObject();
  for (size_t i = 0; (option = option_at(&sample_program, i)); i++) {
    enum option_source source = option_source(&run->options, option);
    if (source > FROM_PRESET)
      cJSON_AddStringToObject(object, option->name, option_source_name(source));
  }
  return object;
}

static void add_model(const struct sample *run, cJSON *object) {
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

static void add_execution(const struct sample *run, cJSON *object) {
  cJSON_AddStringToObject(object, "dtype", run->info.dtype);
  cJSON_AddStringToObject(object, "backend", run->info.backend);
  cJSON_AddStringToObject(object, "tier", run->info.tier);
  cJSON_AddStringToObject(object, "pixels", PIXEL_FORMULA);
}

static void add_identity(cJSON *object) {
  cJSON_AddNumberToObject(object, "schema", 1);
  cJSON_AddStringToObject(object, "program", "ditmoe-sample");
  cJSON_AddStringToObject(object, "version", DITMOE_VERSION);
}

static void add_class(const struct sample *run, cJSON *object, int32_t label) {
  char *title = class_title(&run->classes, label);
  cJSON_AddNumberToObject(object, "label", label);
  cJSON_AddStringToObject(object, "class", title);
  free(title);
}

/* Images. */

/* The indices that an image depends on: itself, its block, or for the grid all. */
static struct sample_labels unit_of(const struct sample *run, int64_t index) {
  struct sample_labels unit = run->labels;
  if (index < 0) return unit;
  int64_t first = index / run->unit * run->unit, end = unit.first + unit.count;
  unit.labels += first - unit.first;
  unit.first = first;
  unit.count = run->unit < end - first ? run->unit : end - first;
  return unit;
}

/* Whether the sampler is one for models of the other objective. */
static bool is_forced(const struct sample *run) {
  int i = 0;
  while (strcmp(ditmoe_sampler_name(i), run->plan.sampler) != 0) i++;
  return strcmp(ditmoe_sampler_objective(i), run->info.objective) != 0;
}

static char *image_json(const struct sample *run, int64_t index) {
  struct sample_labels unit = unit_of(run, index);
  cJSON *object = cJSON_CreateObject();
  add_identity(object);
  if (index >= 0) {
    add_whole(object, "index", (uint64_t)index);
    add_class(run, object, run->labels.labels[index - run->labels.first]);
  }
  add_whole(object, "seed", run->settings.seed);
  cJSON_AddItemToObject(object, "options", options_json(run, OPTION_DECIDES));
  if (run->record) cJSON_AddRawToObject(object, "record", run->record);
  cJSON_AddBoolToObject(object, "force", is_forced(run));
  cJSON *out = cJSON_AddObjectToObject(object, "unit");
  add_whole(out, "first", (uint64_t)unit.first);
  cJSON_AddItemToObject(out, "labels", cJSON_CreateIntArray(unit.labels, (int)unit.count));
  add_model(run, object);
  add_execution(run, object);
  return print_json(object, false);
}

/* The form that programs for web interfaces read: a line of prompt, then "Name: value" pairs. */
static char *image_parameters(const struct sample *run, int64_t index) {
  int32_t label = index < 0 ? 0 : run->labels.labels[index - run->labels.first];
  char *title = class_title(&run->classes, label), *stem = path_stem(run->settings.model);
  char *first = index < 0 ? text_format("grid of %lld images", (long long)run->labels.count)
                          : text_format("class %d %s", label, title);
  char *scale = text_number(run->settings.cfg_scale);
  char *text = text_format(
      "%s\nSteps: %d, Sampler: %s, CFG scale: %s%s, Seed: %llu, Size: %dx%d, Model: %s, "
      "Model hash: %.10s, RNG: %s, Version: ditmoe %s",
      first, run->plan.steps, run->plan.sampler, scale, strpbrk(scale, ".e") ? "" : ".0",
      (unsigned long long)run->settings.seed, run->side, run->side, text_sanitize(stem),
      run->model_sha256, run->settings.rng, DITMOE_VERSION);
  free(title);
  free(stem);
  free(first);
  free(scale);
  return text;
}

void sample_metadata(const struct sample *run, int64_t index, char **parameters, char **json) {
  *parameters = image_parameters(run, index);
  *json = image_json(run, index);
}

/* The manifest. */

static void add_outcome(const struct sample *run, cJSON *object, enum ditmoe_status status) {
  const char *outcome = status == DITMOE_OK          ? "complete"
                        : status == DITMOE_CANCELLED ? "cancelled"
                                                     : "failed";
  char ended[32];
  sample_time(ended);
  cJSON_AddStringToObject(object, "status", outcome);
  cJSON_AddNumberToObject(object, "exit", sample_exit_code(status));
  if (status != DITMOE_OK) cJSON_AddStringToObject(object, "error", report_last_error());
  cJSON_AddStringToObject(object, "started", run->started);
  cJSON_AddStringToObject(object, "ended", ended);
  cJSON *seconds = cJSON_AddObjectToObject(object, "seconds");
  cJSON_AddNumberToObject(seconds, "open", run->seconds_open);
  cJSON_AddNumberToObject(seconds, "sample", run->seconds_sample);
  cJSON_AddNumberToObject(seconds, "write", run->seconds_write);
  cJSON_AddNumberToObject(seconds, "all", clock_seconds() - run->clock_started);
}

static void add_host(cJSON *object) {
  struct utsname name;
  cJSON *host = cJSON_AddObjectToObject(object, "host");
  if (uname(&name) == 0) {
    cJSON_AddStringToObject(host, "name", name.nodename);
    cJSON_AddStringToObject(host, "system", name.sysname);
    cJSON_AddStringToObject(host, "machine", name.machine);
  }
  cJSON_AddNumberToObject(host, "processors", (double)sysconf(_SC_NPROCESSORS_ONLN));
}

static void add_plan(const struct sample *run, cJSON *object) {
  const struct ditmoe_plan *plan = &run->plan;
  cJSON *out = cJSON_AddObjectToObject(object, "plan");
  cJSON_AddStringToObject(out, "sampler", plan->sampler);
  cJSON_AddNumberToObject(out, "steps", plan->steps);
  cJSON_AddNumberToObject(out, "model_calls", plan->denoiser_calls);
  cJSON_AddNumberToObject(out, "batch", plan->batch);
  cJSON_AddNumberToObject(out, "block", plan->block);
  cJSON_AddNumberToObject(out, "side", run->side);
  add_whole(out, "weight_bytes", plan->weight_bytes);
  add_whole(out, "activation_bytes", plan->activation_bytes);
}

static void add_files(const struct sample *run, cJSON *object) {
  add_whole(object, "images_of_run", (uint64_t)run->labels.total);
  cJSON *images = cJSON_AddArrayToObject(object, "images");
  for (size_t i = 0; i < run->image_count; i++) {
    cJSON *image = cJSON_CreateObject();
    cJSON_AddStringToObject(image, "file", run->images[i].file);
    add_whole(image, "index", (uint64_t)run->images[i].index);
    add_class(run, image, run->images[i].label);
    cJSON_AddItemToArray(images, image);
  }
  if (run->wrote_grid) cJSON_AddStringToObject(object, "grid", run->settings.grid);
  if (run->wrote_latents) cJSON_AddStringToObject(object, "latents", run->settings.latents);
}

static char *manifest_json(const struct sample *run, enum ditmoe_status status) {
  const struct sample_settings *s = &run->settings;
  cJSON *object = cJSON_CreateObject();
  add_identity(object);
  add_outcome(run, object, status);
  cJSON_AddItemToObject(object, "arguments",
                        cJSON_CreateStringArray((const char *const *)run->argv, run->argc));
  cJSON_AddItemToObject(object, "options", options_json(run, 0));
  cJSON_AddItemToObject(object, "sources", sources_json(run));
  add_whole(object, "seed", s->seed);
  add_model(run, object);
  cJSON_AddRawToObject(object, "record", ditmoe_model_record(run->model));
  add_execution(run, object);
  add_whole(object, "threads", (uint64_t)(s->threads ? s->threads : sysconf(_SC_NPROCESSORS_ONLN)));
  add_plan(run, object);
  add_host(object);
  add_files(run, object);
  return print_json(object, true);
}

enum ditmoe_status sample_write_manifest(struct sample *run, enum ditmoe_status status) {
  char *json = manifest_json(run, status), *text = text_format("%s\n", json);
  enum ditmoe_status written =
      report_call(run->ctx, ditmoe_file_write(run->ctx, run->names.manifest, text, strlen(text)));
  if (run->settings.common.json) fputs(text, stdout);
  cJSON_free(json);
  free(text);
  return written;
}

/* run.json: what a run was made with, and what came of it. */
#include "cli/sample/work.h"
#include "cli/stop.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LISTED = 1000 }; /* images; of more than these only the number is recorded */

void sample_time(char text[32]) {
  time_t now = time(NULL);
  struct tm utc;
  gmtime_r(&now, &utc);
  strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
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

static void add_outcome(const struct sample *run, cJSON *object, const char *outcome,
                        enum ditmoe_status status) {
  char now[32];
  sample_time(now);
  cJSON_AddStringToObject(object, "status", outcome);
  cJSON_AddStringToObject(object, "started", run->started);
  json_add_whole(object, "resumes", (uint64_t)run->state.resumes);
  if (strcmp(outcome, "running") == 0) return;
  cJSON_AddNumberToObject(object, "exit", stop_exit_code(status));
  if (status != DITMOE_OK) cJSON_AddStringToObject(object, "error", report_last_error());
  cJSON_AddStringToObject(object, "ended", now);
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
  cJSON_AddNumberToObject(out, "width", run->width);
  cJSON_AddNumberToObject(out, "height", run->height);
  json_add_whole(out, "weight_bytes", plan->weight_bytes);
  json_add_whole(out, "activation_bytes", plan->activation_bytes);
}

static void add_image(const struct sample *run, cJSON *images, int64_t index) {
  char *file = run->names.npz ? NULL : sample_file_name(&run->names, index);
  cJSON *image = cJSON_CreateObject();
  if (file) cJSON_AddStringToObject(image, "file", file);
  json_add_whole(image, "index", (uint64_t)index);
  sample_add_class(run, image, sample_label(run, index));
  cJSON_AddItemToArray(images, image);
  free(file);
}

static void add_images(const struct sample *run, cJSON *object) {
  const struct sample_labels *labels = &run->labels;
  const struct made *made = &run->state.made;
  int64_t end = labels->first + labels->count;
  cJSON *count = cJSON_AddObjectToObject(object, "count");
  json_add_whole(count, "run", (uint64_t)labels->total);
  json_add_whole(count, "part", (uint64_t)sample_selected_count(run));
  json_add_whole(count, "made", (uint64_t)made_count(made, labels->first, end));
  if (labels->count > MAX_LISTED) return;
  cJSON *images = cJSON_AddArrayToObject(object, "images");
  for (int64_t i = labels->first; (i = made_find(made, i, end, true)) < end; i++)
    add_image(run, images, i);
}

/* Those whose images have been made since are history. */
static void add_failures(const struct sample *run, cJSON *object) {
  const struct sample_labels *labels = &run->labels;
  cJSON *failures = cJSON_AddArrayToObject(object, "failures"), *failure;
  cJSON_ArrayForEach(failure, run->state.failures) {
    int64_t first = (int64_t)cJSON_GetObjectItem(failure, "first")->valuedouble;
    if (first >= labels->first && first < labels->first + labels->count &&
        !made_has(&run->state.made, first))
      cJSON_AddItemToArray(failures, cJSON_Duplicate(failure, true));
  }
}

static void add_outputs(const struct sample *run, cJSON *object) {
  const struct sample_state *state = &run->state;
  if (run->names.npz && state->npz_bytes) {
    char crc[16];
    snprintf(crc, sizeof crc, "%08x", state->npz_crc);
    cJSON *npz = cJSON_AddObjectToObject(object, "npz");
    cJSON_AddStringToObject(npz, "file", run->names.npz);
    json_add_whole(npz, "bytes", (uint64_t)state->npz_bytes);
    cJSON_AddStringToObject(npz, "crc32", crc);
  }
  sample_add_routing(run, object);
  if (run->wrote_grid) cJSON_AddStringToObject(object, "grid", run->settings.grid);
  if (run->wrote_latents) cJSON_AddStringToObject(object, "latents", run->settings.latents);
}

static void add_settings(const struct sample *run, cJSON *object) {
  const struct sample_settings *s = &run->settings;
  cJSON_AddItemToObject(object, "arguments",
                        cJSON_CreateStringArray((const char *const *)run->argv, run->argc));
  cJSON_AddItemToObject(object, "options", sample_options_json(run, 0));
  cJSON_AddItemToObject(object, "sources", sources_json(run));
  json_add_whole(object, "seed", s->seed);
  sample_add_model(run, object);
  cJSON_AddRawToObject(object, "record", ditmoe_model_record(run->model));
  sample_add_execution(run, object);
  json_add_whole(object, "threads",
                 (uint64_t)(s->threads ? s->threads : sysconf(_SC_NPROCESSORS_ONLN)));
  cJSON_AddItemToObject(object, "identity", sample_identity(run));
}

char *sample_manifest(const struct sample *run, const char *outcome, enum ditmoe_status status) {
  cJSON *object = cJSON_CreateObject();
  sample_add_program(object);
  cJSON_AddStringToObject(object, "id", run->state.id);
  add_outcome(run, object, outcome, status);
  add_settings(run, object);
  add_plan(run, object);
  add_host(object);
  add_images(run, object);
  add_failures(run, object);
  add_outputs(run, object);
  char *json = json_text(object, true), *text = text_format("%s\n", json);
  cJSON_Delete(object);
  free(json);
  return text;
}

void sample_add_failure(struct sample *run, int64_t first, int64_t count, int code,
                        const char *message) {
  struct sample_state *state = &run->state;
  cJSON *failure = cJSON_CreateObject();
  if (!state->failures) state->failures = cJSON_CreateArray();
  cJSON_AddNumberToObject(failure, "first", (double)first);
  cJSON_AddNumberToObject(failure, "count", (double)count);
  cJSON_AddNumberToObject(failure, "exit", code);
  cJSON_AddStringToObject(failure, "message", message);
  cJSON_AddItemToArray(state->failures, failure);
}

/* The manifest of the run that made the samples: run.json in their folder, FILE.json beside
 * FILE.npz. It adds to the protocol; no number depends on it. */
#include "cli/eval/eval.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MANIFEST_MAX = 64 << 20 };

/* NULL if it is no regular file of a sensible size, or not JSON. */
static cJSON *read_json(const char *path) {
  struct stat info;
  if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > MANIFEST_MAX) return NULL;
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *text = memory_get((size_t)info.st_size + 1, 1);
  size_t size = fread(text, 1, (size_t)info.st_size, file);
  fclose(file);
  cJSON *json = cJSON_ParseWithLength(text, size);
  free(text);
  return json;
}

static const char *string_of(const cJSON *object, const char *name) {
  return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static char *manifest_path(const struct eval_side *side) {
  if (side->folder) return text_format("%s/run.json", side->path);
  const char *dot = strrchr(side->path, '.');
  const size_t stem = dot && !strchr(dot, '/') ? (size_t)(dot - side->path) : strlen(side->path);
  return text_format("%.*s.json", (int)stem, side->path);
}

static void warn_of_run(struct eval *eval) {
  const char *status = string_of(eval->run, "status");
  const cJSON *count = cJSON_GetObjectItemCaseSensitive(eval->run, "count");
  const cJSON *images = cJSON_GetObjectItemCaseSensitive(count, "run");
  const int64_t found = eval->samples.info.images;
  if (status && strcmp(status, "complete") != 0)
    eval_warn(eval, "%s: the run is not complete, its status is \"%s\"", eval->run_path, status);
  if (cJSON_IsNumber(images) && !eval->settings.num && found >= 0 &&
      images->valuedouble != (double)found)
    eval_warn(eval, "%s: the run is one of %.0f images, but %lld are here", eval->run_path,
              images->valuedouble, (long long)found);
}

void eval_find_run(struct eval *eval) {
  struct stat info;
  char *path = manifest_path(&eval->samples);
  if (!eval->samples.images || stat(path, &info) != 0) {
    free(path);
    return;
  }
  cJSON *run = read_json(path);
  const char *program = string_of(run, "program");
  if (!program || strcmp(program, "ditmoe-sample") != 0) {
    eval_warn(eval, "%s: is no manifest of ditmoe-sample and is not used", path);
    cJSON_Delete(run);
    free(path);
    return;
  }
  eval->run = run;
  eval->run_path = path;
  warn_of_run(eval);
}

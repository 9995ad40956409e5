/* Numbers and protocol as text, ADM's lines first, or as JSON. */
#include "cli/eval/eval.h"
#include "cli/json.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>

static void print_text(const struct eval *eval) {
  cJSON *protocol = eval_protocol(eval), *item;
  for (int i = 0; i < EVAL_MEASURES; i++) {
    if (!(eval->measures & eval_measures[i].bit)) continue;
    char *title = eval_title(eval, &eval_measures[i]);
    char *value = text_number(eval_value(eval, &eval_measures[i]));
    char *line = text_format("%s: %s", title, value);
    report_result(line);
    free(title);
    free(value);
    free(line);
  }
  cJSON_ArrayForEach(item, protocol) {
    char *line = text_format("# %s: %s", item->string, item->valuestring);
    report_result(line);
    free(line);
  }
  cJSON_Delete(protocol);
}

static void add_number(cJSON *object, const char *name, double value) {
  char *text = text_number(value);
  cJSON_AddRawToObject(object, name, text);
  free(text);
}

static void add_text(cJSON *object, const char *name, const char *text) {
  if (text)
    cJSON_AddStringToObject(object, name, text);
  else
    cJSON_AddNullToObject(object, name);
}

static void add_side(cJSON *object, const struct eval_side *side) {
  const struct ditmoe_set_info *info = &side->info;
  if (!side->path) return;
  cJSON *out = cJSON_AddObjectToObject(object, side->role);
  add_text(out, "path", side->path);
  add_text(out, "kind", info->kind);
  add_text(out, "statistics", info->statistics);
  add_text(out, "sha256", info->sha256);
  if (info->images < 0) {
    cJSON_AddNullToObject(out, "images");
    return;
  }
  add_number(out, "images", (double)info->images);
  add_number(out, "jpeg", (double)info->jpeg);
  add_number(out, "other_sizes", (double)info->sizes);
  add_number(out, "width", info->width);
  add_number(out, "height", info->height);
}

static void add_features(const struct eval *eval, cJSON *object) {
  const struct ditmoe_features_info *info = &eval->features;
  if (!info->kind) {
    cJSON_AddNullToObject(object, "features");
    return;
  }
  cJSON *out = cJSON_AddObjectToObject(object, "features");
  add_text(out, "kind", info->kind);
  add_text(out, "name", info->name);
  cJSON_AddBoolToObject(out, "defines_fid", info->defines_fid);
  add_text(out, "path", eval->settings.inception);
  add_text(out, "sha256", info->sha256);
  add_text(out, "resize", info->resize);
  add_text(out, "dtype", info->dtype);
  add_text(out, "backend", info->backend);
  add_text(out, "tier", info->tier);
}

static void add_run(const struct eval *eval, cJSON *object) {
  static const char *const members[] = {"pixels",  "status", "version", "seed",
                                        "options", "model",  "vae"};
  if (!eval->run) return;
  cJSON *out = cJSON_AddObjectToObject(object, "run");
  add_text(out, "path", eval->run_path);
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(eval->run, members[i]);
    if (member) cJSON_AddItemToObject(out, members[i], cJSON_Duplicate(member, true));
  }
}

static void print_json(const struct eval *eval) {
  cJSON *object = cJSON_CreateObject();
  cJSON_AddNumberToObject(object, "schema", 1);
  add_text(object, "program", "ditmoe-eval");
  add_text(object, "version", DITMOE_VERSION);
  cJSON *scores = cJSON_AddObjectToObject(object, "scores");
  for (int i = 0; i < EVAL_MEASURES; i++)
    if (eval->measures & eval_measures[i].bit)
      add_number(scores, eval_key(eval, &eval_measures[i]), eval_value(eval, &eval_measures[i]));
  cJSON *clipped = cJSON_AddObjectToObject(object, "clipped");
  if (eval->measures & DITMOE_FRECHET) add_number(clipped, "pool", eval->scores.clipped);
  if (eval->measures & DITMOE_SPATIAL) add_number(clipped, "spatial", eval->scores.spatial_clipped);
  add_side(object, &eval->reference);
  add_side(object, &eval->samples);
  add_features(eval, object);
  cJSON_AddItemToObject(object, "protocol", eval_protocol(eval));
  cJSON_AddItemToObject(
      object, "warnings",
      cJSON_CreateStringArray((const char *const *)eval->warnings, (int)eval->warning_count));
  add_run(eval, object);
  json_put(object);
  cJSON_Delete(object);
}

enum ditmoe_status eval_print(const struct eval *eval) {
  if (eval->settings.common.json)
    print_json(eval);
  else if (eval->measures)
    print_text(eval);
  return report_finish(DITMOE_OK);
}

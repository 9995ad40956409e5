/* --info: what an operand is, and whether it is sound. */
#include "cli/eval/eval.h"
#include "cli/json.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *meaning(const char *name) {
  static const struct {
    const char *name, *meaning;
  } known[] = {
      {"arr_0", "images, uint8 [N, H, W, 3], RGB"},
      {"arr_1", "labels of the images; not used"},
      {"mu", "mean of pool features: FID"},
      {"sigma", "covariance of pool features: FID"},
      {"mu_s", "mean of spatial features: sFID"},
      {"sigma_s", "covariance of spatial features: sFID"},
  };
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(known[i].name, name) == 0) return known[i].meaning;
  return "not used";
}

static cJSON *shape_json(const struct ditmoe_array_info *array) {
  cJSON *shape = cJSON_CreateArray();
  for (int d = 0; d < array->rank; d++)
    cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)array->shape[d]));
  return shape;
}

static enum ditmoe_status list_arrays(struct eval *eval, cJSON *list) {
  struct ditmoe_arrays *arrays = NULL;
  TRY(report_call(eval->ctx, ditmoe_arrays_open(eval->ctx, eval->samples.path, &arrays)));
  for (int i = 0; i < ditmoe_arrays_count(arrays); i++) {
    struct ditmoe_array_info array;
    ditmoe_arrays_at(arrays, i, &array);
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "name", array.name);
    cJSON_AddStringToObject(out, "type", array.type);
    cJSON_AddItemToObject(out, "shape", shape_json(&array));
    cJSON_AddStringToObject(out, "meaning", meaning(array.name));
    cJSON_AddItemToArray(list, out);
  }
  ditmoe_arrays_close(arrays);
  return DITMOE_OK;
}

static cJSON *info_json(const struct eval_side *side) {
  const struct ditmoe_set_info *info = &side->info;
  cJSON *object = cJSON_CreateObject();
  cJSON_AddStringToObject(object, "file", side->path);
  cJSON_AddStringToObject(object, "kind", info->kind);
  if (info->images >= 0) {
    cJSON_AddNumberToObject(object, "images", (double)info->images);
    cJSON_AddNumberToObject(object, "width", info->width);
    cJSON_AddNumberToObject(object, "height", info->height);
    cJSON_AddNumberToObject(object, "other_sizes", (double)info->sizes);
    cJSON_AddNumberToObject(object, "jpeg", (double)info->jpeg);
  }
  cJSON_AddBoolToObject(object, "statistics", info->statistics != NULL);
  cJSON_AddStringToObject(object, info->images < 0 ? "sha256" : "sha256_of_pixels", info->sha256);
  return object;
}

static void print_item(const char *name, const cJSON *item) {
  char *value = json_value_text(item);
  char *line = text_format("%s: %s", name, value);
  report_result(line);
  free(line);
  free(value);
}

static void print_array(const cJSON *array) {
  char *shape = json_text(cJSON_GetObjectItemCaseSensitive(array, "shape"), false);
  char *line = text_format("%-8s %-4s %-20s %s",
                           cJSON_GetObjectItemCaseSensitive(array, "name")->valuestring,
                           cJSON_GetObjectItemCaseSensitive(array, "type")->valuestring, shape,
                           cJSON_GetObjectItemCaseSensitive(array, "meaning")->valuestring);
  report_result(line);
  free(shape);
  free(line);
}

static void print_text(const cJSON *object, const cJSON *arrays) {
  const cJSON *item;
  cJSON_ArrayForEach(item, object) print_item(item->string, item);
  cJSON_ArrayForEach(item, arrays) print_array(item);
}

/* The arrays are shown even if the file then turns out to be unsound. */
enum ditmoe_status eval_info(struct eval *eval) {
  struct eval_side *side = &eval->samples;
  TRY(eval_refuse_needless(eval, false));
  cJSON *arrays = cJSON_CreateArray(), *object = NULL;
  enum ditmoe_status status = side->archive ? list_arrays(eval, arrays) : DITMOE_OK;
  if (status == DITMOE_OK) status = eval_open_set(eval, side, 0);
  if (status == DITMOE_OK) object = info_json(side);
  if (eval->settings.common.json && object) {
    cJSON_AddItemToObject(object, "arrays", arrays);
    arrays = NULL;
    json_put(object);
  } else if (!eval->settings.common.json) {
    print_text(object, arrays);
  }
  cJSON_Delete(arrays);
  cJSON_Delete(object);
  return status;
}

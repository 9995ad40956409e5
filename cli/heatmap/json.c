/* The numbers as JSON. */
#include "cli/heatmap/numbers.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add_number(cJSON *object, const char *name, double value) {
  if (isfinite(value))
    cJSON_AddNumberToObject(object, name, value);
  else
    cJSON_AddNullToObject(object, name);
}

static cJSON *load_json(const struct ditmoe_routing_load *load) {
  cJSON *object = cJSON_CreateObject();
  add_number(object, "choices", load->tokens);
  if (load->tokens > 0) {
    add_number(object, "max_over_mean", load->largest);
    add_number(object, "min_over_mean", load->smallest);
    add_number(object, "variation", load->variation);
    add_number(object, "entropy", load->entropy);
    add_number(object, "evenness", load->evenness);
  }
  add_number(object, "experts", load->experts);
  add_number(object, "dead", load->dead);
  return object;
}

static cJSON *steps_json(const struct heatmap_run *run, int half, int layer) {
  cJSON *steps = cJSON_CreateArray();
  for (int bin = 0; bin < run->info.bins; bin++) {
    struct ditmoe_routing_load load;
    ditmoe_routing_load(run->routing, (enum ditmoe_half)half, layer, bin, &load, NULL);
    cJSON *object = load_json(&load);
    add_number(object, "step_from", run->info.bin_step[bin]);
    add_number(object, "step_to", run->info.bin_step[bin + 1]);
    cJSON_AddItemToArray(steps, object);
  }
  return steps;
}

static cJSON *dependence_json(const struct heatmap_run *run, int half, int layer) {
  static const char *const names[DITMOE_AXES] = {"position", "step", "class"};
  cJSON *object = cJSON_CreateObject();
  for (int axis = 0; axis < DITMOE_AXES; axis++) {
    struct ditmoe_routing_dependence d;
    ditmoe_routing_dependence(run->routing, (enum ditmoe_half)half, layer,
                              (enum ditmoe_routing_axis)axis, &d);
    cJSON *out = cJSON_AddObjectToObject(object, names[axis]);
    add_number(out, "bits", d.information);
    add_number(out, "bits_shuffled", d.shuffled);
    add_number(out, "normalized", d.normalised);
    add_number(out, "normalized_shuffled", d.shuffled_normalised);
  }
  return object;
}

static cJSON *memory_json(const struct heatmap_run *run, int half, int layer) {
  struct ditmoe_routing_memory memory;
  cJSON *object = cJSON_CreateObject();
  ditmoe_routing_memory(run->routing, (enum ditmoe_half)half, layer, &memory);
  add_number(object, "kept", memory.kept);
  add_number(object, "kept_leading", memory.kept_leading);
  add_number(object, "kept_by_chance", memory.by_chance);
  add_number(object, "guessed_from_layer_before", memory.from_layer);
  add_number(object, "guessed_from_nothing", memory.from_nothing);
  return object;
}

static cJSON *layer_json(const struct heatmap_run *run, int half, int layer) {
  const int experts = run->info.layer_experts[layer];
  double *loads = memory_get((size_t)experts, sizeof *loads);
  struct ditmoe_routing_load load;
  cJSON *object = cJSON_CreateObject();
  ditmoe_routing_load(run->routing, (enum ditmoe_half)half, layer, -1, &load, loads);
  add_number(object, "layer", run->info.layer[layer]);
  cJSON_AddItemToObject(object, "load", load_json(&load));
  cJSON_AddItemToObject(object, "loads", cJSON_CreateDoubleArray(loads, experts));
  cJSON_AddItemToObject(object, "dependence", dependence_json(run, half, layer));
  cJSON_AddItemToObject(object, "memory", memory_json(run, half, layer));
  cJSON_AddItemToObject(object, "steps", steps_json(run, half, layer));
  free(loads);
  return object;
}

static cJSON *findings_json(const struct heatmap_run *run, int half) {
  struct finding findings[FINDINGS_MAX];
  const int count = heatmap_findings(run, half, findings);
  cJSON *list = cJSON_CreateArray();
  for (int i = 0; i < count; i++) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "finding", findings[i].key);
    cJSON_AddStringToObject(object, "claim", findings[i].claim);
    cJSON_AddStringToObject(object, "holds", verdict_name(findings[i].verdict));
    for (int j = 0; j < FINDING_FIGURES && findings[i].names[j]; j++)
      add_number(object, findings[i].names[j], findings[i].figures[j]);
    cJSON_AddItemToArray(list, object);
  }
  return list;
}

static cJSON *half_json(const struct heatmap_run *run, int half) {
  cJSON *object = cJSON_CreateObject();
  cJSON_AddItemToObject(object, "findings", findings_json(run, half));
  cJSON_AddItemToObject(object, "dependence", dependence_json(run, half, -1));
  cJSON_AddItemToObject(object, "memory", memory_json(run, half, -1));
  cJSON *layers = cJSON_AddArrayToObject(object, "layers");
  for (int layer = 0; layer < run->info.layers; layer++)
    cJSON_AddItemToArray(layers, layer_json(run, half, layer));
  return object;
}

static cJSON *run_json(const struct heatmap *heatmap, const struct heatmap_run *run) {
  const struct ditmoe_routing_info *info = &run->info;
  cJSON *object = cJSON_CreateObject();
  char *path = heatmap_clean(text_copy(run->path));
  cJSON_AddStringToObject(object, "path", path);
  free(path);
  add_number(object, "images", (double)info->images);
  add_number(object, "steps", info->steps);
  add_number(object, "tokens", info->tokens);
  add_number(object, "experts", info->experts);
  add_number(object, "top_k", info->top_k);
  add_number(object, "uncond_expert", info->uncond_expert);
  cJSON_AddItemToObject(object, "meta", cJSON_Duplicate(run->meta, true));
  for (int half = heatmap->first_half; half < heatmap->last_half; half++)
    cJSON_AddItemToObject(object, heatmap_half_name(half), half_json(run, half));
  return object;
}

/* a - b of all numbers that both have; null where one has none. What names a thing stays. */
static cJSON *difference(const cJSON *a, const cJSON *b) {
  static const char *const names[] = {"layer", "step_from", "step_to", "finding", "claim"};
  for (size_t i = 0; a->string && i < sizeof names / sizeof names[0]; i++)
    if (strcmp(a->string, names[i]) == 0) return cJSON_Duplicate(a, false);
  if (cJSON_IsNumber(a) && cJSON_IsNumber(b))
    return cJSON_CreateNumber(a->valuedouble - b->valuedouble);
  if (!cJSON_IsObject(a) && !cJSON_IsArray(a)) return cJSON_CreateNull();
  cJSON *out = cJSON_IsArray(a) ? cJSON_CreateArray() : cJSON_CreateObject();
  const cJSON *item, *other = b->child;
  cJSON_ArrayForEach(item, a) {
    if (cJSON_IsObject(a)) other = cJSON_GetObjectItemCaseSensitive(b, item->string);
    cJSON *value = other ? difference(item, other) : cJSON_CreateNull();
    if (cJSON_IsObject(a))
      cJSON_AddItemToObject(out, item->string, value);
    else
      cJSON_AddItemToArray(out, value);
    if (cJSON_IsArray(a) && other) other = other->next;
  }
  return out;
}

static cJSON *matrix_json(const struct ditmoe_similarity *s, const float *values, int layer) {
  const size_t E = (size_t)s->experts;
  cJSON *rows = cJSON_CreateArray();
  for (size_t r = 0; r < E; r++) {
    cJSON *row = cJSON_CreateArray();
    for (size_t c = 0; c < E; c++) {
      const double value = values[((size_t)layer * E + r) * E + c];
      cJSON_AddItemToArray(row, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
    }
    cJSON_AddItemToArray(rows, row);
  }
  return rows;
}

static cJSON *similarity_json(const struct heatmap *heatmap) {
  const struct ditmoe_similarity *s = heatmap->similarity;
  cJSON *object = cJSON_CreateObject();
  char *path = heatmap_clean(text_copy(heatmap->settings.model));
  cJSON_AddStringToObject(object, "model", path);
  free(path);
  add_number(object, "rank", s->rank);
  cJSON *layers = cJSON_AddArrayToObject(object, "layers");
  for (int layer = 0; layer < s->layers; layer++) {
    cJSON *out = cJSON_CreateObject();
    add_number(out, "layer", s->layer[layer]);
    cJSON_AddItemToObject(out, "weights", matrix_json(s, s->weights, layer));
    cJSON_AddItemToObject(out, "subspace", matrix_json(s, s->subspace, layer));
    cJSON_AddItemToObject(out, "router", matrix_json(s, s->router, layer));
    cJSON_AddItemToArray(layers, out);
  }
  return object;
}

cJSON *heatmap_numbers_json(const struct heatmap *heatmap) {
  cJSON *object = cJSON_CreateObject();
  cJSON_AddNumberToObject(object, "schema", 1);
  cJSON_AddStringToObject(object, "program", "ditmoe-heatmap");
  cJSON_AddStringToObject(object, "version", DITMOE_VERSION);
  cJSON *run = run_json(heatmap, &heatmap->run);
  cJSON_AddItemToObject(object, "run", run);
  if (heatmap->other.routing) {
    cJSON *other = run_json(heatmap, &heatmap->other);
    cJSON *change = cJSON_AddObjectToObject(object, "difference");
    for (int half = heatmap->first_half; half < heatmap->last_half; half++) {
      const char *name = heatmap_half_name(half);
      cJSON_AddItemToObject(change, name,
                            difference(cJSON_GetObjectItemCaseSensitive(run, name),
                                       cJSON_GetObjectItemCaseSensitive(other, name)));
    }
    cJSON_AddItemToObject(object, "other", other);
  }
  if (heatmap->similarity) cJSON_AddItemToObject(object, "similarity", similarity_json(heatmap));
  return object;
}

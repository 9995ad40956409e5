/* Inputs: dumps, traces, the second run, the model; and what is selected of them. */
#include "cli/heatmap/heatmap.h"
#include "cli/json.h"
#include "cli/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Runs. */

/* Dumps are zip archives; whatever else it is, a trace or not, the library says. */
static enum ditmoe_status is_dump(const char *path, bool *dump) {
  char magic[2] = {0};
  struct stat info;
  if (stat(path, &info) != 0) return report_error(DITMOE_FORMAT, "%s: %s", path, strerror(errno));
  if (!S_ISREG(info.st_mode))
    return report_error(DITMOE_FORMAT, "%s: not a file of tables or choices", path);
  FILE *file = fopen(path, "rb");
  if (!file) return report_error(DITMOE_FORMAT, "%s: %s", path, strerror(errno));
  *dump = fread(magic, 1, sizeof magic, file) == sizeof magic && memcmp(magic, "PK", 2) == 0;
  fclose(file);
  return DITMOE_OK;
}

/* Counts all of the trace in run->routing and, with image_routing, one image of it alone. */
static enum ditmoe_status replay(struct heatmap *heatmap, struct ditmoe_trace *trace,
                                 struct heatmap_run *run, struct ditmoe_routing *image_routing) {
  struct ditmoe_ctx *ctx = heatmap->ctx;
  struct ditmoe_trace_record record;
  for (;;) {
    int end = 0;
    TRY(report_call(ctx, ditmoe_trace_next(ctx, trace, &record, &end)));
    if (end) return DITMOE_OK;
    TRY(report_call(ctx, ditmoe_routing_count(ctx, run->routing, &record)));
    if (image_routing && record.image == heatmap->image_index)
      TRY(report_call(ctx, ditmoe_routing_count(ctx, image_routing, &record)));
  }
}

static enum ditmoe_status read_trace(struct heatmap *heatmap, struct heatmap_run *run) {
  struct ditmoe_ctx *ctx = heatmap->ctx;
  struct ditmoe_trace *trace = NULL;
  const bool image = run == &heatmap->run && heatmap->image;
  TRY(report_call(ctx, ditmoe_trace_open(ctx, run->path, &trace)));
  enum ditmoe_status status = report_call(ctx, ditmoe_trace_tables(ctx, trace, &run->routing));
  if (status == DITMOE_OK && image)
    status = report_call(ctx, ditmoe_trace_tables(ctx, trace, &heatmap->image_routing));
  if (status == DITMOE_OK) status = replay(heatmap, trace, run, heatmap->image_routing);
  ditmoe_trace_close(trace);
  return status;
}

static void clean_json(cJSON *json) {
  for (; json; json = json->next) {
    if (json->string) heatmap_clean(json->string);
    if (json->valuestring) heatmap_clean(json->valuestring);
    clean_json(json->child);
  }
}

static enum ditmoe_status open_run(struct heatmap *heatmap, struct heatmap_run *run, bool *trace) {
  bool dump = false;
  TRY(is_dump(run->path, &dump));
  *trace = !dump;
  if (dump)
    TRY(report_call(heatmap->ctx, ditmoe_routing_read(heatmap->ctx, run->path, &run->routing)));
  else
    TRY(read_trace(heatmap, run));
  ditmoe_routing_info(run->routing, &run->info);
  run->meta = run->info.meta ? cJSON_Parse(run->info.meta) : NULL;
  if (!cJSON_IsObject(run->meta)) {
    cJSON_Delete(run->meta);
    run->meta = cJSON_CreateObject();
  }
  clean_json(run->meta);
  report_detail("%s: %s, %lld images, %d layers, %d steps in %d bins, %d tokens, %d experts",
                run->path, dump ? "tables" : "trace", (long long)run->info.images, run->info.layers,
                run->info.steps, run->info.bins, run->info.tokens, run->info.experts);
  if (run->info.images > 0) return DITMOE_OK;
  return report_error(DITMOE_FORMAT, "%s: no image has been counted", run->path);
}

static void close_run(struct heatmap_run *run) {
  ditmoe_routing_destroy(run->routing);
  cJSON_Delete(run->meta);
}

/* Other parts of the same run, as an array of jobs makes them. */
static enum ditmoe_status add_parts(struct heatmap *heatmap) {
  struct heatmap_run *run = &heatmap->run;
  char *list = text_copy(heatmap->settings.add), *rest = list, *path;
  enum ditmoe_status status = DITMOE_OK;
  while (status == DITMOE_OK && (path = strsep(&rest, ","))) {
    struct heatmap_run part = {.path = path};
    bool trace;
    status = open_run(heatmap, &part, &trace);
    if (status == DITMOE_OK)
      status =
          report_call(heatmap->ctx, ditmoe_routing_merge(heatmap->ctx, run->routing, part.routing));
    close_run(&part);
  }
  free(list);
  ditmoe_routing_info(run->routing, &run->info);
  return status;
}

/* Whether cells of both runs mean the same: NULL, or what differs. */
static const char *difference(const struct ditmoe_routing_info *a,
                              const struct ditmoe_routing_info *b) {
  const size_t L = (size_t)a->layers, S = (size_t)a->bins;
  if (a->layers != b->layers || memcmp(a->layer, b->layer, L * sizeof *a->layer) != 0)
    return "layers";
  if (a->experts != b->experts || a->uncond_expert != b->uncond_expert ||
      memcmp(a->layer_experts, b->layer_experts, L * sizeof *a->layer_experts) != 0)
    return "experts";
  if (a->tokens != b->tokens || a->side != b->side) return "tokens";
  if (a->labels != b->labels) return "classes";
  if (a->steps != b->steps) return "steps";
  if (a->bins != b->bins || memcmp(a->bin_step, b->bin_step, (S + 1) * sizeof *a->bin_step) != 0)
    return "bins of steps";
  return NULL;
}

static enum ditmoe_status open_other(struct heatmap *heatmap) {
  bool trace;
  heatmap->other.path = heatmap->settings.diff;
  TRY(open_run(heatmap, &heatmap->other, &trace));
  const char *what = difference(&heatmap->run.info, &heatmap->other.info);
  if (!what) return DITMOE_OK;
  return report_error(DITMOE_MISMATCH, "--diff: %s and %s differ in their %s", heatmap->run.path,
                      heatmap->other.path, what);
}

/* The selection. */

static enum ditmoe_status select_halves(struct heatmap *heatmap) {
  const char *half = heatmap->settings.half;
  heatmap->first_half = strcmp(half, "uncond") == 0 ? DITMOE_UNCONDITIONAL : DITMOE_CONDITIONAL;
  heatmap->last_half = strcmp(half, "cond") == 0 ? DITMOE_UNCONDITIONAL : DITMOE_HALVES;
  const struct heatmap_run *const runs[] = {&heatmap->run, &heatmap->other};
  for (int i = 0; i < 2; i++) {
    if (!runs[i]->routing) continue;
    if (heatmap->last_half > runs[i]->info.halves)
      return report_error(DITMOE_USAGE, "--half %s: %s has no unconditional half", half,
                          runs[i]->path);
    if (heatmap->settings.weighted && !runs[i]->info.mass)
      return report_error(DITMOE_USAGE, "--weighted: %s has no weights", runs[i]->path);
  }
  return DITMOE_OK;
}

/* "3" or "3-7", numbers of blocks. */
static bool parse_blocks(const char *text, int *from, int *to) {
  int used = 0;
  if (strspn(text, "0123456789-") < strlen(text) || text[0] == '-') return false;
  if (sscanf(text, "%6d-%6d%n", from, to, &used) == 2) return !text[used] && *from <= *to;
  used = 0;
  if (sscanf(text, "%6d%n", from, &used) != 1 || text[used]) return false;
  *to = *from;
  return true;
}

/* A layer that a number of a block names, for messages: "3 5 7 9". */
static char *block_list(const struct ditmoe_routing_info *info) {
  char *list = text_copy("");
  for (int i = 0; i < info->layers; i++) {
    char *longer = text_format("%s%s%d", list, i ? " " : "", info->layer[i]);
    free(list);
    list = longer;
  }
  return list;
}

static enum ditmoe_status no_layer(const struct heatmap *heatmap, const char *option,
                                   const char *text) {
  char *list = block_list(&heatmap->run.info);
  report_error(DITMOE_USAGE, "--%s %s: none of the blocks with experts: %s", option, text, list);
  free(list);
  return DITMOE_USAGE;
}

static enum ditmoe_status select_layers(struct heatmap *heatmap) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const char *text = heatmap->settings.layers;
  int from, to;
  heatmap->first_layer = 0;
  heatmap->last_layer = info->layers;
  if (!text) return DITMOE_OK;
  if (!parse_blocks(text, &from, &to))
    return report_error(DITMOE_USAGE, "--layers: \"%.80s\" is not A-B or a number", text);
  while (heatmap->first_layer < info->layers && info->layer[heatmap->first_layer] < from)
    heatmap->first_layer++;
  while (heatmap->last_layer > 0 && info->layer[heatmap->last_layer - 1] > to)
    heatmap->last_layer--;
  return heatmap->first_layer < heatmap->last_layer ? DITMOE_OK : no_layer(heatmap, "layers", text);
}

static int bin_of(const struct ditmoe_routing_info *info, int64_t step) {
  for (int b = 0; b <= info->bins; b++)
    if (info->bin_step[b] == step) return b;
  return -1;
}

static enum ditmoe_status select_steps(struct heatmap *heatmap) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const struct span steps = heatmap->settings.steps;
  heatmap->first_bin = 0;
  heatmap->last_bin = info->bins;
  if (!steps.to) return DITMOE_OK;
  if (steps.to > info->steps)
    return report_error(DITMOE_USAGE, "--steps %lld:%lld: the run has steps 0:%d",
                        (long long)steps.from, (long long)steps.to, info->steps);
  heatmap->first_bin = bin_of(info, steps.from);
  heatmap->last_bin = bin_of(info, steps.to);
  if (heatmap->first_bin >= 0 && heatmap->last_bin >= 0) return DITMOE_OK;
  return report_error(DITMOE_USAGE,
                      "--steps %lld:%lld: the %d steps are counted in %d bins, the first of them "
                      "0:%d, and only whole bins can be shown",
                      (long long)steps.from, (long long)steps.to, info->steps, info->bins,
                      info->bin_step[1]);
}

static enum ditmoe_status select_overlay_layer(struct heatmap *heatmap) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  if (!option_given(&heatmap->options, &heatmap->settings.overlay_layer)) return DITMOE_OK;
  for (int i = 0; i < info->layers; i++)
    if (info->layer[i] == heatmap->settings.overlay_layer) return DITMOE_OK;
  char *text = text_format("%lld", (long long)heatmap->settings.overlay_layer);
  no_layer(heatmap, "overlay-layer", text);
  free(text);
  return DITMOE_USAGE;
}

/* The model. */

/* The same weights may come in another file: a digest that differs is no error. */
static enum ditmoe_status check_digest(const struct heatmap *heatmap) {
  const cJSON *model = cJSON_GetObjectItemCaseSensitive(heatmap->run.meta, "model");
  const cJSON *expected = cJSON_GetObjectItemCaseSensitive(model, "sha256");
  char digest[65];
  if (!cJSON_IsString(expected)) return DITMOE_OK;
  TRY(report_call(heatmap->ctx, ditmoe_file_sha256(heatmap->ctx, heatmap->settings.model, digest)));
  if (strcmp(digest, expected->valuestring) != 0)
    report_warning("--model %s: the run was of another file, with SHA-256 %.10s...",
                   heatmap->settings.model, expected->valuestring);
  return DITMOE_OK;
}

static enum ditmoe_status measure(struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  char *record;
  TRY(json_file_text("--record", s->record, &record));
  const struct ditmoe_model_options options = {.record = record};
  enum ditmoe_status status =
      report_call(heatmap->ctx, ditmoe_similarity_measure(heatmap->ctx, s->model, &options, 0,
                                                          &heatmap->similarity));
  free(record);
  return status;
}

static enum ditmoe_status measure_model(struct heatmap *heatmap) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const char *path = heatmap->settings.model;
  TRY(measure(heatmap));
  const struct ditmoe_similarity *s = heatmap->similarity;
  if (s->layers != info->layers ||
      memcmp(s->layer, info->layer, (size_t)s->layers * sizeof *s->layer) != 0)
    return report_error(DITMOE_MISMATCH, "--model %s: its layers with experts are not those of %s",
                        path, heatmap->run.path);
  if (s->experts != info->experts)
    return report_error(DITMOE_MISMATCH, "--model %s: it has %d experts, %s has %d", path,
                        s->experts, heatmap->run.path, info->experts);
  return check_digest(heatmap);
}

enum ditmoe_status heatmap_open(struct heatmap *heatmap) {
  heatmap->run.path = heatmap->options.operand;
  if (heatmap->settings.overlay) TRY(heatmap_read_overlay(heatmap));
  TRY(open_run(heatmap, &heatmap->run, &heatmap->trace));
  if (heatmap->settings.overlay) TRY(heatmap_check_overlay(heatmap));
  if (heatmap->settings.add) TRY(add_parts(heatmap));
  if (heatmap->settings.diff) TRY(open_other(heatmap));
  TRY(select_halves(heatmap));
  TRY(select_layers(heatmap));
  TRY(select_steps(heatmap));
  TRY(select_overlay_layer(heatmap));
  TRY(heatmap_read_names(heatmap));
  return heatmap->settings.model ? measure_model(heatmap) : DITMOE_OK;
}

void heatmap_close(struct heatmap *heatmap) {
  for (int i = 0; heatmap->class_names && i < heatmap->run.info.labels; i++)
    free(heatmap->class_names[i]);
  free(heatmap->class_names);
  close_run(&heatmap->run);
  close_run(&heatmap->other);
  ditmoe_routing_destroy(heatmap->image_routing);
  if (heatmap->similarity) ditmoe_similarity_free(heatmap->ctx, heatmap->similarity);
  free(heatmap->image);
}

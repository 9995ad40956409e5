/* The view as arrays: info (JSON: axes, labels, panels, units), then [panels, rows, columns] each.
 * Panels of fewer experts than others are filled up with NaN. */
#include "cli/heatmap/heatmap.h"
#include "cli/json.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct output {
  struct ditmoe_ctx *ctx;
  struct ditmoe_npz *npz;
  const struct view *view;
  int rows, columns; /* of the largest panel */
};

static cJSON *axis_json(const struct view_axis *axis) {
  cJSON *object = cJSON_CreateObject();
  cJSON_AddStringToObject(object, "name", axis->name);
  cJSON_AddItemToObject(object, "labels",
                        cJSON_CreateStringArray((const char *const *)axis->labels, axis->count));
  return object;
}

static cJSON *panel_json(const struct heatmap *heatmap, const struct view_panel *panel) {
  cJSON *object = cJSON_CreateObject();
  cJSON_AddStringToObject(object, "title", panel->title);
  if (panel->half >= 0) cJSON_AddStringToObject(object, "half", heatmap_half_name(panel->half));
  if (panel->layer >= 0)
    cJSON_AddNumberToObject(object, "layer", heatmap->run.info.layer[panel->layer]);
  if (panel->expert >= 0) cJSON_AddNumberToObject(object, "expert", panel->expert);
  return object;
}

/* The panel with the longest axes, which have the labels of all others. */
static const struct view_panel *largest_panel(const struct view *view) {
  const struct view_panel *largest = view->panels;
  for (int i = 1; i < view->count; i++)
    if (view->panels[i].rows.count + view->panels[i].columns.count >
        largest->rows.count + largest->columns.count)
      largest = &view->panels[i];
  return largest;
}

static cJSON *info_json(const struct heatmap *heatmap, const struct view *view) {
  const struct view_panel *largest = largest_panel(view);
  cJSON *object = cJSON_CreateObject(), *panels;
  cJSON_AddStringToObject(object, "format", "ditmoe-heatmap");
  cJSON_AddNumberToObject(object, "version", 1);
  cJSON_AddStringToObject(object, "by", view_kind_name(view->kind));
  cJSON_AddStringToObject(object, "title", view->title);
  cJSON_AddStringToObject(object, "subtitle", view->subtitle);
  cJSON_AddStringToObject(object, "unit", view->unit);
  cJSON_AddItemToObject(object, "rows", axis_json(&largest->rows));
  cJSON_AddItemToObject(object, "columns", axis_json(&largest->columns));
  panels = cJSON_AddArrayToObject(object, "panels");
  for (int i = 0; i < view->count; i++)
    cJSON_AddItemToArray(panels, panel_json(heatmap, &view->panels[i]));
  return object;
}

static enum ditmoe_status write_info(const struct heatmap *heatmap, struct output *out) {
  cJSON *object = info_json(heatmap, out->view);
  char *text = json_text(object, false);
  cJSON_Delete(object);
  const int64_t size = (int64_t)strlen(text);
  enum ditmoe_status status =
      report_call(out->ctx, ditmoe_npz_array(out->ctx, out->npz, "info", "u1", 1, &size));
  if (status == DITMOE_OK)
    status = report_call(out->ctx, ditmoe_npz_write(out->ctx, out->npz, text, (size_t)size));
  free(text);
  return status;
}

static enum ditmoe_status write_numbers(struct output *out, const char *name,
                                        const struct view_axis *axis) {
  const int64_t count = axis->count;
  TRY(report_call(out->ctx, ditmoe_npz_array(out->ctx, out->npz, name, "i4", 1, &count)));
  return report_call(out->ctx, ditmoe_npz_write(out->ctx, out->npz, axis->number,
                                                (size_t)count * sizeof *axis->number));
}

/* `member`: offset of a pointer in struct view_panel. */
static enum ditmoe_status write_values(struct output *out, const char *name, size_t member) {
  const int64_t shape[] = {out->view->count, out->rows, out->columns};
  const size_t cells = (size_t)out->rows * (size_t)out->columns;
  double *padded = memory_get(cells, sizeof *padded);
  enum ditmoe_status status =
      report_call(out->ctx, ditmoe_npz_array(out->ctx, out->npz, name, "f8", 3, shape));
  for (int i = 0; status == DITMOE_OK && i < out->view->count; i++) {
    const struct view_panel *panel = &out->view->panels[i];
    const double *values = *(double *const *)(const void *)((const char *)panel + member);
    for (size_t j = 0; j < cells; j++) padded[j] = NAN;
    for (int r = 0; r < panel->rows.count; r++)
      memcpy(padded + (size_t)r * (size_t)out->columns,
             values + (size_t)r * (size_t)panel->columns.count,
             (size_t)panel->columns.count * sizeof *values);
    status =
        report_call(out->ctx, ditmoe_npz_write(out->ctx, out->npz, padded, cells * sizeof *padded));
  }
  free(padded);
  return status;
}

static enum ditmoe_status write_all(const struct heatmap *heatmap, struct output *out) {
  const struct view_panel *largest = largest_panel(out->view), *first = out->view->panels;
  const struct {
    const char *name;
    size_t member;
    bool there;
  } arrays[] = {
      {"values", offsetof(struct view_panel, values), true},
      {"choices", offsetof(struct view_panel, run.counts), first->run.counts},
      {"weight", offsetof(struct view_panel, run.mass), first->run.mass},
      {"other_values", offsetof(struct view_panel, other.values), first->other.values},
      {"other_choices", offsetof(struct view_panel, other.counts), first->other.counts},
      {"other_weight", offsetof(struct view_panel, other.mass), first->other.mass},
  };
  TRY(write_info(heatmap, out));
  TRY(write_numbers(out, "row", &largest->rows));
  TRY(write_numbers(out, "column", &largest->columns));
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
    if (arrays[i].there) TRY(write_values(out, arrays[i].name, arrays[i].member));
  return DITMOE_OK;
}

enum ditmoe_status heatmap_write_npz(struct heatmap *heatmap) {
  const char *path = heatmap->settings.npz;
  struct view view;
  if (!path) return DITMOE_OK;
  struct output out = {.ctx = heatmap->ctx, .view = &view};
  TRY(report_call(out.ctx, ditmoe_npz_create(out.ctx, path, &out.npz)));
  heatmap_view(heatmap, heatmap_view_kind(heatmap, VIEW_LAYER), heatmap->first_bin,
               heatmap->last_bin, false, &view);
  const struct view_panel *largest = largest_panel(&view);
  out.rows = largest->rows.count;
  out.columns = largest->columns.count;
  enum ditmoe_status status = write_all(heatmap, &out);
  view_free(&view);
  if (status != DITMOE_OK) {
    ditmoe_npz_abandon(out.ctx, out.npz);
    return status;
  }
  TRY(report_call(out.ctx, ditmoe_npz_commit(out.ctx, out.npz)));
  heatmap_report(heatmap, path);
  return DITMOE_OK;
}

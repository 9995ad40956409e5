/* The view as CSV, a line a cell: first a line that names the format, then one of column names.
 * Numbers are read back exactly; what was not counted is an empty field. */
#include "cli/heatmap/heatmap.h"
#include "cli/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct csv {
  char *text; /* owned by the stream */
  size_t size;
  FILE *stream;
};

static void put_number(struct csv *csv, double value) {
  char *text = isfinite(value) ? text_number(value) : text_copy("");
  fprintf(csv->stream, ",%s", text);
  free(text);
}

/* Quoted always: names may hold commas; a quote is doubled. */
static void put_text(struct csv *csv, const char *text) {
  fputs(",\"", csv->stream);
  for (const char *c = text; *c; c++) {
    if (*c == '"') fputc('"', csv->stream);
    fputc(*c, csv->stream);
  }
  fputc('"', csv->stream);
}

static void put_data(struct csv *csv, const struct panel_data *data, size_t at) {
  put_number(csv, data->counts[at]);
  put_number(csv, data->mass ? data->mass[at] : NAN);
  put_number(csv, data->values[at]);
}

/* A cell of the tables, whatever the layout of the panel: bin is -1 if bins are summed. */
struct place {
  int layer, bin, row, expert;
  const char *row_name;
};

static struct place place_of(const struct view *view, const struct view_panel *panel, int row,
                             int column) {
  const int r = panel->rows.number[row], c = panel->columns.number[column];
  struct place place = {panel->layer, -1, r, c, panel->rows.labels[row]};
  if (view->kind == VIEW_LAYER) place.layer = r;
  if (view->kind == VIEW_STEP) place.bin = r;
  if (view->kind == VIEW_EXPERT)
    place = (struct place){panel->layer, c, c, r, panel->columns.labels[column]};
  if (view->kind == VIEW_MAP) {
    place.row = r * panel->columns.count + c;
    place.expert = panel->expert;
    place.row_name = "";
  }
  return place;
}

static void put_cell(const struct heatmap *heatmap, const struct view *view,
                     const struct view_panel *panel, int row, int column, struct csv *csv) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const struct place place = place_of(view, panel, row, column);
  const size_t at = (size_t)row * (size_t)panel->columns.count + (size_t)column;
  const int first = place.bin < 0 ? view->first_bin : place.bin;
  const int last = place.bin < 0 ? view->last_bin : place.bin + 1;
  fprintf(csv->stream, "%s,%d,", heatmap_half_name(panel->half), info->layer[place.layer]);
  if (place.bin >= 0) fprintf(csv->stream, "%d", place.bin);
  fprintf(csv->stream, ",%d,%d,%d", info->bin_step[first], info->bin_step[last],
          view->kind == VIEW_LAYER ? info->layer[place.row] : place.row);
  put_text(csv, place.row_name);
  fprintf(csv->stream, ",%d", place.expert);
  put_data(csv, &panel->run, at);
  if (heatmap->other.routing) {
    put_data(csv, &panel->other, at);
    put_number(csv, panel->values[at]);
  }
  fputc('\n', csv->stream);
}

static void put_tables(const struct heatmap *heatmap, const struct view *view, struct csv *csv) {
  const struct heatmap_settings *s = &heatmap->settings;
  fprintf(csv->stream, "# ditmoe-heatmap csv 1; by %s; value: %s, normalize %s\n",
          view_kind_name(view->kind), s->weighted ? "weight" : "choices", s->normalize);
  fputs("half,layer,bin,step_from,step_to,row,row_name,expert,choices,weight,value", csv->stream);
  if (heatmap->other.routing)
    fputs(",other_choices,other_weight,other_value,difference", csv->stream);
  fputc('\n', csv->stream);
  for (int i = 0; i < view->count; i++)
    for (int r = 0; r < view->panels[i].rows.count; r++)
      for (int c = 0; c < view->panels[i].columns.count; c++)
        put_cell(heatmap, view, &view->panels[i], r, c, csv);
}

static void put_similarity(const struct heatmap *heatmap, const struct view *view,
                           struct csv *csv) {
  fprintf(csv->stream, "# ditmoe-heatmap csv 1; by %s; value: %s\n", view_kind_name(view->kind),
          view->unit);
  fputs("layer,expert,other_expert,value\n", csv->stream);
  for (int i = 0; i < view->count; i++) {
    const struct view_panel *panel = &view->panels[i];
    for (int r = 0; r < panel->rows.count; r++)
      for (int c = 0; c < panel->columns.count; c++) {
        fprintf(csv->stream, "%d,%d,%d", heatmap->run.info.layer[panel->layer], r, c);
        put_number(csv, panel->values[(size_t)r * (size_t)panel->columns.count + (size_t)c]);
        fputc('\n', csv->stream);
      }
  }
}

enum ditmoe_status heatmap_write_csv(struct heatmap *heatmap) {
  const char *path = heatmap->settings.csv;
  const enum view_kind kind = heatmap_view_kind(heatmap, VIEW_LAYER);
  struct csv csv = {0};
  struct view view;
  if (!path) return DITMOE_OK;
  csv.stream = open_memstream(&csv.text, &csv.size);
  if (!csv.stream) return report_error(DITMOE_NOMEM, "not enough memory");
  heatmap_view(heatmap, kind, heatmap->first_bin, heatmap->last_bin, false, &view);
  if (kind < VIEW_WEIGHTS)
    put_tables(heatmap, &view, &csv);
  else
    put_similarity(heatmap, &view, &csv);
  view_free(&view);
  const bool lost = ferror(csv.stream) != 0;
  enum ditmoe_status status =
      fclose(csv.stream) != 0 || lost
          ? report_error(DITMOE_NOMEM, "not enough memory")
          : report_call(heatmap->ctx, ditmoe_file_write(heatmap->ctx, path, csv.text, csv.size));
  free(csv.text);
  if (status == DITMOE_OK) heatmap_report(heatmap, path);
  return status;
}

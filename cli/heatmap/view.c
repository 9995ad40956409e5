/* The selection as tables of numbers: sums over the tables of the run, normalised, laid out in
 * panels. */
#include "cli/heatmap/heatmap.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PICTURE_CLASSES = 100 };

static const char *const kind_names[VIEW_KINDS] = {
    "class", "token", "step", "layer", "expert", "map", "weights", "subspace", "router"};

enum view_kind heatmap_view_kind(const struct heatmap *heatmap, enum view_kind otherwise) {
  for (int kind = 0; heatmap->settings.by && kind < VIEW_KINDS; kind++)
    if (strcmp(heatmap->settings.by, kind_names[kind]) == 0) return (enum view_kind)kind;
  return otherwise;
}

const char *view_kind_name(enum view_kind kind) { return kind_names[kind]; }

/* Choices of one layer by what the view goes by: classes, tokens, bins of steps or nothing. */
struct sums {
  int rows, experts;     /* experts: of the layer */
  double *counts, *mass; /* [rows, experts]; mass: NULL if there is none */
  double *values;
};

static void sums_free(struct sums *sums) {
  free(sums->counts);
  free(sums->mass);
  free(sums->values);
}

static void add_classes(const struct ditmoe_routing_info *info,
                        const struct ditmoe_routing_tables *t, int layer, struct sums *sums) {
  for (int label = 0; label < sums->rows; label++)
    for (int e = 0; e < sums->experts; e++) {
      const size_t at = ((size_t)layer * (size_t)info->labels + (size_t)label) *
                            (size_t)info->experts +
                        (size_t)e,
                   to = (size_t)label * (size_t)sums->experts + (size_t)e;
      sums->counts[to] = (double)t->class_counts[at];
      if (sums->mass) sums->mass[to] = DITMOE_ROUTING_UNIT * (double)t->class_mass[at];
    }
}

static void add_tokens(const struct ditmoe_routing_info *info,
                       const struct ditmoe_routing_tables *t, int layer, int bin, int token,
                       double *counts, double *mass, int experts) {
  const size_t S = (size_t)info->bins, T = (size_t)info->tokens, E = (size_t)info->experts;
  const size_t at = (((size_t)layer * S + (size_t)bin) * T + (size_t)token) * E;
  for (int e = 0; e < experts; e++) {
    counts[e] += t->counts[at + (size_t)e];
    if (mass) mass[e] += DITMOE_ROUTING_UNIT * (double)t->mass[at + (size_t)e];
  }
}

static int rows_of(const struct ditmoe_routing_info *info, enum view_kind kind) {
  return kind == VIEW_CLASS                         ? info->labels
         : kind == VIEW_TOKEN || kind == VIEW_MAP   ? info->tokens
         : kind == VIEW_STEP || kind == VIEW_EXPERT ? info->bins
                                                    : 1;
}

static void sums_make(const struct heatmap_run *run, const struct view *view, int half, int layer,
                      struct sums *sums) {
  const struct ditmoe_routing_info *info = &run->info;
  struct ditmoe_routing_tables tables;
  ditmoe_routing_tables(run->routing, (enum ditmoe_half)half, &tables);
  *sums = (struct sums){.rows = rows_of(info, view->kind), .experts = info->layer_experts[layer]};
  const size_t cells = (size_t)sums->rows * (size_t)sums->experts;
  sums->counts = memory_get(cells, sizeof *sums->counts);
  sums->mass = info->mass ? memory_get(cells, sizeof *sums->mass) : NULL;
  sums->values = memory_get(cells, sizeof *sums->values);
  if (view->kind == VIEW_CLASS) {
    add_classes(info, &tables, layer, sums);
    return;
  }
  const bool by_step = view->kind == VIEW_STEP || view->kind == VIEW_EXPERT;
  for (int bin = view->first_bin; bin < view->last_bin; bin++)
    for (int token = 0; token < info->tokens; token++) {
      const int row = view->kind == VIEW_LAYER ? 0 : by_step ? bin : token;
      const size_t at = (size_t)row * (size_t)sums->experts;
      add_tokens(info, &tables, layer, bin, token, sums->counts + at,
                 sums->mass ? sums->mass + at : NULL, sums->experts);
    }
}

/* Normalisation. */

static double row_sum(const double *row, int experts, int without) {
  double sum = 0;
  for (int e = 0; e < experts; e++)
    if (e != without) sum += row[e];
  return sum;
}

static double column_sum(const struct sums *sums, const double *of, int expert) {
  double sum = 0;
  for (int row = 0; row < sums->rows; row++)
    sum += of[(size_t)row * (size_t)sums->experts + (size_t)expert];
  return sum;
}

static double largest(const struct sums *sums, const double *of) {
  double most = 0;
  for (size_t i = 0; i < (size_t)sums->rows * (size_t)sums->experts; i++) most = fmax(most, of[i]);
  return most;
}

static double ratio(double part, double whole) { return whole > 0 ? part / whole : NAN; }

/* Where nothing was chosen, there is no value. */
static void normalize(const struct heatmap *heatmap, enum view_kind kind, struct sums *sums) {
  const char mode = heatmap->settings.normalize[0]; /* uniform, row, layer, none */
  const double *of = heatmap->settings.weighted ? sums->mass : sums->counts;
  const int E = sums->experts, uncond = heatmap->run.info.uncond_expert;
  const int routed = E - (uncond >= 0 && uncond < E);
  const double most = largest(sums, of);
  for (int row = 0; row < sums->rows; row++) {
    const double *from = of + (size_t)row * (size_t)E;
    double *to = sums->values + (size_t)row * (size_t)E;
    const double all = row_sum(from, E, -1), fair = row_sum(from, E, uncond) / routed;
    for (int e = 0; e < E; e++) {
      if (mode == 'u')
        to[e] = e == uncond ? NAN : ratio(from[e], fair);
      else if (mode == 'r')
        to[e] = ratio(from[e], kind == VIEW_EXPERT ? column_sum(sums, of, e) : all);
      else
        to[e] = all > 0 ? from[e] / (mode == 'l' ? most : 1) : NAN;
    }
  }
}

/* Panels. */

static void axis_range(struct view_axis *axis, int first, int last) {
  axis->count = last - first;
  axis->number = memory_get((size_t)axis->count, sizeof *axis->number);
  for (int i = 0; i < axis->count; i++) axis->number[i] = first + i;
}

static bool class_seen(const struct heatmap *heatmap, int label) {
  const struct heatmap_run *const runs[] = {&heatmap->run, &heatmap->other};
  for (int i = 0; i < 2; i++)
    for (int half = 0; runs[i]->routing && half < runs[i]->info.halves; half++) {
      struct ditmoe_routing_tables tables;
      ditmoe_routing_tables(runs[i]->routing, (enum ditmoe_half)half, &tables);
      if (tables.label_evaluations[label] > 0) return true;
    }
  return false;
}

/* The classes of the run; pictures may show every n-th of them. */
static void axis_classes(const struct heatmap *heatmap, bool picture, struct view_axis *axis) {
  int every = picture ? (int)heatmap->settings.class_every : 1, kept = 0;
  axis->count = 0;
  axis->number = memory_get((size_t)heatmap->run.info.labels, sizeof *axis->number);
  for (int label = 0; label < heatmap->run.info.labels; label++)
    if (class_seen(heatmap, label)) axis->number[axis->count++] = label;
  if (every == 0) every = (axis->count + PICTURE_CLASSES - 1) / PICTURE_CLASSES;
  for (int i = 0; i < axis->count; i += every) axis->number[kept++] = axis->number[i];
  axis->count = kept;
}

static void panel_axes(const struct heatmap *heatmap, const struct view *view, bool picture,
                       struct view_panel *panel) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const int experts = panel->layer < 0 ? info->experts : info->layer_experts[panel->layer];
  struct view_axis *rows = &panel->rows, *columns = &panel->columns;
  if (view->kind == VIEW_CLASS) axis_classes(heatmap, picture, rows);
  if (view->kind == VIEW_TOKEN) axis_range(rows, 0, info->tokens);
  if (view->kind == VIEW_STEP) axis_range(rows, view->first_bin, view->last_bin);
  if (view->kind == VIEW_LAYER) axis_range(rows, heatmap->first_layer, heatmap->last_layer);
  if (view->kind == VIEW_MAP) axis_range(rows, 0, info->side);
  if (view->kind == VIEW_EXPERT || view->kind >= VIEW_WEIGHTS) axis_range(rows, 0, experts);
  if (view->kind == VIEW_EXPERT)
    axis_range(columns, view->first_bin, view->last_bin);
  else if (view->kind == VIEW_MAP)
    axis_range(columns, 0, info->side);
  else
    axis_range(columns, 0, experts);
}

static size_t panel_cells(const struct view_panel *panel) {
  return (size_t)panel->rows.count * (size_t)panel->columns.count;
}

/* Where a cell of the panel is in the sums of `layer`; false if it is of another layer or of an
 * expert that this layer lacks. */
static bool locate(const struct view *view, const struct view_panel *panel, int row, int column,
                   int layer, const struct sums *sums, size_t *at) {
  const int r = panel->rows.number[row], c = panel->columns.number[column];
  int line = r, expert = c;
  if (view->kind == VIEW_LAYER) {
    if (r != layer) return false;
    line = 0;
  } else if (view->kind == VIEW_EXPERT) {
    line = c;
    expert = r;
  } else if (view->kind == VIEW_MAP) {
    line = r * panel->columns.count + c;
    expert = panel->expert;
  }
  *at = (size_t)line * (size_t)sums->experts + (size_t)expert;
  return expert < sums->experts;
}

static void data_alloc(struct panel_data *data, size_t cells, bool mass) {
  data->counts = memory_get(cells, sizeof *data->counts);
  data->mass = mass ? memory_get(cells, sizeof *data->mass) : NULL;
  data->values = memory_get(cells, sizeof *data->values);
  for (size_t i = 0; i < cells; i++) data->values[i] = NAN;
}

/* The cells of the panel that come from one layer. */
static void fill_layer(const struct view *view, const struct view_panel *panel, int layer,
                       const struct sums *sums, struct panel_data *data) {
  for (int r = 0; r < panel->rows.count; r++)
    for (int c = 0; c < panel->columns.count; c++) {
      const size_t to = (size_t)r * (size_t)panel->columns.count + (size_t)c;
      size_t at;
      if (!locate(view, panel, r, c, layer, sums, &at)) continue;
      data->counts[to] = sums->counts[at];
      if (data->mass) data->mass[to] = sums->mass[at];
      data->values[to] = sums->values[at];
    }
}

/* Fills the panels of one half and layer, whose sums are made once. */
static void fill_panels(const struct heatmap *heatmap, const struct heatmap_run *run,
                        struct view *view, int half, int layer) {
  struct sums sums;
  sums_make(run, view, half, layer, &sums);
  normalize(heatmap, view->kind, &sums);
  for (int i = 0; i < view->count; i++) {
    struct view_panel *panel = &view->panels[i];
    if (panel->half != half || (panel->layer >= 0 && panel->layer != layer)) continue;
    fill_layer(view, panel, layer, &sums, run == &heatmap->run ? &panel->run : &panel->other);
  }
  sums_free(&sums);
}

static void add_panel(struct view *view, int half, int layer, int expert) {
  view->panels = memory_resize(view->panels, (size_t)view->count + 1, sizeof *view->panels);
  view->panels[view->count++] = (struct view_panel){.half = half, .layer = layer, .expert = expert};
}

/* An unconditional expert has no fair share: a picture of it would be empty. */
static void add_maps(const struct heatmap *heatmap, struct view *view, int half, int layer,
                     bool picture) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const bool uniform = strcmp(heatmap->settings.normalize, "uniform") == 0;
  for (int e = 0; e < info->layer_experts[layer]; e++)
    if (!(picture && uniform && e == info->uncond_expert)) add_panel(view, half, layer, e);
}

static void add_panels(const struct heatmap *heatmap, struct view *view, bool picture) {
  const bool similarity = view->kind >= VIEW_WEIGHTS;
  const int first = similarity ? -1 : heatmap->first_half;
  const int last = similarity ? 0 : heatmap->last_half;
  for (int half = first; half < last; half++) {
    if (view->kind == VIEW_LAYER) {
      add_panel(view, half, -1, -1);
      continue;
    }
    for (int layer = heatmap->first_layer; layer < heatmap->last_layer; layer++)
      if (view->kind == VIEW_MAP)
        add_maps(heatmap, view, half, layer, picture);
      else
        add_panel(view, half, layer, -1);
  }
}

static void fill_run(const struct heatmap *heatmap, const struct heatmap_run *run,
                     struct view *view) {
  for (int i = 0; i < view->count; i++)
    data_alloc(run == &heatmap->run ? &view->panels[i].run : &view->panels[i].other,
               panel_cells(&view->panels[i]), run->info.mass);
  for (int half = heatmap->first_half; half < heatmap->last_half; half++)
    for (int layer = heatmap->first_layer; layer < heatmap->last_layer; layer++)
      fill_panels(heatmap, run, view, half, layer);
}

static void fill_similarity(const struct heatmap *heatmap, const struct view *view,
                            struct view_panel *panel) {
  const struct ditmoe_similarity *s = heatmap->similarity;
  const float *from = view->kind == VIEW_WEIGHTS    ? s->weights
                      : view->kind == VIEW_SUBSPACE ? s->subspace
                                                    : s->router;
  const size_t E = (size_t)s->experts;
  for (int r = 0; r < panel->rows.count; r++)
    for (int c = 0; c < panel->columns.count; c++)
      panel->values[(size_t)r * (size_t)panel->columns.count + (size_t)c] =
          from[((size_t)panel->layer * E + (size_t)r) * E + (size_t)c];
}

static void set_values(const struct heatmap *heatmap, const struct view *view,
                       struct view_panel *panel) {
  const size_t cells = panel_cells(panel);
  panel->values = memory_get(cells, sizeof *panel->values);
  if (view->kind >= VIEW_WEIGHTS) {
    fill_similarity(heatmap, view, panel);
    return;
  }
  for (size_t i = 0; i < cells; i++)
    panel->values[i] = panel->run.values[i] - (panel->other.values ? panel->other.values[i] : 0);
}

void heatmap_view(const struct heatmap *heatmap, enum view_kind kind, int first_bin, int last_bin,
                  bool picture, struct view *out) {
  *out = (struct view){.kind = kind,
                       .first_bin = first_bin,
                       .last_bin = last_bin,
                       .centre = heatmap->other.routing ? 0 : NAN};
  add_panels(heatmap, out, picture);
  for (int i = 0; i < out->count; i++) panel_axes(heatmap, out, picture, &out->panels[i]);
  if (kind < VIEW_WEIGHTS) fill_run(heatmap, &heatmap->run, out);
  if (kind < VIEW_WEIGHTS && heatmap->other.routing) fill_run(heatmap, &heatmap->other, out);
  for (int i = 0; i < out->count; i++) set_values(heatmap, out, &out->panels[i]);
  heatmap_label_view(heatmap, out);
}

static void axis_free(struct view_axis *axis) {
  for (int i = 0; axis->labels && i < axis->count; i++) free(axis->labels[i]);
  free(axis->labels);
  free(axis->number);
}

static void data_free(struct panel_data *data) {
  free(data->counts);
  free(data->mass);
  free(data->values);
}

void view_free(struct view *view) {
  for (int i = 0; i < view->count; i++) {
    struct view_panel *panel = &view->panels[i];
    axis_free(&panel->rows);
    axis_free(&panel->columns);
    data_free(&panel->run);
    data_free(&panel->other);
    free(panel->values);
    free(panel->title);
  }
  free(view->panels);
  free(view->title);
  free(view->subtitle);
  free(view->unit);
}

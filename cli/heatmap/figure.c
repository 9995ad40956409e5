/* The view as a picture, and as an animation over the steps. */
#include "plot/figure.h"
#include "cli/heatmap/heatmap.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ACROSS_MAX = 16 };

struct range {
  double low, high; /* NaN: no value yet */
};

static void widen(struct range *range, double value) {
  if (!isfinite(value)) return;
  range->low = fmin(range->low, value);
  range->high = fmax(range->high, value);
}

/* An expert is like itself: with ones on the diagonal all else would look the same. */
static void blank_diagonal(struct view *view) {
  for (int i = 0; view->kind >= VIEW_WEIGHTS && i < view->count; i++)
    for (int e = 0; e < view->panels[i].rows.count; e++)
      view->panels[i].values[(size_t)e * (size_t)(view->panels[i].columns.count + 1)] = NAN;
}

static void make_picture_view(const struct heatmap *heatmap, enum view_kind kind, int first_bin,
                              int last_bin, struct view *view) {
  heatmap_view(heatmap, kind, first_bin, last_bin, true, view);
  blank_diagonal(view);
}

static struct panel *make_panels(const struct view *view, const struct range *ranges) {
  struct panel *panels = memory_get((size_t)view->count, sizeof *panels);
  for (int i = 0; i < view->count; i++) {
    const struct view_panel *from = &view->panels[i];
    panels[i] = (struct panel){.title = *from->title ? from->title : NULL,
                               .rows = from->rows.count,
                               .columns = from->columns.count,
                               .values = from->values,
                               .row_name = from->rows.name,
                               .column_name = from->columns.name,
                               .row_labels = (const char *const *)from->rows.labels,
                               .column_labels = (const char *const *)from->columns.labels,
                               .low = ranges ? ranges[i].low : NAN,
                               .high = ranges ? ranges[i].high : NAN};
  }
  return panels;
}

/* A row of a map is a layer. */
static int panels_across(const struct heatmap *heatmap, const struct view *view) {
  int across = 1;
  if (heatmap->settings.columns) return (int)heatmap->settings.columns;
  if (view->kind == VIEW_MAP) {
    while (across < view->count && view->panels[across].layer == view->panels[0].layer &&
           view->panels[across].half == view->panels[0].half)
      across++;
    return across <= ACROSS_MAX ? across : 0;
  }
  return figure_full_rows(view->count);
}

static enum ditmoe_status draw(const struct heatmap *heatmap, const struct view *view,
                               const struct range *ranges, struct canvas *canvas) {
  const struct heatmap_settings *s = &heatmap->settings;
  const bool signed_values = isfinite(view->centre);
  struct panel *panels = make_panels(view, ranges);
  const struct figure figure = {
      .title = view->title,
      .subtitle = view->subtitle,
      .unit = view->unit,
      .count = view->count,
      .panels = panels,
      .shared = strcmp(s->scale, "shared") == 0,
      .centered = signed_values,
      .center = signed_values ? view->centre : 0,
      .map = colormap_find(signed_values ? "difference"
                           : s->colormap ? s->colormap
                                         : colormap_names[0]),
      .cell = (int)s->cell,
      .across = panels_across(heatmap, view),
  };
  const enum ditmoe_status status = figure_draw(&figure, canvas);
  free(panels);
  return status;
}

static enum ditmoe_status draw_figure(const struct heatmap *heatmap, struct canvas *canvas) {
  struct view view;
  if (heatmap->image)
    return heatmap_draw_overlay(heatmap, heatmap->first_bin, heatmap->last_bin, canvas);
  make_picture_view(heatmap, heatmap_view_kind(heatmap, VIEW_LAYER), heatmap->first_bin,
                    heatmap->last_bin, &view);
  const enum ditmoe_status status = draw(heatmap, &view, NULL, canvas);
  view_free(&view);
  return status;
}

enum ditmoe_status heatmap_write_figure(struct heatmap *heatmap) {
  static const struct ditmoe_text text[] = {{"Software", "ditmoe-heatmap " DITMOE_VERSION}, {0}};
  const char *path = heatmap->settings.png;
  struct canvas canvas = {0};
  if (!path) return DITMOE_OK;
  enum ditmoe_status status = draw_figure(heatmap, &canvas);
  if (status == DITMOE_OK)
    status = report_call(heatmap->ctx, ditmoe_image_write(heatmap->ctx, path, canvas.pixels,
                                                          canvas.width, canvas.height, text));
  canvas_free(&canvas);
  if (status == DITMOE_OK) heatmap_report(heatmap, path);
  return status;
}

/* Animation: a frame for each bin, all with the same colours. */

struct movie {
  const struct heatmap *heatmap;
  enum view_kind kind;
  struct range *ranges; /* of each panel over all frames; NULL for an overlay */
};

static void find_ranges(struct movie *movie) {
  const struct heatmap *heatmap = movie->heatmap;
  for (int bin = heatmap->first_bin; bin < heatmap->last_bin; bin++) {
    struct view view;
    make_picture_view(heatmap, movie->kind, bin, bin + 1, &view);
    if (!movie->ranges) {
      movie->ranges = memory_get((size_t)view.count, sizeof *movie->ranges);
      for (int i = 0; i < view.count; i++) movie->ranges[i] = (struct range){NAN, NAN};
    }
    for (int i = 0; i < view.count; i++)
      for (int j = 0; j < view.panels[i].rows.count * view.panels[i].columns.count; j++)
        widen(&movie->ranges[i], view.panels[i].values[j]);
    view_free(&view);
  }
}

static enum ditmoe_status draw_frame(void *user, int index, struct canvas *frame) {
  const struct movie *movie = user;
  const int bin = movie->heatmap->first_bin + index;
  struct view view;
  if (movie->heatmap->image) return heatmap_draw_overlay(movie->heatmap, bin, bin + 1, frame);
  make_picture_view(movie->heatmap, movie->kind, bin, bin + 1, &view);
  const enum ditmoe_status status = draw(movie->heatmap, &view, movie->ranges, frame);
  view_free(&view);
  return status;
}

enum ditmoe_status heatmap_write_animation(struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  if (!s->animation) return DITMOE_OK;
  enum view_kind kind = heatmap_view_kind(heatmap, VIEW_MAP);
  struct movie movie = {.heatmap = heatmap, .kind = kind};
  if (!heatmap->image) find_ranges(&movie);
  const struct apng apng = {.count = heatmap->last_bin - heatmap->first_bin,
                            .delay_ms = (int)s->delay,
                            .draw = draw_frame,
                            .user = &movie};
  const enum ditmoe_status status = apng_write(heatmap->ctx, s->animation, &apng);
  free(movie.ranges);
  if (status == DITMOE_OK) heatmap_report(heatmap, s->animation);
  return status;
}

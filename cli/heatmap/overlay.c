/* --overlay: the experts of an image drawn over it, a coloured cell with its expert for each token;
 * a panel a layer, and the image alone before them. */
#include "cli/heatmap/heatmap.h"
#include "cli/text.h"
#include "plot/figure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  MARGIN = 16,
  GAP = 12,
  IMAGE_SIDE = 256,
  CELL_LEAST = 24,
  WIDTH_LEAST = 640,
  SWATCH = 18,
  PATCH = 3
};
static const double ALPHA = 0.45;
static const color ink = {0x22, 0x22, 0x22}, faint = {0x66, 0x66, 0x66};

/* The expert most often chosen at each position, -1 where none was. chosen: [T] */
static void find_chosen(const struct heatmap *heatmap, int half, int layer, int first_bin,
                        int last_bin, int *chosen) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const struct ditmoe_routing *routing =
      heatmap->image_routing ? heatmap->image_routing : heatmap->run.routing;
  const size_t S = (size_t)info->bins, T = (size_t)info->tokens, E = (size_t)info->experts;
  struct ditmoe_routing_tables t;
  ditmoe_routing_tables(routing, (enum ditmoe_half)half, &t);
  for (size_t token = 0; token < T; token++) {
    int64_t most = 0;
    chosen[token] = -1;
    for (size_t e = 0; e < (size_t)info->layer_experts[layer]; e++) {
      int64_t sum = 0;
      for (size_t bin = (size_t)first_bin; bin < (size_t)last_bin; bin++) {
        const size_t at = (((size_t)layer * S + bin) * T + token) * E + e;
        sum += heatmap->settings.weighted ? t.mass[at] : t.counts[at];
      }
      if (sum > most) chosen[token] = (int)e;
      if (sum > most) most = sum;
    }
  }
}

/* Layout. */

struct overlay {
  const struct heatmap *heatmap;
  int first_bin, last_bin;
  int first_layer, last_layer;
  int panels, across; /* the image, then layers of each half */
  int cell, side;     /* pixels of a token, of a panel       */
  int top, pitch;     /* of the panels                       */
  int legend, legend_across;
};

static int line_height(enum text_size size) { return canvas_text_height(size) + 4; }

static struct overlay plan(const struct heatmap *heatmap, int first_bin, int last_bin) {
  const struct heatmap_settings *s = &heatmap->settings;
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  struct overlay o = {.heatmap = heatmap,
                      .first_bin = first_bin,
                      .last_bin = last_bin,
                      .first_layer = heatmap->first_layer,
                      .last_layer = heatmap->last_layer};
  for (int i = 0; option_given(&heatmap->options, &s->overlay_layer) && i < info->layers; i++)
    if (info->layer[i] == s->overlay_layer) {
      o.first_layer = i;
      o.last_layer = i + 1;
    }
  o.panels = 1 + (o.last_layer - o.first_layer) * (heatmap->last_half - heatmap->first_half);
  o.across = (int)s->columns;
  if (!o.across) o.across = o.panels < 5 ? o.panels : figure_full_rows(o.panels);
  if (!o.across) o.across = (int)ceil(sqrt(1.3 * o.panels));
  o.cell = (int)s->cell;
  if (!o.cell) o.cell = info->side * CELL_LEAST < IMAGE_SIDE ? IMAGE_SIDE / info->side : CELL_LEAST;
  o.side = o.cell * info->side;
  o.top = MARGIN + line_height(TEXT_TITLE) + 2 * line_height(TEXT_NORMAL) + GAP;
  o.pitch = line_height(TEXT_NORMAL) + o.side + GAP;
  return o;
}

static int canvas_width(const struct overlay *o) {
  const int width = 2 * MARGIN + o->across * (o->side + GAP) - GAP;
  return width > WIDTH_LEAST ? width : WIDTH_LEAST;
}

/* Each entry of the legend has the room of the longest. */
static int legend_pitch(void) {
  return SWATCH + 6 + canvas_text_width(TEXT_NORMAL, "uncond") + GAP;
}

/* Drawing. */

static void line(struct canvas *canvas, int x, int y, enum text_size size, const color rgb,
                 const char *text) {
  char *fits = canvas_text_fit(size, text, canvas->width - x - MARGIN);
  canvas_text(canvas, x, y, size, rgb, fits);
  free(fits);
}

static void draw_head(const struct overlay *o, struct canvas *canvas) {
  const struct heatmap *heatmap = o->heatmap;
  char *run = heatmap_run_title(&heatmap->run);
  char *image = heatmap_clean(text_copy(path_name(heatmap->settings.overlay)));
  char *title = heatmap->settings.title ? heatmap_clean(text_copy(heatmap->settings.title))
                                        : text_format("%s: experts over %s", run, image);
  char *steps = heatmap_steps_title(&heatmap->run.info, o->first_bin, o->last_bin);
  const char *what = heatmap->settings.weighted ? "the largest gate weight" : "the most choices";
  char *source = heatmap->image_routing
                     ? text_format("image %lld of the run: the expert with %s at each position",
                                   (long long)heatmap->image_index, what)
                     : text_format("the expert with %s at each position, in all %lld images", what,
                                   (long long)heatmap->run.info.images);
  char *half = heatmap->last_half - heatmap->first_half > 1
                   ? text_copy("both halves")
                   : text_format("%s half", heatmap_half_name(heatmap->first_half));
  char *layers = heatmap_layers_title(&heatmap->run.info, o->first_layer, o->last_layer);
  char *second = text_format("%s; %s, %s", steps, half, layers);
  int y = MARGIN;
  line(canvas, MARGIN, y, TEXT_TITLE, ink, title);
  y += line_height(TEXT_TITLE);
  line(canvas, MARGIN, y, TEXT_NORMAL, faint, source);
  y += line_height(TEXT_NORMAL);
  line(canvas, MARGIN, y, TEXT_NORMAL, faint, second);
  free(run);
  free(image);
  free(title);
  free(steps);
  free(source);
  free(half);
  free(layers);
  free(second);
}

/* The id on a patch of the full colour, so that it can be read over any image. */
static void draw_id(const struct overlay *o, struct canvas *canvas, struct area cell,
                    const color rgb, const char *id) {
  const enum text_size size = o->cell >= 40 ? TEXT_NORMAL : TEXT_SMALL;
  const int width = canvas_text_width(size, id), height = canvas_text_height(size);
  const struct area patch = {cell.x + (cell.width - width) / 2 - PATCH,
                             cell.y + (cell.height - height) / 2, width + 2 * PATCH, height};
  color over;
  if (patch.width > cell.width || patch.height > cell.height) return;
  color_ink(rgb, over);
  canvas_fill(canvas, patch, rgb);
  canvas_text(canvas, patch.x + PATCH, patch.y, size, over, id);
}

static void draw_cell(const struct overlay *o, struct canvas *canvas, struct area area,
                      int expert) {
  const struct ditmoe_routing_info *info = &o->heatmap->run.info;
  color rgb;
  color_distinct(expert, info->experts, rgb);
  canvas_blend(canvas, area, rgb, ALPHA);
  char *id = expert == info->uncond_expert ? text_copy("u") : text_format("%d", expert);
  draw_id(o, canvas, area, rgb, id);
  free(id);
}

static void draw_panel(const struct overlay *o, struct canvas *canvas, int index, const char *title,
                       const int *chosen) {
  const struct heatmap *heatmap = o->heatmap;
  const int n = heatmap->run.info.side;
  const int x = MARGIN + index % o->across * (o->side + GAP);
  const int y = o->top + index / o->across * o->pitch + line_height(TEXT_NORMAL);
  const struct area area = {x, y, o->side, o->side};
  char *fits = canvas_text_fit(TEXT_NORMAL, title, o->side);
  canvas_text(canvas, x, y - line_height(TEXT_NORMAL), TEXT_NORMAL, ink, fits);
  free(fits);
  canvas_image(canvas, area, heatmap->image, heatmap->image_width, heatmap->image_height);
  for (int i = 0; chosen && i < n * n; i++)
    if (chosen[i] >= 0)
      draw_cell(o, canvas,
                (struct area){x + i % n * o->cell, y + i / n * o->cell, o->cell - 1, o->cell - 1},
                chosen[i]);
}

static char *layer_title(const struct overlay *o, int half, int layer) {
  const struct heatmap *heatmap = o->heatmap;
  const bool both = heatmap->last_half - heatmap->first_half > 1;
  return text_format("layer %d%s%s", heatmap->run.info.layer[layer], both ? ", " : "",
                     both ? heatmap_half_name(half) : "");
}

static void draw_legend(const struct overlay *o, struct canvas *canvas) {
  const struct ditmoe_routing_info *info = &o->heatmap->run.info;
  const int top = o->top + (o->panels + o->across - 1) / o->across * o->pitch;
  const int height = canvas_text_height(TEXT_NORMAL);
  for (int e = 0; e < info->experts; e++) {
    const int x = MARGIN + e % o->legend_across * legend_pitch();
    const int y = top + e / o->legend_across * (SWATCH + 6);
    char *title = heatmap_expert_title(info, e);
    color rgb;
    color_distinct(e, info->experts, rgb);
    canvas_fill(canvas, (struct area){x, y, SWATCH, SWATCH}, rgb);
    canvas_text(canvas, x + SWATCH + 6, y + (SWATCH - height) / 2, TEXT_NORMAL, ink, title);
    free(title);
  }
}

enum ditmoe_status heatmap_draw_overlay(const struct heatmap *heatmap, int first_bin, int last_bin,
                                        struct canvas *out) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  struct overlay o = plan(heatmap, first_bin, last_bin);
  const int width = canvas_width(&o);
  o.legend_across = (width - 2 * MARGIN) / legend_pitch();
  const int legend_rows = (info->experts + o.legend_across - 1) / o.legend_across;
  TRY(canvas_create(out, width,
                    o.top + (o.panels + o.across - 1) / o.across * o.pitch +
                        legend_rows * (SWATCH + 6) + MARGIN));
  draw_head(&o, out);
  draw_panel(&o, out, 0, "image", NULL);
  int *chosen = memory_get((size_t)info->tokens, sizeof *chosen), index = 1;
  for (int half = heatmap->first_half; half < heatmap->last_half; half++)
    for (int layer = o.first_layer; layer < o.last_layer; layer++) {
      char *title = layer_title(&o, half, layer);
      find_chosen(heatmap, half, layer, first_bin, last_bin, chosen);
      draw_panel(&o, out, index++, title, chosen);
      free(title);
    }
  free(chosen);
  draw_legend(&o, out);
  return DITMOE_OK;
}

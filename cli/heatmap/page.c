/* The HTML page: one file with everything in it, that needs no network. */
#include "cli/heatmap/page.h"
#include "cli/json.h"
#include "cli/text.h"
#include "plot/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  SIZE_LIMIT = 5000000,
  CELLS_MAX = 8000000, /* that a browser has to hold, of all large tables together */
  PICTURE_MAX = 512,   /* pixels of a side                                         */
  ANCHORS = 33,        /* colours of a map, between which the page interpolates     */
  LEVELS = 65535       /* of mean weights, if there is room */
};

/* The runs. */

/* The classes of which anything was counted, in either run. */
static int used_labels(const struct heatmap *heatmap, int **labels) {
  const struct heatmap_run *const runs[] = {&heatmap->run, &heatmap->other};
  const int all = heatmap->run.info.labels;
  int count = 0;
  bool *used = memory_get((size_t)all, sizeof *used);
  for (int i = 0; i < 2; i++)
    for (int half = 0; runs[i]->routing && half < runs[i]->info.halves; half++) {
      struct ditmoe_routing_tables tables;
      ditmoe_routing_tables(runs[i]->routing, (enum ditmoe_half)half, &tables);
      for (int label = 0; label < all; label++) used[label] |= tables.label_evaluations[label] > 0;
    }
  *labels = memory_get((size_t)all, sizeof **labels);
  for (int label = 0; label < all; label++)
    if (used[label]) (*labels)[count++] = label;
  free(used);
  return count;
}

static void add_steps(struct html *html, const struct ditmoe_routing_info *info, int merge) {
  html_raw(html, ",\"binStep\":[");
  for (int bin = 0; bin < page_bins(info, merge); bin++)
    html_format(html, "%d,", info->bin_step[page_bin(info, merge, bin)]);
  html_format(html, "%d],\"time\":", info->steps);
  for (int step = 0; step < info->steps; step++) {
    html_raw(html, step ? "," : "[");
    page_rounded(html, info->time[step]);
  }
  html_raw(html, "]");
}

static void add_shape(struct html *html, const struct ditmoe_routing_info *info, int merge) {
  html_raw(html, "\"layers\":");
  page_integers(html, info->layer, info->layers);
  html_raw(html, ",\"layerExperts\":");
  page_integers(html, info->layer_experts, info->layers);
  html_format(html,
              ",\"tokens\":%d,\"side\":%d,\"experts\":%d,\"topK\":%d,\"uncondExpert\":%d,"
              "\"nullLabel\":%d,\"images\":%lld,\"steps\":%d",
              info->tokens, info->side, info->experts, info->top_k, info->uncond_expert,
              info->null_label, (long long)info->images, info->steps);
  html_raw(html, info->mass ? ",\"mass\":true" : ",\"mass\":false");
  add_steps(html, info, merge);
}

static void add_halves(struct html *html, const struct heatmap_run *run,
                       const struct page_detail *detail, const int *labels, int count) {
  for (int half = 0; half < run->info.halves; half++) {
    html_raw(html, half ? ",{" : ",\"halves\":[{");
    page_tables(html, run->routing, (enum ditmoe_half)half, detail, labels, count);
    html_raw(html, ",\"numbers\":");
    page_numbers(html, run, (enum ditmoe_half)half);
    html_raw(html, "}");
  }
  html_raw(html, "]");
}

/* The tables of the overlay's image alone. */
static void add_image_run(struct html *html, const struct ditmoe_routing *routing,
                          const struct page_detail *detail) {
  struct ditmoe_routing_info info;
  ditmoe_routing_info(routing, &info);
  html_raw(html, ",\"run\":{");
  add_shape(html, &info, detail->merge);
  for (int half = 0; half < info.halves; half++) {
    html_raw(html, half ? ",{" : ",\"halves\":[{");
    page_tables(html, routing, (enum ditmoe_half)half, detail, NULL, 0);
    html_raw(html, "}");
  }
  html_raw(html, "]}");
}

static void add_run(struct html *html, const struct heatmap_run *run,
                    const struct page_detail *detail, const int *labels, int count) {
  char *name = heatmap_run_title(run),
       *meta = run->meta ? json_text(run->meta, false) : text_copy("{}");
  html_raw(html, "{\"name\":");
  page_text(html, name);
  html_raw(html, ",\"meta\":");
  page_text(html, meta);
  html_raw(html, ",\"labels\":");
  page_integers(html, labels, count);
  html_raw(html, ",");
  add_shape(html, &run->info, detail->merge);
  add_halves(html, run, detail, labels, count);
  html_raw(html, "}");
  free(meta);
  free(name);
}

static void add_runs(struct html *html, const struct heatmap *heatmap,
                     const struct page_detail *detail) {
  int *labels;
  const int count = used_labels(heatmap, &labels);
  html_raw(html, ",\n\"runs\":[");
  add_run(html, &heatmap->run, detail, labels, count);
  if (heatmap->other.routing) {
    html_raw(html, ",\n");
    add_run(html, &heatmap->other, detail, labels, count);
  }
  html_raw(html, "],\n\"classNames\":[");
  for (int i = 0, named = 0; i < count; i++) {
    const char *name = heatmap->class_names[labels[i]];
    if (!name) continue;
    html_format(html, "%s[%d,", named++ ? "," : "", labels[i]);
    page_text(html, name);
    html_raw(html, "]");
  }
  html_raw(html, "]");
  free(labels);
}

/* The image, of at most PICTURE_MAX pixels a side. */
static enum ditmoe_status add_picture(struct html *html, const struct heatmap *heatmap) {
  const int width = heatmap->image_width, height = heatmap->image_height;
  const double shrink = fmin(1, (double)PICTURE_MAX / fmax(width, height));
  const struct area area = {0, 0, (int)fmax(1, width * shrink), (int)fmax(1, height * shrink)};
  struct canvas canvas = {0};
  TRY(canvas_create(&canvas, area.width, area.height));
  canvas_image(&canvas, area, heatmap->image, width, height);
  page_pixels(html, canvas.pixels, area.width, area.height);
  canvas_free(&canvas);
  return DITMOE_OK;
}

static enum ditmoe_status add_overlay(struct html *html, const struct heatmap *heatmap,
                                      const struct page_detail *detail) {
  if (!heatmap->image) return DITMOE_OK;
  html_raw(html, ",\n\"overlay\":{\"image\":");
  TRY(add_picture(html, heatmap));
  if (heatmap->image_routing) add_image_run(html, heatmap->image_routing, detail);
  html_raw(html, "}");
  return DITMOE_OK;
}

/* Similarity. */

static void add_matrices(struct html *html, const char *member, const float *values, int count) {
  html_raw(html, member);
  for (int i = 0; i < count; i++) {
    html_raw(html, i ? "," : "[");
    page_rounded(html, values[i]);
  }
  html_raw(html, "]");
}

static void add_similarity(struct html *html, const struct ditmoe_similarity *s) {
  if (!s) return;
  const int count = s->layers * s->experts * s->experts;
  html_format(html, ",\n\"similarity\":{\"experts\":%d,\"rank\":%d,\"layer\":", s->experts,
              s->rank);
  page_integers(html, s->layer, s->layers);
  add_matrices(html, ",\"weights\":", s->weights, count);
  add_matrices(html, ",\"subspace\":", s->subspace, count);
  add_matrices(html, ",\"router\":", s->router, count);
  html_raw(html, "}");
}

/* Colours, the same as in the pictures. */

static void add_color(struct html *html, const color rgb) {
  html_format(html, "\"%02x%02x%02x\"", rgb[0], rgb[1], rgb[2]);
}

static void add_map(struct html *html, const char *name) {
  const struct colormap *map = colormap_find(name);
  page_text(html, name);
  for (int i = 0; i < ANCHORS; i++) {
    color rgb;
    colormap_at(map, (double)i / (ANCHORS - 1), rgb);
    html_raw(html, i ? "," : ":[");
    add_color(html, rgb);
  }
  html_raw(html, "]");
}

static void add_colors(struct html *html, int experts) {
  html_raw(html, ",\n\"colormaps\":{");
  for (int i = 0; colormap_names[i]; i++) {
    add_map(html, colormap_names[i]);
    html_raw(html, ",");
  }
  add_map(html, "difference");
  html_raw(html, "},\n\"expertColors\":[");
  for (int e = 0; e < experts; e++) {
    color rgb;
    color_distinct(e, experts, rgb);
    if (e) html_raw(html, ",");
    add_color(html, rgb);
  }
  html_raw(html, "]");
}

static int overlay_layer(const struct heatmap *heatmap) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  if (!option_given(&heatmap->options, &heatmap->settings.overlay_layer)) return -1;
  for (int l = 0; l < info->layers; l++)
    if (info->layer[l] == heatmap->settings.overlay_layer) return l;
  return -1;
}

/* What the options of the program chose is what the page shows first. */
static void add_initial(struct html *html, const struct heatmap *heatmap, int merge) {
  const struct heatmap_settings *s = &heatmap->settings;
  const enum view_kind kind = heatmap_view_kind(heatmap, VIEW_MAP);
  html_raw(html, ",\n\"initial\":{\"view\":");
  page_text(html, kind >= VIEW_MAP ? "token" : view_kind_name(kind));
  html_raw(html, ",\"half\":");
  page_text(html, s->half);
  html_raw(html, ",\"normalize\":");
  page_text(html, s->normalize);
  html_raw(html, ",\"scale\":");
  page_text(html, s->scale);
  html_raw(html, ",\"colormap\":");
  page_text(html, s->colormap ? s->colormap : colormap_names[0]);
  html_raw(html, s->weighted ? ",\"what\":\"mass\"" : ",\"what\":\"counts\"");
  const int only = overlay_layer(heatmap);
  html_format(html, ",\"layers\":[%d,%d],\"bins\":[%d,%d]}", only < 0 ? heatmap->first_layer : only,
              only < 0 ? heatmap->last_layer - 1 : only, heatmap->first_bin / merge,
              (heatmap->last_bin - 1) / merge);
}

/* What the page leaves out, for its reader. */
static void add_notes(struct html *html, const struct heatmap *heatmap,
                      const struct page_detail *detail) {
  const struct page_detail exact = {1, 1, LEVELS};
  int count = 0;
  html_raw(html, ",\n\"notes\":[");
  if (detail->merge > exact.merge) {
    char *note = text_format("To keep this page small, every %d bins of steps are shown as one; "
                             "the dump has them all.",
                             detail->merge);
    page_text(html, note);
    free(note);
    count++;
  }
  if (detail->unit > exact.unit) {
    char *note = text_format("To keep this page small, counts by token and step are rounded to "
                             "multiples of %llu; those by class and all numbers are exact.",
                             (unsigned long long)detail->unit);
    html_raw(html, count++ ? "," : "");
    page_text(html, note);
    free(note);
  }
  if (heatmap->run.info.mass && detail->levels < exact.levels) {
    char *note = text_format(
        "To keep this page small, gate mass is kept as the mean weight of each cell, in %d steps "
        "between the least and the largest.",
        detail->levels);
    html_raw(html, count ? "," : "");
    page_text(html, note);
    free(note);
  }
  html_raw(html, "]");
}

/* The page. */

static char *title_of(const struct heatmap *heatmap) {
  if (heatmap->settings.title) return text_copy(heatmap->settings.title);
  char *run = heatmap_run_title(&heatmap->run);
  char *other = heatmap->other.routing ? heatmap_run_title(&heatmap->other) : NULL;
  char *title = text_format("Routing of %s%s%s", run, other ? " minus " : "", other ? other : "");
  free(run);
  free(other);
  return title;
}

static enum ditmoe_status add_data(struct html *html, const struct heatmap *heatmap,
                                   const struct page_detail *detail) {
  char *title = title_of(heatmap);
  html_raw(html, "{\"title\":");
  page_text(html, title);
  free(title);
  add_notes(html, heatmap, detail);
  add_initial(html, heatmap, detail->merge);
  add_colors(html, heatmap->run.info.experts);
  add_runs(html, heatmap, detail);
  add_similarity(html, heatmap->similarity);
  TRY(add_overlay(html, heatmap, detail));
  html_raw(html, ",\n\"checks\":");
  page_checks(html, heatmap, detail);
  html_raw(html, "}");
  return DITMOE_OK;
}

static enum ditmoe_status compose(const struct heatmap *heatmap, const struct page_detail *detail,
                                  struct html *html) {
  static const char marker[] = "@DATA@";
  char *template = page_template();
  char *place = strstr(template, marker);
  *place = 0;
  html_raw(html, template);
  const enum ditmoe_status status = add_data(html, heatmap, detail);
  html_raw(html, place + strlen(marker));
  free(template);
  return status;
}

/* Cells of the large tables, as the tables hold them. */
static double cells_of(const struct heatmap *heatmap) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const double cells = (double)info->layers * info->bins * info->tokens * info->experts;
  return cells * (1 + info->mass) *
         (info->halves * (1 + (heatmap->other.routing != NULL) + (heatmap->image_routing != NULL)));
}

/* Rounding stays well below the noise of counting, the square root of a count. */
static uint64_t largest_unit(const struct heatmap *heatmap) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const double choices = (double)info->images * info->steps * (info->top_k ? info->top_k : 1);
  const double mean = choices / info->bins / info->experts;
  uint64_t unit = 1;
  while ((double)unit < sqrt(mean) / 4) unit *= 2;
  return unit;
}

/* The next way to make the page smaller; false if there is none. */
static bool coarsen(const struct heatmap *heatmap, struct page_detail *detail) {
  if (heatmap->run.info.mass && detail->levels > 255)
    detail->levels = detail->levels > 4095 ? 4095 : 255;
  else if (detail->unit < largest_unit(heatmap))
    detail->unit *= 2;
  else if (detail->merge < heatmap->run.info.bins)
    detail->merge += (detail->merge + 1) / 2;
  else
    return false;
  return true;
}

enum ditmoe_status heatmap_write_page(struct heatmap *heatmap) {
  const char *path = heatmap->settings.page;
  struct page_detail detail = {1, 1, LEVELS};
  struct html html = {0};
  if (!path) return DITMOE_OK;
  while (cells_of(heatmap) / detail.merge > CELLS_MAX && detail.merge < heatmap->run.info.bins)
    detail.merge++;
  enum ditmoe_status status;
  do {
    html.size = 0;
    status = compose(heatmap, &detail, &html);
  } while (status == DITMOE_OK && html.size > SIZE_LIMIT && coarsen(heatmap, &detail));
  if (status == DITMOE_OK)
    status = report_call(heatmap->ctx, ditmoe_file_write(heatmap->ctx, path, html.text, html.size));
  free(html.text);
  if (status == DITMOE_OK) heatmap_report(heatmap, path);
  return status;
}

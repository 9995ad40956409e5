/* Values that the page compares with its own under #selftest. They come from the tables of the
 * library and from the views that the other outputs show, not from what the page holds. */
#include "cli/heatmap/page.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CELLS = 3 }; /* of every view that is checked */

struct checker {
  struct html *html;
  const struct heatmap *heatmap;
  const struct page_detail *detail;
  int count; /* entries so far */
};

/* What a check is about: a selection in the words of the page. */
struct subject {
  const char *run, *half, *view, *what, *normalize;
  int layer, last_layer;   /* of the tables                  */
  int first_bin, last_bin; /* of the page; last_bin inclusive */
};

static void add_subject(struct checker *checker, const char *type, const struct subject *subject) {
  html_format(checker->html,
              "%s{\"type\":\"%s\",\"selection\":{\"run\":\"%s\",\"half\":\"%s\",\"view\":\"%s\","
              "\"what\":\"%s\",\"normalize\":\"%s\",\"layers\":[%d,%d],\"bins\":[%d,%d]}",
              checker->count++ ? ",\n" : "", type, subject->run, subject->half, subject->view,
              subject->what, subject->normalize, subject->layer, subject->last_layer,
              subject->first_bin, subject->last_bin);
}

static void add_value(struct checker *checker, double value, double tolerance) {
  html_raw(checker->html, ",\"value\":");
  page_number(checker->html, value);
  html_raw(checker->html, ",\"tolerance\":");
  page_rounded(checker->html, tolerance);
  html_raw(checker->html, "}");
}

static const char *half_word(int half) { return half == DITMOE_CONDITIONAL ? "cond" : "uncond"; }

/* Sums of whole tables. */

static void add_sums(struct checker *checker, const struct heatmap_run *run, const char *name,
                     int half, int layer) {
  const struct ditmoe_routing_info *info = &run->info;
  const size_t cells = (size_t)info->bins * (size_t)info->tokens * (size_t)info->experts;
  const size_t classes = (size_t)info->labels * (size_t)info->experts;
  struct subject subject = {name,
                            half_word(half),
                            "token",
                            "counts",
                            "none",
                            layer,
                            layer,
                            0,
                            page_bins(info, checker->detail->merge) - 1};
  struct ditmoe_routing_tables tables;
  ditmoe_routing_tables(run->routing, (enum ditmoe_half)half, &tables);
  double sum = 0, class_sum = 0;
  for (size_t i = 0; i < cells; i++) sum += tables.counts[(size_t)layer * cells + i];
  for (size_t i = 0; i < classes; i++)
    class_sum += (double)tables.class_counts[(size_t)layer * classes + i];
  add_subject(checker, "sum", &subject);
  add_value(checker, sum, (double)(checker->detail->unit - 1) / 2 * (double)cells);
  subject.view = "class";
  add_subject(checker, "sum", &subject);
  add_value(checker, class_sum, 0);
}

/* Cells of views. */

/* How far a value of the page may be off: its parts are sums of `cells` rounded numbers, each of
 * which is off by up to half a unit. With w = x / value the whole that x is a share of, the error
 * of x / w is at most (error of x + value * error of w) / w. */
static double tolerance_of(const struct checker *checker, const struct view_panel *panel, size_t at,
                           double cells) {
  const double off = (double)(checker->detail->unit - 1) / 2 * cells;
  const double x = panel->run.counts[at], value = panel->run.values[at];
  const double members = fmax(panel->rows.count, panel->columns.count);
  return value > 0 ? 1.1 * off * (1 + value * members) / (x / value) : off;
}

/* The same for mass, as a multiple of the step between mean weights. */
static double steps_of(const struct view_panel *panel, size_t at) {
  const int cells = panel->rows.count * panel->columns.count;
  const double x = panel->run.mass[at], value = panel->run.values[at];
  double all = 0;
  for (int i = 0; i < cells; i++) all += panel->run.counts[i];
  return value > 0 && x > 0 ? 1.1 * all / 2 * (1 + value) / (x / value) : all;
}

static void add_cells(struct checker *checker, const struct subject *subject,
                      const struct view_panel *panel, double cells) {
  const int count = panel->rows.count * panel->columns.count;
  const bool mass = strcmp(subject->what, "mass") == 0;
  for (int i = 0; i < CELLS && i < count; i++) {
    /* spread over the panel, elsewhere in each view */
    const size_t at = (size_t)((checker->count * 7919 + i * count / CELLS) % count);
    add_subject(checker, "cell", subject);
    html_format(checker->html, ",\"row\":%d,\"column\":%d",
                panel->rows.number[at / (size_t)panel->columns.count],
                panel->columns.number[at % (size_t)panel->columns.count]);
    if (mass) {
      html_raw(checker->html, ",\"steps\":");
      page_rounded(checker->html, steps_of(panel, at));
    }
    add_value(checker, panel->values[at], tolerance_of(checker, panel, at, cells));
  }
}

static double rounded_cells(const struct heatmap *heatmap, enum view_kind kind, int bins) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  return kind == VIEW_CLASS   ? 0
         : kind == VIEW_TOKEN ? bins
         : kind == VIEW_LAYER ? (double)bins * info->tokens
                              : info->tokens;
}

/* One view of one half of `heatmap`, whose layers are those of the subject. */
static void check_view(struct checker *checker, struct heatmap heatmap, struct subject *subject,
                       enum view_kind kind, int half) {
  const struct ditmoe_routing_info *info = &heatmap.run.info;
  const int merge = checker->detail->merge;
  struct view view;
  heatmap.settings.normalize = subject->normalize;
  heatmap.settings.weighted = strcmp(subject->what, "mass") == 0;
  heatmap.first_layer = subject->layer;
  heatmap.last_layer = subject->last_layer + 1;
  heatmap.first_half = half;
  heatmap.last_half = half + 1;
  subject->half = half_word(half);
  subject->view = view_kind_name(kind);
  heatmap_view(&heatmap, kind, page_bin(info, merge, subject->first_bin),
               page_bin(info, merge, subject->last_bin + 1), false, &view);
  add_cells(checker, subject, &view.panels[0],
            rounded_cells(&heatmap, kind, subject->last_bin - subject->first_bin + 1));
  view_free(&view);
}

/* All views and normalisations of a half, in turn of one layer and of some steps. */
static void check_half(struct checker *checker, const struct heatmap *heatmap, const char *run,
                       const char *what, int half) {
  static const char *const modes[] = {"uniform", "row", "layer", "none"};
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const int bins = page_bins(info, checker->detail->merge);
  for (int kind = VIEW_CLASS; kind <= VIEW_EXPERT; kind++)
    for (int mode = 0; mode < 4; mode++) {
      const int layer = (kind + mode) % info->layers, first = mode * bins / 8;
      struct subject subject = {.run = run,
                                .what = what,
                                .normalize = modes[mode],
                                .layer = layer,
                                .last_layer = layer,
                                .first_bin = first,
                                .last_bin = bins - 1 - (mode % 2) * first};
      if (kind == VIEW_LAYER) subject.layer = 0, subject.last_layer = info->layers - 1;
      /* with merged bins, rows or columns are not those of the tables */
      if (checker->detail->merge > 1 && (kind == VIEW_STEP || kind == VIEW_EXPERT)) continue;
      check_view(checker, *heatmap, &subject, (enum view_kind)kind, half);
    }
}

static void check_run(struct checker *checker, const struct heatmap_run *run, const char *name) {
  struct heatmap alone = *checker->heatmap;
  alone.run = *run;
  alone.other = (struct heatmap_run){0};
  for (int half = 0; half < run->info.halves; half++) {
    for (int layer = 0; layer < run->info.layers; layer++)
      add_sums(checker, run, name, half, layer);
    check_half(checker, &alone, name, "counts", half);
    if (run->info.mass && checker->detail->unit == 1)
      check_half(checker, &alone, name, "mass", half);
  }
}

void page_checks(struct html *html, const struct heatmap *heatmap,
                 const struct page_detail *detail) {
  struct checker checker = {html, heatmap, detail, 0};
  html_raw(html, "[");
  check_run(&checker, &heatmap->run, "first");
  if (heatmap->other.routing) {
    check_run(&checker, &heatmap->other, "second");
    for (int half = 0; half < heatmap->run.info.halves && half < heatmap->other.info.halves; half++)
      if (detail->unit == 1) check_half(&checker, heatmap, "difference", "counts", half);
  }
  html_raw(html, "]");
}

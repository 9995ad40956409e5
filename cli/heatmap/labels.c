/* Titles, axes and labels of a view: which half, steps and layers, and what the values mean. */
#include "cli/heatmap/heatmap.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

struct kind_text {
  const char *title;          /* "Experts by class" */
  const char *rows, *columns; /* names of the axes  */
  const char *row;            /* whose share --normalize row is */
};

static const struct kind_text texts[VIEW_KINDS] = {
    [VIEW_CLASS] = {"experts by class", "class", "expert", "the class"},
    [VIEW_TOKEN] = {"experts by position", "token", "expert", "the position"},
    [VIEW_STEP] = {"experts by step", "step", "expert", "the step"},
    [VIEW_LAYER] = {"experts by layer", "layer", "expert", "the layer"},
    [VIEW_EXPERT] = {"steps by expert", "expert", "step", "the expert"},
    [VIEW_MAP] = {"positions of each expert", "row", "column", "the position"},
    [VIEW_WEIGHTS] = {"similarity of experts, weights", "expert", "expert", NULL},
    [VIEW_SUBSPACE] = {"similarity of experts, singular vectors", "expert", "expert", NULL},
    [VIEW_ROUTER] = {"similarity of experts, router", "expert", "expert", NULL},
};

static char *range_text(const char *one, const char *many, int first, int last) {
  return first == last ? text_format("%s %d", one, first)
                       : text_format("%s %d-%d", many, first, last);
}

char *heatmap_steps_title(const struct ditmoe_routing_info *info, int first_bin, int last_bin) {
  if (first_bin == 0 && last_bin == info->bins) return text_format("all %d steps", info->steps);
  char *range =
      range_text("step", "steps", info->bin_step[first_bin], info->bin_step[last_bin] - 1);
  char *text = text_format("%s of %d", range, info->steps);
  free(range);
  return text;
}

/* Labels. */

static char *bin_label(const struct ditmoe_routing_info *info, int bin) {
  const int first = info->bin_step[bin], last = info->bin_step[bin + 1] - 1;
  return first == last ? text_format("%d", first) : text_format("%d-%d", first, last);
}

static char *label_of(const struct heatmap *heatmap, const char *axis, int number) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  if (strcmp(axis, "class") == 0) return heatmap_class_title(heatmap, number);
  if (strcmp(axis, "expert") == 0) return heatmap_expert_title(info, number);
  if (strcmp(axis, "step") == 0) return bin_label(info, number);
  if (strcmp(axis, "layer") == 0) return text_format("%d", info->layer[number]);
  return text_format("%d", number);
}

static void label_axis(const struct heatmap *heatmap, const char *name, struct view_axis *axis) {
  axis->name = name;
  axis->labels = memory_get((size_t)axis->count, sizeof *axis->labels);
  for (int i = 0; i < axis->count; i++) axis->labels[i] = label_of(heatmap, name, axis->number[i]);
}

static char *panel_title(const struct heatmap *heatmap, const struct view_panel *panel) {
  const struct ditmoe_routing_info *info = &heatmap->run.info;
  const bool both = heatmap->last_half - heatmap->first_half > 1 && panel->half >= 0;
  const char *half = both ? heatmap_half_name(panel->half) : "";
  if (panel->layer < 0) return text_copy(half);
  char *expert = panel->expert < 0 ? NULL : heatmap_expert_title(info, panel->expert);
  const bool number = panel->expert >= 0 && panel->expert != info->uncond_expert;
  char *title = text_format("layer %d%s%s%s%s%s", info->layer[panel->layer], expert ? ", " : "",
                            number ? "expert " : "", expert ? expert : "", both ? ", " : "", half);
  free(expert);
  return title;
}

/* What the values are. */

static char *unit_of(const struct heatmap *heatmap, enum view_kind kind) {
  const char mode = heatmap->settings.normalize[0];
  const char *what = heatmap->settings.weighted ? "gate weight" : "choices";
  char *unit = kind == VIEW_SUBSPACE  ? text_copy("overlap, 0 to 1")
               : kind >= VIEW_WEIGHTS ? text_copy("cosine")
               : mode == 'u'          ? text_copy("ratio to uniform")
               : mode == 'r'          ? text_format("share of %s", texts[kind].row)
               : mode == 'l'          ? text_copy("share of the layer's largest")
                                      : text_copy(what);
  if (!heatmap->other.routing || kind >= VIEW_WEIGHTS) return unit;
  char *difference = text_format("difference of: %s", unit);
  free(unit);
  return difference;
}

/* With its folder: many models are called model.pt. */
static char *model_title(const struct heatmap *heatmap) {
  const char *name = path_name(heatmap->settings.model);
  if (name > heatmap->settings.model) name--;
  while (name > heatmap->settings.model && name[-1] != '/') name--;
  return heatmap_clean(text_copy(name));
}

static char *title_of(const struct heatmap *heatmap, enum view_kind kind) {
  if (heatmap->settings.title) return heatmap_clean(text_copy(heatmap->settings.title));
  char *run = kind >= VIEW_WEIGHTS ? model_title(heatmap) : heatmap_run_title(&heatmap->run);
  char *other = heatmap->other.routing ? heatmap_run_title(&heatmap->other) : NULL;
  char *title =
      text_format("%s%s%s: %s", run, other ? " minus " : "", other ? other : "", texts[kind].title);
  free(run);
  free(other);
  return title;
}

char *heatmap_layers_title(const struct ditmoe_routing_info *info, int first, int last) {
  return range_text("layer", "layers", info->layer[first], info->layer[last - 1]);
}

static char *images_title(const struct heatmap *heatmap) {
  if (!heatmap->other.routing)
    return text_format("%lld images", (long long)heatmap->run.info.images);
  return text_format("%lld and %lld images", (long long)heatmap->run.info.images,
                     (long long)heatmap->other.info.images);
}

static const char *halves_title(const struct heatmap *heatmap) {
  if (heatmap->last_half - heatmap->first_half > 1) return "both halves";
  return heatmap->first_half == DITMOE_CONDITIONAL ? "conditional half" : "unconditional half";
}

static char *similarity_subtitle(const struct heatmap *heatmap, enum view_kind kind,
                                 const char *layers) {
  const int rank = heatmap->similarity->rank;
  if (kind == VIEW_SUBSPACE)
    return text_format("%s; overlap of the %d leading right singular vectors\nan expert with "
                       "itself is left out",
                       layers, rank);
  return text_format("%s; cosine of %s\nan expert with itself is left out", layers,
                     kind == VIEW_WEIGHTS ? "all weights of each expert"
                                          : "the router's rows: gate or prototypes");
}

/* The steps begin a line: in an animation they change, and nothing else moves. */
static char *subtitle_of(const struct heatmap *heatmap, const struct view *view) {
  char *layers =
           heatmap_layers_title(&heatmap->run.info, heatmap->first_layer, heatmap->last_layer),
       *subtitle;
  if (view->kind >= VIEW_WEIGHTS) {
    subtitle = similarity_subtitle(heatmap, view->kind, layers);
  } else {
    char *steps = heatmap_steps_title(&heatmap->run.info, view->first_bin, view->last_bin);
    char *images = images_title(heatmap);
    char *classes = view->kind == VIEW_CLASS
                        ? text_format(", %d classes shown", view->panels[0].rows.count)
                        : text_copy("");
    const char mode = heatmap->settings.normalize[0];
    subtitle = text_format("%s, %s, %s of %s%s\n%s; %s%s", halves_title(heatmap), layers,
                           heatmap->settings.weighted ? "gate weights" : "choices", images, classes,
                           steps, view->unit,
                           mode == 'u'   ? " (1 is a fair share)"
                           : mode == 'n' ? ", not normalized"
                                         : "");
    free(steps);
    free(images);
    free(classes);
  }
  free(layers);
  return subtitle;
}

void heatmap_label_view(const struct heatmap *heatmap, struct view *view) {
  const struct kind_text *text = &texts[view->kind];
  for (int i = 0; i < view->count; i++) {
    struct view_panel *panel = &view->panels[i];
    panel->title = panel_title(heatmap, panel);
    label_axis(heatmap, text->rows, &panel->rows);
    label_axis(heatmap, text->columns, &panel->columns);
  }
  view->title = title_of(heatmap, view->kind);
  view->unit = unit_of(heatmap, view->kind);
  view->subtitle = subtitle_of(heatmap, view);
}

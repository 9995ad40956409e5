/* The numbers as text: a table of the layers, then the findings. */
#include "cli/heatmap/numbers.h"
#include "cli/json.h"
#include "cli/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 13 };

static const struct {
  const char *head;
  int width, decimals;
} columns[COLUMNS] = {
    {"busiest", 8, 2}, {"least", 6, 2},  {"variation", 10, 3}, {"evenness", 9, 3}, {"early", 6, 3},
    {"late", 6, 3},    {"dead", 5, 0},   {"position", 9, 3},   {"step", 7, 3},     {"class", 7, 3},
    {"kept", 6, 3},    {"chance", 7, 3}, {"guessed", 8, 3},
};

/* Of one layer, or for -1 the means of all. */
static void measure(const struct heatmap_run *run, int half, int layer, double out[COLUMNS]) {
  struct ditmoe_routing_load load;
  struct ditmoe_routing_memory memory;
  double means[4] = {0}, dead = 0;
  const int first = layer < 0 ? 0 : layer, last = layer < 0 ? run->info.layers : layer + 1;
  for (int l = first; l < last; l++) {
    ditmoe_routing_load(run->routing, (enum ditmoe_half)half, l, -1, &load, NULL);
    const double values[] = {load.largest, load.smallest, load.variation, load.evenness};
    for (int i = 0; i < 4; i++) means[i] += (load.tokens > 0 ? values[i] : NAN) / (last - first);
    dead += load.dead;
  }
  ditmoe_routing_memory(run->routing, (enum ditmoe_half)half, layer, &memory);
  const bool any = heatmap_choices(run, half, layer) > 0;
  const double row[COLUMNS] = {means[0],
                               means[1],
                               means[2],
                               means[3],
                               heatmap_evenness_early(run, half, layer),
                               heatmap_evenness_late(run, half, layer),
                               dead,
                               heatmap_excess(run, half, layer, DITMOE_BY_POSITION),
                               heatmap_excess(run, half, layer, DITMOE_BY_STEP),
                               heatmap_excess(run, half, layer, DITMOE_BY_LABEL),
                               any ? memory.kept : NAN,
                               any ? memory.by_chance : NAN,
                               memory.from_layer};
  memcpy(out, row, sizeof row);
}

static void print_row(const char *name, const double *values) {
  char line[256];
  int length = snprintf(line, sizeof line, "%-5s", name);
  for (int i = 0; i < COLUMNS; i++) {
    const int width = columns[i].width;
    char *text = values && isfinite(values[i]) ? text_format("%.*f", columns[i].decimals, values[i])
                                               : text_copy(values ? "-" : columns[i].head);
    length += snprintf(line + length, sizeof line - (size_t)length, " %*s", width, text);
    free(text);
  }
  report_result(line);
}

/* The run's numbers, or with `minus` what they are more than the other's. */
static void print_table(const struct heatmap_run *run, const struct heatmap_run *minus, int half) {
  print_row("layer", NULL);
  for (int layer = 0; layer <= run->info.layers; layer++) {
    const int which = layer < run->info.layers ? layer : -1;
    double values[COLUMNS], other[COLUMNS];
    measure(run, half, which, values);
    if (minus) measure(minus, half, which, other);
    for (int i = 0; minus && i < COLUMNS; i++) values[i] -= other[i];
    char *name = which < 0 ? text_copy("all") : text_format("%d", run->info.layer[which]);
    print_row(name, values);
    free(name);
  }
}

static void print_findings(const struct heatmap_run *run, int half) {
  struct finding findings[FINDINGS_MAX];
  const int count = heatmap_findings(run, half, findings);
  for (int i = 0; i < count; i++) {
    char *line = text_format("%s: %s (", findings[i].claim, verdict_name(findings[i].verdict));
    for (int j = 0; j < FINDING_FIGURES && findings[i].names[j]; j++) {
      char *name = text_copy(findings[i].names[j]);
      for (char *c = name; *c; c++)
        if (*c == '_') *c = ' ';
      char *longer =
          isfinite(findings[i].figures[j])
              ? text_format("%s%s%s %.4f", line, j ? ", " : "", name, findings[i].figures[j])
              : text_format("%s%s%s -", line, j ? ", " : "", name);
      free(name);
      free(line);
      line = longer;
    }
    char *whole = text_format("%s)", line);
    report_result(whole);
    free(whole);
    free(line);
  }
}

static void print_head(const struct heatmap_run *run, int half) {
  const struct ditmoe_routing_info *info = &run->info;
  char *title = heatmap_run_title(run);
  char *k = info->top_k ? text_format("%d each", info->top_k) : text_copy("a number of its own");
  char *line =
      text_format("%s, %s half: %lld images, %d steps, %d tokens, %d experts%s, %s", title,
                  heatmap_half_name(half), (long long)info->images, info->steps, info->tokens,
                  info->experts, info->uncond_expert >= 0 ? " with an unconditional one" : "", k);
  report_result(line);
  free(title);
  free(k);
  free(line);
}

static void print_similarity(const struct ditmoe_similarity *s) {
  const size_t E = (size_t)s->experts;
  const struct {
    const char *name;
    const float *values;
  } kinds[] = {{"weights", s->weights}, {"subspace", s->subspace}, {"router", s->router}};
  report_result("similarity of two different experts: mean, largest");
  for (int layer = 0; layer < s->layers; layer++) {
    char *line = text_format("layer %d:", s->layer[layer]);
    for (int kind = 0; kind < 3; kind++) {
      double sum = 0, most = -INFINITY;
      int count = 0;
      for (size_t r = 0; r < E; r++)
        for (size_t c = 0; c < E; c++) {
          const double value = kinds[kind].values[((size_t)layer * E + r) * E + c];
          if (r == c || !isfinite(value)) continue;
          sum += value;
          most = fmax(most, value);
          count++;
        }
      char *longer =
          count ? text_format("%s %s %.4f, %.4f", line, kinds[kind].name, sum / count, most)
                : text_copy(line);
      free(line);
      line = longer;
    }
    report_result(line);
    free(line);
  }
}

static void print_legend(void) {
  report_result("# busiest, least: loads as multiples of their mean; variation: their deviation");
  report_result(
      "# evenness: entropy of the loads, 1 if all are equal; early, late: in a third of the "
      "steps");
  report_result("# position, step, class: share of the expert's entropy that they tell, beyond "
                "shuffled ones");
  report_result(
      "# kept: choices that are those of the step before; chance: if they were drawn anew");
  report_result("# guessed: leading experts that follow from those of the layer before");
}

static void print_text(const struct heatmap *heatmap) {
  const struct heatmap_run *const runs[] = {&heatmap->run, &heatmap->other};
  const bool two = heatmap->other.routing != NULL;
  for (int half = heatmap->first_half; half < heatmap->last_half; half++) {
    for (int i = 0; i <= two; i++) {
      print_head(runs[i], half);
      print_table(runs[i], NULL, half);
      print_findings(runs[i], half);
    }
    if (!two) continue;
    report_result("difference, the first minus the other");
    print_table(runs[0], runs[1], half);
  }
  print_legend();
  if (heatmap->similarity) print_similarity(heatmap->similarity);
}

void heatmap_report(const struct heatmap *heatmap, const char *path) {
  if (!heatmap->settings.common.json) report_file(path);
}

enum ditmoe_status heatmap_print_numbers(const struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  if (!s->common.json) {
    if (!(s->page || s->png || s->animation || s->csv || s->npz)) print_text(heatmap);
    return DITMOE_OK;
  }
  cJSON *object = heatmap_numbers_json(heatmap);
  json_put(object);
  cJSON_Delete(object);
  return DITMOE_OK;
}

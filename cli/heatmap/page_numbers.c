/* Loads, dependence, memory and findings, for the page's tables and charts. */
#include "cli/heatmap/numbers.h"
#include "cli/heatmap/page.h"

#include <math.h>
#include <stddef.h>

static void add_member(struct html *html, const char *name, double value) {
  html_raw(html, name);
  page_rounded(html, value);
}

static void add_load(struct html *html, const struct ditmoe_routing *routing, enum ditmoe_half half,
                     int layer) {
  struct ditmoe_routing_load load;
  ditmoe_routing_load(routing, half, layer, -1, &load, NULL);
  add_member(html, "{\"experts\":", load.experts);
  add_member(html, ",\"dead\":", load.dead);
  add_member(html, ",\"largest\":", load.largest);
  add_member(html, ",\"smallest\":", load.smallest);
  add_member(html, ",\"variation\":", load.variation);
  add_member(html, ",\"entropy\":", load.entropy);
  add_member(html, ",\"evenness\":", load.evenness);
  html_raw(html, "}");
}

static void add_dependence(struct html *html, const struct ditmoe_routing *routing,
                           enum ditmoe_half half, int layer) {
  for (int axis = 0; axis < DITMOE_AXES; axis++) {
    struct ditmoe_routing_dependence d;
    ditmoe_routing_dependence(routing, half, layer, (enum ditmoe_routing_axis)axis, &d);
    html_raw(html, axis ? "," : "[");
    add_member(html, "{\"normalised\":", d.normalised);
    add_member(html, ",\"shuffledNormalised\":", d.shuffled_normalised);
    html_raw(html, "}");
  }
  html_raw(html, "]");
}

static void add_memory(struct html *html, const struct ditmoe_routing *routing,
                       enum ditmoe_half half, int layer) {
  struct ditmoe_routing_memory m;
  ditmoe_routing_memory(routing, half, layer, &m);
  add_member(html, "{\"kept\":", m.kept);
  add_member(html, ",\"keptLeading\":", m.kept_leading);
  add_member(html, ",\"byChance\":", m.by_chance);
  add_member(html, ",\"fromLayer\":", m.from_layer);
  add_member(html, ",\"fromNothing\":", m.from_nothing);
  html_raw(html, "}");
}

/* A list over the layers; all: with one more entry, about them together. */
static void add_layers(struct html *html, const char *member, const struct ditmoe_routing *routing,
                       enum ditmoe_half half, bool all,
                       void (*add)(struct html *, const struct ditmoe_routing *, enum ditmoe_half,
                                   int)) {
  struct ditmoe_routing_info info;
  ditmoe_routing_info(routing, &info);
  html_raw(html, member);
  for (int layer = 0; layer < info.layers + all; layer++) {
    html_raw(html, layer ? "," : "[");
    add(html, routing, half, layer < info.layers ? layer : -1);
  }
  html_raw(html, "]");
}

/* Choices of a bin that are those of the step before; the first step has none. */
static double kept_share(const struct ditmoe_routing_info *info,
                         const struct ditmoe_routing_tables *tables, int layer, int bin) {
  uint64_t kept = 0, all = 0;
  for (int step = info->bin_step[bin]; step < info->bin_step[bin + 1]; step++) {
    const uint64_t *pair = tables->kept + 2 * ((size_t)layer * (size_t)info->steps + (size_t)step);
    kept += pair[0];
    all += pair[1];
  }
  return all ? (double)kept / (double)all : NAN;
}

static double measure(const struct ditmoe_routing *routing, enum ditmoe_half half, int layer,
                      int bin, size_t field) {
  struct ditmoe_routing_load load;
  ditmoe_routing_load(routing, half, layer, bin, &load, NULL);
  if (field == offsetof(struct ditmoe_routing_load, dead)) return load.dead;
  return *(const double *)(const void *)((const char *)&load + field);
}

/* [L, S] of each measure. */
static void add_bins(struct html *html, const struct ditmoe_routing *routing,
                     enum ditmoe_half half) {
  static const struct {
    const char *member;
    size_t field;
  } measures[] = {{"\"largest\":", offsetof(struct ditmoe_routing_load, largest)},
                  {",\"variation\":", offsetof(struct ditmoe_routing_load, variation)},
                  {",\"evenness\":", offsetof(struct ditmoe_routing_load, evenness)},
                  {",\"dead\":", offsetof(struct ditmoe_routing_load, dead)},
                  {",\"kept\":", SIZE_MAX}};
  struct ditmoe_routing_info info;
  struct ditmoe_routing_tables tables;
  ditmoe_routing_info(routing, &info);
  ditmoe_routing_tables(routing, half, &tables);
  html_raw(html, ",\"bins\":{");
  for (size_t m = 0; m < sizeof measures / sizeof *measures; m++) {
    html_raw(html, measures[m].member);
    for (int i = 0; i < info.layers * info.bins; i++) {
      const int layer = i / info.bins, bin = i % info.bins;
      html_raw(html, bin ? "," : layer ? "],[" : "[[");
      page_rounded(html, measures[m].field == SIZE_MAX
                             ? kept_share(&info, &tables, layer, bin)
                             : measure(routing, half, layer, bin, measures[m].field));
    }
    html_raw(html, "]]");
  }
  html_raw(html, "}");
}

static void add_findings(struct html *html, const struct heatmap_run *run, int half) {
  struct finding findings[FINDINGS_MAX];
  const int count = heatmap_findings(run, half, findings);
  html_raw(html, ",\"findings\":[");
  for (int i = 0; i < count; i++) {
    html_raw(html, i ? ",{\"claim\":" : "{\"claim\":");
    page_text(html, findings[i].claim);
    html_raw(html, ",\"verdict\":");
    page_text(html, verdict_name(findings[i].verdict));
    html_raw(html, ",\"figures\":[");
    for (int j = 0; j < FINDING_FIGURES && findings[i].names[j]; j++) {
      html_raw(html, j ? ",[" : "[");
      page_text(html, findings[i].names[j]);
      add_member(html, ",", findings[i].figures[j]);
      html_raw(html, "]");
    }
    html_raw(html, "]}");
  }
  html_raw(html, "]");
}

void page_numbers(struct html *html, const struct heatmap_run *run, enum ditmoe_half half) {
  add_layers(html, "{\"load\":", run->routing, half, false, add_load);
  add_layers(html, ",\"dependence\":", run->routing, half, true, add_dependence);
  add_layers(html, ",\"memory\":", run->routing, half, true, add_memory);
  html_raw(html, ",\"binStep\":");
  page_integers(html, run->info.bin_step, run->info.bins + 1);
  add_bins(html, run->routing, half);
  add_findings(html, run, half);
  html_raw(html, "}");
}

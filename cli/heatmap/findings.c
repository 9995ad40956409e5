/* Published findings about routing in diffusion transformers, checked in the numbers of a run. */
#include "cli/heatmap/numbers.h"
#include "cli/text.h"

#include <math.h>
#include <stdlib.h>

/* Shares of the expert's entropy that count as something, and as nothing. */
static const double MATTERS = 0.01, NOTHING = 0.002;
/* Rank correlation, and difference of evenness, from which on there is a trend. */
static const double TREND = 0.5, CONTRAST = 0.005;
enum { LAYERS_LEAST = 4 }; /* for a trend */

const char *verdict_name(enum verdict verdict) {
  static const char *const names[] = {"no", "yes", "unclear"};
  return names[verdict];
}

/* Values that the axis has in this run. */
static int values_of(const struct heatmap_run *run, int half, enum ditmoe_routing_axis axis) {
  struct ditmoe_routing_tables tables;
  int classes = 0;
  if (axis == DITMOE_BY_POSITION) return run->info.tokens;
  if (axis == DITMOE_BY_STEP) return run->info.bins;
  ditmoe_routing_tables(run->routing, (enum ditmoe_half)half, &tables);
  for (int label = 0; label < run->info.labels; label++)
    classes += tables.label_evaluations[label] > 0;
  return classes;
}

double heatmap_choices(const struct heatmap_run *run, int half, int layer) {
  double sum = 0;
  for (int l = layer < 0 ? 0 : layer; l < (layer < 0 ? run->info.layers : layer + 1); l++) {
    struct ditmoe_routing_load load;
    ditmoe_routing_load(run->routing, (enum ditmoe_half)half, l, -1, &load, NULL);
    sum += load.tokens;
  }
  return sum;
}

double heatmap_excess(const struct heatmap_run *run, int half, int layer,
                      enum ditmoe_routing_axis axis) {
  struct ditmoe_routing_dependence d;
  if (heatmap_choices(run, half, layer) == 0 || values_of(run, half, axis) < 2) return NAN;
  ditmoe_routing_dependence(run->routing, (enum ditmoe_half)half, layer, axis, &d);
  return d.normalised - d.shuffled_normalised;
}

static double evenness(const struct heatmap_run *run, int half, int layer, int bin) {
  struct ditmoe_routing_load load;
  ditmoe_routing_load(run->routing, (enum ditmoe_half)half, layer, bin, &load, NULL);
  return load.tokens > 0 ? load.evenness : NAN;
}

/* Over bins first .. last - 1 and all layers, or one. */
static double mean_evenness(const struct heatmap_run *run, int half, int layer, int first,
                            int last) {
  double sum = 0;
  int count = 0;
  for (int l = layer < 0 ? 0 : layer; l < (layer < 0 ? run->info.layers : layer + 1); l++)
    for (int bin = first; bin < last; bin++) {
      const double value = evenness(run, half, l, bin);
      if (isnan(value)) continue;
      sum += value;
      count++;
    }
  return count ? sum / count : NAN;
}

double heatmap_evenness_early(const struct heatmap_run *run, int half, int layer) {
  return mean_evenness(run, half, layer, 0, run->info.bins / 3);
}

double heatmap_evenness_late(const struct heatmap_run *run, int half, int layer) {
  const int bins = run->info.bins;
  return mean_evenness(run, half, layer, bins - bins / 3, bins);
}

/* A value that is above one limit or below another. */
static enum verdict decide(double value, double yes, double no) {
  return value >= yes ? VERDICT_YES : value <= no ? VERDICT_NO : VERDICT_UNCLEAR; /* NaN: unclear */
}

static struct finding about_dependence(const struct heatmap_run *run, int half,
                                       enum ditmoe_routing_axis axis, const char *key,
                                       const char *claim) {
  struct ditmoe_routing_dependence d;
  ditmoe_routing_dependence(run->routing, (enum ditmoe_half)half, -1, axis, &d);
  return (struct finding){.key = key,
                          .claim = claim,
                          .verdict = decide(heatmap_excess(run, half, -1, axis), MATTERS, NOTHING),
                          .names = {"information", "shuffled"},
                          .figures = {d.normalised, d.shuffled_normalised}};
}

/* The opposite claim of the same numbers. */
static struct finding negated(struct finding finding) {
  if (finding.verdict != VERDICT_UNCLEAR)
    finding.verdict = finding.verdict == VERDICT_YES ? VERDICT_NO : VERDICT_YES;
  return finding;
}

/* Ranks from 0; equal values share their mean. */
static void rank_values(const double *values, int count, double *ranks) {
  for (int i = 0; i < count; i++) {
    ranks[i] = 0;
    for (int j = 0; j < count; j++)
      ranks[i] += values[j] < values[i] ? 1 : j != i && values[j] == values[i] ? 0.5 : 0;
  }
}

/* Of values with their own order: Pearson's correlation of the ranks; NaN if all are equal. */
static double trend_of(const double *values, int count) {
  double *ranks = memory_get((size_t)count, sizeof *ranks), xy = 0, xx = 0, yy = 0;
  const double mean = (count - 1) / 2.0;
  rank_values(values, count, ranks);
  for (int i = 0; i < count; i++) {
    xy += (i - mean) * (ranks[i] - mean);
    xx += (i - mean) * (i - mean);
    yy += (ranks[i] - mean) * (ranks[i] - mean);
  }
  free(ranks);
  return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

static struct finding about_depth(const struct heatmap_run *run, int half) {
  const int L = run->info.layers;
  double *values = memory_get((size_t)L, sizeof *values), trend = NAN;
  bool complete = true;
  for (int l = 0; l < L; l++) {
    values[l] = evenness(run, half, l, -1);
    complete = complete && !isnan(values[l]);
  }
  if (complete) trend = trend_of(values, L);
  const struct finding finding = {.key = "deeper_more_even",
                                  .claim = "deeper layers use their experts more evenly",
                                  .verdict =
                                      L < LAYERS_LEAST ? VERDICT_UNCLEAR : decide(trend, TREND, 0),
                                  .names = {"rank_correlation", "first_layer", "last_layer"},
                                  .figures = {trend, values[0], values[L - 1]}};
  free(values);
  return finding;
}

static struct finding about_time(const struct heatmap_run *run, int half) {
  const double early = heatmap_evenness_early(run, half, -1),
               late = heatmap_evenness_late(run, half, -1);
  return (struct finding){.key = "early_more_concentrated",
                          .claim = "early steps concentrate on fewer experts",
                          .verdict = decide(late - early, CONTRAST, -CONTRAST),
                          .names = {"early_evenness", "late_evenness"},
                          .figures = {early, late}};
}

int heatmap_findings(const struct heatmap_run *run, int half, struct finding out[FINDINGS_MAX]) {
  int count = 0;
  out[count++] = about_dependence(run, half, DITMOE_BY_POSITION, "position_matters",
                                  "the position decides about the expert");
  out[count++] = about_dependence(run, half, DITMOE_BY_STEP, "step_matters",
                                  "the step decides about the expert");
  if (run->info.uncond_expert >= 0)
    out[count++] = about_dependence(run, half, DITMOE_BY_LABEL, "class_matters",
                                    "the class decides about the expert");
  else
    out[count++] = negated(about_dependence(run, half, DITMOE_BY_LABEL, "class_hardly_matters",
                                            "the class hardly decides about the expert"));
  out[count++] = about_depth(run, half);
  out[count++] = about_time(run, half);
  return count;
}

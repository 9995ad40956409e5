/* The numbers of a run that text, JSON and page show. */
#ifndef CLI_HEATMAP_NUMBERS_H
#define CLI_HEATMAP_NUMBERS_H

#include "cli/heatmap/heatmap.h"

/* What papers found in other models, checked in this run. Thresholds are in findings.c. */
enum verdict { VERDICT_NO, VERDICT_YES, VERDICT_UNCLEAR };

enum { FINDING_FIGURES = 3, FINDINGS_MAX = 5 };

struct finding {
  const char *key, *claim;
  enum verdict verdict;
  const char *names[FINDING_FIGURES]; /* of the figures that decide; NULL ends */
  double figures[FINDING_FIGURES];
};

const char *verdict_name(enum verdict verdict);
/* Returns how many there are. */
int heatmap_findings(const struct heatmap_run *run, int half, struct finding out[FINDINGS_MAX]);

/* Choices of routed experts, for -1 of all layers. */
double heatmap_choices(const struct heatmap_run *run, int half, int layer);
/* Information beyond what shuffled counts have, as a share of the entropy of the expert; NaN if
 * there is nothing to compare. layer -1: mean over the layers. */
double heatmap_excess(const struct heatmap_run *run, int half, int layer,
                      enum ditmoe_routing_axis axis);
/* Mean evenness of the loads in the first (or last) third of the bins, over all layers for -1. NaN
 * for fewer than three bins. */
double heatmap_evenness_early(const struct heatmap_run *run, int half, int layer);
double heatmap_evenness_late(const struct heatmap_run *run, int half, int layer);

#endif

#include "tests/golden/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void remember(struct report *report, const char *tensor) {
  char *name = NULL;
  if (mem_room(report->ctx, report->count, sizeof *report->names, "report", &report->names) ==
          DITMOE_OK &&
      mem_strdup(report->ctx, tensor, &name) == DITMOE_OK)
    report->names[report->count++] = name;
}

/* share: how much of its limit an error takes. */
static void count(struct report *report, const char *line, double share, bool ok) {
  ok ? report->folder_passed++ : report->folder_failed++;
  if (share > report->worst) {
    report->worst = share;
    snprintf(report->worst_name, sizeof report->worst_name, "%s", line);
  }
}

void report_add(void *user, const char *tensor, double error, double limit) {
  struct report *report = user;
  bool ok = error <= limit;
  printf("  %-56s %9.2e  limit %8.1e  %s\n", tensor, error, limit, ok ? "ok" : "FAIL");
  count(report, tensor, limit > 0 ? error / limit : 0, ok);
  remember(report, tensor);
}

void report_decibels(struct report *report, const char *line, double decibels, double least) {
  bool ok = decibels >= least;
  printf("  %-56s %6.1f dB  least %5.1f dB  %s\n", line, decibels, least, ok ? "ok" : "FAIL");
  count(report, line, pow(10, (least - decibels) / 20), ok);
}

bool report_has(const struct report *report, const char *tensor) {
  for (size_t i = 0; i < report->count; i++)
    if (!strcmp(report->names[i], tensor)) return true;
  return false;
}

void report_end_folder(struct report *report) {
  for (size_t i = 0; i < report->count; i++) mem_free(report->ctx, report->names[i]);
  mem_free(report->ctx, report->names);
  *report = (struct report){.ctx = report->ctx,
                            .verbose = report->verbose,
                            .passed = report->passed + report->folder_passed,
                            .failed = report->failed + report->folder_failed};
}

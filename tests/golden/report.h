/* What has been compared: printed line by line, kept for the coverage, counted. */
#ifndef TESTS_GOLDEN_REPORT_H
#define TESTS_GOLDEN_REPORT_H

#include "base/memory.h"

struct report {
  struct ditmoe_ctx *ctx;
  bool verbose; /* also lists what counts as an input                  */
  char **names; /* "file:tensor" of the folder at hand                 */
  size_t count;
  long passed, failed, folder_passed, folder_failed;
  double worst; /* of the folder: the largest share of its limit that an error takes */
  char worst_name[128];
};

/* A case_report whose user is a struct report. */
void report_add(void *report, const char *tensor, double error, double limit);
/* The same for a ratio of signal and noise, which must be large. */
void report_decibels(struct report *report, const char *line, double decibels, double least);
bool report_has(const struct report *report, const char *tensor);
/* Forgets the folder at hand, adding its counts to the total. */
void report_end_folder(struct report *report);

#endif

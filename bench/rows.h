/* The results: one JSON object for each, printed as lines of JSON or as tables. */
#ifndef BENCH_ROWS_H
#define BENCH_ROWS_H

#include "backend/backend.h"
#include "bench/measure.h"

#include <cjson/cJSON.h>
#include <stdio.h>

/* The last row of a profile. */
#define PROFILE_WHOLE "whole"

struct row {
  const char *what, *shape; /* "step", "XL/2-8E2A 256px" */
  const struct exec *ex;
  int batch, reps;
  struct spread time;       /* seconds of one call; rates are those of the fastest repetition */
  double flop, bytes, peak; /* of one call; FLOP/s of the machine; 0: does not apply */
};

struct rows {
  cJSON *list;
};

void rows_begin(struct rows *rows);
void rows_free(struct rows *rows);
/* The new row, to which more may be added. */
cJSON *rows_add(struct rows *rows, const struct row *row);
/* A number as short as `digits` significant ones. */
void row_number(cJSON *row, const char *name, double value, int digits);
/* format: "text", "md" or "jsonl". */
void rows_print(const struct rows *rows, const char *format, FILE *out);

#endif

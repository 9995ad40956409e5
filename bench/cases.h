/* Shape files: one case a line, "operation key=value ...", where the keys are fields of struct
 * shape; '#' begins a comment. */
#ifndef BENCH_CASES_H
#define BENCH_CASES_H

#include "bench/ops/trial.h"

struct operation {
  const char *name, *timed, *needs, *takes; /* operations.def */
  void (*run)(struct trial *t);
};

struct op_case {
  const struct operation *operation;
  struct shape shape;
  char *text; /* "N=512 in=384 out=1152" */
};

struct op_cases {
  struct op_case *list;
  size_t count;
};

/* DITMOE_FORMAT, reported with file and line, where one is malformed. */
enum ditmoe_status cases_read(const char *path, struct op_cases *out);
void cases_free(struct op_cases *cases);

#endif

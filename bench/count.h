/* Counts what a model asks of a backend, by standing between the two. */
#ifndef BENCH_COUNT_H
#define BENCH_COUNT_H

#include "backend/backend.h"

struct counter {
  struct backend_ops ops; /* the table that the execution uses meanwhile; must come first */
  struct device device;   /* with it */
  const struct backend_ops *real;
  const struct device *own;
  double flop;         /* of products and attention             */
  double weight_bytes; /* of the layers used, once for each use */
};

void counter_begin(struct counter *counter, struct exec *ex);
void counter_end(const struct counter *counter, struct exec *ex);

#endif

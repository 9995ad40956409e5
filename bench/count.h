/* Counts what a model asks of a backend, by standing between the two. */
#ifndef BENCH_COUNT_H
#define BENCH_COUNT_H

#include "backend/backend.h"

struct counter {
  struct backend_ops ops; /* the table that the backend uses meanwhile; must come first */
  const struct backend_ops *real;
  double flop;         /* of products and attention             */
  double weight_bytes; /* of the layers used, once for each use */
};

void counter_begin(struct counter *counter, struct backend *be);
void counter_end(const struct counter *counter, struct backend *be);

#endif

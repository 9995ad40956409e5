/* The arrays of a file of tables, version 1 (docs/ROUTING.md), for its writer and its reader. */
#ifndef TRACE_DUMP_H
#define TRACE_DUMP_H

#include "trace/tables.h"

#define DUMP_FORMAT "ditmoe-routing"
enum { DUMP_VERSION = 1, DUMP_NAME = 64 };

struct dump_array {
  char name[DUMP_NAME];
  const char *type; /* as for ditmoe_npz_array */
  int rank;
  int64_t shape[TABLE_MAX_RANK + 1];
};

/* The array of a table. Weights in the exact form are 64-bit integers, written as their two halves,
 * the lower first: readers of .npz go through float64, which holds no more than 53 bits. */
struct dump_array dump_array_of(const struct routing_shape *shape, enum ditmoe_half half,
                                enum table table, enum ditmoe_routing_form form);

#endif

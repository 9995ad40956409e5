/* Timing of whole networks: a call of each variant, in alternation. */
#ifndef BENCH_WHOLE_H
#define BENCH_WHOLE_H

#include "bench/bench.h"

struct whole { /* of one variant */
  struct exec *ex;
  void *user;
  enum ditmoe_status (*call)(void *user);
  double flop, weight_bytes; /* of a call */
};

/* An arena of so many bytes, and a first call, which is counted. */
enum ditmoe_status whole_prepare(struct bench *bench, struct whole *whole, size_t arena_bytes);
/* Times all variants and adds their rows, with `row` as the pattern; profiles them if asked for. */
enum ditmoe_status whole_time(struct bench *bench, const struct whole *const *wholes,
                              struct row *row);

#endif

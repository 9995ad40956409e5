/* Timing. Several things are timed in alternation, repetition by repetition, so that what drifts
 * (clock, temperature, neighbours) meets all of them alike. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "ditmoe.h"

/* One thing to time; every call of it does the same work. */
struct timed {
  void *user;
  enum ditmoe_status (*call)(void *user);
  const double *took; /* seconds of the last call as it knows them itself; NULL: by the clock */
  double *seconds;    /* [reps], of one call each, in the order of measuring; free() */
};

struct repeats {
  int warm_up, reps;
  double at_least; /* seconds: a repetition makes as many calls as it needs to last so long */
};

struct spread {          /* of the repetitions */
  double min, median;    /* seconds */
  double relative_range; /* (90th - 10th percentile) / median */
};

enum ditmoe_status measure(struct timed *timed, int count, const struct repeats *repeats);
/* n >= 1 */
struct spread spread_of(const double *seconds, int n);

#endif

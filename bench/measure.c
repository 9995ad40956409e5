#include "bench/measure.h"

#include "base/system.h"
#include "cli/report.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CALLS = 100000 }; /* in a repetition */

/* *seconds: of one call, on average. */
static enum ditmoe_status time_calls(const struct timed *timed, int calls, double *seconds) {
  double start = system_seconds(), took = 0;
  for (int i = 0; i < calls; i++) {
    TRY(timed->call(timed->user));
    if (timed->took) took += *timed->took;
  }
  *seconds = (timed->took ? took : system_seconds() - start) / calls;
  return DITMOE_OK;
}

/* Calls it at least once where the number of calls has to be found out. */
static enum ditmoe_status warm_up(const struct timed *timed, const struct repeats *repeats,
                                  int *calls) {
  double seconds = 0;
  int rounds = repeats->at_least > 0 && repeats->warm_up == 0 ? 1 : repeats->warm_up;
  for (int i = 0; i < rounds; i++) TRY(time_calls(timed, 1, &seconds));
  double wanted = seconds > 0 ? repeats->at_least / seconds : 1;
  *calls = wanted > MOST_CALLS ? MOST_CALLS : wanted > 1 ? (int)wanted + 1 : 1;
  return DITMOE_OK;
}

/* Every other round goes backwards: nobody is always first. */
static enum ditmoe_status run_rounds(struct timed *timed, int count, const struct repeats *repeats,
                                     int *calls) {
  for (int i = 0; i < count; i++) TRY(warm_up(&timed[i], repeats, &calls[i]));
  for (int rep = 0; rep < repeats->reps; rep++)
    for (int i = 0; i < count; i++) {
      int k = rep % 2 ? count - 1 - i : i;
      TRY(time_calls(&timed[k], calls[k], &timed[k].seconds[rep]));
    }
  return DITMOE_OK;
}

enum ditmoe_status measure(struct timed *timed, int count, const struct repeats *repeats) {
  int *calls = memory_get((size_t)count, sizeof *calls);
  for (int i = 0; i < count; i++)
    timed[i].seconds = memory_get((size_t)repeats->reps, sizeof *timed[i].seconds);
  enum ditmoe_status status = run_rounds(timed, count, repeats, calls);
  free(calls);
  return status;
}

static int compare(const void *a, const void *b) {
  const double *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

/* Between the two nearest of n sorted values. */
static double percentile(const double *sorted, int n, double part) {
  double at = part * (n - 1);
  int below = (int)at, above = below + 1 < n ? below + 1 : below;
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

struct spread spread_of(const double *seconds, int n) {
  double *sorted = memory_get((size_t)n, sizeof *sorted);
  memcpy(sorted, seconds, (size_t)n * sizeof *sorted);
  qsort(sorted, (size_t)n, sizeof *sorted, compare);
  struct spread spread = {.min = sorted[0], .median = percentile(sorted, n, 0.5)};
  double range = percentile(sorted, n, 0.9) - percentile(sorted, n, 0.1);
  spread.relative_range = spread.median > 0 ? range / spread.median : 0;
  free(sorted);
  return spread;
}

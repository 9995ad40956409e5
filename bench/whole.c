#include "bench/whole.h"

#include "bench/count.h"
#include "bench/profile.h"

#include <stdlib.h>

enum ditmoe_status whole_prepare(struct bench *bench, struct whole *whole, size_t arena_bytes) {
  struct counter counter;
  TRY(bench_fits("the activations", (double)arena_bytes));
  TRY(report_call(bench->ctx, exec_reserve(whole->ex, arena_bytes)));
  counter_begin(&counter, whole->ex);
  enum ditmoe_status status = whole->call(whole->user);
  counter_end(&counter, whole->ex);
  whole->flop = counter.flop;
  whole->weight_bytes = counter.weight_bytes;
  return status;
}

static enum ditmoe_status add_row(struct bench *bench, const struct whole *whole,
                                  const struct timed *timed, struct row *row) {
  row->ex = whole->ex;
  row->time = spread_of(timed->seconds, row->reps);
  row->flop = whole->flop;
  row->bytes = whole->weight_bytes;
  TRY(peak_of(bench, row->ex, &row->peak));
  rows_add(&bench->rows, row);
  return DITMOE_OK;
}

enum ditmoe_status whole_time(struct bench *bench, const struct whole *const *wholes,
                              struct row *row) {
  struct timed timed[MAX_VARIANTS] = {{0}};
  const struct repeats repeats = bench_repeats(bench);
  const int count = bench->variant_count;
  for (int i = 0; i < count; i++)
    timed[i] = (struct timed){.user = wholes[i]->user, .call = wholes[i]->call};
  enum ditmoe_status status = measure(timed, count, &repeats);
  row->reps = repeats.reps;
  for (int i = 0; i < count && status == DITMOE_OK; i++)
    status = add_row(bench, wholes[i], &timed[i], row);
  for (int i = 0; i < count && bench->settings.profile && status == DITMOE_OK; i++) {
    row->ex = wholes[i]->ex;
    status = profile_run(bench, wholes[i]->ex, &timed[i], row);
  }
  for (int i = 0; i < count; i++) free(timed[i].seconds);
  return status;
}

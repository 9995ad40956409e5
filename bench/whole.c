#include "bench/whole.h"

#include "bench/count.h"
#include "bench/profile.h"

#include <stdlib.h>

enum ditmoe_status whole_prepare(struct bench *bench, struct whole *whole, size_t arena_bytes) {
  struct counter counter;
  TRY(bench_fits("the activations", (double)arena_bytes));
  TRY(report_call(bench->ctx, backend_arena(whole->be, arena_bytes, false)));
  counter_begin(&counter, whole->be);
  enum ditmoe_status status = whole->call(whole->user);
  counter_end(&counter, whole->be);
  whole->flop = counter.flop;
  whole->weight_bytes = counter.weight_bytes;
  return status;
}

static enum ditmoe_status add_row(struct bench *bench, const struct whole *whole,
                                  const struct timed *timed, struct row *row) {
  row->be = whole->be;
  row->time = spread_of(timed->seconds, row->reps);
  row->flop = whole->flop;
  row->bytes = whole->weight_bytes;
  TRY(peak_of(bench, row->be, &row->peak));
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
    row->be = wholes[i]->be;
    status = profile_run(bench, wholes[i]->be, &timed[i], row);
  }
  for (int i = 0; i < count; i++) free(timed[i].seconds);
  return status;
}

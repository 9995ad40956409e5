#include "bench/profile.h"

#include "base/system.h"
#include "bench/count.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_OPERATIONS = 64 };

struct operation {
  const char *name;
  int64_t calls;   /* in all repetitions */
  double flop;     /* the same           */
  double *seconds; /* [reps]             */
};

struct profile {
  struct operation operations[MAX_OPERATIONS];
  int count, rep, reps;
  struct counter counter;
  double flop_seen; /* of the counter, before the operation that is running */
};

/* Names are literals of one header, but not one string. */
static struct operation *operation_of(struct profile *profile, const char *name) {
  for (int i = 0; i < profile->count; i++)
    if (strcmp(profile->operations[i].name, name) == 0) return &profile->operations[i];
  if (profile->count == MAX_OPERATIONS) return &profile->operations[MAX_OPERATIONS - 1];
  struct operation *operation = &profile->operations[profile->count++];
  *operation = (struct operation){
      .name = name, .seconds = memory_get((size_t)profile->reps, sizeof *operation->seconds)};
  return operation;
}

static void called(void *user, const char *name, double seconds) {
  struct profile *profile = user;
  struct operation *operation = operation_of(profile, name);
  operation->calls++;
  operation->seconds[profile->rep] += seconds;
  operation->flop += profile->counter.flop - profile->flop_seen;
  profile->flop_seen = profile->counter.flop;
}

static int compare_operations(const void *a, const void *b) {
  const struct operation *x = a, *y = b;
  return (x->seconds[0] < y->seconds[0]) - (x->seconds[0] > y->seconds[0]);
}

static void add_row(struct bench *bench, const struct row *row, const char *name,
                    const double *seconds, double calls, double flop, double whole) {
  struct row part = *row;
  part.what = "profile";
  part.time = spread_of(seconds, row->reps);
  part.flop = flop;
  part.bytes = part.peak = 0;
  cJSON *object = rows_add(&bench->rows, &part);
  cJSON_AddStringToObject(object, "of", row->what);
  cJSON_AddStringToObject(object, "operation", name);
  row_number(object, "calls", calls, 6);
  row_number(object, "share_of_whole", whole > 0 ? part.time.median / whole : 0, 4);
}

/* whole: seconds of each repetition. */
static void add_rows(struct bench *bench, const struct row *row, struct profile *profile,
                     const double *whole) {
  const int reps = profile->reps;
  double median = spread_of(whole, reps).median, calls = 0, flop = 0;
  double *sum = memory_get((size_t)reps, sizeof *sum),
         *rest = memory_get((size_t)reps, sizeof *rest);
  qsort(profile->operations, (size_t)profile->count, sizeof *profile->operations,
        compare_operations);
  for (int i = 0; i < profile->count; i++) {
    const struct operation *o = &profile->operations[i];
    for (int rep = 0; rep < reps; rep++) sum[rep] += o->seconds[rep];
    calls += (double)o->calls / reps;
    flop += o->flop / reps;
    add_row(bench, row, o->name, o->seconds, (double)o->calls / reps, o->flop / reps, median);
  }
  for (int rep = 0; rep < reps; rep++) rest[rep] = whole[rep] - sum[rep];
  add_row(bench, row, "all operations", sum, calls, flop, median);
  add_row(bench, row, "between them", rest, 0, 0, median);
  add_row(bench, row, PROFILE_WHOLE, whole, 1, flop, median);
  free(sum);
  free(rest);
}

static enum ditmoe_status run(struct profile *profile, struct exec *ex, const struct timed *timed,
                              double *whole) {
  const struct backend_profile hook = {profile, called};
  enum ditmoe_status status = DITMOE_OK;
  counter_begin(&profile->counter, ex);
  ex->profile = &hook;
  for (profile->rep = 0; profile->rep < profile->reps && status == DITMOE_OK; profile->rep++) {
    double start = system_seconds();
    status = timed->call(timed->user);
    whole[profile->rep] = system_seconds() - start;
  }
  ex->profile = NULL;
  counter_end(&profile->counter, ex);
  return status;
}

enum ditmoe_status profile_run(struct bench *bench, struct exec *ex, const struct timed *timed,
                               const struct row *row) {
  struct profile profile = {.reps = (int)bench->settings.reps};
  double *whole = memory_get((size_t)profile.reps, sizeof *whole);
  enum ditmoe_status status = run(&profile, ex, timed, whole);
  if (status == DITMOE_OK) add_rows(bench, row, &profile, whole);
  for (int i = 0; i < profile.count; i++) free(profile.operations[i].seconds);
  free(whole);
  return status;
}

/* Where the time of a call goes: each operation, all of them, and the remainder. */
#ifndef BENCH_PROFILE_H
#define BENCH_PROFILE_H

#include "bench/bench.h"

/* Makes bench->settings.reps calls of `timed`, which runs on `ex`, and adds their rows. `row` says
 * what was called. */
enum ditmoe_status profile_run(struct bench *bench, struct exec *ex, const struct timed *timed,
                               const struct row *row);

#endif

/* run_<operation>: the call of each operation, on inputs of a shape. */
#ifndef BENCH_OPS_RUN_H
#define BENCH_OPS_RUN_H

#include "bench/ops/trial.h"

#define OP(name, timed, needs, takes) void run_##name(struct trial *t);
#include "bench/ops/operations.def"
#undef OP

#endif

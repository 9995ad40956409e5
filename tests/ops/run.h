/* run_<operation>: the call of each operation, on inputs of a shape. */
#ifndef TESTS_OPS_RUN_H
#define TESTS_OPS_RUN_H

#include "tests/ops/trial.h"

#define OP(name, limit, reason) void run_##name(struct trial *t);
#include "tests/ops/tolerance.def"
#undef OP

#endif

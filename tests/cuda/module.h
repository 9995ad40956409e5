/* The emulated device inside the module libditmoe_cuda.so that lies beside the tests: it has an
 * emulator of its own. */
#ifndef TESTS_CUDA_MODULE_H
#define TESTS_CUDA_MODULE_H

#include "tests/cuda/emulator.h"

#define EMULATOR_ENTRY(name) __typeof__(emulator_##name) *name
/* emulator.h */
struct emulator {
  EMULATOR_ENTRY(fault);
  EMULATOR_ENTRY(reset);
  EMULATOR_ENTRY(quiet);
  EMULATOR_ENTRY(fail_malloc);
  EMULATOR_ENTRY(device);
  EMULATOR_ENTRY(allocated);
  EMULATOR_ENTRY(launches);
};
#undef EMULATOR_ENTRY

/* NULL: the module is for a GPU, or there is none. */
const struct emulator *emulator_of_module(void);

#endif

/* The kernels of mixture-of-experts layers on the emulated device. */
#include "tests/cuda/emulator.h"
#include "tests/cuda/moe_checks.h"

#include <cstdio>
#include <cstring>

int main(int argc, char **argv) {
  bool verbose = argc > 1 && !strcmp(argv[1], "-v");
  emulator_device(9, 3);
  int failed = check_products(verbose) + check_plans(verbose) + check_rows(verbose);
  const char *fault = emulator_fault();
  if (*fault) printf("FAILED: %s\n", fault);
  return failed > 0 || *fault;
}

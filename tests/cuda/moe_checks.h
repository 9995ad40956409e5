/* Checks of backend/cuda/kernels_moe.h against plain definitions in float64, on the emulated device
 * (test_cuda_moe) and on a real one (bench/cuda/bench_moe.cu). */
#ifndef TESTS_CUDA_MOE_CHECKS_H
#define TESTS_CUDA_MOE_CHECKS_H

#include "backend/cuda/kernels_moe.h"

#ifdef __cplusplus
#include <vector>

/* An array in device memory; failed calls end the program. */
template <class T> struct device_array {
  T *data = nullptr;
  size_t count;
  explicit device_array(size_t n);
  explicit device_array(const std::vector<T> &host);
  device_array(const device_array &) = delete;
  ~device_array();
  std::vector<T> host() const;
};

/* Deterministic numbers: 32 bits, and values in -1 .. 1. */
uint32_t random_bits(uint64_t *state);
float random_value(uint64_t *state);
/* Bits of a value in a 16-bit type, and back. */
uint16_t narrow_bits(float value, enum dtype type);
float widen_bits(uint16_t bits, enum dtype type);
void must(cudaError_t error, const char *what);
double activation_of(enum cuda_activation activation, double first, double up);

extern "C" {
#endif

/* Return how many checks failed; print a line for each that did, and all if `verbose`. Kernels that
 * the device lacks are left out. */
int check_products(int verbose);
int check_plans(int verbose);
int check_rows(int verbose);

#ifdef __cplusplus
}
#endif

#endif

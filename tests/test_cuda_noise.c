/* Normals of the emulated device are those of the CPU, bit for bit. */
#include "backend/cuda/kernels_noise.h"
#include "tests/cuda/emulator.h"
#include "tests/support.h"

#include <stdlib.h>

static void compare(const struct cuda_normals *n) {
  const size_t row = (size_t)n->count, bytes = (size_t)n->images * row * sizeof(float);
  float *expected = malloc(bytes), *got = malloc(bytes);
  struct cuda_normals device = *n;
  assert_non_null(expected);
  assert_non_null(got);
  assert_int_equal(cudaMalloc((void **)&device.out, bytes), cudaSuccess);
  assert_int_equal(cuda_normals(NULL, &device), cudaSuccess);
  assert_string_equal(emulator_fault(), "");
  assert_int_equal(cudaMemcpy(got, device.out, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
  for (int64_t i = 0; i < n->images; i++)
    rng_normal(expected + (size_t)i * row, n->count, n->seed, n->first_sample + (uint64_t)i,
               n->step, n->purpose);
  assert_memory_equal(got, expected, bytes);
  cudaFree(device.out);
  free(expected);
  free(got);
}

static void test_bits(void **state) {
  (void)state;
  compare(&(struct cuda_normals){NULL, 3, 1027, 42, 5, 0, RNG_INITIAL_NOISE});
  compare(&(struct cuda_normals){NULL, 1, 4096, UINT64_C(0xfedcba9876543210), UINT64_MAX - 1,
                                 (1u << 24) - 1, RNG_ENCODER_NOISE});
  compare(&(struct cuda_normals){NULL, 5, 1, 0, UINT64_C(0xfffffffe), 17, RNG_STEP_NOISE});
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

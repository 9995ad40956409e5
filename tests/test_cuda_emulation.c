/* The emulated device finds what is wrong in a kernel, and only that. */
#include "tests/cuda/emulator.h"
#include "tests/cuda/planted.h"
#include "tests/support.h"

#include "base/tensor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float *data, host[4 * PLANTED];

static int set_up(void **state) {
  (void)state;
  emulator_quiet(1);
  emulator_reset();
  assert_int_equal(cudaMalloc((void **)&data, PLANTED * sizeof *data), cudaSuccess);
  for (int i = 0; i < PLANTED; i++) host[i] = (float)i;
  assert_int_equal(cudaMemcpy(data, host, PLANTED * sizeof *data, cudaMemcpyHostToDevice),
                   cudaSuccess);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  emulator_reset();
  assert_int_equal(cudaFree(data), cudaSuccess);
  assert_int_equal(emulator_allocated(), 0);
  return 0;
}

static void fetch(void) {
  assert_int_equal(cudaMemcpy(host, data, PLANTED * sizeof *data, cudaMemcpyDeviceToHost),
                   cudaSuccess);
}

static void assert_clean(cudaError_t error) {
  const char *fault = emulator_fault();
  assert_string_equal(fault, "");
  assert_int_equal(error, cudaSuccess);
}

/* The launch failed for this reason, and everything after it fails until a reset. */
static void assert_fault(cudaError_t error, const char *part) {
  const char *fault = emulator_fault();
  if (!strstr(fault, part)) fail_msg("no \"%s\" in \"%s\"", part, fault);
  assert_int_equal(error, cudaErrorLaunchFailure);
  assert_int_equal(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  assert_int_equal(cudaMemcpy(host, data, 4, cudaMemcpyDeviceToHost), cudaErrorLaunchFailure);
  emulator_reset();
}

static void test_missing_barrier(void **state) {
  (void)state;
  assert_clean(planted_reverse(data, 1));
  fetch();
  for (int i = 0; i < PLANTED_THREADS; i++)
    assert_true(host[i] == (float)(PLANTED_THREADS - 1 - i));
  assert_fault(planted_reverse(data, 0), "shared memory");
  assert_clean(planted_reverse_static(data, 1));
  fetch();
  for (int i = 0; i < PLANTED_THREADS; i++) assert_true(host[i] == (float)i);
  assert_fault(planted_reverse_static(data, 0), "shared memory");
}

static void test_overrun(void **state) {
  (void)state;
  assert_clean(planted_fill(data, PLANTED));
  assert_fault(planted_fill(data, PLANTED + 1), "writes 4 bytes at byte 4096 of an allocation");
  assert_clean(planted_shared_overrun(data, PLANTED_THREADS));
  assert_fault(planted_shared_overrun(data, PLANTED_THREADS + 1), "writes byte 512 of 512");
  assert_fault(planted_unwritten(data), "has not written");
  float word = 1;
  assert_fault(planted_host(data, &word), "memory of the host");
}

static void test_freed(void **state) {
  (void)state;
  float *other;
  assert_int_equal(cudaMalloc((void **)&other, PLANTED * sizeof *other), cudaSuccess);
  assert_clean(planted_fill(other, PLANTED));
  assert_int_equal(cudaFree(other), cudaSuccess);
  assert_fault(planted_fill(other, PLANTED), "writes");
  assert_int_equal(cudaFree(other), cudaErrorInvalidValue);
}

static void test_waiting_for_ever(void **state) {
  (void)state;
  assert_clean(planted_barrier(data, PLANTED_THREADS));
  assert_fault(planted_barrier(data, PLANTED_THREADS - 1), "waits for ever");
}

static void test_blocks(void **state) {
  (void)state;
  assert_fault(planted_blocks(data), "in the same launch");
}

static void test_copies(void **state) {
  (void)state;
  assert_clean(planted_copies(data, 1));
  fetch();
  for (int i = 0; i < 4 * PLANTED_THREADS; i++) {
    int from = 4 * PLANTED_THREADS - 1 - i;
    float expected = from / 4 % 2 == 0 ? (float)from : 0;
    assert_true(host[i] == expected);
  }
  assert_fault(planted_copies(data, 0), "has not written");
}

static void test_warp(void **state) {
  (void)state;
  assert_clean(planted_warp(data));
  fetch();
  for (int w = 0; w < PLANTED_THREADS / 32; w++)
    assert_true(host[PLANTED_THREADS + w] == (float)(32 * 32 * w + 31 * 16 + 16 + 4 + 32));
}

/* Random bf16 matrices a [rows, depth], b [columns, depth] on the device. */
struct matrices {
  uint16_t a[64 * 64], b[64 * 64];
  uint16_t *device_a, *device_b;
};

static void matrices_make(struct matrices *m) {
  for (int i = 0; i < 64 * 64; i++) {
    m->a[i] = bf16_from_f32((float)(rand() % 2001 - 1000) / 1000.f);
    m->b[i] = bf16_from_f32((float)(rand() % 2001 - 1000) / 1000.f);
  }
  assert_int_equal(cudaMalloc((void **)&m->device_a, sizeof m->a), cudaSuccess);
  assert_int_equal(cudaMalloc((void **)&m->device_b, sizeof m->b), cudaSuccess);
  cudaMemcpy(m->device_a, m->a, sizeof m->a, cudaMemcpyHostToDevice);
  cudaMemcpy(m->device_b, m->b, sizeof m->b, cudaMemcpyHostToDevice);
}

static void assert_product(const struct matrices *m, const float *c, int rows, int columns,
                           int depth) {
  for (int r = 0; r < rows; r++)
    for (int o = 0; o < columns; o++) {
      double sum = 0;
      for (int k = 0; k < depth; k++)
        sum += (double)f32_from_bf16(m->a[r * depth + k]) * f32_from_bf16(m->b[o * depth + k]);
      assert_true(fabs(c[r * columns + o] - sum) < 1e-5);
    }
}

static void test_products(void **state) {
  (void)state;
  static struct matrices m;
  matrices_make(&m);
  assert_clean(planted_mma(data, m.device_a, m.device_b));
  fetch();
  assert_product(&m, host, 16, 8, 16);
  float *c;
  assert_int_equal(cudaMalloc((void **)&c, 64 * 64 * sizeof *c), cudaSuccess);
  assert_clean(planted_warpgroup(c, m.device_a, m.device_b, 1));
  cudaMemcpy(host, c, 64 * 64 * sizeof *c, cudaMemcpyDeviceToHost);
  assert_product(&m, host, 64, 64, 64);
  assert_fault(planted_warpgroup(c, m.device_a, m.device_b, 0), "has not written");
  assert_clean(planted_warpgroup_copied(c, m.device_a, m.device_b, 1));
  cudaMemcpy(host, c, 64 * 64 * sizeof *c, cudaMemcpyDeviceToHost);
  assert_product(&m, host, 64, 64, 64);
  assert_fault(planted_warpgroup_copied(c, m.device_a, m.device_b, 0), "async_proxy_fence");
  cudaFree(c);
  cudaFree(m.device_a);
  cudaFree(m.device_b);
}

static void test_alignment(void **state) {
  (void)state;
  assert_clean(planted_misaligned(data, 0));
  assert_fault(planted_misaligned(data, 1), "undefined");
}

static void test_out_of_memory(void **state) {
  (void)state;
  void *memory = data;
  emulator_fail_malloc(1);
  assert_int_equal(cudaMalloc(&memory, 16), cudaErrorMemoryAllocation);
  assert_null(memory);
  assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
  assert_int_equal(cudaMalloc(&memory, (size_t)1 << 40), cudaErrorMemoryAllocation);
  assert_int_equal(cudaMalloc(&memory, 16), cudaSuccess);
  assert_int_equal(cudaFree(memory), cudaSuccess);
  cudaGetLastError();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_missing_barrier, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_overrun, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_freed, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_waiting_for_ever, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_blocks, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_copies, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_warp, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_products, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_alignment, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_out_of_memory, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What a test asks of the emulated device, beside the runtime's functions. */
#ifndef TESTS_CUDA_EMULATOR_H
#define TESTS_CUDA_EMULATOR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The first fault since the last reset, "" if there was none; forgets it. Reports go to stderr
 * unless quiet. */
const char *emulator_fault(void);
void emulator_reset(void);
void emulator_quiet(int quiet);
/* The n-th cudaMalloc from now on fails, 0: none. */
void emulator_fail_malloc(int n);
/* Compute capability, 9 or 8 (0: no device at all), and multiprocessors. */
void emulator_device(int major, int multiprocessors);
/* Bytes that are allocated on the device. */
size_t emulator_allocated(void);
/* Launches since the last reset, and a number for the sequence of kernels, grids and blocks. */
unsigned long long emulator_launches(unsigned long long *sequence);
/* For code of the host that stands in for kernels: device memory may be touched in between. */
void emulator_open(void);
void emulator_close(void);

#ifdef __cplusplus
}
#endif

#endif

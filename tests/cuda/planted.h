/* Kernels for the test of the emulation: right ones, and ones with a fault. Each works on `data` of
 * PLANTED words with one or two blocks of PLANTED_THREADS. */
#ifndef TESTS_CUDA_PLANTED_H
#define TESTS_CUDA_PLANTED_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PLANTED = 1024, PLANTED_THREADS = 128 };

/* data [PLANTED_THREADS] reversed within the block */
cudaError_t planted_reverse(float *data, int with_barrier);
/* the same in static shared memory */
cudaError_t planted_reverse_static(float *data, int with_barrier);
/* data[i] = i for i < n, n > PLANTED runs over the end */
cudaError_t planted_fill(float *data, int n);
/* shared[i] for i < n of PLANTED_THREADS words */
cudaError_t planted_shared_overrun(float *data, int n);
cudaError_t planted_unwritten(float *data);
/* Only threads below n come to a named barrier of PLANTED_THREADS. */
cudaError_t planted_barrier(float *data, int n);
/* Two blocks write data[0]. */
cudaError_t planted_blocks(float *data);
cudaError_t planted_host(float *data, const float *host);
/* Copies with or without waiting for them. */
cudaError_t planted_copies(float *data, int wait);
/* Sums over warps: data[warp] = sum of the lanes' values + votes. */
cudaError_t planted_warp(float *data);
/* c [16, 8] = a [16, 16] b [8, 16]^T of bf16 in a, b by ldmatrix and mma, to data. */
cudaError_t planted_mma(float *data, const unsigned short *a, const unsigned short *b);
/* c [64, 64] = a [64, 64] b [64, 64]^T of bf16, by tensor maps and a warpgroup; to data. */
cudaError_t planted_warpgroup(float *data, unsigned short *a, unsigned short *b, int wait);
/* The same, a and b copied by threads, with or without a fence. */
cudaError_t planted_warpgroup_copied(float *data, const unsigned short *a, const unsigned short *b,
                                     int fence);
cudaError_t planted_misaligned(float *data, int by);

#ifdef __cplusplus
}
#endif

#endif

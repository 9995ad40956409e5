/* Launcher of random normals on CUDA: backend/cuda/noise.cu. */
#ifndef BACKEND_CUDA_KERNELS_NOISE_H
#define BACKEND_CUDA_KERNELS_NOISE_H

#include "base/rng.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out [images, count]: row i = the bits of rng_normal(..., count, seed, first_sample + i, step,
 * purpose); count <= 2^34; out is aligned to 16 bytes. */
struct cuda_normals {
  float *out;
  int64_t images, count;
  uint64_t seed, first_sample;
  uint32_t step;
  enum rng_purpose purpose;
};

cudaError_t cuda_normals(cudaStream_t stream, const struct cuda_normals *n);

#ifdef __cplusplus
}
#endif

#endif

/* Between the files of attention. */
#ifndef BACKEND_CUDA_ATTENTION_LAUNCH_CUH
#define BACKEND_CUDA_ATTENTION_LAUNCH_CUH

#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels_attention.h"

/* Any width, all in f32 but the output. */
cudaError_t attention_f32(cudaStream_t stream, const struct cuda_attention *a);

/* Any width up to 256, all in f32; delta is there. */
cudaError_t attention_bwd_f32(cudaStream_t stream, const struct cuda_attention_bwd *a);

/* A launch with as much shared memory as a device has. */
template <typename parameters>
cudaError_t launch_large(void (*kernel)(parameters), dim3 blocks, int threads, int bytes,
                         cudaStream_t stream, const parameters &p) {
  cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  LAUNCH(kernel, blocks, threads, bytes, stream, p);
  return cudaGetLastError();
}

#endif

/* Types of activations in kernels: loads as f32, stores rounded to nearest even, four values at
 * once; and the launcher's choice of the type. */
#ifndef BACKEND_CUDA_TYPES_CUH
#define BACKEND_CUDA_TYPES_CUH

#include "backend/cuda/device.cuh"
#include "base/tensor.h"

DEVICE float to_f32(float x) { return x; }
DEVICE float to_f32(__nv_bfloat16 x) { return __bfloat162float(x); }
DEVICE float to_f32(__half x) { return __half2float(x); }

template <class T> DEVICE T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <> __device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ __half from_f32<__half>(float x) {
  return __float2half_rn(x);
}

/* Loaded and stored as one, where arrays are aligned. */
template <class T> struct alignas(4 * sizeof(T)) four { T at[4]; };
static inline bool aligned(const void *a) { return reinterpret_cast<uintptr_t>(a) % 16 == 0; }

/* One of three launches by the type of activations, in which T is it. */
#define BY_TYPE(type, ...)                                                                         \
  do {                                                                                             \
    if ((type) == DT_F32) {                                                                        \
      typedef float T;                                                                             \
      __VA_ARGS__;                                                                                 \
    } else if ((type) == DT_BF16) {                                                                \
      typedef __nv_bfloat16 T;                                                                     \
      __VA_ARGS__;                                                                                 \
    } else {                                                                                       \
      typedef __half T;                                                                            \
      __VA_ARGS__;                                                                                 \
    }                                                                                              \
  } while (0)

/* Blocks of `size` for n > 0 items; none: 0, and there is nothing to launch. */
static inline unsigned blocks_of(int64_t n, int size) {
  return static_cast<unsigned>((n + size - 1) / size);
}

DEVICE float warp_sum(float x) {
  for (int by = 16; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
  return x;
}
DEVICE double warp_sum(double x) {
  for (int by = 16; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
  return x;
}

#endif

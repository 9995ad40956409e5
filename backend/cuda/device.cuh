/* What every kernel includes first: the CUDA language, and the instructions that it has no function
 * for. A second build for tests compiles kernels as host C++, where tests/cuda/emulate.h defines
 * all that is here; so kernels use nothing else that is not in CUDA C++ (no inline PTX, no <<<>>>).
 *
 * LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 *     A template is named in parentheses: LAUNCH((kernel<float, 4>), grid, ...). More than 48 KiB
 *     of dynamic shared memory: cudaFuncSetAttribute(kernel, ...) before.
 * SHARED_MEMORY(name)          dynamic shared memory, `unsigned char name[]`, aligned to 1024
 * SHARED float tile[8][9];     static shared memory
 *
 * Pointers to shared memory are generic pointers everywhere. Functions of a warp are called by all
 * its 32 lanes together, those of a warpgroup by its 128 threads. */
#ifndef BACKEND_CUDA_DEVICE_CUH
#define BACKEND_CUDA_DEVICE_CUH

#ifdef DITMOE_CUDA_EMULATED
#include "tests/cuda/emulate.h"
#define DEVICE static inline
#else

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define SHARED              __shared__
#define SHARED_MEMORY(name) extern __shared__ __align__(1024) unsigned char name[]
#define LAUNCH(kernel, grid, block, bytes, stream, ...)                                            \
  kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#define DEVICE static __device__ __forceinline__

DEVICE uint32_t shared_address(const void *shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/* Named barriers 1 .. 15 (0 is __syncthreads') for `threads` threads, a multiple of 32, of which
 * those that arrive do not wait. */
DEVICE void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE void barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Copies of 16, 8 or 4 aligned bytes from device to shared memory beside the computation. Those
 * that are not valid write zeros and read nothing. A thread's copies are there for itself after
 * copy_async_wait<N>() (all groups but the N newest), for others after a barrier behind that. */
DEVICE void copy_async16(void *shared, const void *global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
DEVICE void copy_async8(void *shared, const void *global, bool valid = true) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 8 : 0)
               : "memory");
}
DEVICE void copy_async4(void *shared, const void *global, bool valid = true) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 4 : 0)
               : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* 2^x to 2^-22 of its value; 0 below 2^-126. */
DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* One to four 8x8 matrices of 16-bit values for the operands of mma: lane i names row i % 8 of
 * matrix i / 8, 16 aligned bytes; register r of lane i then has columns 2 (i % 4) and the next of
 * row i / 4 of matrix r. trans: of the transposed matrices. */
#define LDMATRIX_1(name, which)                                                                    \
  DEVICE void name(uint32_t *r, const void *row) {                                                 \
    asm volatile("ldmatrix.sync.aligned.m8n8." which ".shared.b16 {%0}, [%1];"                     \
                 : "=r"(r[0])                                                                      \
                 : "r"(shared_address(row))                                                        \
                 : "memory");                                                                      \
  }
#define LDMATRIX_2(name, which)                                                                    \
  DEVICE void name(uint32_t *r, const void *row) {                                                 \
    asm volatile("ldmatrix.sync.aligned.m8n8." which ".shared.b16 {%0, %1}, [%2];"                 \
                 : "=r"(r[0]), "=r"(r[1])                                                          \
                 : "r"(shared_address(row))                                                        \
                 : "memory");                                                                      \
  }
#define LDMATRIX_4(name, which)                                                                    \
  DEVICE void name(uint32_t *r, const void *row) {                                                 \
    asm volatile("ldmatrix.sync.aligned.m8n8." which ".shared.b16 {%0, %1, %2, %3}, [%4];"         \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                                  \
                 : "r"(shared_address(row))                                                        \
                 : "memory");                                                                      \
  }
LDMATRIX_1(ldmatrix_x1, "x1")
LDMATRIX_2(ldmatrix_x2, "x2")
LDMATRIX_4(ldmatrix_x4, "x4")
LDMATRIX_1(ldmatrix_x1_trans, "x1.trans")
LDMATRIX_2(ldmatrix_x2_trans, "x2.trans")
LDMATRIX_4(ldmatrix_x4_trans, "x4.trans")
#undef LDMATRIX_1
#undef LDMATRIX_2
#undef LDMATRIX_4

/* c [16, 8] += a [16, K] b [K, 8] in a warp, T: __nv_bfloat16 or __half. With g = lane / 4 and t =
 * lane % 4: c[0], c[1]: row g, columns 2t, 2t + 1; c[2], c[3]: row g + 8. a[0]: row g, columns 2t,
 * 2t + 1; a[1]: row g + 8; a[2], a[3]: the same, 8 columns on. b[0]: rows 2t, 2t + 1 of column g;
 * b[1]: 8 rows on. K = 8: a[0], a[1] and b[0] alone. */
template <class T> __device__ void mma_m16n8k16(float *c, const uint32_t *a, const uint32_t *b);
template <class T> __device__ void mma_m16n8k8(float *c, const uint32_t *a, const uint32_t *b);

#define MMA(T, type)                                                                               \
  template <>                                                                                      \
  __device__ __forceinline__ void mma_m16n8k16<T>(float *c, const uint32_t *a,                     \
                                                  const uint32_t *b) {                             \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                            \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));              \
  }                                                                                                \
  template <>                                                                                      \
  __device__ __forceinline__ void mma_m16n8k8<T>(float *c, const uint32_t *a, const uint32_t *b) { \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." type "." type                             \
                 ".f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                        \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));                                               \
  }
MMA(__nv_bfloat16, "bf16")
MMA(__half, "f16")
#undef MMA

#endif
#endif

/* Instructions of sm_90a: barriers in shared memory that count bytes, copies of tiles by the copy
 * engine (TMA), products of a warpgroup. Kernels of other targets must not call them: their bodies
 * are empty there.
 *
 * Shared memory that ordinary stores or copy_async have written and that the copy engine or
 * warpgroup_mma reads next needs async_proxy_fence() in each thread that wrote, then a barrier. */
#ifndef BACKEND_CUDA_HOPPER_CUH
#define BACKEND_CUDA_HOPPER_CUH

#include "backend/cuda/device.cuh"
#include "backend/cuda/tensor_map.h"

#ifndef DITMOE_CUDA_EMULATED

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER(...) asm volatile(__VA_ARGS__)
#else
#define HOPPER(...) __trap()
#endif

DEVICE void async_proxy_fence() { HOPPER("fence.proxy.async.shared::cta;" ::: "memory"); }

/* A barrier of `count` arrivals, 8 aligned bytes; made by one thread, then mbarrier_fence() and
 * __syncthreads. Its phases have parity 0, 1, 0, ... A phase ends when all have arrived and all
 * expected bytes are there; mbarrier_wait returns once the phase with this parity has ended: for a
 * new barrier at once with parity 1. */
DEVICE void mbarrier_init(uint64_t *barrier, int count) {
  HOPPER("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
         : "memory");
}
DEVICE void mbarrier_fence() { HOPPER("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_arrive(uint64_t *barrier) {
  HOPPER("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/* Arrives and tells that so many bytes will be copied in this phase. */
DEVICE void mbarrier_expect(uint64_t *barrier, int bytes) {
  HOPPER("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
         "r"(bytes)
         : "memory");
}
/* Arrives, once for this thread, when the thread's copy_async so far are there (one of `count`). */
DEVICE void mbarrier_arrive_copies(uint64_t *barrier) {
  HOPPER("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
         : "memory");
}
DEVICE void mbarrier_wait(uint64_t *barrier, int parity) {
  HOPPER("{\n"
         ".reg .pred done;\n"
         "again:\n"
         "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
         "@!done bra again;\n"
         "}" ::"r"(shared_address(barrier)),
         "r"(parity)
         : "memory");
}

/* The map's box at (x, y[, z]), fastest axis first, into shared memory aligned to 128 bytes (1024
 * where the map swizzles); elements outside the tensor are 0. By one thread. The barrier is told
 * of the whole box's bytes. */
DEVICE void tensor_load_2d(void *shared, const CUtensorMap *map, uint64_t *barrier, int x, int y) {
  HOPPER("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
         "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
         "l"(map), "r"(x), "r"(y), "r"(shared_address(barrier))
         : "memory");
}
DEVICE void tensor_load_3d(void *shared, const CUtensorMap *map, uint64_t *barrier, int x, int y,
                           int z) {
  HOPPER("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
         "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(shared)),
         "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_address(barrier))
         : "memory");
}

/* Registers a thread may have from here on, a multiple of 8; all warps of a warpgroup. */
template <int N> DEVICE void registers_raise() {
  HOPPER("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> DEVICE void registers_lower() {
  HOPPER("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* Operand of warpgroup_mma: rows of 64 16-bit values (128 bytes), 8 rows in 1024 aligned bytes,
 * swizzled: the 16 bytes c of row r lie at place c ^ (r % 8). The next 16 values: 32 bytes on. */
DEVICE uint64_t warpgroup_operand(const void *shared) {
  return (uint64_t)1 << 62 | (uint64_t)64 << 32 | (uint64_t)1 << 16 |
         (shared_address(shared) & 0x3ffff) >> 4;
}
/* Before the first warpgroup_mma and after registers of its c were touched; then products, then
 * commit; their results are there after wait<N>() (all groups but the N newest). */
DEVICE void warpgroup_fence() { HOPPER("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void warpgroup_commit() { HOPPER("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEVICE void warpgroup_wait() {
  HOPPER("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* c [64, N] = a [64, 16] b [N, 16]^T (+ c if accumulate), N = 64, 128, 192, 256, T: __nv_bfloat16
 * or __half. With w = the warp of the four, g = lane / 4, t = lane % 4: c[4 j + 0, 1]: row 16 w +
 * g, columns 8 j + 2t, 2t + 1; c[4 j + 2, 3]: row 16 w + g + 8. */
template <int N, class T>
__device__ void warpgroup_mma(float *c, uint64_t a, uint64_t b, int accumulate);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define F8(i)                                                                                      \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]),      \
      "+f"(c[i + 6]), "+f"(c[i + 7])
#define F32(i) F8(i), F8(i + 8), F8(i + 16), F8(i + 24)
#define R0                                                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                         \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define R1                                                                                         \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "               \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define R2                                                                                         \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "               \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define R3                                                                                         \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "   \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define PRODUCT(n, type, registers, a_at, b_at, s_at, ...)                                         \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " s_at ", 0;\n"                                   \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" registers       \
               "}, " a_at ", " b_at ", p, 1, 1, 0, 0;\n}"                                          \
               : __VA_ARGS__                                                                       \
               : "l"(a), "l"(b), "r"(accumulate))
#else
#define PRODUCT(...) __trap()
#endif

#define PRODUCTS(T, type)                                                                          \
  template <>                                                                                      \
  __device__ __forceinline__ void warpgroup_mma<64, T>(float *c, uint64_t a, uint64_t b,           \
                                                       int accumulate) {                           \
    PRODUCT("64", type, R0, "%32", "%33", "%34", F32(0));                                          \
  }                                                                                                \
  template <>                                                                                      \
  __device__ __forceinline__ void warpgroup_mma<128, T>(float *c, uint64_t a, uint64_t b,          \
                                                        int accumulate) {                          \
    PRODUCT("128", type, R0 ", " R1, "%64", "%65", "%66", F32(0), F32(32));                        \
  }                                                                                                \
  template <>                                                                                      \
  __device__ __forceinline__ void warpgroup_mma<192, T>(float *c, uint64_t a, uint64_t b,          \
                                                        int accumulate) {                          \
    PRODUCT("192", type, R0 ", " R1 ", " R2, "%96", "%97", "%98", F32(0), F32(32), F32(64));       \
  }                                                                                                \
  template <>                                                                                      \
  __device__ __forceinline__ void warpgroup_mma<256, T>(float *c, uint64_t a, uint64_t b,          \
                                                        int accumulate) {                          \
    PRODUCT("256", type, R0 ", " R1 ", " R2 ", " R3, "%128", "%129", "%130", F32(0), F32(32),      \
            F32(64), F32(96));                                                                     \
  }
PRODUCTS(__nv_bfloat16, "bf16")
PRODUCTS(__half, "f16")
#undef PRODUCTS
#undef PRODUCT
#undef F8
#undef F32
#undef R0
#undef R1
#undef R2
#undef R3
#undef HOPPER

#endif
#endif

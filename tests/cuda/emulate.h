/* CUDA's execution model as host C++, for the build of kernels that runs on a CPU: blocks run one
 * after the other in an arbitrary order, the threads of a block as fibres that change at barriers
 * and at what a warp does together.
 *
 * Kernels are compiled with -fsanitize=thread, whose calls go to tests/cuda/watch.cpp instead of
 * the sanitizer: every access to memory is checked. An access outside an allocation, shared memory
 * that the block never wrote, two threads of a block at one place of shared memory without a
 * barrier between them, two blocks at one place of device memory, memory of the host, a barrier
 * that is never complete: each ends the launch, is reported with its source line and makes every
 * later call of the runtime return cudaErrorLaunchFailure, until emulator_reset (emulator.h). */
#ifndef TESTS_CUDA_EMULATE_H
#define TESTS_CUDA_EMULATE_H

#include "tests/cuda/toolkit/cuda.h"
#include "tests/cuda/toolkit/cuda_runtime_api.h"
#include "tests/cuda/types.h"

#include <functional>
#include <tuple>

#define SHARED              static
#define SHARED_MEMORY(name) unsigned char *const name = emulate::dynamic_shared()
#define LAUNCH(kernel, grid, block, bytes, stream, ...)                                            \
  emulate::launch(#kernel, grid, block, bytes, stream, kernel, __VA_ARGS__)

/* Written by the emulator alone, before a thread goes on. */
extern struct emulate_builtins {
  uint3 thread, block;
  dim3 block_size, grid_size;
} emulate_builtins;
#define threadIdx emulate_builtins.thread
#define blockIdx  emulate_builtins.block
#define blockDim  emulate_builtins.block_size
#define gridDim   emulate_builtins.grid_size
static const int warpSize = 32;

namespace emulate {

unsigned char *dynamic_shared();
/* A kernel fails here: does not return if a thread is running. */
__attribute__((format(printf, 1, 2))) void report(const char *format, ...);
/* Checks an access of the running thread. */
void watch(const volatile void *at, size_t bytes, bool write, bool atomic);

struct launch_shape {
  const char *name;
  const void *kernel;
  dim3 grid, block;
  size_t shared;
};
void submit(const launch_shape &shape, cudaStream_t stream, std::function<void()> thread);

/* A thread begins: it is watched from here on, and may read its launch's arguments. */
void begin_thread(const void *arguments, size_t bytes);
template <class Kernel, class Arguments>
__attribute__((no_sanitize_thread, noinline)) void run_thread(Kernel *kernel,
                                                              const Arguments &arguments) {
  begin_thread(&arguments, sizeof arguments);
  std::apply(kernel, arguments);
}

template <class... P, class... A>
inline void launch(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   void (*kernel)(P...), A &&...arguments) {
  std::tuple<P...> copies(static_cast<A &&>(arguments)...);
  launch_shape shape = {name, reinterpret_cast<const void *>(kernel), grid, block, shared};
  submit(shape, stream, [kernel, copies] { run_thread(kernel, copies); });
}

/* What the lanes of a warp do together. `complete` is run once, when all lanes in mask are there,
 * with what each has passed. */
typedef void complete_function(void *const lanes[32], unsigned mask);
void together(const char *what, unsigned mask, void *mine, complete_function *complete);
unsigned lane();

enum shuffle_kind { SHUFFLE_INDEX, SHUFFLE_UP, SHUFFLE_DOWN, SHUFFLE_XOR };
uint64_t shuffle(shuffle_kind kind, unsigned mask, uint64_t value, int by, int width);
template <class T> inline T shuffle_as(shuffle_kind kind, unsigned mask, T value, int by, int w) {
  static_assert(sizeof(T) <= 8, "too wide to shuffle");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = shuffle(kind, mask, bits, by, w);
  memcpy(&value, &bits, sizeof value);
  return value;
}
unsigned ballot(unsigned mask, bool vote);
unsigned match(unsigned mask, uint64_t value);
uint64_t reduce(unsigned mask, uint64_t value, uint64_t (*join)(uint64_t, uint64_t));

int block_barrier(int predicate, int kind);
void copy_async(void *shared, const void *global, int bytes, bool valid);
void copies_wait(int groups);
void ldmatrix(uint32_t *r, const void *row, int matrices, bool transposed);
void mma(float *c, const uint32_t *a, const uint32_t *b, int depth, bool f16);
uint64_t shared_offset(const void *shared);

/* Hopper. */
void tensor_load(void *shared, const CUtensorMap *map, uint64_t *barrier, int x, int y, int z);
void warpgroup_mma(float *c, uint64_t a, uint64_t b, int accumulate, int columns, bool f16);
void warpgroup_wait(int groups);

template <class T> struct is_f16;
template <> struct is_f16<__half> { static const bool value = true; };
template <> struct is_f16<__nv_bfloat16> { static const bool value = false; };

template <class T, class F> __attribute__((no_sanitize_thread)) inline T atomic(T *at, F change) {
  watch(at, sizeof *at, true, true);
  T old = *at;
  *at = change(old);
  return old;
}

} // namespace emulate

/* Warps. */

#define SHUFFLE(name, kind)                                                                        \
  template <class T> inline T name(unsigned mask, T value, int by, int width = 32) {               \
    return emulate::shuffle_as(emulate::kind, mask, value, by, width);                             \
  }
SHUFFLE(__shfl_sync, SHUFFLE_INDEX)
SHUFFLE(__shfl_up_sync, SHUFFLE_UP)
SHUFFLE(__shfl_down_sync, SHUFFLE_DOWN)
SHUFFLE(__shfl_xor_sync, SHUFFLE_XOR)
#undef SHUFFLE
void __syncwarp(unsigned mask = 0xffffffff);
unsigned __activemask();
inline unsigned __ballot_sync(unsigned mask, int vote) { return emulate::ballot(mask, vote != 0); }
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) == mask; }
template <class T> inline unsigned __match_any_sync(unsigned mask, T value) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return emulate::match(mask, bits);
}
#define REDUCE(name, type, expression)                                                             \
  inline type name(unsigned mask, type value) {                                                    \
    return static_cast<type>(emulate::reduce(                                                      \
        mask, static_cast<uint64_t>(value), [](uint64_t a, uint64_t b) -> uint64_t {               \
          type x = static_cast<type>(a), y = static_cast<type>(b);                                 \
          return static_cast<uint64_t>(static_cast<type>(expression));                             \
        }));                                                                                       \
  }
REDUCE(__reduce_add_sync, unsigned, x + y)
REDUCE(__reduce_add_sync, int, x + y)
REDUCE(__reduce_min_sync, unsigned, min(x, y))
REDUCE(__reduce_min_sync, int, min(x, y))
REDUCE(__reduce_max_sync, unsigned, max(x, y))
REDUCE(__reduce_max_sync, int, max(x, y))
REDUCE(__reduce_or_sync, unsigned, x | y)
REDUCE(__reduce_and_sync, unsigned, x &y)
#undef REDUCE

/* Blocks. */

inline void __syncthreads() { emulate::block_barrier(0, 0); }
inline int __syncthreads_count(int predicate) { return emulate::block_barrier(predicate, 0); }
inline int __syncthreads_or(int predicate) { return emulate::block_barrier(predicate, 0) != 0; }
inline int __syncthreads_and(int predicate) { return emulate::block_barrier(predicate, 1); }
void barrier_sync(int id, int threads);
void barrier_arrive(int id, int threads);
void __threadfence();
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {}
inline void __trap() { emulate::report("trap"); }

/* Atomics. */

template <class T> struct emulate_same { typedef T type; };
#define ATOMIC(name, expression)                                                                   \
  template <class T> inline T name(T *at, typename emulate_same<T>::type value) {                  \
    return emulate::atomic(at, [value](T old) -> T { return static_cast<T>(expression); });        \
  }
ATOMIC(atomicAdd, old + value)
ATOMIC(atomicSub, old - value)
ATOMIC(atomicMin, old < value ? old : value)
ATOMIC(atomicMax, old > value ? old : value)
ATOMIC(atomicAnd, old &value)
ATOMIC(atomicOr, old | value)
ATOMIC(atomicXor, old ^ value)
ATOMIC(atomicExch, ((void)old, value))
ATOMIC(atomicInc, old >= value ? 0 : old + 1)
#undef ATOMIC
template <class T>
inline T atomicCAS(T *at, typename emulate_same<T>::type compare,
                   typename emulate_same<T>::type value) {
  return emulate::atomic(at, [=](T old) -> T { return old == compare ? value : old; });
}

/* backend/cuda/device.cuh */

inline uint32_t shared_address(const void *shared) {
  return static_cast<uint32_t>(emulate::shared_offset(shared));
}
inline void copy_async16(void *shared, const void *global, bool valid = true) {
  emulate::copy_async(shared, global, 16, valid);
}
inline void copy_async8(void *shared, const void *global, bool valid = true) {
  emulate::copy_async(shared, global, 8, valid);
}
inline void copy_async4(void *shared, const void *global, bool valid = true) {
  emulate::copy_async(shared, global, 4, valid);
}
void copy_async_commit();
template <int N> inline void copy_async_wait() { emulate::copies_wait(N); }
inline void ldmatrix_x1(uint32_t *r, const void *row) { emulate::ldmatrix(r, row, 1, false); }
inline void ldmatrix_x2(uint32_t *r, const void *row) { emulate::ldmatrix(r, row, 2, false); }
inline void ldmatrix_x4(uint32_t *r, const void *row) { emulate::ldmatrix(r, row, 4, false); }
inline void ldmatrix_x1_trans(uint32_t *r, const void *row) { emulate::ldmatrix(r, row, 1, true); }
inline void ldmatrix_x2_trans(uint32_t *r, const void *row) { emulate::ldmatrix(r, row, 2, true); }
inline void ldmatrix_x4_trans(uint32_t *r, const void *row) { emulate::ldmatrix(r, row, 4, true); }
template <class T> inline void mma_m16n8k16(float *c, const uint32_t *a, const uint32_t *b) {
  emulate::mma(c, a, b, 16, emulate::is_f16<T>::value);
}
template <class T> inline void mma_m16n8k8(float *c, const uint32_t *a, const uint32_t *b) {
  emulate::mma(c, a, b, 8, emulate::is_f16<T>::value);
}

/* backend/cuda/hopper.cuh */

void async_proxy_fence();
void mbarrier_init(uint64_t *barrier, int count);
inline void mbarrier_fence() {}
void mbarrier_arrive(uint64_t *barrier);
void mbarrier_expect(uint64_t *barrier, int bytes);
void mbarrier_arrive_copies(uint64_t *barrier);
void mbarrier_wait(uint64_t *barrier, int parity);
inline void tensor_load_2d(void *shared, const CUtensorMap *map, uint64_t *barrier, int x, int y) {
  emulate::tensor_load(shared, map, barrier, x, y, 0);
}
inline void tensor_load_3d(void *shared, const CUtensorMap *map, uint64_t *barrier, int x, int y,
                           int z) {
  emulate::tensor_load(shared, map, barrier, x, y, z);
}
template <int N> inline void registers_raise() {}
template <int N> inline void registers_lower() {}
inline uint64_t warpgroup_operand(const void *shared) {
  return (uint64_t)1 << 62 | (uint64_t)64 << 32 | (uint64_t)1 << 16 |
         emulate::shared_offset(shared) >> 4;
}
void warpgroup_fence();
void warpgroup_commit();
template <int N> inline void warpgroup_wait() { emulate::warpgroup_wait(N); }
template <int N, class T>
inline void warpgroup_mma(float *c, uint64_t a, uint64_t b, int accumulate) {
  emulate::warpgroup_mma(c, a, b, accumulate, N, emulate::is_f16<T>::value);
}

#endif

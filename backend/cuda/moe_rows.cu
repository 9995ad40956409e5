/* Rows of experts: their weighted sum for each token, those of experts without weights, and the
 * order in which weights of a SwiGLU are kept. */
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels_moe.h"

#include <type_traits>

enum { THREADS = 256, WARPS = THREADS / 32 };
static const int64_t copy_blocks = 2048;

static unsigned blocks_for(int64_t n) { return (unsigned)((n + THREADS - 1) / THREADS); }

template <int V> struct values { float at[V]; };

/* V consecutive values, one access. */
template <typename T, int V> struct alignas(V * sizeof(T)) packed { T at[V]; };

template <typename T, int V> DEVICE struct values<V> load(const T *from) {
  struct packed<T, V> got = *(const struct packed<T, V> *)from;
  struct values<V> to;
#pragma unroll
  for (int i = 0; i < V; i++) to.at[i] = static_cast<float>(got.at[i]);
  return to;
}

/* A thread for V columns of a token. */
template <typename R, int V>
__global__ void combine(float *y, const R *rows, const struct cuda_plan d, const float *add,
                        int D) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  int t = static_cast<int>(i / (D / V)), c = static_cast<int>(i % (D / V)) * V;
  if (t >= d.tokens) return;
  int end = d.first[t + 1];
  struct values<V> sum = {};
#pragma unroll 2
  for (int j = d.first[t]; j < end; j++) {
    int32_t r = d.row[j];
    float weight = d.weight[r];
    struct values<V> row = load<R, V>(rows + (int64_t)r * D + c);
#pragma unroll
    for (int k = 0; k < V; k++) sum.at[k] = fmaf(weight, row.at[k], sum.at[k]);
  }
  if (add) {
    struct values<V> more = load<float, V>(add + (int64_t)t * D + c);
#pragma unroll
    for (int k = 0; k < V; k++) sum.at[k] += more.at[k];
  }
  struct packed<float, V> out;
#pragma unroll
  for (int k = 0; k < V; k++) out.at[k] = sum.at[k];
  *(struct packed<float, V> *)(y + (int64_t)t * D + c) = out;
}

template <typename R>
static void launch_combine(cudaStream_t stream, float *y, const void *rows,
                           const struct cuda_plan *plan, const float *add, int D) {
  int64_t values = (int64_t)plan->tokens * D;
  if (D % 4 == 0)
    LAUNCH((combine<R, 4>), blocks_for(values / 4), THREADS, 0, stream, y, (const R *)rows, *plan,
           add, D);
  else
    LAUNCH((combine<R, 1>), blocks_for(values), THREADS, 0, stream, y, (const R *)rows, *plan, add,
           D);
}

cudaError_t cuda_combine_rows(cudaStream_t stream, float *y, const void *rows, enum dtype rows_type,
                              const struct cuda_plan *plan, const float *add, int D) {
  if (plan->tokens == 0) return cudaSuccess;
  if (rows_type == DT_F32)
    launch_combine<float>(stream, y, rows, plan, add, D);
  else if (rows_type == DT_BF16)
    launch_combine<__nv_bfloat16>(stream, y, rows, plan, add, D);
  else
    launch_combine<__half>(stream, y, rows, plan, add, D);
  return cudaGetLastError();
}

/* A warp for each row, V values a lane at a time. */
template <typename R, typename T, int V>
__global__ void rows_copy(R *__restrict__ rows, const T *__restrict__ x, const int32_t *offset,
                          int experts, const int32_t *token, int D) {
  int lane = threadIdx.x % 32, end = offset[experts], step = gridDim.x * WARPS;
  for (int r = offset[0] + blockIdx.x * WARPS + threadIdx.x / 32; r < end; r += step) {
    const T *from = x ? x + token[r] * (int64_t)D : nullptr;
    R *to = rows + r * (int64_t)D;
#pragma unroll 4
    for (int c = lane * V; c < D; c += 32 * V) {
      struct packed<T, V> got = {};
      struct packed<R, V> out;
      if (from) got = *(const struct packed<T, V> *)(from + c);
      if constexpr (std::is_same<R, T>::value) {
        out = got;
      } else {
#pragma unroll
        for (int i = 0; i < V; i++) out.at[i] = static_cast<R>(static_cast<float>(got.at[i]));
      }
      *(struct packed<R, V> *)(to + c) = out;
    }
  }
}

/* As many values at a time as 16 bytes of a row of `rows` hold, where all rows are made of such. */
template <typename R, typename T>
static void launch_copy(cudaStream_t stream, void *rows, const void *x, const int32_t *offset,
                        int experts, const int32_t *token, int64_t capacity, int D) {
  constexpr int V = 16 / sizeof(R);
  int64_t blocks = (capacity + WARPS - 1) / WARPS;
  unsigned grid = (unsigned)(blocks < copy_blocks ? blocks : copy_blocks);
  if (D % V == 0)
    LAUNCH((rows_copy<R, T, V>), grid, THREADS, 0, stream, (R *)rows, (const T *)x, offset, experts,
           token, D);
  else
    LAUNCH((rows_copy<R, T, 1>), grid, THREADS, 0, stream, (R *)rows, (const T *)x, offset, experts,
           token, D);
}

cudaError_t cuda_rows_copy(cudaStream_t stream, void *rows, enum dtype rows_type, const void *x,
                           enum dtype type, const int32_t *offset, int experts,
                           const int32_t *token, int64_t capacity, int D) {
  bool wide = rows_type == DT_F32;
  if (capacity * D == 0) return cudaSuccess;
  if (type == DT_F32)
    launch_copy<float, float>(stream, rows, x, offset, experts, token, capacity, D);
  else if (type == DT_BF16 && wide)
    launch_copy<float, __nv_bfloat16>(stream, rows, x, offset, experts, token, capacity, D);
  else if (type == DT_BF16)
    launch_copy<__nv_bfloat16, __nv_bfloat16>(stream, rows, x, offset, experts, token, capacity, D);
  else if (wide)
    launch_copy<float, __half>(stream, rows, x, offset, experts, token, capacity, D);
  else
    launch_copy<__half, __half>(stream, rows, x, offset, experts, token, capacity, D);
  return cudaGetLastError();
}

template <typename T> __global__ void pack_paired(T *dst, const float *src, int out, int in) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, n = i / in;
  int64_t pair = n / (2 * CUDA_PAIR), part = n / CUDA_PAIR % 2,
          o = pair * CUDA_PAIR + n % CUDA_PAIR;
  if (pair * CUDA_PAIR >= out) return;
  dst[i] = static_cast<T>(o < out ? src[(part * out + o) * in + i % in] : 0.0f);
}

cudaError_t cuda_pack_paired(cudaStream_t stream, void *dst, enum dtype type, const float *src,
                             int out, int in) {
  unsigned blocks = blocks_for((int64_t)cuda_paired_rows(out) * in);
  if (type == DT_F32)
    LAUNCH(pack_paired<float>, blocks, THREADS, 0, stream, (float *)dst, src, out, in);
  else if (type == DT_BF16)
    LAUNCH(pack_paired<__nv_bfloat16>, blocks, THREADS, 0, stream, (__nv_bfloat16 *)dst, src, out,
           in);
  else
    LAUNCH(pack_paired<__half>, blocks, THREADS, 0, stream, (__half *)dst, src, out, in);
  return cudaGetLastError();
}

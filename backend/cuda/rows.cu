/* Operations on rows: a warp has a row, a block eight. A row that fits into registers, EACH float4
 * a lane, is read once; others are read again, mostly from the cache. */
#include "backend/cuda/kernels_rows.h"
#include "backend/cuda/types.cuh"

enum { ROWS_THREADS = 256, ROWS_BLOCK = ROWS_THREADS / 32 };

DEVICE int64_t row_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * ROWS_BLOCK + threadIdx.x / 32;
}

/* Mean and 1 / sqrt(biased variance + eps). The mean of the differences from a first, rounded mean
 * corrects it. */
struct row_moments {
  float mean, rest, scale;
};
DEVICE row_moments finish_moments(float mean, float sum, float squares, int n, float eps) {
  float rest = warp_sum(sum) / static_cast<float>(n);
  float variance = fmaxf(warp_sum(squares) / static_cast<float>(n) - rest * rest, 0);
  row_moments m = {mean, rest, static_cast<float>(1 / sqrt(static_cast<double>(variance) + eps))};
  if (variance != variance || sum != sum) m.scale = variance;
  return m;
}
DEVICE row_moments moments_of(const float *x, int n, float eps) {
  const int lane = threadIdx.x % 32;
  float first = 0, sum = 0, squares = 0;
  for (int i = lane; i < n; i += 32) first += x[i];
  float mean = warp_sum(first) / static_cast<float>(n);
  for (int i = lane; i < n; i += 32) {
    float d = x[i] - mean;
    sum += d;
    squares = fmaf(d, d, squares);
  }
  return finish_moments(mean, sum, squares, n, eps);
}

struct modulation {
  const float *shift, *scale;
  int64_t stride;
  int T, D;
  float eps;
};

DEVICE float modulated(float x, const row_moments &m, float scale, float shift) {
  return fmaf((x - m.mean - m.rest) * m.scale, 1 + scale, shift);
}

template <class T>
static __global__ void norm_modulate(T *y, const float *x, modulation p, int64_t rows) {
  int64_t row = row_of_warp();
  if (row >= rows) return;
  const float *from = x + row * p.D;
  const float *shift = p.shift + row / p.T * p.stride, *scale = p.scale + row / p.T * p.stride;
  row_moments m = moments_of(from, p.D, p.eps);
  for (int i = threadIdx.x % 32; i < p.D; i += 32)
    y[row * p.D + i] = from_f32<T>(modulated(from[i], m, scale[i], shift[i]));
}

template <class T> struct alignas(4 * sizeof(T)) four { T at[4]; };

/* EACH float4 a lane: D <= 128 EACH, a multiple of 4, and all arrays aligned. */
template <class T, int EACH>
static __global__ void __launch_bounds__(ROWS_THREADS)
    norm_modulate_once(T *y, const float *x, modulation p, int64_t rows) {
  const int64_t row = row_of_warp();
  const int lane = threadIdx.x % 32, D = p.D;
  if (row >= rows) return;
  const four<float> *from = reinterpret_cast<const four<float> *>(x + row * D);
  four<float> v[EACH];
  float first = 0, sum = 0, squares = 0;
#pragma unroll
  for (int k = 0; k < EACH; k++) {
    bool inside = 4 * (k * 32 + lane) < D;
    if (inside) v[k] = from[k * 32 + lane];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      v[k].at[j] = inside ? v[k].at[j] : 0;
      first += v[k].at[j];
    }
  }
  float mean = warp_sum(first) / static_cast<float>(D);
#pragma unroll
  for (int k = 0; k < EACH; k++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      float d = 4 * (k * 32 + lane) < D ? v[k].at[j] - mean : 0;
      sum += d;
      squares = fmaf(d, d, squares);
    }
  row_moments m = finish_moments(mean, sum, squares, D, p.eps);
  const int64_t image = row / p.T * p.stride;
  const four<float> *shift = reinterpret_cast<const four<float> *>(p.shift + image);
  const four<float> *scale = reinterpret_cast<const four<float> *>(p.scale + image);
#pragma unroll
  for (int k = 0; k < EACH; k++) {
    if (4 * (k * 32 + lane) >= D) continue;
    four<float> a = scale[k * 32 + lane], b = shift[k * 32 + lane];
    four<T> out;
#pragma unroll
    for (int j = 0; j < 4; j++) out.at[j] = from_f32<T>(modulated(v[k].at[j], m, a.at[j], b.at[j]));
    reinterpret_cast<four<T> *>(y + row * D)[k * 32 + lane] = out;
  }
}

static bool aligned(const void *a) { return reinterpret_cast<uintptr_t>(a) % 16 == 0; }

cudaError_t cuda_norm_modulate(cudaStream_t stream, void *y, enum dtype type, const float *x,
                               const float *shift, const float *scale, int64_t stride, int B, int T,
                               int D, float eps) {
  const int64_t rows = static_cast<int64_t>(B) * T;
  const modulation p = {shift, scale, stride, T, D, eps};
  const unsigned blocks = blocks_of(rows, ROWS_BLOCK);
  const bool vectors = D % 4 == 0 && stride % 4 == 0 && aligned(x) && aligned(y) &&
                       aligned(shift) && aligned(scale) && D <= 128 * 12;
#define ONCE(each)                                                                                 \
  BY_TYPE(type, LAUNCH((norm_modulate_once<T, each>), blocks, ROWS_THREADS, 0, stream,             \
                       static_cast<T *>(y), x, p, rows))
  if (!blocks) return cudaSuccess;
  if (!vectors)
    BY_TYPE(type, LAUNCH((norm_modulate<T>), blocks, ROWS_THREADS, 0, stream, static_cast<T *>(y),
                         x, p, rows));
  else if (D <= 128 * 3)
    ONCE(3);
  else if (D <= 128 * 6)
    ONCE(6);
  else if (D <= 128 * 9)
    ONCE(9);
  else
    ONCE(12);
#undef ONCE
  return cudaGetLastError();
}

static __global__ void gated_add(float *out, const float *x, const float *gate, int64_t stride,
                                 const float *y, int T, int D, int64_t rows) {
  const int64_t row = row_of_warp();
  if (row >= rows) return;
  gate += row / T * stride;
#pragma unroll 4
  for (int i = threadIdx.x % 32; i < D; i += 32)
    out[row * D + i] = fmaf(gate[i], y[row * D + i], x[row * D + i]);
}
cudaError_t cuda_gated_add(cudaStream_t stream, float *out, const float *x, const float *gate,
                           int64_t stride, const float *y, int B, int T, int D) {
  const int64_t rows = static_cast<int64_t>(B) * T;
  if (rows > 0)
    LAUNCH(gated_add, blocks_of(rows, ROWS_BLOCK), ROWS_THREADS, 0, stream, out, x, gate, stride, y,
           T, D, rows);
  return cudaGetLastError();
}

struct head_norms {
  const float *weight[2], *bias[2]; /* of q, of k */
  float eps;
};

/* A warp has a head of q, of k or of v, which is only copied. */
static __global__ void qk_norm(float *y, const float *qkv, head_norms p, int64_t heads, int H,
                               int d) {
  const int64_t head = row_of_warp();
  const int part = static_cast<int>(head / H % 3), lane = threadIdx.x % 32;
  if (head >= heads) return;
  const float *from = qkv + head * d;
  float *to = y + head * d;
  if (part == 2) {
    for (int i = lane; i < d && to != from; i += 32) to[i] = from[i];
    return;
  }
  const float *weight = part ? p.weight[1] : p.weight[0], *bias = part ? p.bias[1] : p.bias[0];
  row_moments m = moments_of(from, d, p.eps);
  for (int i = lane; i < d; i += 32)
    to[i] = fmaf((from[i] - m.mean - m.rest) * m.scale, weight[i], bias[i]);
}
cudaError_t cuda_qk_norm(cudaStream_t stream, float *y, const float *qkv,
                         const float *const norm[4], float eps, int64_t rows, int H, int d) {
  const int64_t heads = rows * 3 * H;
  const head_norms p = {{norm[0], norm[2]}, {norm[1], norm[3]}, eps};
  if (heads > 0)
    LAUNCH(qk_norm, blocks_of(heads, ROWS_BLOCK), ROWS_THREADS, 0, stream, y, qkv, p, heads, H, d);
  return cudaGetLastError();
}

/* In double, as the CPU's, for routers choose by what follows from it. */
static __global__ void normalize_rows(float *y, const float *x, int64_t rows, int D) {
  const int64_t row = row_of_warp();
  if (row >= rows) return;
  double squares = 0;
  for (int i = threadIdx.x % 32; i < D; i += 32) {
    double v = static_cast<double>(x[row * D + i]);
    squares = fma(v, v, squares);
  }
  double length = sqrt(warp_sum(squares));
  if (length < 1e-12) length = 1e-12;
  for (int i = threadIdx.x % 32; i < D; i += 32)
    y[row * D + i] = static_cast<float>(static_cast<double>(x[row * D + i]) / length);
}
cudaError_t cuda_normalize_rows(cudaStream_t stream, float *y, const float *x, int64_t rows,
                                int D) {
  if (rows > 0)
    LAUNCH(normalize_rows, blocks_of(rows, ROWS_BLOCK), ROWS_THREADS, 0, stream, y, x, rows, D);
  return cudaGetLastError();
}

/* The exponentials, at most 1, are added as whole multiples of 2^-52: exactly, so in any order. */
static __global__ void softmax_rows(float *y, const float *x, int64_t rows, int n) {
  const int64_t row = row_of_warp();
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * n;
  float max = -INFINITY;
  int nans = 0;
  for (int i = lane; i < n; i += 32) {
    max = fmaxf(max, x[i]);
    nans |= isnan(x[i]);
  }
  for (int by = 16; by > 0; by /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, by));
  bool number = !__any_sync(0xffffffffu, nans) && !isinf(max);
  long long sum = 0;
  for (int i = lane; i < n && number; i += 32)
    sum += static_cast<long long>(exp(static_cast<double>(x[i]) - max) * 0x1p52 + 0.5);
  for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
  double total = static_cast<double>(sum) * 0x1p-52;
  for (int i = lane; i < n; i += 32)
    y[row * n + i] =
        number ? static_cast<float>(exp(static_cast<double>(x[i]) - max) / total) : NAN;
}
cudaError_t cuda_softmax_rows(cudaStream_t stream, float *y, const float *x, int64_t rows, int n) {
  if (rows > 0)
    LAUNCH(softmax_rows, blocks_of(rows, ROWS_BLOCK), ROWS_THREADS, 0, stream, y, x, rows, n);
  return cudaGetLastError();
}

/* A warp has an expert of an image; neighbouring warps read neighbouring experts' scores. */
static __global__ void softmax_tokens(float *y, const float *x, int64_t columns, int T, int E) {
  const int64_t column = row_of_warp();
  if (column >= columns) return;
  const int64_t first = column / E * T * E + column % E;
  float max = -INFINITY;
  for (int t = threadIdx.x % 32; t < T; t += 32)
    max = fmaxf(max, x[first + static_cast<int64_t>(t) * E]);
  for (int by = 16; by > 0; by /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, by));
  double sum = 0;
  for (int t = threadIdx.x % 32; t < T; t += 32)
    sum += exp(static_cast<double>(x[first + static_cast<int64_t>(t) * E]) - max);
  sum = warp_sum(sum);
  for (int t = threadIdx.x % 32; t < T; t += 32) {
    int64_t i = first + static_cast<int64_t>(t) * E;
    y[i] = static_cast<float>(exp(static_cast<double>(x[i]) - max) / sum);
  }
}
cudaError_t cuda_softmax_tokens(cudaStream_t stream, float *y, const float *x, int B, int T,
                                int E) {
  const int64_t columns = static_cast<int64_t>(B) * E;
  if (columns > 0 && T > 0)
    LAUNCH(softmax_tokens, blocks_of(columns, ROWS_BLOCK), ROWS_THREADS, 0, stream, y, x, columns,
           T, E);
  return cudaGetLastError();
}

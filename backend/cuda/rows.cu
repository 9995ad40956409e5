/* Operations on rows: a warp has a row, a block eight; short rows share a warp. A row that fits
 * into registers, EACH float4 a lane, is read once; others are read again, mostly from the cache.
 */
#include "backend/cuda/kernels_rows.h"
#include "backend/cuda/types.cuh"

enum { ROWS_THREADS = 256, ROWS_BLOCK = ROWS_THREADS / 32 };

DEVICE int64_t row_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * ROWS_BLOCK + threadIdx.x / 32;
}

/* Sum over LANES neighbours of a warp, in all of them. */
template <int LANES> DEVICE float sum_of(float x) {
#pragma unroll
  for (int by = LANES / 2; by > 0; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
  return x;
}

/* Mean and 1 / sqrt(biased variance + eps). The mean of the differences from a first, rounded mean
 * corrects it. */
struct row_moments {
  float mean, rest, scale;
};
template <int LANES>
DEVICE row_moments finish_moments(float mean, float sum, float squares, int n, float eps) {
  float rest = sum_of<LANES>(sum) / static_cast<float>(n);
  float variance = fmaxf(sum_of<LANES>(squares) / static_cast<float>(n) - rest * rest, 0);
  row_moments m = {mean, rest, static_cast<float>(1 / sqrt(static_cast<double>(variance) + eps))};
  if (variance != variance || sum != sum) m.scale = variance;
  return m;
}
DEVICE row_moments moments_of(const float *x, int n, float eps) {
  const int lane = threadIdx.x % 32;
  float first = 0, sum = 0, squares = 0;
  for (int i = lane; i < n; i += 32) first += x[i];
  float mean = sum_of<32>(first) / static_cast<float>(n);
  for (int i = lane; i < n; i += 32) {
    float d = x[i] - mean;
    sum += d;
    squares = fmaf(d, d, squares);
  }
  return finish_moments<32>(mean, sum, squares, n, eps);
}

/* v = what this one of LANES has of a row of n values, a multiple of 4 up to 4 LANES EACH; 0 past
 * its end. */
template <int LANES, int EACH>
DEVICE void load_row(four<float> (&v)[EACH], const float *row, int n) {
  const int lane = threadIdx.x % LANES;
#pragma unroll
  for (int k = 0; k < EACH; k++) {
    v[k] = {};
    if (4 * (k * LANES + lane) < n)
      v[k] = reinterpret_cast<const four<float> *>(row)[k * LANES + lane];
  }
}
template <int LANES, int EACH>
DEVICE row_moments moments_of(const four<float> (&v)[EACH], int n, float eps) {
  float first = 0, sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < 4 * EACH; i++) first += v[i / 4].at[i % 4];
  float mean = sum_of<LANES>(first) / static_cast<float>(n);
#pragma unroll
  for (int i = 0; i < 4 * EACH; i++) {
    const bool inside = 4 * (i / 4 * LANES + static_cast<int>(threadIdx.x) % LANES) < n;
    float d = inside ? v[i / 4].at[i % 4] - mean : 0;
    sum += d;
    squares = fmaf(d, d, squares);
  }
  return finish_moments<LANES>(mean, sum, squares, n, eps);
}

DEVICE float normalized(float x, const row_moments &m) { return (x - m.mean - m.rest) * m.scale; }

struct modulation {
  const float *shift, *scale;
  int64_t stride;
  int T, D;
  float eps;
};

template <class T>
static __global__ void norm_modulate(T *y, const float *x, modulation p, int64_t rows) {
  int64_t row = row_of_warp();
  if (row >= rows) return;
  const float *from = x + row * p.D;
  const float *shift = p.shift + row / p.T * p.stride, *scale = p.scale + row / p.T * p.stride;
  row_moments m = moments_of(from, p.D, p.eps);
  for (int i = threadIdx.x % 32; i < p.D; i += 32)
    y[row * p.D + i] = from_f32<T>(fmaf(normalized(from[i], m), 1 + scale[i], shift[i]));
}

/* EACH float4 a lane: D <= 128 EACH, a multiple of 4, and all arrays aligned. As many blocks as fit
 * are worth more than shift and scale read early. */
template <class T, int EACH>
static __global__ void __launch_bounds__(ROWS_THREADS, EACH <= 9 ? 4 : 3)
    norm_modulate_once(T *y, const float *x, modulation p, int64_t rows) {
  const int64_t row = row_of_warp();
  const int lane = threadIdx.x % 32, D = p.D;
  if (row >= rows) return;
  four<float> v[EACH];
  load_row<32>(v, x + row * D, D);
  row_moments m = moments_of<32>(v, D, p.eps);
  const int64_t image = row / p.T * p.stride;
  const four<float> *shift = reinterpret_cast<const four<float> *>(p.shift + image);
  const four<float> *scale = reinterpret_cast<const four<float> *>(p.scale + image);
#pragma unroll
  for (int k = 0; k < EACH; k++) {
    if (4 * (k * 32 + lane) >= D) continue;
    four<float> a = scale[k * 32 + lane], b = shift[k * 32 + lane];
    four<T> out;
#pragma unroll
    for (int j = 0; j < 4; j++)
      out.at[j] = from_f32<T>(fmaf(normalized(v[k].at[j], m), 1 + a.at[j], b.at[j]));
    reinterpret_cast<four<T> *>(y + row * D)[k * 32 + lane] = out;
  }
}

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

DEVICE float gated_sum(float x, float gate, float y) { return fmaf(gate, y, x); }
DEVICE four<float> gated_sum(four<float> x, four<float> gate, four<float> y) {
#pragma unroll
  for (int j = 0; j < 4; j++) x.at[j] = fmaf(gate.at[j], y.at[j], x.at[j]);
  return x;
}

/* out may be x, so that no load moves over a store: EACH of them come before. */
template <class V, int EACH>
static __global__ void gated_add(V *out, const V *x, const V *gate, int64_t stride, const V *y,
                                 int T, int D, int64_t rows) {
  const int64_t row = row_of_warp();
  if (row >= rows) return;
  gate += row / T * stride;
  out += row * D, x += row * D, y += row * D;
  for (int i = threadIdx.x % 32; i < D; i += 32 * EACH) {
    V a[EACH], b[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++)
      if (i + 32 * k < D) a[k] = x[i + 32 * k], b[k] = y[i + 32 * k];
#pragma unroll
    for (int k = 0; k < EACH; k++)
      if (i + 32 * k < D) out[i + 32 * k] = gated_sum(a[k], gate[i + 32 * k], b[k]);
  }
}
cudaError_t cuda_gated_add(cudaStream_t stream, float *out, const float *x, const float *gate,
                           int64_t stride, const float *y, int B, int T, int D) {
  typedef four<float> V;
  const int64_t rows = static_cast<int64_t>(B) * T;
  const unsigned blocks = blocks_of(rows, ROWS_BLOCK);
  if (!blocks) return cudaSuccess;
  if (D % 4 == 0 && stride % 4 == 0 && aligned(out) && aligned(x) && aligned(gate) && aligned(y))
    LAUNCH((gated_add<V, 3>), blocks, ROWS_THREADS, 0, stream, reinterpret_cast<V *>(out),
           reinterpret_cast<const V *>(x), reinterpret_cast<const V *>(gate), stride / 4,
           reinterpret_cast<const V *>(y), T, D / 4, rows);
  else
    LAUNCH((gated_add<float, 4>), blocks, ROWS_THREADS, 0, stream, out, x, gate, stride, y, T, D,
           rows);
  return cudaGetLastError();
}

struct head_norms {
  const float *weight[2], *bias[2]; /* of q, of k */
  float eps;
  unsigned heads;      /* in all rows; those of a row: */
  int H, d, row_heads; /* 3 H, or 2 H where v stays in its place */
};

/* Where the head lies; 0: of q, 1: of k, 2: of v, which is only copied. */
DEVICE int64_t place_of(unsigned head, const head_norms &p, int *part) {
  const unsigned row = head / p.row_heads, column = head % p.row_heads;
  *part = static_cast<int>(column) / p.H;
  return (static_cast<int64_t>(row) * 3 * p.H + column) * p.d;
}

/* A warp has a head. */
static __global__ void qk_norm(float *y, const float *qkv, const __grid_constant__ head_norms p) {
  const unsigned head = static_cast<unsigned>(row_of_warp());
  if (head >= p.heads) return;
  int part;
  const int64_t at = place_of(head, p, &part);
  const float *from = qkv + at;
  row_moments m = {};
  if (part < 2) m = moments_of(from, p.d, p.eps);
  for (int i = threadIdx.x % 32; i < p.d; i += 32)
    y[at + i] =
        part == 2 ? from[i] : fmaf(normalized(from[i], m), p.weight[part][i], p.bias[part][i]);
}

enum { HEAD_LANES = 8 };

/* HEAD_LANES have a head, EACH float4 a lane: d <= 32 EACH, a multiple of 4, and all arrays
 * aligned. */
template <int EACH>
static __global__ void __launch_bounds__(ROWS_THREADS)
    qk_norm_once(float *y, const float *qkv, const __grid_constant__ head_norms p) {
  const unsigned head = blockIdx.x * (ROWS_THREADS / HEAD_LANES) + threadIdx.x / HEAD_LANES;
  const int lane = threadIdx.x % HEAD_LANES, n = head < p.heads ? p.d : 0;
  int part;
  const int64_t at = place_of(head, p, &part);
  four<float> v[EACH];
  load_row<HEAD_LANES>(v, qkv + at, n);
  const row_moments m = moments_of<HEAD_LANES>(v, p.d, p.eps);
  const four<float> *weight = reinterpret_cast<const four<float> *>(p.weight[part == 1]);
  const four<float> *bias = reinterpret_cast<const four<float> *>(p.bias[part == 1]);
#pragma unroll
  for (int k = 0; k < EACH; k++) {
    if (4 * (k * HEAD_LANES + lane) >= n) continue;
    four<float> w = weight[k * HEAD_LANES + lane], b = bias[k * HEAD_LANES + lane], out = v[k];
#pragma unroll
    for (int j = 0; j < 4 && part < 2; j++)
      out.at[j] = fmaf(normalized(v[k].at[j], m), w.at[j], b.at[j]);
    reinterpret_cast<four<float> *>(y + at)[k * HEAD_LANES + lane] = out;
  }
}

cudaError_t cuda_qk_norm(cudaStream_t stream, float *y, const float *qkv,
                         const float *const norm[4], float eps, int64_t rows, int H, int d) {
  const int row_heads = y == qkv ? 2 * H : 3 * H;
  const unsigned heads = static_cast<unsigned>(rows * row_heads);
  const head_norms p = {{norm[0], norm[2]}, {norm[1], norm[3]}, eps, heads, H, d, row_heads};
  const unsigned blocks = blocks_of(heads, ROWS_THREADS / HEAD_LANES);
  bool vectors = d % 4 == 0 && d <= 128 && aligned(y) && aligned(qkv);
  for (int i = 0; i < 4; i++) vectors = vectors && aligned(norm[i]);
  if (!heads) return cudaSuccess;
  if (!vectors)
    LAUNCH(qk_norm, blocks_of(heads, ROWS_BLOCK), ROWS_THREADS, 0, stream, y, qkv, p);
  else if (d <= 64)
    LAUNCH((qk_norm_once<2>), blocks, ROWS_THREADS, 0, stream, y, qkv, p);
  else if (d <= 96)
    LAUNCH((qk_norm_once<3>), blocks, ROWS_THREADS, 0, stream, y, qkv, p);
  else
    LAUNCH((qk_norm_once<4>), blocks, ROWS_THREADS, 0, stream, y, qkv, p);
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

/* LANES have a row. The exponentials, at most 1, are added as whole multiples of 2^-52: exactly, so
 * in any order. */
template <int LANES>
static __global__ void softmax_rows(float *y, const float *x, int64_t rows, int n) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * ROWS_THREADS + threadIdx.x) / LANES;
  const int lane = threadIdx.x % LANES, end = row < rows ? n : 0;
  x += row * n;
  float max = -INFINITY;
  int nans = 0;
  for (int i = lane; i < end; i += LANES) {
    max = fmaxf(max, x[i]);
    nans |= isnan(x[i]);
  }
#pragma unroll
  for (int by = LANES / 2; by > 0; by /= 2) {
    max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, by));
    nans |= __shfl_xor_sync(0xffffffffu, nans, by);
  }
  bool number = !nans && !isinf(max);
  long long sum = 0;
  for (int i = lane; i < end && number; i += LANES)
    sum += static_cast<long long>(exp(static_cast<double>(x[i]) - max) * 0x1p52 + 0.5);
#pragma unroll
  for (int by = LANES / 2; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
  double total = static_cast<double>(sum) * 0x1p-52;
  for (int i = lane; i < end; i += LANES)
    y[row * n + i] =
        number ? static_cast<float>(exp(static_cast<double>(x[i]) - max) / total) : NAN;
}
cudaError_t cuda_softmax_rows(cudaStream_t stream, float *y, const float *x, int64_t rows, int n) {
  if (rows <= 0) return cudaSuccess;
  if (n <= 8)
    LAUNCH((softmax_rows<8>), blocks_of(rows, ROWS_THREADS / 8), ROWS_THREADS, 0, stream, y, x,
           rows, n);
  else
    LAUNCH((softmax_rows<32>), blocks_of(rows, ROWS_BLOCK), ROWS_THREADS, 0, stream, y, x, rows, n);
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

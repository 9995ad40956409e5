/* Products with ordinary multiplications, for f32 and for sizes that the matrix instructions'
 * kernels leave out; and which kernel does a product. Each sum runs over the inputs in ascending
 * order, or in product_few by lanes and then over the lanes, whatever the tile. */
#include "backend/cuda/gemm.cuh"
#include "backend/cuda/gemm_kernels.h"

enum { BK = 8, THREADS = 256, FEW_ROWS = 4, FEW_COLUMNS = 8, FEW_MAX = 32 };

/* A block's tile of 64 G x 64 G. Thread (tx, ty) of 16 x 16 has in each of G x G squares of 64 the
 * rows 4 ty .. 4 ty + 3 and the columns 16 (tx / 4) + 2 (tx % 4) + {0, 1, 8, 9}: of packed pairs,
 * two gates and the factors to them. */
template <int G> struct pieces { float x[BK][64 * G + 4], weight[BK][64 * G + 4]; };

/* The elements that a thread brings: input thread % 8 of rows thread / 8 + 32 i. */
template <int G> struct bringer {
  int row[2 * G], weight; /* rows of x, -1: zeros; the first row of the expert's weights */
  int64_t base;           /* of the expert's weights */
  float got[4 * G];
};

template <int G>
DEVICE void find_sources(struct bringer<G> *s, const struct cuda_product &p,
                         const struct tile &tile) {
  int r = threadIdx.x / BK;
  s->base = tile.expert * p.weight_stride;
  s->weight = tile.column + r;
#pragma unroll
  for (int i = 0; i < 2 * G; i++) {
    int row = tile.row + r + i * (THREADS / BK);
    s->row[i] = row >= tile.end ? -1 : p.token ? p.token[row] : row;
  }
}

template <typename T, int G>
DEVICE void bring(struct bringer<G> *s, const struct cuda_product &p, int k) {
  int total = product_total(&p);
  k += threadIdx.x % BK;
  const T *x = (const T *)p.x + k, *weight = (const T *)p.weight + s->base + k;
#pragma unroll
  for (int i = 0; i < 2 * G; i++) {
    int n = s->weight + i * (THREADS / BK);
    s->got[i] = k < p.in && s->row[i] >= 0 ? static_cast<float>(x[s->row[i] * p.ldx]) : 0.0f;
    s->got[2 * G + i] =
        k < p.in && n < total ? static_cast<float>(weight[(int64_t)n * p.in]) : 0.0f;
  }
}

template <int G> DEVICE void put(struct pieces<G> *pieces, const struct bringer<G> &s) {
  int k = threadIdx.x % BK;
#pragma unroll
  for (int i = 0; i < 2 * G; i++) {
    int r = threadIdx.x / BK + i * (THREADS / BK);
    pieces->x[k][r] = s.got[i];
    pieces->weight[k][r] = s.got[2 * G + i];
  }
}

template <int G>
DEVICE void multiply_pieces(float (&acc)[4 * G][4 * G], const struct pieces<G> &pieces, int tx,
                            int ty) {
#pragma unroll 2 /* more would spill registers */
  for (int k = 0; k < BK; k++) {
    float x[4 * G], weight[4 * G];
#pragma unroll
    for (int g = 0; g < G; g++) {
      int n = g * 64 + tx / 4 * 16 + tx % 4 * 2;
      *(float4 *)(x + 4 * g) = *(const float4 *)&pieces.x[k][g * 64 + ty * 4];
      *(float2 *)(weight + 4 * g) = *(const float2 *)&pieces.weight[k][n];
      *(float2 *)(weight + 4 * g + 2) = *(const float2 *)&pieces.weight[k][n + 8];
    }
#pragma unroll
    for (int i = 0; i < 4 * G; i++)
#pragma unroll
      for (int j = 0; j < 4 * G; j++) acc[i][j] = fmaf(x[i], weight[j], acc[i][j]);
  }
}

/* Four sums of a row, columns n, n + 1, n + 8, n + 9. */
template <typename Y, bool PAIRED>
DEVICE void store_four(const struct cuda_product &p, const float *bias, Y *y, const float *acc,
                       int n) {
  int total = product_total(&p);
  float v[4];
#pragma unroll
  for (int j = 0; j < 4; j++) {
    int column = n + j % 2 + j / 2 * 8;
    v[j] = acc[j] + (bias && column < total ? bias[column] : 0.0f);
    if (!PAIRED && column < p.out) y[column] = static_cast<Y>(activate(v[j], p.activation));
  }
  if constexpr (PAIRED) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
      int column = n / 16 * 8 + n % 8 + j;
      if (column < p.out) y[column] = static_cast<Y>(silu(v[j]) * v[j + 2]);
    }
  }
}

template <typename Y, int G, bool PAIRED>
DEVICE void store_tile(const struct cuda_product &p, const struct tile &tile,
                       const float (&acc)[4 * G][4 * G], int tx, int ty) {
  const float *bias = p.bias ? p.bias + tile.expert * p.bias_stride : NULL;
#pragma unroll
  for (int i = 0; i < 4 * G; i++) {
    int row = tile.row + i / 4 * 64 + ty * 4 + i % 4;
    if (row >= tile.end) continue;
#pragma unroll
    for (int g = 0; g < G; g++)
      store_four<Y, PAIRED>(p, bias, (Y *)p.y + row * p.ldy, acc[i] + 4 * g,
                            tile.column + g * 64 + tx / 4 * 16 + tx % 4 * 2);
  }
}

template <typename T, typename Y, int G, bool PAIRED>
__global__ void __launch_bounds__(THREADS, 2) product_fma(const struct cuda_product p) {
  SHARED struct pieces<G> pieces;
  SHARED struct tile_walk walk;
  int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  struct tile tile = {};
  walk_init<64 * G, 64 * G>(&walk, p);
  for (int t = blockIdx.x; walk_at<64 * G, 64 * G>(&walk, p, t, &tile); t += gridDim.x) {
    float acc[4 * G][4 * G] = {};
    struct bringer<G> bringer;
    find_sources(&bringer, p, tile);
    bring<T>(&bringer, p, 0);
    for (int k = 0; k < p.in; k += BK) {
      put(&pieces, bringer);
      __syncthreads();
      bring<T>(&bringer, p, k + BK);
      multiply_pieces<G>(acc, pieces, tx, ty);
      __syncthreads();
    }
    store_tile<Y, G, PAIRED>(p, tile, acc, tx, ty);
  }
}

/* Few columns, as routers have: a warp takes FEW_ROWS rows, its lanes every 32nd four of the
 * inputs; x is read once for FEW_COLUMNS columns. */
__global__ void product_few(const struct cuda_product p) {
  int lane = threadIdx.x % 32;
  int64_t row = ((int64_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32) * FEW_ROWS;
  int count = static_cast<int>(min(p.rows - row, (int64_t)FEW_ROWS));
  for (int n = 0; n < p.out && count > 0; n += FEW_COLUMNS) {
    float acc[FEW_ROWS][FEW_COLUMNS] = {};
    for (int k = lane * 4; k < p.in; k += 128) {
      float4 x[FEW_ROWS];
#pragma unroll
      for (int r = 0; r < FEW_ROWS; r++) /* rows past the last repeat it */
        x[r] = *(const float4 *)((const float *)p.x + (row + (r < count ? r : 0)) * p.ldx + k);
#pragma unroll
      for (int j = 0; j < FEW_COLUMNS; j++) {
        int column = n + j < p.out ? n + j : n;
        float4 w = __ldg((const float4 *)((const float *)p.weight + (int64_t)column * p.in + k));
#pragma unroll
        for (int r = 0; r < FEW_ROWS; r++) {
          acc[r][j] = fmaf(x[r].x, w.x, acc[r][j]);
          acc[r][j] = fmaf(x[r].y, w.y, acc[r][j]);
          acc[r][j] = fmaf(x[r].z, w.z, acc[r][j]);
          acc[r][j] = fmaf(x[r].w, w.w, acc[r][j]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < FEW_ROWS; r++)
#pragma unroll
      for (int j = 0; j < FEW_COLUMNS; j++) {
        float sum = acc[r][j];
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (lane == 0 && r < count && n + j < p.out)
          ((float *)p.y)[(row + r) * p.ldy + n + j] =
              activate(sum + (p.bias ? p.bias[n + j] : 0.0f), p.activation);
      }
  }
}

template <typename T, typename Y, int G, bool PAIRED>
static cudaError_t launch(cudaStream_t stream, const struct cuda_product *p) {
  int64_t tiles = walk_bound<64 * G, 64 * G>(p);
  LAUNCH((product_fma<T, Y, G, PAIRED>), (unsigned)(tiles < 65535 ? tiles : 65535), THREADS, 0,
         stream, *p);
  return cudaGetLastError();
}

/* Large tiles where there are enough of them to occupy a large GPU. */
template <typename T, typename Y, bool PAIRED>
static cudaError_t launch_sized(cudaStream_t stream, const struct cuda_product *p) {
  return walk_bound<128, 128>(p) >= 128 ? launch<T, Y, 2, PAIRED>(stream, p)
                                        : launch<T, Y, 1, PAIRED>(stream, p);
}

static cudaError_t launch_f32(cudaStream_t stream, const struct cuda_product *p) {
  if (p->out <= FEW_MAX && p->in % 4 == 0 && p->ldx % 4 == 0 && !p->offset && !p->token &&
      p->activation != CUDA_PAIRED) {
    int rows = THREADS / 32 * FEW_ROWS;
    LAUNCH(product_few, (unsigned)((p->rows + rows - 1) / rows), THREADS, 0, stream, *p);
    return cudaGetLastError();
  }
  return p->activation == CUDA_PAIRED ? launch_sized<float, float, true>(stream, p)
                                      : launch_sized<float, float, false>(stream, p);
}

template <typename T>
static cudaError_t launch_narrow(cudaStream_t stream, const struct cuda_product *p) {
  if (p->y_type == DT_F32)
    return p->activation == CUDA_PAIRED ? cudaErrorNotSupported
                                        : launch<T, float, 1, false>(stream, p);
  return p->activation == CUDA_PAIRED ? launch<T, T, 1, true>(stream, p)
                                      : launch<T, T, 1, false>(stream, p);
}

cudaError_t product_simt(cudaStream_t stream, const struct cuda_product *p) {
  if (p->experts > PRODUCT_EXPERTS) return cudaErrorNotSupported;
  return p->type == DT_F32    ? launch_f32(stream, p)
         : p->type == DT_BF16 ? launch_narrow<__nv_bfloat16>(stream, p)
                              : launch_narrow<__half>(stream, p);
}

cudaError_t cuda_multiply_by(cudaStream_t stream, const struct cuda_product *p,
                             enum cuda_product_kernel kernel) {
  if (p->rows == 0) return cudaSuccess;
  switch (kernel) {
  case CUDA_PRODUCT_SIMT:
    return product_simt(stream, p);
  case CUDA_PRODUCT_SM80:
    return product_sm80(stream, p);
  case CUDA_PRODUCT_SM90:
    return product_sm90(stream, p);
  default:
    break;
  }
  cudaError_t error = product_sm90(stream, p);
  if (error == cudaErrorNotSupported) error = product_sm80(stream, p);
  return error == cudaErrorNotSupported ? product_simt(stream, p) : error;
}

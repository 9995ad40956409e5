/* Products with mma.sync, for all GPUs since Ampere: tiles of 128 x 128 in a block of four warps,
 * 64 x 64 each, two blocks on a multiprocessor. A ring of STAGES pieces of BK inputs is filled by
 * cp.async, rows of x through the index. A row of a piece has 64 bytes; two rows share the 128
 * bytes of all banks, and chunk c of row r stands at c ^ (r / 2 % 4): the eight rows that ldmatrix
 * reads at once touch every bank once. */
#include "backend/cuda/gemm.cuh"
#include "backend/cuda/gemm_kernels.h"

enum {
  BM = 128,
  BN = 128,
  BK = 32,
  STAGES = 4,
  WARPS = 4,
  THREADS = 32 * WARPS,
  ROW_BYTES = BK * 2,
  STAGE_BYTES = (BM + BN) * ROW_BYTES,
  COPIES = BM * 4 / THREADS
};

DEVICE unsigned char *chunk_at(unsigned char *piece, int row, int chunk) {
  return piece + row * ROW_BYTES + ((chunk ^ (row / 2 % 4)) << 4);
}

/* What a thread copies: a chunk of rows thread / 4 + i * THREADS / 4 of x and of the weights. */
template <typename T> struct sources {
  const T *x[COPIES], *weight[COPIES]; /* NULL: zeros */
  int column;
};

template <typename T>
DEVICE void find_sources(struct sources<T> *s, const struct cuda_product &p,
                         const struct tile &tile) {
  int total = product_total(&p);
  const T *weight = (const T *)p.weight + tile.expert * p.weight_stride;
  s->column = threadIdx.x % 4 * 8;
#pragma unroll
  for (int i = 0; i < COPIES; i++) {
    int r = threadIdx.x / 4 + i * (THREADS / 4), row = tile.row + r, n = tile.column + r;
    int64_t from = row >= tile.end ? 0 : p.token ? p.token[row] : row;
    s->x[i] = row < tile.end ? (const T *)p.x + from * p.ldx + s->column : NULL;
    s->weight[i] = n < total ? weight + (int64_t)n * p.in + s->column : NULL;
  }
}

template <typename T>
DEVICE void copy_piece(unsigned char *piece, const struct sources<T> &s,
                       const struct cuda_product &p, int k) {
  int chunk = threadIdx.x % 4;
  bool inside = k + s.column < p.in;
#pragma unroll
  for (int i = 0; i < COPIES; i++) {
    int r = threadIdx.x / 4 + i * (THREADS / 4);
    bool x = inside && s.x[i], weight = inside && s.weight[i];
    copy_async16(chunk_at(piece, r, chunk), x ? s.x[i] + k : (const T *)p.x, x);
    copy_async16(chunk_at(piece + BM * ROW_BYTES, r, chunk),
                 weight ? s.weight[i] + k : (const T *)p.weight, weight);
  }
}

/* acc += the products of a piece, for the warp's 64 rows and columns. */
template <typename T>
DEVICE void multiply_piece(float (&acc)[4][32], unsigned char *piece, int row, int column) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < BK / 16; k++) {
    uint32_t a[4][4], b[4][4];
#pragma unroll
    for (int m = 0; m < 4; m++)
      ldmatrix_x4(a[m], chunk_at(piece, row + m * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
    for (int n = 0; n < 4; n++)
      ldmatrix_x4(b[n], chunk_at(piece + BM * ROW_BYTES, column + n * 16 + lane / 16 * 8 + lane % 8,
                                 k * 2 + lane / 8 % 2));
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
      for (int n = 0; n < 8; n++) mma_m16n8k16<T>(acc[m] + 4 * n, a[m], b[n / 2] + n % 2 * 2);
  }
}

template <typename T>
DEVICE void multiply(float (&acc)[4][32], unsigned char *ring, const struct cuda_product &p,
                     const struct tile &tile, int row, int column) {
  struct sources<T> sources;
  int steps = (p.in + BK - 1) / BK;
  find_sources(&sources, p, tile);
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) copy_piece(ring + s * STAGE_BYTES, sources, p, s * BK);
    copy_async_commit();
  }
  for (int step = 0; step < steps; step++) {
    int next = step + STAGES - 1;
    copy_async_wait<STAGES - 2>();
    __syncthreads(); /* the piece is there; that of `next` was multiplied by all */
    if (next < steps) copy_piece(ring + next % STAGES * STAGE_BYTES, sources, p, next * BK);
    copy_async_commit();
    multiply_piece<T>(acc, ring + step % STAGES * STAGE_BYTES, row, column);
  }
  copy_async_wait<0>();
  __syncthreads();
}

template <typename T, typename Y, bool PAIRED>
__global__ void __launch_bounds__(THREADS, 2) product_mma(const struct cuda_product p) {
  SHARED_MEMORY(ring);
  SHARED struct tile_walk walk;
  int warp = threadIdx.x / 32, row = warp / 2 * 64, column = warp % 2 * 64;
  struct tile tile = {};
  walk_init<BM, BN>(&walk, p);
  for (int t = blockIdx.x; walk_at<BM, BN>(&walk, p, t, &tile); t += gridDim.x) {
    float acc[4][32] = {};
    multiply<T>(acc, ring, p, tile, row, column);
#pragma unroll
    for (int m = 0; m < 4; m++)
      store_accumulators<Y, PAIRED, 8>(p, tile, acc[m], tile.row + row + m * 16,
                                       tile.column + column);
  }
}

template <typename T, typename Y, bool PAIRED>
static cudaError_t launch(cudaStream_t stream, const struct cuda_product *p) {
  int64_t tiles = walk_bound<BM, BN>(p);
  int device, processors, bytes = STAGES * STAGE_BYTES;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (!error)
    error = cudaFuncSetAttribute(product_mma<T, Y, PAIRED>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error) return error;
  LAUNCH((product_mma<T, Y, PAIRED>), (unsigned)(tiles < 2 * processors ? tiles : 2 * processors),
         THREADS, bytes, stream, *p);
  return cudaGetLastError();
}

template <typename T>
static cudaError_t launch_of(cudaStream_t stream, const struct cuda_product *p) {
  if (p->y_type == DT_F32)
    return p->activation == CUDA_PAIRED ? cudaErrorNotSupported
                                        : launch<T, float, false>(stream, p);
  return p->activation == CUDA_PAIRED ? launch<T, T, true>(stream, p)
                                      : launch<T, T, false>(stream, p);
}

cudaError_t product_sm80(cudaStream_t stream, const struct cuda_product *p) {
  if (p->type == DT_F32 || p->in % 8 || p->ldx % 8 || p->experts > PRODUCT_EXPERTS) return cudaErrorNotSupported;
  return p->type == DT_BF16 ? launch_of<__nv_bfloat16>(stream, p) : launch_of<__half>(stream, p);
}

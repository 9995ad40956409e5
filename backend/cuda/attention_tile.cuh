/* What attention and its gradient share on tensor cores: tiles of rows of bf16 or f16 in shared
 * memory and the fragments of mma m16n8k16 that are read from them.
 *
 * A tile holds rows of q, k, v or d_o of one head, TILES units of 8 values each. Rows are an odd
 * number of units apart, so that the 8 rows of a matrix of ldmatrix lie in different banks. Where
 * the width is an odd number of units the last step over it is one of 8 (mma m16n8k8). */
#ifndef BACKEND_CUDA_ATTENTION_TILE_CUH
#define BACKEND_CUDA_ATTENTION_TILE_CUH

#include "backend/cuda/device.cuh"

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

constexpr __host__ __device__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* Values from a row of a tile to the next. */
constexpr __host__ __device__ int tile_stride(int tiles) { return 8 * (tiles | 1); }

/* Steps of 16 over the width. */
constexpr __host__ __device__ int steps_of(int tiles) { return (tiles + 1) / 2; }

DEVICE uint32_t pack(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}

DEVICE uint32_t pack(float low, float high, __half) {
  const __half2 both = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}

/* Eight values to shared memory; zeros where they are not valid. Those of the tile's type arrive
 * with the group of copies, floats at once. */
template <typename type> DEVICE void load_unit(type *tile, const type *global, bool valid) {
  copy_async16(tile, global, valid);
}

template <typename type> DEVICE void load_unit(type *tile, const float *global, bool valid) {
  float4 low = make_float4(0, 0, 0, 0), high = low;
  if (valid) {
    low = reinterpret_cast<const float4 *>(global)[0];
    high = reinterpret_cast<const float4 *>(global)[1];
  }
  *reinterpret_cast<uint4 *>(tile) =
      make_uint4(pack(low.x, low.y, type()), pack(low.z, low.w, type()),
                 pack(high.x, high.y, type()), pack(high.z, high.w, type()));
}

/* Rows first .. of a head with T rows of d values, `stride` apart. */
template <typename source> struct head_rows {
  const source *rows;
  int64_t stride;
  int first, T, d;
};

/* tile [ROWS, TILES units] = the rows; zeros past the last and beyond d. */
template <int ROWS, int TILES, int THREADS, typename type, typename source>
DEVICE void load_tile(type *tile, const head_rows<source> &h) {
#pragma unroll(sizeof(source) == 4 ? 4 : 1)
  for (int i = threadIdx.x; i < ROWS * TILES; i += THREADS) {
    const int row = i / TILES, at = i % TILES * 8;
    const bool valid = h.first + row < h.T && at < h.d;
    load_unit(tile + row * tile_stride(TILES) + at,
              h.rows + (valid ? (h.first + row) * h.stride + at : 0), valid);
  }
}

/* The same of floats in two halves: into a stage [ROWS, TILES units], each as copies beside the
 * computation, and from there, after copy_async_wait and by the same threads, into the tile. */
template <int ROWS, int TILES, int THREADS>
DEVICE void stage_tile(float4 *stage, const head_rows<float> &h) {
#pragma unroll 1
  for (int i = threadIdx.x; i < ROWS * TILES * 2; i += THREADS) {
    const int row = i / (2 * TILES), at = i % (2 * TILES) * 4;
    const bool valid = h.first + row < h.T && at < h.d;
    copy_async16(stage + i, h.rows + (valid ? (h.first + row) * h.stride + at : 0), valid);
  }
}

template <int ROWS, int TILES, int THREADS, typename type>
DEVICE void round_tile(type *tile, const float4 *stage) {
#pragma unroll 4
  for (int i = threadIdx.x; i < ROWS * TILES * 2; i += THREADS) {
    const int row = i / (2 * TILES), at = i % (2 * TILES) * 4;
    const float4 v = stage[i];
    *reinterpret_cast<uint2 *>(tile + row * tile_stride(TILES) + at) =
        make_uint2(pack(v.x, v.y, type()), pack(v.z, v.w, type()));
  }
}

/* Fragment of A: 16 rows of a tile, one step of its width. */
template <int TILES, typename type> DEVICE void load_a(uint32_t a[4], const type *rows, int step) {
  const int lane = threadIdx.x % 32;
  const type *at = rows + lane % 16 * tile_stride(TILES) + step * 16;
  if (2 * step + 1 < TILES)
    ldmatrix_x4(a, at + lane / 16 * 8);
  else
    ldmatrix_x2(a, at);
}

/* Fragments of B for two columns of tiles: B[k, n] = row n of 16 rows of a tile, one step of its
 * width. */
template <int TILES, typename type>
DEVICE void load_b(uint32_t b[2][2], const type *rows, int step) {
  const int lane = threadIdx.x % 32;
  uint32_t r[4];
  if (2 * step + 1 < TILES) {
    const int row = lane % 8 + lane / 16 * 8, at = step * 16 + lane / 8 % 2 * 8;
    ldmatrix_x4(r, rows + row * tile_stride(TILES) + at);
    b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
  } else {
    ldmatrix_x2(r, rows + lane % 16 * tile_stride(TILES) + step * 16);
    b[0][0] = r[0], b[1][0] = r[1];
  }
}

/* Fragments of B for units n and n + 1: B[k, n] = value n of row k of 16 rows of a tile. The second
 * is none past the last unit. */
template <int TILES, typename type>
DEVICE void load_b_trans(uint32_t b[2][2], const type *rows, int n) {
  const int lane = threadIdx.x % 32;
  const type *at = rows + lane % 16 * tile_stride(TILES) + n * 8;
  if (n + 1 < TILES)
    ldmatrix_x4_trans(b[0], at + lane / 16 * 8);
  else
    ldmatrix_x2_trans(b[0], at);
}

/* Fragment of A: columns 16 step .. of sums c [16 rows, columns], rounded. */
template <typename type> DEVICE void fragment_of(uint32_t a[4], const float c[][4], int step) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float *pair = &c[2 * step + i / 2][i % 2 * 2];
    a[i] = pack(pair[0], pair[1], type());
  }
}

template <int GROUPS, int N> DEVICE void clear(float (&c)[GROUPS][N][4]) {
#pragma unroll
  for (int i = 0; i < GROUPS * N * 4; i++) c[i / (4 * N)][i / 4 % N][i % 4] = 0;
}

/* c [16 rows of each group, rows of the tile] += one step of the products of rows. */
template <int TILES, typename type, int GROUPS, int N>
DEVICE void add_row_products(float (&c)[GROUPS][N][4], const uint32_t (&a)[GROUPS][4],
                             const type *tile, int step) {
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    uint32_t b[2][2];
    load_b<TILES>(b, tile + n * 8 * tile_stride(TILES), step);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int g = 0; g < GROUPS; g++)
        if (2 * step + 1 < TILES)
          mma_m16n8k16<type>(c[g][n + i], a[g], b[i]);
        else
          mma_m16n8k8<type>(c[g][n + i], a[g], b[i]);
  }
}

/* o [16 rows of each group, width] += p [rows, rows of the tile] tile; p is rounded. */
template <typename type, int GROUPS, int TILES, int N>
DEVICE void add_product(float (&o)[GROUPS][TILES][4], const float (&p)[GROUPS][N][4],
                        const type *tile) {
#pragma unroll
  for (int step = 0; step < N / 2; step++) {
    uint32_t a[GROUPS][4];
#pragma unroll
    for (int g = 0; g < GROUPS; g++) fragment_of<type>(a[g], p[g], step);
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
      uint32_t b[2][2];
      load_b_trans<TILES>(b, tile + step * 16 * tile_stride(TILES), n);
#pragma unroll
      for (int i = 0; i < 2 && n + i < TILES; i++)
#pragma unroll
        for (int g = 0; g < GROUPS; g++) mma_m16n8k16<type>(o[g][n + i], a[g], b[i]);
    }
  }
}

/* Of the four threads that share a row of sums. */
DEVICE float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

DEVICE float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

#endif

/* What the kernels of products share: the walk over output tiles, and the way from accumulators
 * in the layout of the matrix instructions to y. */
#ifndef BACKEND_CUDA_GEMM_CUH
#define BACKEND_CUDA_GEMM_CUH

#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels_moe.h"

enum {
  PRODUCT_EXPERTS = 256, /* of one launch */
  GROUP_ROWS = 2048
};

static inline __host__ __device__ int product_total(const struct cuda_product *p) {
  int blocks = (p->out + CUDA_PAIR - 1) / CUDA_PAIR;
  return p->activation == CUDA_PAIRED ? 2 * CUDA_PAIR * blocks : p->out;
}

/* 16-bit rows that can be copied by 16 bytes, as the kernels of matrix instructions do. */
static inline bool product_copies(const struct cuda_product *p) {
  return p->type != DT_F32 && p->in % 8 == 0 && p->ldx % 8 == 0 && p->weight_stride % 8 == 0 &&
         p->experts <= PRODUCT_EXPERTS;
}

/* Rows of each expert, and the number of its first tile among all. In shared memory. */
struct tile_walk {
  int offset[PRODUCT_EXPERTS + 1], first[PRODUCT_EXPERTS + 1];
};

struct tile {
  int expert, row, end, column; /* rows row .. end - 1 of y, of which a tile has its first */
};

/* All threads of the block; ends with a barrier. */
template <int BM, int BN>
DEVICE void walk_init(struct tile_walk *walk, const struct cuda_product &p) {
  for (int e = threadIdx.x; e <= p.experts; e += blockDim.x)
    walk->offset[e] = p.offset ? p.offset[e] : e * (int)p.rows;
  __syncthreads();
  if (threadIdx.x == 0) {
    int columns = (product_total(&p) + BN - 1) / BN, tiles = 0;
    for (int e = 0; e < p.experts; e++) {
      walk->first[e] = tiles;
      tiles += (walk->offset[e + 1] - walk->offset[e] + BM - 1) / BM * columns;
    }
    walk->first[p.experts] = tiles;
  }
  __syncthreads();
}

/* Tile `index` of all, false past the last. *tile is that of a lower index, or 0. Tiles that work
 * at the same time lie close together: within an expert they go down GROUP_ROWS rows, then to the
 * next columns, and to the next rows only after the last column:
 *
 *     1 4 7    9 = columns of tiles x rows of a group
 *     2 5 8
 *     3 6 9
 *     10 ...                                                                                   */
template <int BM, int BN>
DEVICE bool walk_at(const struct tile_walk *walk, const struct cuda_product &p, int index,
                    struct tile *tile) {
  if (index >= walk->first[p.experts]) return false;
  while (index >= walk->first[tile->expert + 1]) tile->expert++;
  constexpr int group = GROUP_ROWS / BM;
  int first = walk->offset[tile->expert], columns = (product_total(&p) + BN - 1) / BN;
  tile->end = walk->offset[tile->expert + 1];
  index -= walk->first[tile->expert];
  int above = index / (group * columns) * group;
  int height = min(group, (tile->end - first + BM - 1) / BM - above);
  index -= above * columns;
  tile->row = first + (above + index % height) * BM;
  tile->column = index / height * BN;
  return true;
}

/* Tiles that there can be at most. */
template <int BM, int BN> static int64_t walk_bound(const struct cuda_product *p) {
  return ((p->rows + BM - 1) / BM + p->experts) * ((product_total(p) + BN - 1) / BN);
}

DEVICE float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

/* x / 2 (1 + tanh u) = x / (1 + e^-2u) */
DEVICE float gelu(float x) {
  float u = 1.5957691216057308f * (x + 0.044715f * x * x * x);
  return __fdividef(x, 1.0f + __expf(-u));
}

DEVICE float activate(float x, enum cuda_activation activation) {
  if (activation == CUDA_GELU) return gelu(x);
  if (activation == CUDA_RELU) return x < 0 ? 0 : x; /* a NaN stays one */
  if (activation == CUDA_SILU) return silu(x);
  return x;
}

/* Of all accumulators: products without an activation skip its instructions together. */
template <int N> DEVICE void activate_all(float *acc, enum cuda_activation activation) {
  if (activation == CUDA_GELU) {
#pragma unroll
    for (int i = 0; i < N; i++) acc[i] = activate(acc[i], CUDA_GELU);
  } else if (activation == CUDA_RELU) {
#pragma unroll
    for (int i = 0; i < N; i++) acc[i] = activate(acc[i], CUDA_RELU);
  } else if (activation == CUDA_SILU) {
#pragma unroll
    for (int i = 0; i < N; i++) acc[i] = activate(acc[i], CUDA_SILU);
  }
}

DEVICE uint32_t pack_pair(float low, float high, __nv_bfloat16) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}
DEVICE uint32_t pack_pair(float low, float high, __half) {
  __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

/* Thread q of four has words w[j] of blocks j = 0 .. 3; then it has the words of threads 0 .. 3 of
 * block q. */
DEVICE void transpose_quad(uint32_t w[4], int q) {
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    uint32_t got = __shfl_xor_sync(0xffffffffu, q & 1 ? w[i] : w[i + 1], 1);
    if (q & 1)
      w[i] = got;
    else
      w[i + 1] = got;
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    uint32_t got = __shfl_xor_sync(0xffffffffu, q & 2 ? w[i] : w[i + 2], 2);
    if (q & 2)
      w[i] = got;
    else
      w[i + 2] = got;
  }
}

/* Where the results of one row go. */
template <typename Y> struct row_out {
  Y *y;              /* the row */
  int out;           /* its columns */
  bool valid, whole; /* whole: all columns of the tile are there, 16 aligned bytes each */
};

/* Eight columns from `column`, as 16-bit pairs in w. */
template <typename Y>
DEVICE void store_eight(const struct row_out<Y> &to, int column, uint32_t w[4]) {
  if (!to.valid) return;
  if (to.whole) {
    *(uint4 *)(to.y + column) = make_uint4(w[0], w[1], w[2], w[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    uint16_t bits = (uint16_t)(w[i / 2] >> (i % 2 * 16));
    if (column + i < to.out) memcpy(to.y + column + i, &bits, sizeof bits);
  }
}

/* Two blocks of eight columns of f32 from `column`, of which the thread q of four has columns 2 q,
 * 2 q + 1. Neighbours exchange halves, so that each stores 16 bytes of one block:
 *
 *     block 0: q = 0 stores columns 0 .. 3, q = 2 columns 4 .. 7
 *     block 1: q = 1                        q = 3                                              */
DEVICE void store_blocks(const struct row_out<float> &to, int column, float2 first, float2 second,
                         int q) {
  bool odd = q & 1;
  float2 give = odd ? first : second, keep = odd ? second : first, got;
  got.x = __shfl_xor_sync(0xffffffffu, give.x, 1);
  got.y = __shfl_xor_sync(0xffffffffu, give.y, 1);
  float2 low = odd ? got : keep, high = odd ? keep : got;
  float four[4] = {low.x, low.y, high.x, high.y};
  column += odd ? 8 + 2 * (q - 1) : 2 * q;
  if (!to.valid) return;
  if (to.whole) {
    *(float4 *)(to.y + column) = make_float4(four[0], four[1], four[2], four[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (column + i < to.out) to.y[column + i] = four[i];
}

/* Accumulators of a warp's rows, as m16n8k16 and wgmma have them: block b of 8 columns gives the
 * thread columns 2 q, 2 q + 1 of row lane / 4 in [4 b], [4 b + 1], of row lane / 4 + 8 in the other
 * two. `half` says which row. Packed pairs: blocks alternate between gate and up. */
/* acc += bias of an expert, `count` columns of y's sums. */
template <int BLOCKS>
DEVICE void add_bias(float *acc, const float *bias, int column, int q, int count) {
  bool whole = column + BLOCKS * 8 <= count;
  bias += column + 2 * q;
  count -= column + 2 * q;
#pragma unroll
  for (int b = 0; b < BLOCKS; b++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float add = whole || b * 8 + i < count ? __ldg(bias + b * 8 + i) : 0.0f;
      acc[b * 4 + i] += add;
      acc[b * 4 + 2 + i] += add;
    }
}

template <int BLOCKS, typename Y>
DEVICE void store_pairs(const struct row_out<Y> &to, const float *acc, int half, int column,
                        int q) {
#pragma unroll
  for (int b = 0; b < BLOCKS; b += 8) {
    uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float *gate = acc + (b + 2 * j) * 4 + 2 * half, *up = gate + 4;
      w[j] = pack_pair(silu(gate[0]) * up[0], silu(gate[1]) * up[1], Y());
    }
    transpose_quad(w, q);
    store_eight(to, (column + b * 8) / 2 + 8 * q, w);
  }
}

template <int BLOCKS, typename Y>
DEVICE void store_row(const struct row_out<Y> &to, const float *acc, int half, int column, int q) {
#pragma unroll
  for (int b = 0; b < BLOCKS; b += 4) {
    uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float *sum = acc + (b + j) * 4 + 2 * half;
      w[j] = pack_pair(sum[0], sum[1], Y());
    }
    transpose_quad(w, q);
    store_eight(to, column + b * 8 + 8 * q, w);
  }
}

template <int BLOCKS>
DEVICE void store_row(const struct row_out<float> &to, const float *acc, int half, int column,
                      int q) {
#pragma unroll
  for (int b = 0; b < BLOCKS; b += 2) {
    const float *sum = acc + b * 4 + 2 * half, *next = sum + 4;
    store_blocks(to, column + b * 8, make_float2(sum[0], sum[1]), make_float2(next[0], next[1]), q);
  }
}

template <typename Y, bool PAIRED, int BLOCKS>
DEVICE void store_rows(const struct cuda_product &p, const struct tile &tile, const float *acc,
                       int row, int column, bool whole) {
  int lane = threadIdx.x % 32, q = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int r = row + lane / 4 + 8 * half;
    struct row_out<Y> to = {
      static_cast<Y *>(p.y) + r *p.ldy, p.out, r < tile.end, whole
    };
    if constexpr (PAIRED)
      store_pairs<BLOCKS>(to, acc, half, column, q);
    else
      store_row<BLOCKS>(to, acc, half, column, q);
  }
}

/* The 16 rows from `row` of a warp, BLOCKS * 8 columns from `column` on. */
template <typename Y, bool PAIRED, int BLOCKS>
DEVICE void store_accumulators(const struct cuda_product &p, const struct tile &tile, float *acc,
                               int row, int column) {
  int q = threadIdx.x % 4, total = product_total(&p), last = column + BLOCKS * 8;
  bool whole = p.ldy % (16 / (int)sizeof(Y)) == 0 && (PAIRED ? last / 2 : last) <= p.out;
  if (p.bias) add_bias<BLOCKS>(acc, p.bias + tile.expert * p.bias_stride, column, q, total);
  if (!PAIRED) activate_all<BLOCKS * 4>(acc, p.activation);
  if (whole)
    store_rows<Y, PAIRED, BLOCKS>(p, tile, acc, row, column, true);
  else
    store_rows<Y, PAIRED, BLOCKS>(p, tile, acc, row, column, false);
}

#endif

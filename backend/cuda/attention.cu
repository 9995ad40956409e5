/* Attention on tensor cores with the softmax taken along (Dao, "FlashAttention-2", 2023): logits of
 * a block of queries and a block of keys live in registers only.
 *
 * A block of WARPS owns QUERIES = 16 GROUPS WARPS queries of one head, a warp 16 GROUPS of them:
 *
 *            KEYS keys at a time ->              each warp: s = q k^T   (A = q, B = k)
 *   warp 0 | s s s s s s s s |                              p = e^(s - max)
 *   warp 1 | s s s s s s s s |   k, v of the next           o = o e^(old max - max) + p v
 *   warp 2 | ...             |   KEYS keys arrive               (A = p as it lies in the
 *   warp 3 | ...             |   meanwhile                       registers, B = v)
 *
 * Copies of bf16 and f16 go straight into the next one of two pairs of tiles. Floats go into a
 * stage and are rounded into the tiles by the threads that copied them, when their turn comes.
 *
 * A scheduler needs several warps to choose from, for each waits most of the time: for the result
 * of a product, an exponential or a fragment. So a warp has one group where 16 warps then fit into
 * the registers; two groups halve what a warp must read of k and v from shared memory for a product
 * and are better where they do not. */
#include "backend/cuda/attention_launch.cuh"
#include "backend/cuda/attention_tile.cuh"

namespace {

template <typename type, typename source> struct problem {
  const source *qkv;
  type *o;
  float *lse;
  float scale; /* log2(e) / sqrt(d) */
  int T, H, d;
};

/* Of one warp: sums o, and the largest logit and the sum of exponentials of rows lane / 4 and
 * lane / 4 + 8 of each group. A thread's `sum` is of its own columns until the end. */
template <int TILES, int GROUPS> struct rows_state {
  float o[GROUPS][TILES][4], max[GROUPS][2], sum[GROUPS][2];
};

/* s = -inf for keys past the last of `count`. */
template <int GROUPS, int KEYS> DEVICE void mask(float s[GROUPS][KEYS / 8][4], int count) {
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (n * 8 + (int)threadIdx.x % 4 * 2 + i % 2 >= count)
#pragma unroll
        for (int g = 0; g < GROUPS; g++) s[g][n][i] = -INFINITY;
}

/* s = e^(s / sqrt(d) - max); what was summed so far is scaled to the new
 * maximum. While all logits are -inf nothing is subtracted, so that a later key still counts. */
template <int TILES, int KEYS>
DEVICE void softmax(float s[KEYS / 8][4], float o[TILES][4], float max[2], float sum[2],
                    float scale) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float largest = max[half];
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
      largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    largest = quad_max(largest);
    const float shift = largest == -INFINITY ? 0 : largest * scale;
    const float correction = exp2_approx(max[half] * scale - shift);
    float total = 0;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; i++) {
        s[n][i] = exp2_approx(fmaf(s[n][i], scale, -shift));
        total += s[n][i];
      }
    max[half] = largest;
    sum[half] = fmaf(sum[half], correction, total);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      o[n][2 * half] *= correction;
      o[n][2 * half + 1] *= correction;
    }
  }
}

/* The rows of one warp: o / sum through `tile`, which is the warp's own, and lse. */
template <int TILES, int GROUPS, typename type, typename source>
DEVICE void finish(type *tile, rows_state<TILES, GROUPS> &r, const problem<type, source> &p,
                   int first, int64_t image, int head) {
  const int lane = threadIdx.x % 32, count = min(GROUPS * 16, p.T - first);
  __syncwarp(); /* the tile held q */
#pragma unroll
  for (int i = 0; i < GROUPS * 2; i++) {
    const int g = i / 2, half = i % 2, row = g * 16 + half * 8 + lane / 4;
    const float sum = quad_sum(r.sum[g][half]), factor = 1 / sum;
#pragma unroll
    for (int n = 0; n < TILES; n++)
      *reinterpret_cast<uint32_t *>(tile + row * tile_stride(TILES) + n * 8 + lane % 4 * 2) =
          pack(r.o[g][n][2 * half] * factor, r.o[g][n][2 * half + 1] * factor, type());
    if (p.lse && lane % 4 == 0 && row < count)
      p.lse[(image * p.H + head) * p.T + first + row] =
          (r.max[g][half] * p.scale + log2f(sum)) * LN_2;
  }
  __syncwarp();
  type *o = p.o + ((image * p.T + first) * p.H + head) * p.d;
  for (int i = lane; i < GROUPS * 16 * TILES; i += 32) {
    const int row = i / TILES, at = i % TILES * 8;
    if (row < count && at < p.d)
      *reinterpret_cast<uint4 *>(o + (int64_t)row * p.H * p.d + at) =
          *reinterpret_cast<const uint4 *>(tile + row * tile_stride(TILES) + at);
  }
}

/* Keys and values of a block of keys on their way from device memory to their pair of tiles. */
template <int TILES, int KEYS, int THREADS, typename type, typename source> struct keys_pipe {
  enum { TILE = KEYS * tile_stride(TILES), STAGE = KEYS * TILES * 2 };
  static constexpr bool STAGED = sizeof(source) != sizeof(type);
  type *tiles;   /* [2][k, v] */
  float4 *stage; /* [k, v] */
  const source *rows;
  int64_t D;
  int T, d;

  __device__ __forceinline__ type *pair(int block) const { return tiles + block % 2 * 2 * TILE; }

  __device__ __forceinline__ void start(int block) const {
#pragma unroll 1
    for (int part = 0; part < 2; part++) {
      const head_rows<source> h = {rows + (1 + part) * D, 3 * D, block * KEYS, T, d};
      if constexpr (STAGED)
        stage_tile<KEYS, TILES, THREADS>(stage + part * STAGE, h);
      else
        load_tile<KEYS, TILES, THREADS>(pair(block) + part * TILE, h);
    }
    copy_async_commit();
  }

  /* The pair of a block that was started is in its tiles, for all threads; the next is started. */
  __device__ __forceinline__ const type *next(int block, int blocks) const {
    copy_async_wait<0>();
    if constexpr (STAGED) {
#pragma unroll 1
      for (int part = 0; part < 2; part++)
        round_tile<KEYS, TILES, THREADS>(pair(block) + part * TILE, stage + part * STAGE);
      if (block + 1 < blocks) start(block + 1);
    }
    __syncthreads(); /* nobody reads the pair before this one any more, either */
    if (!STAGED && block + 1 < blocks) start(block + 1);
    return pair(block);
  }
};

template <int TILES, int GROUPS, int KEYS, int WARPS, typename type, typename source>
__global__ void __launch_bounds__(32 * WARPS, 2)
    attention_kernel(const __grid_constant__ problem<type, source> p) {
  constexpr int QUERIES = 16 * GROUPS * WARPS, STRIDE = tile_stride(TILES), THREADS = 32 * WARPS;
  SHARED_MEMORY(memory);
  type *q_tile = reinterpret_cast<type *>(memory), *tiles = q_tile + QUERIES * STRIDE;

  const int blocks = ceil_div(p.T, QUERIES), warp = threadIdx.x / 32;
  const int first = blockIdx.x % blocks * QUERIES, head = blockIdx.x / blocks % p.H;
  const int64_t image = blockIdx.x / blocks / p.H, D = (int64_t)p.H * p.d;
  const source *rows = p.qkv + image * p.T * 3 * D + (int64_t)head * p.d;

  const keys_pipe<TILES, KEYS, THREADS, type, source> pipe = {
      tiles, reinterpret_cast<float4 *>(tiles + 4 * KEYS * STRIDE), rows, D, p.T, p.d};
  pipe.start(0);
  load_tile<QUERIES, TILES, THREADS>(q_tile, head_rows<source>{rows, 3 * D, first, p.T, p.d});
  copy_async_commit();

  type *own = q_tile + warp * GROUPS * 16 * STRIDE;
  rows_state<TILES, GROUPS> r;
  clear(r.o);
#pragma unroll
  for (int i = 0; i < 2 * GROUPS; i++) r.max[i / 2][i % 2] = -INFINITY, r.sum[i / 2][i % 2] = 0;
  const int key_blocks = ceil_div(p.T, KEYS);
  for (int block = 0; block < key_blocks; block++) {
    const type *pair = pipe.next(block, key_blocks);
    float s[GROUPS][KEYS / 8][4];
    clear(s);
#pragma unroll
    for (int step = 0; step < steps_of(TILES); step++) {
      uint32_t q[GROUPS][4]; /* read again: the registers hold more warps instead */
#pragma unroll
      for (int g = 0; g < GROUPS; g++) load_a<TILES>(q[g], own + g * 16 * STRIDE, step);
      add_row_products<TILES>(s, q, pair, step);
    }
    if (p.T - block * KEYS < KEYS) mask<GROUPS, KEYS>(s, p.T - block * KEYS);
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
      softmax<TILES, KEYS>(s[g], r.o[g], r.max[g], r.sum[g], p.scale);
    add_product(r.o, s, pair + KEYS * STRIDE);
  }
  finish(own, r, p, first + warp * GROUPS * 16, image, head);
}

template <int TILES, int GROUPS, int KEYS, int WARPS, typename type, typename source>
cudaError_t launch(cudaStream_t stream, const struct cuda_attention *a) {
  const int queries = 16 * GROUPS * WARPS;
  const int stage = sizeof(source) == sizeof(type) ? 0 : 2 * KEYS * TILES * 8 * (int)sizeof(float);
  const int bytes = (queries + 4 * KEYS) * tile_stride(TILES) * (int)sizeof(type) + stage;
  const problem<type, source> p = {static_cast<const source *>(a->qkv),
                                   static_cast<type *>(a->o),
                                   a->lse,
                                   LOG2_E / sqrtf((float)a->d),
                                   a->T,
                                   a->H,
                                   a->d};
  return launch_large(attention_kernel<TILES, GROUPS, KEYS, WARPS, type, source>,
                      ceil_div(a->T, queries) * a->H * a->B, 32 * WARPS, bytes, stream, p);
}

template <typename type, typename source>
cudaError_t launch_width(cudaStream_t stream, const struct cuda_attention *a) {
  if (a->d <= 32) return launch<4, 1, 64, 8, type, source>(stream, a);
  if (a->d <= 64) return launch<8, 1, 64, 8, type, source>(stream, a);
  if (a->d <= 72) return launch<9, 1, 64, 8, type, source>(stream, a);
  if (a->d <= 88) return launch<11, 1, 32, 8, type, source>(stream, a);
  return launch<16, 1, 32, 4, type, source>(stream, a);
}

template <typename type>
cudaError_t launch_source(cudaStream_t stream, const struct cuda_attention *a) {
  if (a->qkv_type == DT_F32) return launch_width<type, float>(stream, a);
  return launch_width<type, type>(stream, a);
}

} // namespace

cudaError_t cuda_attention(cudaStream_t stream, const struct cuda_attention *a) {
  if (a->o_type == DT_F32 || a->d % 8 || a->d > 128) return attention_f32(stream, a);
  if (a->o_type == DT_F16) return launch_source<__half>(stream, a);
  return launch_source<__nv_bfloat16>(stream, a);
}

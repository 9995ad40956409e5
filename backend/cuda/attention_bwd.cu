/* The gradient of attention on tensor cores (Dao, "FlashAttention-2", 2023), without atomic
 * additions: one kernel, run twice. A block owns 64 rows of one head, a warp 16 of them, and goes
 * over all other rows, OTHERS at a time:
 *
 *              owns   others    s       dp        sums
 *   queries    q d_o  k   v     q k^T   d_o v^T   dq = ds k
 *   keys       k v    q   d_o   k q^T   v d_o^T   dk = ds q, dv = p d_o
 *
 * p = e^(s - lse) and ds = p (dp - delta) lie as A fragments in the registers where the products
 * left s and dp; lse and delta belong to queries: to own rows, or to columns of s. */
#include "backend/cuda/attention_launch.cuh"
#include "backend/cuda/attention_tile.cuh"
#include "backend/cuda/types.cuh"

namespace {

enum { WARPS = 4, THREADS = 32 * WARPS, OWNED = 16 * WARPS };

struct problem {
  float *dqkv;
  const void *d_o, *qkv;
  const float *lse, *delta;
  float factor; /* 1 / sqrt(d) */
  bool d_o_f32, qkv_f32;
  int T, H, d;
};

/* One of q, k, v or d_o of one head, f32 or rounded already. */
struct operand {
  const void *rows;
  int64_t stride;
  bool f32;
};

template <typename type>
DEVICE operand operand_at(const void *values, int64_t at, int64_t stride, bool f32) {
  if (f32) return {static_cast<const float *>(values) + at, stride, true};
  return {static_cast<const type *>(values) + at, stride, false};
}

template <int ROWS, int TILES, typename type>
DEVICE void load_operand(type *tile, const operand &x, int first, const problem &p) {
  if (x.f32)
    load_tile<ROWS, TILES, THREADS>(
        tile, head_rows<float>{static_cast<const float *>(x.rows), x.stride, first, p.T, p.d});
  else
    load_tile<ROWS, TILES, THREADS>(
        tile, head_rows<type>{static_cast<const type *>(x.rows), x.stride, first, p.T, p.d});
}

/* s = a b^T of 16 rows of a tile and the rows of another. */
template <int TILES, typename type, int N>
DEVICE void row_products(float (&s)[1][N][4], const type *a_tile, const type *b_tile) {
  clear(s);
#pragma unroll
  for (int step = 0; step < steps_of(TILES); step++) {
    uint32_t a[1][4];
    load_a<TILES>(a[0], a_tile, step);
    add_row_products<TILES>(s, a, b_tile, step);
  }
}

/* What belongs to queries: of own rows lane / 4 and lane / 4 + 8 in registers, or of the columns of
 * s in shared memory. */
struct query_terms {
  float lse[2], delta[2];
  const float *column_lse, *column_delta;
};

/* s = p, dp = ds sqrt(d); 0 for columns past `count`. */
template <bool OF_KEYS, int N>
DEVICE void gradients(float (&s)[1][N][4], float (&dp)[1][N][4], const query_terms &terms,
                      float factor, int count) {
  const float scale = factor * LOG2_E;
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int column = n * 8 + threadIdx.x % 4 * 2 + i % 2;
      const float lse = OF_KEYS ? terms.column_lse[column] : terms.lse[i / 2];
      const float delta = OF_KEYS ? terms.column_delta[column] : terms.delta[i / 2];
      const float e = exp2_approx(fmaf(s[0][n][i], scale, -lse * LOG2_E));
      s[0][n][i] = column < count ? e : 0;
      dp[0][n][i] = s[0][n][i] * (dp[0][n][i] - delta);
    }
}

/* Rows first + lane / 4 and 8 on of dqkv = factor c. */
template <int TILES>
DEVICE void store(float *rows, int64_t stride, const float (&c)[1][TILES][4], float factor,
                  int first, const problem &p) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = first + lane / 4 + 8 * half;
#pragma unroll
    for (int n = 0; n < TILES; n++)
      if (row < p.T && n * 8 < p.d)
        *reinterpret_cast<float2 *>(rows + row * stride + n * 8 + lane % 4 * 2) =
            make_float2(factor * c[0][n][2 * half], factor * c[0][n][2 * half + 1]);
  }
}

template <int TILES, int OTHERS, bool OF_KEYS, typename type>
__global__ void __launch_bounds__(THREADS, TILES > 9 ? 2 : 3)
    bwd_kernel(const __grid_constant__ problem p) {
  constexpr int STRIDE = tile_stride(TILES), STAGE = 2 * OTHERS * STRIDE;
  SHARED_MEMORY(memory);
  type *own = reinterpret_cast<type *>(memory), *stages = own + 2 * OWNED * STRIDE;
  float *terms_of = reinterpret_cast<float *>(stages + 2 * STAGE); /* [2, lse or delta, OTHERS] */

  const int blocks = ceil_div(p.T, OWNED), first = blockIdx.x % blocks * OWNED;
  const int64_t image_head = blockIdx.x / blocks, D = (int64_t)p.H * p.d;
  const int64_t image = image_head / p.H, column = image_head % p.H * p.d;
  const int64_t at = image * p.T * 3 * D + column;
  const operand q = operand_at<type>(p.qkv, at, 3 * D, p.qkv_f32);
  const operand k = operand_at<type>(p.qkv, at + D, 3 * D, p.qkv_f32);
  const operand v = operand_at<type>(p.qkv, at + 2 * D, 3 * D, p.qkv_f32);
  const operand d_o = operand_at<type>(p.d_o, image * p.T * D + column, D, p.d_o_f32);
  const float *lse = p.lse + image_head * p.T, *delta = p.delta + image_head * p.T;

  auto load_others = [&](int block) {
    const int row = block * OTHERS;
    type *stage = stages + block % 2 * STAGE;
    load_operand<OTHERS, TILES>(stage, OF_KEYS ? q : k, row, p);
    load_operand<OTHERS, TILES>(stage + OTHERS * STRIDE, OF_KEYS ? d_o : v, row, p);
    if (OF_KEYS && threadIdx.x < 2 * OTHERS) {
      const int i = row + threadIdx.x % OTHERS;
      const float *from = threadIdx.x < OTHERS ? lse : delta;
      copy_async4(terms_of + block % 2 * 2 * OTHERS + threadIdx.x, from + (i < p.T ? i : 0),
                  i < p.T);
    }
    copy_async_commit();
  };
  load_operand<OWNED, TILES>(own, OF_KEYS ? k : q, first, p);
  load_operand<OWNED, TILES>(own + OWNED * STRIDE, OF_KEYS ? v : d_o, first, p);
  load_others(0);

  const int warp_row = threadIdx.x / 32 * 16;
  query_terms terms = {};
  for (int half = 0; half < 2 && !OF_KEYS; half++) {
    const int row = first + warp_row + threadIdx.x % 32 / 4 + 8 * half;
    if (row < p.T) terms.lse[half] = lse[row], terms.delta[half] = delta[row];
  }

  const type *a = own + warp_row * STRIDE;
  float first_sum[1][TILES][4], second_sum[1][TILES][4];
  clear(first_sum);
  clear(second_sum);
  const int other_blocks = ceil_div(p.T, OTHERS);
  for (int block = 0; block < other_blocks; block++) {
    const type *stage = stages + block % 2 * STAGE;
    copy_async_wait<0>();
    __syncthreads(); /* this block is there, and nobody reads the one before it any more */
    if (block + 1 < other_blocks) load_others(block + 1);
    float s[1][OTHERS / 8][4], dp[1][OTHERS / 8][4];
    row_products<TILES>(s, a, stage);
    row_products<TILES>(dp, a + OWNED * STRIDE, stage + OTHERS * STRIDE);
    terms.column_lse = terms_of + block % 2 * 2 * OTHERS;
    terms.column_delta = terms.column_lse + OTHERS;
    gradients<OF_KEYS>(s, dp, terms, p.factor, p.T - block * OTHERS);
    add_product(first_sum, dp, stage);
    if (OF_KEYS) add_product(second_sum, s, stage + OTHERS * STRIDE);
  }
  float *rows = p.dqkv + at;
  store(rows + (OF_KEYS ? D : 0), 3 * D, first_sum, p.factor, first + warp_row, p);
  if (OF_KEYS) store(rows + 2 * D, 3 * D, second_sum, 1, first + warp_row, p);
}

template <int TILES, int OTHERS, typename type>
cudaError_t launch(cudaStream_t stream, const struct cuda_attention_bwd *a) {
  const problem p = {a->dqkv,
                     a->d_o,
                     a->qkv,
                     a->lse,
                     a->delta,
                     1 / sqrtf((float)a->d),
                     a->d_o_type == DT_F32,
                     a->qkv_type == DT_F32,
                     a->T,
                     a->H,
                     a->d};
  const int bytes = (2 * OWNED + 4 * OTHERS) * tile_stride(TILES) * (int)sizeof(type) +
                    4 * OTHERS * (int)sizeof(float);
  const int blocks = ceil_div(a->T, OWNED) * a->H * a->B;
  cudaError_t error =
      launch_large(bwd_kernel<TILES, OTHERS, false, type>, blocks, THREADS, bytes, stream, p);
  if (error != cudaSuccess) return error;
  return launch_large(bwd_kernel<TILES, OTHERS, true, type>, blocks, THREADS, bytes, stream, p);
}

template <typename type>
cudaError_t launch_width(cudaStream_t stream, const struct cuda_attention_bwd *a) {
  if (a->d <= 32) return launch<4, 64, type>(stream, a);
  if (a->d <= 64) return launch<8, 32, type>(stream, a);
  if (a->d <= 72) return launch<9, 32, type>(stream, a);
  if (a->d <= 88) return launch<11, 32, type>(stream, a);
  return launch<16, 32, type>(stream, a);
}

/* delta [B, H, T]; a warp has a row of a head. */
struct delta_problem {
  float *delta;
  const void *d_o, *o;
  enum dtype d_o_type, o_type;
  int64_t rows; /* B T H */
  int T, H, d;
};

DEVICE float value_at(const void *x, enum dtype type, int64_t at) {
  if (type == DT_F32) return static_cast<const float *>(x)[at];
  if (type == DT_F16) return to_f32(static_cast<const __half *>(x)[at]);
  return to_f32(static_cast<const __nv_bfloat16 *>(x)[at]);
}

__global__ void __launch_bounds__(THREADS) delta_kernel(const __grid_constant__ delta_problem p) {
  const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= p.rows) return;
  float sum = 0;
  for (int c = lane; c < p.d; c += 32)
    sum = fmaf(value_at(p.d_o, p.d_o_type, row * p.d + c), value_at(p.o, p.o_type, row * p.d + c),
               sum);
  sum = warp_sum(sum);
  const int64_t head = row % p.H, token = row / p.H % p.T, image = row / p.H / p.T;
  if (lane == 0) p.delta[(image * p.H + head) * p.T + token] = sum;
}

cudaError_t launch_delta(cudaStream_t stream, const struct cuda_attention_bwd *a) {
  const delta_problem p = {a->delta,    a->d_o,     a->o,
                           a->d_o_type, a->compute, (int64_t)a->B * a->T * a->H,
                           a->T,        a->H,       a->d};
  LAUNCH(delta_kernel, blocks_of(p.rows, WARPS), THREADS, 0, stream, p);
  return cudaGetLastError();
}

} // namespace

cudaError_t cuda_attention_bwd(cudaStream_t stream, const struct cuda_attention_bwd *a) {
  cudaError_t error = launch_delta(stream, a);
  if (error != cudaSuccess) return error;
  if (a->compute == DT_F32 || a->d % 8 || a->d > 128) return attention_bwd_f32(stream, a);
  if (a->compute == DT_F16) return launch_width<__half>(stream, a);
  return launch_width<__nv_bfloat16>(stream, a);
}

/* The gradient of attention in f32, as attention_bwd.cu has it: one kernel, run twice, in which a
 * block owns rows of one head (queries or keys) and goes over all others, as many at a time.
 * Threads are as in attention_square.cuh; p and ds go through shared memory. */
#include "backend/cuda/attention_launch.cuh"
#include "backend/cuda/attention_square.cuh"

namespace {

struct problem {
  float *dqkv;
  const float *d_o, *qkv, *lse, *delta;
  float factor; /* 1 / sqrt(d) */
  int T, H, d;
};

/* p = e^(factor s - lse) and ds = p (dp - delta); 0 past the last row. */
template <bool OF_KEYS, int EACH>
DEVICE void gradients(float *p_tile, float *ds_tile, const float (&s)[EACH][EACH],
                      const float (&dp)[EACH][EACH], int first, int other, const float *lse,
                      const float *delta, const problem &p) {
  const int x = threadIdx.x % SQUARE, y = threadIdx.x / SQUARE;
#pragma unroll
  for (int i = 0; i < EACH * EACH; i++) {
    const int own = y * EACH + i / EACH, column = x + i % EACH * SQUARE;
    const bool valid = first + own < p.T && other + column < p.T;
    const int query = OF_KEYS ? other + column : first + own;
    float e = 0, ds = 0;
    if (valid) {
      e = expf(s[i / EACH][i % EACH] * p.factor - lse[query]);
      ds = e * (dp[i / EACH][i % EACH] - delta[query]);
    }
    const int at = own * row_stride(EACH * SQUARE) + column;
    if (OF_KEYS) p_tile[at] = e;
    ds_tile[at] = ds;
  }
}

template <int EACH, int N>
DEVICE void store(float *rows, const float (&sum)[EACH][N], float factor, int first,
                  const problem &p) {
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const int row = first + threadIdx.x / SQUARE * EACH + i;
#pragma unroll
    for (int n = 0; n < N; n++) {
      const int column = threadIdx.x % SQUARE + n * SQUARE;
      if (row < p.T && column < p.d)
        rows[(int64_t)row * 3 * p.H * p.d + column] = factor * sum[i][n];
    }
  }
}

template <int EACH, int WIDTH, bool OF_KEYS>
__global__ void __launch_bounds__(THREADS) bwd_f32_kernel(const __grid_constant__ problem p) {
  constexpr int ROWS = EACH * SQUARE, TILE = ROWS * row_stride(WIDTH);
  SHARED_MEMORY(memory);
  float *own = reinterpret_cast<float *>(memory), *others = own + 2 * TILE;
  float *ds_tile = others + 2 * TILE, *p_tile = ds_tile + ROWS * row_stride(ROWS);

  const int blocks = ceil_div(p.T, ROWS), first = blockIdx.x % blocks * ROWS;
  const int64_t image_head = blockIdx.x / blocks, D = (int64_t)p.H * p.d;
  const int64_t image = image_head / p.H, column = image_head % p.H * p.d;
  const int64_t at = image * p.T * 3 * D + column;
  const float *q = p.qkv + at, *k = q + D, *v = k + D;
  const float *d_o = p.d_o + image * p.T * D + column;
  const float *lse = p.lse + image_head * p.T, *delta = p.delta + image_head * p.T;

  /* q and d_o, or k and v */
  auto load = [&](float *tiles, bool keys, int row) {
    load_rows<ROWS, WIDTH>(tiles, head_rows<float>{keys ? k : q, 3 * D, row, p.T, p.d}, 0);
    load_rows<ROWS, WIDTH>(tiles + TILE,
                           head_rows<float>{keys ? v : d_o, keys ? 3 * D : D, row, p.T, p.d}, 0);
  };
  load(own, OF_KEYS, first);
  float first_sum[EACH][WIDTH / SQUARE] = {}, second_sum[EACH][WIDTH / SQUARE] = {};
  for (int other = 0; other < p.T; other += ROWS) {
    load(others, !OF_KEYS, other);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    float s[EACH][EACH] = {}, dp[EACH][EACH] = {};
    add_row_products<WIDTH>(s, own, others);
    add_row_products<WIDTH>(dp, own + TILE, others + TILE);
    gradients<OF_KEYS>(p_tile, ds_tile, s, dp, first, other, lse, delta, p);
    __syncwarp();
    add_product(first_sum, ds_tile, others);
    if (OF_KEYS) add_product(second_sum, p_tile, others + TILE);
    __syncthreads(); /* nobody reads the tiles any more */
  }
  float *rows = p.dqkv + at;
  store(rows + (OF_KEYS ? D : 0), first_sum, p.factor, first, p);
  if (OF_KEYS) store(rows + 2 * D, second_sum, 1, first, p);
}

template <int EACH, int WIDTH>
cudaError_t launch(cudaStream_t stream, const struct cuda_attention_bwd *a) {
  constexpr int ROWS = EACH * SQUARE;
  const problem p = {a->dqkv,
                     static_cast<const float *>(a->d_o),
                     static_cast<const float *>(a->qkv),
                     a->lse,
                     a->delta,
                     1 / sqrtf((float)a->d),
                     a->T,
                     a->H,
                     a->d};
  const int bytes = (4 * row_stride(WIDTH) + 2 * row_stride(ROWS)) * ROWS * (int)sizeof(float);
  const int blocks = ceil_div(a->T, ROWS) * a->H * a->B;
  cudaError_t error =
      launch_large(bwd_f32_kernel<EACH, WIDTH, false>, blocks, THREADS, bytes, stream, p);
  if (error != cudaSuccess) return error;
  return launch_large(bwd_f32_kernel<EACH, WIDTH, true>, blocks, THREADS, bytes, stream, p);
}

} // namespace

cudaError_t attention_bwd_f32(cudaStream_t stream, const struct cuda_attention_bwd *a) {
  if (a->d <= 64) return launch<4, 64>(stream, a);
  if (a->d <= 80) return launch<4, 80>(stream, a);
  if (a->d <= 96) return launch<4, 96>(stream, a);
  return launch<2, 256>(stream, a);
}

/* Attention in f32 for any width, with the softmax taken along as in attention.cu.
 *
 * A block owns ROWS queries of one head and COLUMNS columns of its output; wider heads take several
 * blocks, each with all the logits. It goes over the keys, KEYS at a time, and over the width of q
 * and k, DEPTH values at a time, with threads as in attention_square.cuh: the 16 threads of a row
 * of the square share rows of the softmax. */
#include "backend/cuda/attention_launch.cuh"
#include "backend/cuda/attention_square.cuh"
#include "backend/cuda/types.cuh"

namespace {

enum { EACH = 4, ROWS = EACH * SQUARE, KEYS = ROWS };

template <typename source> struct problem {
  const source *qkv;
  void *o;
  enum dtype o_type;
  float *lse, scale;
  int T, H, d;
};

/* The same of other types, whose values f32 holds. */
template <int ROWS, int WIDTH, typename source>
DEVICE void load_rows(float *tile, const head_rows<source> &h, int at) {
  for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
    const int row = i / WIDTH, column = i % WIDTH;
    const bool valid = h.first + row < h.T && at + column < h.d;
    tile[row * row_stride(WIDTH) + column] =
        valid ? to_f32(h.rows[(h.first + row) * h.stride + at + column]) : 0;
  }
}

/* Of the 16 threads of a row of the square. */
DEVICE float row_max(float x) {
  for (int i = 1; i < SQUARE; i *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, i));
  return x;
}

DEVICE float row_sum(float x) {
  for (int i = 1; i < SQUARE; i *= 2) x += __shfl_xor_sync(0xffffffff, x, i);
  return x;
}

/* p = e^(s scale - max) of `count` keys, 0 of the others; what was summed so far is scaled to the
 * new maximum. While all logits are -inf nothing is subtracted, so that a later key still counts.
 */
template <int N>
DEVICE void softmax(float *p, const float s[EACH][EACH], float o[EACH][N], float max[EACH],
                    float sum[EACH], float scale, int count) {
  const int x = threadIdx.x % SQUARE;
  p += threadIdx.x / SQUARE * EACH * row_stride(KEYS) + x;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    float largest = max[i], total = 0;
#pragma unroll
    for (int j = 0; j < EACH; j++)
      if (x + j * SQUARE < count) largest = fmaxf(largest, s[i][j] * scale);
    largest = row_max(largest);
    const float shift = largest == -INFINITY ? 0 : largest;
    const float correction = expf(max[i] - shift);
#pragma unroll
    for (int j = 0; j < EACH; j++) {
      const float e = x + j * SQUARE < count ? expf(s[i][j] * scale - shift) : 0;
      p[i * row_stride(KEYS) + j * SQUARE] = e;
      total += e;
    }
    max[i] = largest;
    sum[i] = fmaf(sum[i], correction, total);
#pragma unroll
    for (int n = 0; n < N; n++) o[i][n] *= correction;
  }
}

DEVICE void put(void *o, enum dtype type, int64_t at, float value) {
  if (type == DT_F32)
    static_cast<float *>(o)[at] = value;
  else if (type == DT_F16)
    static_cast<__half *>(o)[at] = from_f32<__half>(value);
  else
    static_cast<__nv_bfloat16 *>(o)[at] = from_f32<__nv_bfloat16>(value);
}

template <int COLUMNS, typename source>
DEVICE void finish(const float o[EACH][COLUMNS / SQUARE], const float max[EACH],
                   const float sum[EACH], const problem<source> &p, int64_t image, int head,
                   int first) {
  const int x = threadIdx.x % SQUARE, column = blockIdx.y * COLUMNS + x;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    const float total = row_sum(sum[i]);
    const int row = first + threadIdx.x / SQUARE * EACH + i;
    if (row >= p.T) continue;
    const int64_t at = ((image * p.T + row) * p.H + head) * p.d;
#pragma unroll
    for (int n = 0; n < COLUMNS / SQUARE; n++)
      if (column + n * SQUARE < p.d) put(p.o, p.o_type, at + column + n * SQUARE, o[i][n] / total);
    if (p.lse && column == 0) p.lse[(image * p.H + head) * p.T + row] = max[i] + logf(total);
  }
}

template <int DEPTH, int COLUMNS, typename source>
__global__ void __launch_bounds__(THREADS)
    attention_f32_kernel(const __grid_constant__ problem<source> p) {
  SHARED_MEMORY(memory);
  float *q = reinterpret_cast<float *>(memory), *k = q + ROWS * row_stride(DEPTH);
  float *v = k + KEYS * row_stride(DEPTH), *e = v + KEYS * row_stride(COLUMNS);

  const int blocks = ceil_div(p.T, ROWS), first = blockIdx.x % blocks * ROWS;
  const int head = blockIdx.x / blocks % p.H;
  const int64_t image = blockIdx.x / blocks / p.H, D = (int64_t)p.H * p.d;
  const source *rows = p.qkv + image * p.T * 3 * D + (int64_t)head * p.d;

  float o[EACH][COLUMNS / SQUARE] = {}, sum[EACH] = {}, max[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) max[i] = -INFINITY;
  for (int key = 0; key < p.T; key += KEYS) {
    float s[EACH][EACH] = {};
    for (int at = 0; at < p.d; at += DEPTH) {
      __syncthreads(); /* nobody reads the tiles any more */
      if (key == 0 || p.d > DEPTH)
        load_rows<ROWS, DEPTH>(q, head_rows<source>{rows, 3 * D, first, p.T, p.d}, at);
      load_rows<ROWS, DEPTH>(k, head_rows<source>{rows + D, 3 * D, key, p.T, p.d}, at);
      if (at == 0)
        load_rows<KEYS, COLUMNS>(v, head_rows<source>{rows + 2 * D, 3 * D, key, p.T, p.d},
                                 blockIdx.y * COLUMNS);
      copy_async_commit();
      copy_async_wait<0>();
      __syncthreads();
      add_row_products<DEPTH>(s, q, k);
    }
    softmax(e, s, o, max, sum, p.scale, p.T - key);
    __syncwarp();
    add_product(o, e, v);
  }
  finish<COLUMNS>(o, max, sum, p, image, head, first);
}

template <int DEPTH, int COLUMNS, typename source>
cudaError_t launch(cudaStream_t stream, const struct cuda_attention *a) {
  const int floats =
      2 * ROWS * row_stride(DEPTH) + KEYS * row_stride(COLUMNS) + ROWS * row_stride(KEYS);
  const problem<source> p = {static_cast<const source *>(a->qkv),
                             a->o,
                             a->o_type,
                             a->lse,
                             1 / sqrtf((float)a->d),
                             a->T,
                             a->H,
                             a->d};
  const dim3 grid(ceil_div(a->T, ROWS) * a->H * a->B, ceil_div(a->d, COLUMNS));
  return launch_large(attention_f32_kernel<DEPTH, COLUMNS, source>, grid, THREADS,
                      floats * (int)sizeof(float), stream, p);
}

cudaError_t launch_width(cudaStream_t stream, const struct cuda_attention *a) {
  if (a->d <= 64) return launch<64, 64, float>(stream, a);
  if (a->d <= 80) return launch<80, 80, float>(stream, a);
  if (a->d <= 96) return launch<96, 96, float>(stream, a);
  if (a->d <= 128) return launch<128, 128, float>(stream, a);
  return launch<128, 256, float>(stream, a);
}

} // namespace

cudaError_t attention_f32(cudaStream_t stream, const struct cuda_attention *a) {
  if (a->qkv_type == DT_F16) return launch<128, 256, __half>(stream, a);
  if (a->qkv_type == DT_BF16) return launch<128, 256, __nv_bfloat16>(stream, a);
  return launch_width(stream, a);
}

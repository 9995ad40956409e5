/* Convolution as a product that never makes its left operand: rows are pixels of the result,
 * columns outputs, and the sum runs over the kernel's places and the input channels,
 *
 *   y[p, o] = sum_k x[pixel(p, k / in), k % in] w[o, k] + bias[o],  k < kernel[0] kernel[1] in.
 *
 * A block has 64 pixels x 64 outputs and takes 16 k at a time through shared memory, as f32; a
 * thread has 4 x 4 of them. */
#include "backend/cuda/kernels_images.h"
#include "backend/cuda/types.cuh"

enum { CONV_THREADS = 256, ROWS = 64, COLUMNS = 64, DEPTH = 16, EACH = 4 };

/* Where the window of a result pixel begins: image, top, left. */
struct window_place {
  int64_t image;
  int top, left;
};
DEVICE window_place window_of(const cuda_conv &w, int64_t pixel) {
  return {pixel / w.result[1] / w.result[0],
          static_cast<int>(pixel / w.result[1] % w.result[0]) * w.stride - w.before[0],
          static_cast<int>(pixel % w.result[1]) * w.stride - w.before[1]};
}

template <class T> DEVICE float input_at(const cuda_conv &w, const window_place &p, int k) {
  const int place = k / w.in, row = p.top + place / w.kernel[1],
            column = p.left + place % w.kernel[1];
  if (row < 0 || row >= w.size[0] || column < 0 || column >= w.size[1]) return 0;
  const int64_t pixel = (p.image * w.size[0] + row) * w.size[1] + column;
  return to_f32(static_cast<const T *>(w.x)[pixel * w.in + k % w.in]);
}

template <class T> DEVICE void store(const cuda_conv &w, int64_t pixel, int o, float value) {
  value += w.bias[o];
  if (w.relu && value < 0) value = 0;
  const int64_t at = pixel * w.ldy + w.at + o;
  if (w.y_type == DT_F32)
    static_cast<float *>(w.y)[at] = value;
  else
    static_cast<T *>(w.y)[at] = from_f32<T>(value);
}

template <class T>
static __global__ void __launch_bounds__(CONV_THREADS) convolve(cuda_conv w, int64_t pixels) {
  SHARED float a[DEPTH][ROWS + 4], b[DEPTH][COLUMNS + 4];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * ROWS;
  const int column = blockIdx.y * COLUMNS, depth = w.kernel[0] * w.kernel[1] * w.in;
  const int row_of = threadIdx.x / 16 * EACH, column_of = threadIdx.x % 16 * EACH;
  float sum[EACH][EACH] = {};
  for (int k0 = 0; k0 < depth; k0 += DEPTH) {
    const int k = threadIdx.x % DEPTH;
    for (int r = threadIdx.x / DEPTH; r < ROWS; r += CONV_THREADS / DEPTH)
      a[k][r] = first + r < pixels && k0 + k < depth
                    ? input_at<T>(w, window_of(w, first + r), k0 + k)
                    : 0;
    for (int c = threadIdx.x / DEPTH; c < COLUMNS; c += CONV_THREADS / DEPTH)
      b[k][c] = column + c < w.out && k0 + k < depth
                    ? to_f32(static_cast<const T *>(
                          w.weight)[static_cast<int64_t>(column + c) * depth + k0 + k])
                    : 0;
    __syncthreads();
    float part[EACH][EACH] = {}; /* sums of sums lose less */
#pragma unroll
    for (int i = 0; i < DEPTH; i++)
#pragma unroll
      for (int r = 0; r < EACH; r++)
#pragma unroll
        for (int c = 0; c < EACH; c++)
          part[r][c] = fmaf(a[i][row_of + r], b[i][column_of + c], part[r][c]);
#pragma unroll
    for (int r = 0; r < EACH; r++)
#pragma unroll
      for (int c = 0; c < EACH; c++) sum[r][c] += part[r][c];
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < EACH; r++)
#pragma unroll
    for (int c = 0; c < EACH; c++)
      if (first + row_of + r < pixels && column + column_of + c < w.out)
        store<T>(w, first + row_of + r, column + column_of + c, sum[r][c]);
}

/* The same by matrix instructions, for 16-bit inputs of a multiple of 8 channels: a block has 128
 * pixels x 128 outputs, a warp 64 x 32 of them, and takes 32 k at a time from a ring of stages that
 * copies fill beside the computation. A row of a stage is 64 bytes; its 16 bytes c lie at place
 * c ^ (row / 2 % 4), so that ldmatrix and the copies touch every bank once.
 *
 *     warp  0 | 1 | 2 | 3     outputs ->
 *           4 | 5 | 6 | 7     pixels down                                                        */
enum { MMA_SIDE = 128, MMA_DEPTH = 32, STAGES = 3, SIDE_BYTES = MMA_SIDE * MMA_DEPTH * 2 };

DEVICE int chunk_at(int row, int chunk) { return row * 64 + (chunk ^ (row / 2 % 4)) * 16; }

/* What a thread copies: 16 bytes of two pixels and of two outputs. */
template <class T> struct conv_copies {
  window_place window[2];
  bool pixel[2], output[2];
  const T *weight[2];
};

template <class T> DEVICE conv_copies<T> copies_of(const cuda_conv &w, int64_t pixels, int depth) {
  conv_copies<T> s;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int64_t pixel = static_cast<int64_t>(blockIdx.x) * MMA_SIDE + threadIdx.x / 4 + 64 * i;
    const int o = blockIdx.y * MMA_SIDE + threadIdx.x / 4 + 64 * i;
    s.window[i] = window_of(w, pixel);
    s.pixel[i] = pixel < pixels;
    s.output[i] = o < w.out;
    s.weight[i] = static_cast<const T *>(w.weight) + static_cast<int64_t>(o) * depth;
  }
  return s;
}

template <class T>
DEVICE void copy_stage(unsigned char *stage, const cuda_conv &w, const conv_copies<T> &s, int k0,
                       int depth) {
  const int k = k0 + threadIdx.x % 4 * 8, place = k / w.in, channel = k % w.in;
  const int down = place / w.kernel[1], across = place % w.kernel[1];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int to = chunk_at(threadIdx.x / 4 + 64 * i, threadIdx.x % 4);
    const int row = s.window[i].top + down, column = s.window[i].left + across;
    const bool inside =
        s.pixel[i] && k < depth && row >= 0 && row < w.size[0] && column >= 0 && column < w.size[1];
    const int64_t pixel = (s.window[i].image * w.size[0] + row) * w.size[1] + column;
    const T *x = static_cast<const T *>(w.x);
    copy_async16(stage + to, inside ? x + pixel * w.in + channel : x, inside);
    const bool weight = s.output[i] && k < depth;
    copy_async16(stage + SIDE_BYTES + to,
                 weight ? s.weight[i] + k : static_cast<const T *>(w.weight), weight);
  }
}

/* sum [4 x 16 rows][4 x 8 columns] += the warp's part of a stage */
template <class T> DEVICE void multiply_stage(float (*sum)[4][4], const unsigned char *stage) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int k = 0; k < MMA_DEPTH / 16; k++) {
    uint32_t a[4][4], b[2][4];
#pragma unroll
    for (int m = 0; m < 4; m++)
      ldmatrix_x4(a[m], stage + chunk_at(warp / 4 * 64 + m * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
    for (int n = 0; n < 2; n++)
      ldmatrix_x4(b[n], stage + SIDE_BYTES +
                            chunk_at(warp % 4 * 32 + n * 16 + lane / 16 * 8 + lane % 8,
                                     2 * k + lane / 8 % 2));
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
      for (int n = 0; n < 4; n++) mma_m16n8k16<T>(sum[m][n], a[m], b[n / 2] + n % 2 * 2);
  }
}

template <class T>
static __global__ void __launch_bounds__(CONV_THREADS, 2)
    convolve_mma(cuda_conv w, int64_t pixels, int depth) {
  SHARED_MEMORY(memory);
  const conv_copies<T> copies = copies_of<T>(w, pixels, depth);
  const int steps = (depth + MMA_DEPTH - 1) / MMA_DEPTH;
  float sum[4][4][4] = {};
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) copy_stage(memory + s * 2 * SIDE_BYTES, w, copies, s * MMA_DEPTH, depth);
    copy_async_commit();
  }
  for (int s = 0; s < steps; s++) {
    const int next = s + STAGES - 1;
    copy_async_wait<STAGES - 2>();
    __syncthreads();
    if (next < steps)
      copy_stage(memory + next % STAGES * 2 * SIDE_BYTES, w, copies, next * MMA_DEPTH, depth);
    copy_async_commit();
    multiply_stage<T>(sum, memory + s % STAGES * 2 * SIDE_BYTES);
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * MMA_SIDE + warp / 4 * 64 + lane / 4;
  const int o = blockIdx.y * MMA_SIDE + warp % 4 * 32 + lane % 4 * 2;
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int64_t p = pixel + m * 16 + i / 2 * 8;
        if (p < pixels && o + n * 8 + i % 2 < w.out)
          store<T>(w, p, o + n * 8 + i % 2, sum[m][n][i]);
      }
}

template <class T>
static cudaError_t launch_mma(cudaStream_t stream, const struct cuda_conv *w, int64_t pixels) {
  const dim3 grid(blocks_of(pixels, MMA_SIDE), blocks_of(w->out, MMA_SIDE));
  LAUNCH((convolve_mma<T>), grid, CONV_THREADS, STAGES * 2 * SIDE_BYTES, stream, *w, pixels,
         w->kernel[0] * w->kernel[1] * w->in);
  return cudaGetLastError();
}

cudaError_t cuda_convolve(cudaStream_t stream, const struct cuda_conv *w) {
  const int64_t pixels = static_cast<int64_t>(w->B) * w->result[0] * w->result[1];
  const dim3 grid(blocks_of(pixels, ROWS), blocks_of(w->out, COLUMNS));
  if (pixels <= 0 || w->out <= 0) return cudaSuccess;
  if (w->type != DT_F32 && w->in % 8 == 0)
    return w->type == DT_BF16 ? launch_mma<__nv_bfloat16>(stream, w, pixels)
                              : launch_mma<__half>(stream, w, pixels);
  BY_TYPE(w->type, LAUNCH((convolve<T>), grid, CONV_THREADS, 0, stream, *w, pixels));
  return cudaGetLastError();
}

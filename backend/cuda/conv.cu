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

cudaError_t cuda_convolve(cudaStream_t stream, const struct cuda_conv *conv) {
  const int64_t pixels = static_cast<int64_t>(conv->B) * conv->result[0] * conv->result[1];
  const dim3 grid(blocks_of(pixels, ROWS), blocks_of(conv->out, COLUMNS));
  if (pixels > 0 && conv->out > 0)
    BY_TYPE(conv->type, LAUNCH((convolve<T>), grid, CONV_THREADS, 0, stream, *conv, pixels));
  return cudaGetLastError();
}

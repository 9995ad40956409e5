/* Pooling, layouts and sizes of images: a thread has one value of the result, and neighbouring
 * threads neighbouring channels. */
#include "backend/cuda/kernels_images.h"
#include "backend/cuda/types.cuh"

enum { IMAGE_THREADS = 256, TILE = 32 };

/* The pixels that a 3x3 window with its first corner at (top, left) shares with an image. */
struct pool {
  int top, bottom, left, right;
};
DEVICE pool pool_at(int top, int left, int height, int width) {
  return {max(top, 0), min(top + 3, height), max(left, 0), min(left + 3, width)};
}

/* Value c of result pixel `pixel` of all images, rows x columns each. */
struct image_place {
  int64_t pixel;
  int c, row, column;
  int64_t image;
};
DEVICE image_place place_of(int64_t i, int C, int rows, int columns) {
  const int64_t pixel = i / C;
  return {pixel, static_cast<int>(i % C), static_cast<int>(pixel / columns % rows),
          static_cast<int>(pixel % columns), pixel / columns / rows};
}
DEVICE int64_t thread_of_grid() {
  return static_cast<int64_t>(blockIdx.x) * IMAGE_THREADS + threadIdx.x;
}

template <class T>
static __global__ void max_pool(T *y, const T *x, cuda_images s, int rows, int columns, int stride,
                                int pad) {
  const int64_t i = thread_of_grid();
  if (i >= static_cast<int64_t>(s.B) * rows * columns * s.C) return;
  const image_place at = place_of(i, s.C, rows, columns);
  const pool v = pool_at(at.row * stride - pad, at.column * stride - pad, s.height, s.width);
  x += at.image * s.height * s.width * s.C + at.c;
  float largest = -INFINITY;
  for (int r = v.top; r < v.bottom; r++)
    for (int c = v.left; c < v.right; c++) {
      float value = to_f32(x[(static_cast<int64_t>(r) * s.width + c) * s.C]);
      if (value > largest || isnan(value) || isnan(largest))
        largest = isnan(largest) ? largest : value;
    }
  y[at.pixel * s.ldy + s.at + at.c] = from_f32<T>(largest);
}
cudaError_t cuda_max_pool(cudaStream_t stream, void *y, const void *x, enum dtype type,
                          const struct cuda_images *s, int stride, int pad) {
  const int rows = (s->height + 2 * pad - 3) / stride + 1;
  const int columns = (s->width + 2 * pad - 3) / stride + 1;
  const int64_t n = static_cast<int64_t>(s->B) * rows * columns * s->C;
  if (n > 0)
    BY_TYPE(type,
            LAUNCH((max_pool<T>), blocks_of(n, IMAGE_THREADS), IMAGE_THREADS, 0, stream,
                   static_cast<T *>(y), static_cast<const T *>(x), *s, rows, columns, stride, pad));
  return cudaGetLastError();
}

template <class T> static __global__ void avg_pool_relu(T *y, const float *x, cuda_images s) {
  const int64_t i = thread_of_grid();
  if (i >= static_cast<int64_t>(s.B) * s.height * s.width * s.C) return;
  const image_place at = place_of(i, s.C, s.height, s.width);
  const pool v = pool_at(at.row - 1, at.column - 1, s.height, s.width);
  x += at.image * s.height * s.width * s.C + at.c;
  float sum = 0;
  for (int r = v.top; r < v.bottom; r++)
    for (int c = v.left; c < v.right; c++) sum += x[(static_cast<int64_t>(r) * s.width + c) * s.C];
  int count = (v.bottom - v.top) * (v.right - v.left);
  float mean = sum < 0 ? 0 : sum / static_cast<float>(count); /* a NaN stays one */
  y[at.pixel * s.ldy + s.at + at.c] = from_f32<T>(mean);
}
cudaError_t cuda_avg_pool_relu(cudaStream_t stream, void *y, enum dtype type, const float *x,
                               const struct cuda_images *s) {
  const int64_t n = static_cast<int64_t>(s->B) * s->height * s->width * s->C;
  if (n > 0)
    BY_TYPE(type, LAUNCH((avg_pool_relu<T>), blocks_of(n, IMAGE_THREADS), IMAGE_THREADS, 0, stream,
                         static_cast<T *>(y), x, *s));
  return cudaGetLastError();
}

/* A thread has a channel of an image. */
template <class T>
static __global__ void mean_pixels(float *y, const T *x, int B, int64_t pixels, int C) {
  const int64_t i = thread_of_grid();
  if (i >= static_cast<int64_t>(B) * C) return;
  x += i / C * pixels * C + i % C;
  double sum = 0;
  for (int64_t p = 0; p < pixels; p++) sum += static_cast<double>(to_f32(x[p * C]));
  y[i] = static_cast<float>(sum / static_cast<double>(pixels));
}
cudaError_t cuda_mean_pixels(cudaStream_t stream, float *y, const void *x, enum dtype type, int B,
                             int64_t pixels, int C) {
  const int64_t n = static_cast<int64_t>(B) * C;
  if (n > 0)
    BY_TYPE(type, LAUNCH((mean_pixels<T>), blocks_of(n, IMAGE_THREADS), IMAGE_THREADS, 0, stream, y,
                         static_cast<const T *>(x), B, pixels, C));
  return cudaGetLastError();
}

template <class T>
static __global__ void take_channels(float *y, const T *x, int64_t n, int C, int count) {
  const int64_t i = thread_of_grid();
  if (i < n) y[i] = to_f32(x[i / count * C + i % count]);
}
cudaError_t cuda_take_channels(cudaStream_t stream, float *y, const void *x, enum dtype type,
                               int64_t pixels, int C, int count) {
  const int64_t n = pixels * count;
  if (n > 0)
    BY_TYPE(type, LAUNCH((take_channels<T>), blocks_of(n, IMAGE_THREADS), IMAGE_THREADS, 0, stream,
                         y, static_cast<const T *>(x), n, C, count));
  return cudaGetLastError();
}

template <class T>
static __global__ void upsample2x(T *y, const float *x, int64_t n, int width, int C) {
  const int64_t i = thread_of_grid();
  if (i >= n) return;
  const int64_t pixel = i / C, row = pixel / (2 * width), column = pixel % (2 * width);
  y[i] = from_f32<T>(x[(row / 2 * width + column / 2) * C + i % C]);
}
cudaError_t cuda_upsample2x(cudaStream_t stream, void *y, enum dtype type, const float *x, int B,
                            int height, int width, int C) {
  const int64_t n = static_cast<int64_t>(B) * 4 * height * width * C;
  if (n > 0)
    BY_TYPE(type, LAUNCH((upsample2x<T>), blocks_of(n, IMAGE_THREADS), IMAGE_THREADS, 0, stream,
                         static_cast<T *>(y), x, n, width, C));
  return cudaGetLastError();
}

/* Tiles of 32 x 32 through shared memory, one column wider against bank conflicts, so that both
 * sides are accessed along their rows. 32 x 8 threads; a block for each tile of all images. */
static __global__ void transpose(float *y, const float *x, int64_t rows, int64_t columns,
                                 int64_t across, int64_t down) {
  SHARED float tile[TILE][TILE + 1];
  const int64_t first = blockIdx.x / (across * down) * rows * columns;
  const int64_t row = blockIdx.x / across % down * TILE, column = blockIdx.x % across * TILE;
  const int fast = threadIdx.x;
  for (int slow = threadIdx.y; slow < TILE; slow += 8)
    if (row + slow < rows && column + fast < columns)
      tile[slow][fast] = x[first + (row + slow) * columns + column + fast];
  __syncthreads();
  for (int slow = threadIdx.y; slow < TILE; slow += 8)
    if (row + fast < rows && column + slow < columns)
      y[first + (column + slow) * rows + row + fast] = tile[fast][slow];
}
cudaError_t cuda_transpose(cudaStream_t stream, float *y, const float *x, int B, int64_t rows,
                           int64_t columns) {
  const int64_t across = blocks_of(columns, TILE), down = blocks_of(rows, TILE);
  if (B * across * down > 0)
    LAUNCH(transpose, static_cast<unsigned>(B * across * down), dim3(TILE, 8), 0, stream, y, x,
           rows, columns, across, down);
  return cudaGetLastError();
}

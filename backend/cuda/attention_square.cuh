/* What attention and its gradient share in f32: 256 threads as a square of 16 x 16 on tiles of rows
 * in shared memory. With EACH = rows of a tile / 16, thread (y, x) of the square has
 *
 *   of products of rows: own rows EACH y .. EACH y + EACH - 1, other rows x, x + 16, ...
 *   of sums over rows:   the same own rows, columns x, x + 16, ...
 *
 * so that the 16 threads of a row of the square, half a warp, share own rows. Rows of tiles are an
 * odd number of units of 16 bytes apart: threads read whole units, 8 rows at a time, without
 * conflicts of banks. */
#ifndef BACKEND_CUDA_ATTENTION_SQUARE_CUH
#define BACKEND_CUDA_ATTENTION_SQUARE_CUH

#include "backend/cuda/attention_tile.cuh"

enum { SQUARE = 16, THREADS = SQUARE * SQUARE };

/* Floats from a row of a tile to the next, for a width that is a multiple of 8. */
constexpr __host__ __device__ int row_stride(int width) { return width + 4; }

/* tile [ROWS, WIDTH] = values at .. of the rows; zeros past the last row and beyond d. */
template <int ROWS, int WIDTH>
DEVICE void load_rows(float *tile, const head_rows<float> &h, int at) {
  const int unit = h.d % 4 ? 1 : 4, units = WIDTH / unit;
  for (int i = threadIdx.x; i < ROWS * units; i += THREADS) {
    const int row = i / units, column = i % units * unit;
    const bool valid = h.first + row < h.T && at + column < h.d;
    const float *from = h.rows + (valid ? (h.first + row) * h.stride + at + column : 0);
    float *to = tile + row * row_stride(WIDTH) + column;
    if (unit == 4)
      copy_async16(to, from, valid);
    else
      copy_async4(to, from, valid);
  }
}

/* s [own, others] += a b^T over the WIDTH values of their rows. */
template <int WIDTH, int EACH>
DEVICE void add_row_products(float (&s)[EACH][EACH], const float *a_tile, const float *b_tile) {
  a_tile += threadIdx.x / SQUARE * EACH * row_stride(WIDTH);
  b_tile += threadIdx.x % SQUARE * row_stride(WIDTH);
#pragma unroll 4
  for (int at = 0; at < WIDTH; at += 4) {
    float4 a[EACH], b[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      a[i] = *reinterpret_cast<const float4 *>(a_tile + i * row_stride(WIDTH) + at);
      b[i] = *reinterpret_cast<const float4 *>(b_tile + i * SQUARE * row_stride(WIDTH) + at);
    }
#pragma unroll
    for (int i = 0; i < EACH * EACH; i++) {
      const float4 x = a[i / EACH], y = b[i % EACH];
      float sum = s[i / EACH][i % EACH];
      sum = fmaf(x.x, y.x, sum);
      sum = fmaf(x.y, y.y, sum);
      sum = fmaf(x.z, y.z, sum);
      s[i / EACH][i % EACH] = fmaf(x.w, y.w, sum);
    }
  }
}

/* o [own, width] += p tile with p [own, others] in shared memory. */
template <int EACH, int N>
DEVICE void add_product(float (&o)[EACH][N], const float *p, const float *tile) {
  constexpr int OTHERS = EACH * SQUARE;
  p += threadIdx.x / SQUARE * EACH * row_stride(OTHERS);
  tile += threadIdx.x % SQUARE;
#pragma unroll 2
  for (int row = 0; row < OTHERS; row += 4) {
    float a[EACH][4];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const float4 four = *reinterpret_cast<const float4 *>(p + i * row_stride(OTHERS) + row);
      a[i][0] = four.x, a[i][1] = four.y, a[i][2] = four.z, a[i][3] = four.w;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int n = 0; n < N; n++) {
        const float b = tile[(row + j) * row_stride(N * SQUARE) + n * SQUARE];
#pragma unroll
        for (int i = 0; i < EACH; i++) o[i][n] = fmaf(a[i][j], b, o[i][n]);
      }
  }
}

#endif

/* RMSNorm of rows and of the heads of q and k: a warp has a row or a head. */
#include "backend/cuda/kernels_rows.h"
#include "backend/cuda/types.cuh"

enum { RMS_THREADS = 256, RMS_BLOCK = RMS_THREADS / 32 };

/* 1 / sqrt(mean square + eps) of a row, in all lanes. */
DEVICE float rms_inverse(const float *x, int n, float eps) {
  float squares = 0;
  for (int i = threadIdx.x % 32; i < n; i += 32) squares = fmaf(x[i], x[i], squares);
  const float mean = warp_sum(squares) / static_cast<float>(n);
  return static_cast<float>(1 / sqrt(static_cast<double>(mean) + eps));
}

template <class T>
static __global__ void rms_modulate(T *y, const float *x, const float *weight, const float *shift,
                                    const float *scale, int64_t stride, int tokens, int D,
                                    float eps, int64_t rows) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * RMS_BLOCK + threadIdx.x / 32;
  if (row >= rows) return;
  const int64_t image = row / tokens * stride;
  x += row * D;
  const float inverse = rms_inverse(x, D, eps);
  for (int i = threadIdx.x % 32; i < D; i += 32)
    y[row * D + i] =
        from_f32<T>(fmaf(x[i] * inverse * weight[i], 1 + scale[image + i], shift[image + i]));
}

cudaError_t cuda_rms_modulate(cudaStream_t stream, void *y, enum dtype type, const float *x,
                              const float *weight, const float *shift, const float *scale,
                              int64_t stride, int B, int T, int D, float eps) {
  const int64_t rows = static_cast<int64_t>(B) * T;
  const int tokens = T;
  if (rows > 0)
    BY_TYPE(type,
            LAUNCH((rms_modulate<T>), blocks_of(rows, RMS_BLOCK), RMS_THREADS, 0, stream,
                   static_cast<T *>(y), x, weight, shift, scale, stride, tokens, D, eps, rows));
  return cudaGetLastError();
}

struct head_weights {
  const float *q, *k;
};

/* Heads of a row: H of q, H of k, and H of v, which are only copied. */
static __global__ void qk_rms(float *y, const float *qkv, const head_weights weight, float eps,
                              int64_t heads, int H, int d) {
  const int64_t head = static_cast<int64_t>(blockIdx.x) * RMS_BLOCK + threadIdx.x / 32;
  if (head >= heads) return;
  const int part = static_cast<int>(head / H % 3);
  if (part == 2 && y == qkv) return;
  const float *from = qkv + head * d;
  const float *own =
      part == 0 ? weight.q : weight.k; /* an index would put both into local memory */
  const float inverse = part < 2 ? rms_inverse(from, d, eps) : 1;
  for (int i = threadIdx.x % 32; i < d; i += 32)
    y[head * d + i] = part < 2 ? from[i] * inverse * own[i] : from[i];
}

cudaError_t cuda_qk_rms(cudaStream_t stream, float *y, const float *qkv,
                        const float *const weight[2], float eps, int64_t rows, int H, int d) {
  const int64_t heads = rows * 3 * H;
  const head_weights both = {weight[0], weight[1]};
  if (heads > 0)
    LAUNCH(qk_rms, blocks_of(heads, RMS_BLOCK), RMS_THREADS, 0, stream, y, qkv, both, eps, heads, H,
           d);
  return cudaGetLastError();
}

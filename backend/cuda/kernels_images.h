/* Launchers of operations on images, channels-last [B, height, width, C]: backend/cuda/images.cu,
 * group_norm.cu, conv.cu. Meanings as in backend/operations.h; activations have `type`. */
#ifndef BACKEND_CUDA_KERNELS_IMAGES_H
#define BACKEND_CUDA_KERNELS_IMAGES_H

#include "base/tensor.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Images, and where an operation's result goes: channels at .. of pixels ldy apart. */
struct cuda_images {
  int B, height, width, C;
  int64_t ldy, at;
};

cudaError_t cuda_max_pool(cudaStream_t stream, void *y, const void *x, enum dtype type,
                          const struct cuda_images *images, int stride, int pad);
cudaError_t cuda_avg_pool_relu(cudaStream_t stream, void *y, enum dtype type, const float *x,
                               const struct cuda_images *images);
cudaError_t cuda_mean_pixels(cudaStream_t stream, float *y, const void *x, enum dtype type, int B,
                             int64_t pixels, int C);
cudaError_t cuda_take_channels(cudaStream_t stream, float *y, const void *x, enum dtype type,
                               int64_t pixels, int C, int count);
cudaError_t cuda_upsample2x(cudaStream_t stream, void *y, enum dtype type, const float *x, int B,
                            int height, int width, int C);
/* y [B, columns, rows] of x [B, rows, columns] */
cudaError_t cuda_transpose(cudaStream_t stream, float *y, const float *x, int B, int64_t rows,
                           int64_t columns);

/* Pixels top .. bottom - 1, left .. right - 1 of images [B, pixels, C], `width` pixels a row, and
 * the pixels that their means are over. */
struct cuda_window {
  int B, width, top, left, bottom, right, C, groups;
  int64_t pixels, total;
};
/* Doubles of `work`. */
int64_t cuda_group_moments_work(const struct cuda_window *window);
/* moments [B, groups, 2] (+)= mean and mean square of the window over `total` pixels. */
cudaError_t cuda_group_moments(cudaStream_t stream, double *moments, const float *x, double *work,
                               const struct cuda_window *window, bool add);
/* y = (x - mean) / sqrt(variance + eps) weight + bias, then silu if asked; x [B, pixels, C]. */
struct cuda_group_norm {
  const float *x, *weight, *bias;
  const double *moments;
  void *y;
  enum dtype type;
  int B, C, groups;
  int64_t pixels;
  float eps;
  bool silu;
};
cudaError_t cuda_group_norm(cudaStream_t stream, const struct cuda_group_norm *norm);

/* y = convolution of x [B, height, width, in] + bias; weight [out, kernel[0], kernel[1], in] of x's
 * type, bias [out]. y: f32 [pixels, out] (ldy = out, at = 0, y_type f32), or relu of it into
 * channels at .. of pixels ldy apart. [0] is of rows, [1] of columns. */
struct cuda_conv {
  const void *x, *weight;
  const float *bias;
  void *y;
  enum dtype type, y_type;
  bool relu;
  int B, size[2], result[2], in, out, kernel[2], stride, before[2];
  int64_t ldy, at;
};
cudaError_t cuda_convolve(cudaStream_t stream, const struct cuda_conv *conv);

#ifdef __cplusplus
}
#endif

#endif

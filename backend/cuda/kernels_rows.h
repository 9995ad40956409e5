/* Launchers of what works on rows and on single values: backend/cuda/rows.cu, values.cu,
 * softmax.cu. Meanings as in backend/operations.h; pointers are to device memory; a launch depends
 * on shapes alone, a row's bits on no other row. Activations have `type`, f32, bf16 or f16. */
#ifndef BACKEND_CUDA_KERNELS_ROWS_H
#define BACKEND_CUDA_KERNELS_ROWS_H

#include "base/tensor.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Single values. */
cudaError_t cuda_narrow(cudaStream_t stream, void *y, enum dtype type, const float *x, int64_t n);
cudaError_t cuda_widen(cudaStream_t stream, float *y, const void *x, enum dtype type, int64_t n);
cudaError_t cuda_silu(cudaStream_t stream, float *y, const float *x, int64_t n);
cudaError_t cuda_sigmoid(cudaStream_t stream, float *y, const float *x, int64_t n);
cudaError_t cuda_relu(cudaStream_t stream, float *y, const float *x, int64_t n);
cudaError_t cuda_tanh_clamp(cudaStream_t stream, float *y, const float *x, float limit, int64_t n);
cudaError_t cuda_add(cudaStream_t stream, float *y, const float *a, const float *b, int64_t n);
cudaError_t cuda_add_rows(cudaStream_t stream, float *x, const float *row, int64_t rows, int64_t n);
cudaError_t cuda_qk_round_f16(cudaStream_t stream, float *qkv, int64_t rows, int D);
cudaError_t cuda_time_features(cudaStream_t stream, float *features, const float *time, int B,
                               int n, float shift);
cudaError_t cuda_gather_rows(cudaStream_t stream, float *dst, const float *src,
                             const int32_t *index, int64_t n, int D);
cudaError_t cuda_patchify(cudaStream_t stream, float *rows, const float *x, int B, int C,
                          int height, int width, int patch);
cudaError_t cuda_unpatchify(cudaStream_t stream, float *x, const float *rows, int B, int C,
                            int height, int width, int patch);

/* Rows, a warp each: rows [B, T, D] of which image b's shift, scale or gate is at b * stride. */
cudaError_t cuda_norm_modulate(cudaStream_t stream, void *y, enum dtype type, const float *x,
                               const float *shift, const float *scale, int64_t stride, int B, int T,
                               int D, float eps);
cudaError_t cuda_gated_add(cudaStream_t stream, float *out, const float *x, const float *gate,
                           int64_t stride, const float *y, int B, int T, int D);
/* norm: q's weight and bias, k's weight and bias [d]. */
cudaError_t cuda_qk_norm(cudaStream_t stream, float *y, const float *qkv,
                         const float *const norm[4], float eps, int64_t rows, int H, int d);
cudaError_t cuda_normalize_rows(cudaStream_t stream, float *y, const float *x, int64_t rows, int D);
cudaError_t cuda_softmax_rows(cudaStream_t stream, float *y, const float *x, int64_t rows, int n);
cudaError_t cuda_softmax_tokens(cudaStream_t stream, float *y, const float *x, int B, int T, int E);

#ifdef __cplusplus
}
#endif

#endif

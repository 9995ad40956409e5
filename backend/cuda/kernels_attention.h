/* Launchers of attention and of its gradient on CUDA: backend/cuda/attention*.cu. Pointers are to
 * device memory, aligned to 16 bytes; a launch depends on shapes alone. The bits of an image depend
 * on no other image. */
#ifndef BACKEND_CUDA_KERNELS_ATTENTION_H
#define BACKEND_CUDA_KERNELS_ATTENTION_H

#include "base/tensor.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* o [B, T, H, d] = softmax(q k^T / sqrt(d)) v with qkv [B, T, 3, H, d].
 *
 * o of bf16 or f16: q, k, v and the probabilities are rounded to that type, sums are f32 (tensor
 * cores; d a multiple of 8 up to 128, other widths in f32). o of f32: all in f32. qkv is f32 or of
 * o's type; the second halves the bytes to read and changes no bit. */
struct cuda_attention {
  const void *qkv;
  void *o;
  float *lse; /* [B, H, T]: log(sum over keys of e^logit), for the gradient; NULL: not wanted */
  enum dtype qkv_type, o_type;
  int B, T, H, d;
};

cudaError_t cuda_attention(cudaStream_t stream, const struct cuda_attention *a);

/* dqkv [B, T, 3, H, d], the gradient of the loss by qkv, from d_o [B, T, H, d], the gradient by o:
 * with p the probabilities, dp = d_o v^T and ds = p (dp - delta) / sqrt(d), delta = d_o . o,
 *
 *   dq = ds k     dk = ds^T q     dv = p^T d_o
 *
 * each summed in one order: one kernel goes over the keys of a block of queries, another over the
 * queries of a block of keys. The products are of type `compute` as in the forward. */
struct cuda_attention_bwd {
  float *dqkv;
  float *delta; /* [B, H, T], overwritten */
  const void *d_o, *qkv, *o;
  const float *lse;              /* of the forward */
  enum dtype d_o_type, qkv_type; /* f32 or compute */
  enum dtype compute;            /* and the type of o */
  int B, T, H, d;                /* d <= 256 */
};

cudaError_t cuda_attention_bwd(cudaStream_t stream, const struct cuda_attention_bwd *a);

#ifdef __cplusplus
}
#endif

#endif

/* Launchers of products and of the steps of a mixture-of-experts layer on CUDA.
 *
 * All arrays are device memory, aligned to 16 bytes. Sizes given here bound the launch; how many
 * rows there really are stays on the device, in offset[]. Nothing here waits for the device. A
 * row's result depends on no other row and on no size but its own, and every sum has one order. */
#ifndef BACKEND_CUDA_KERNELS_MOE_H
#define BACKEND_CUDA_KERNELS_MOE_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/tensor.h"

/* gelu is the tanh form. CUDA_PAIRED: silu(gate) * up, of weights packed in pairs. */
enum cuda_activation { CUDA_LINEAR, CUDA_GELU, CUDA_RELU, CUDA_SILU, CUDA_PAIRED };

/* y[r, o] = act(sum_i x[source(r), i] w[e, o, i] + bias[e, o]) for the rows of experts 0 ..
 * experts - 1, which are offset[e] .. offset[e + 1] - 1; source(r) = token[r], or r where there is
 * no token. Without offset there is one expert and it has all `rows` rows. y's rows have the places
 * of r. Sums in f32.
 *
 * w [total, in] of each expert has the type of x; total = out, or for CUDA_PAIRED 2 * out rounded
 * up to the blocks of cuda_pack_paired. bias [total] of each expert, or NULL. y_type is the type of
 * x or f32. */
struct cuda_product {
  enum dtype type, y_type;
  enum cuda_activation activation;
  int in, out, experts;
  int64_t rows; /* at most; the last row that any expert has is below it */
  const void *x;
  int64_t x_rows, ldx; /* rows of x: all that a token may name; values between them */
  const int32_t *offset, *token;
  const void *weight;
  const float *bias;
  int64_t weight_stride, bias_stride; /* values from one expert's to the next's */
  void *y;
  int64_t ldy;
};

/* Which kernel. BEST is what backends use; the others are for tests and benchmarks, which ask for
 * one and get cudaErrorNotSupported where it cannot do the product. */
enum cuda_product_kernel {
  CUDA_PRODUCT_BEST,
  CUDA_PRODUCT_SIMT,
  CUDA_PRODUCT_SM80,
  CUDA_PRODUCT_SM90
};

cudaError_t cuda_multiply_by(cudaStream_t stream, const struct cuda_product *product,
                             enum cuda_product_kernel kernel);

/* Rows of weights of a pair: blocks of CUDA_PAIR gate rows and CUDA_PAIR up rows in turn, so that
 * one thread holds both factors of a SwiGLU. */
enum { CUDA_PAIR = 8 };
static inline int cuda_paired_rows(int out) {
  return (out + CUDA_PAIR - 1) / CUDA_PAIR * CUDA_PAIR * 2;
}
/* dst [cuda_paired_rows(out), in] of `type` from src [2 * out, in], gate then up; rows that fill up
 * a block are 0. in = 1 packs a bias. */
cudaError_t cuda_pack_paired(cudaStream_t stream, void *dst, enum dtype type, const float *src,
                             int out, int in);

/* The plan, as struct dispatch of backend.h. */
struct cuda_plan {
  int experts, tokens;
  int64_t capacity;
  int32_t *expert, *source;
  float *gate;
  int32_t *offset, *token;
  float *weight;
  int32_t *first, *row;
};

cudaError_t cuda_assign_topk(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                             const float *scores, int32_t first_token, int64_t rows, int E, int K,
                             int skip);
/* struct biased_choice. */
struct cuda_biased {
  const float *bias;
  int groups, kept;
  float factor;
};
cudaError_t cuda_assign_biased(cudaStream_t stream, const struct cuda_plan *plan, float *ranked,
                               const float *scores, const struct cuda_biased *biased, int64_t rows,
                               int E, int K, int skip);
/* `stride` slots for each image, of which this fills the first E * K and empties the others. */
cudaError_t cuda_assign_tokens(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                               const float *scores, int32_t first_token, int B, int T, int E, int K,
                               int64_t stride);
cudaError_t cuda_assign_counted(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                                const float *scores, const float *capacity, const float *threshold,
                                int64_t S, int E);
/* After the images were routed, `stride` >= T slots each: those with labels[b] == label send all
 * their tokens to `expert` with weight 1 instead. */
cudaError_t cuda_assign_by_label(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                                 const int32_t *labels, int32_t label, int32_t expert, int B, int T,
                                 int64_t stride);
/* Ints of `work` that cuda_dispatch_order needs. */
int64_t cuda_dispatch_work(int tokens, int experts, int64_t capacity);
cudaError_t cuda_dispatch_order(cudaStream_t stream, const struct cuda_plan *plan, int32_t *work);

/* rows [.., D] of `experts` experts without weights from offset[0] on: 0, or with x the token's row
 * of x [tokens, D], which has `type`. */
cudaError_t cuda_rows_copy(cudaStream_t stream, void *rows, enum dtype rows_type, const void *x,
                           enum dtype type, const int32_t *offset, int experts,
                           const int32_t *token, int64_t capacity, int D);
/* y [tokens, D] = sum of weight * rows [capacity, D] of a token in the plan's order, + add unless
 * NULL. */
cudaError_t cuda_combine_rows(cudaStream_t stream, float *y, const void *rows, enum dtype rows_type,
                              const struct cuda_plan *plan, const float *add, int D);

#ifdef __cplusplus
}
#endif

#endif

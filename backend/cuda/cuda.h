/* Inside the CUDA backend: its state, its weights, and the operations, cuda_op_<operation>, each
 * with the signature of its slot in struct backend_ops. The kernels and their launchers know
 * nothing of this; see kernels_*.h. */
#ifndef BACKEND_CUDA_CUDA_H
#define BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/kernels_attention.h"
#include "backend/cuda/kernels_images.h"
#include "backend/cuda/kernels_moe.h"
#include "backend/cuda/kernels_rows.h"

/* Of a device. */
struct cuda_state {
  int device;                      /* its number */
  char tier[16];                   /* "sm_90"    */
  enum cuda_product_kernel kernel; /* of products: the best that the tier has */
};

struct cuda_slab;

/* Of an execution. */
struct cuda_exec {
  cudaStream_t stream;
  void *work; /* scratch of an operation, see cuda_work */
  size_t work_bytes;
  struct cuda_slab *slab; /* that weights are taken from, NULL: none yet */
};

static inline const struct cuda_state *cuda_state(const struct exec *ex) {
  return ex->device->state;
}
static inline struct cuda_exec *cuda_exec(const struct exec *ex) { return ex->state; }
static inline cudaStream_t cuda_stream(const struct exec *ex) { return cuda_exec(ex)->stream; }

/* Weights of a layer, or of a convolution as a matrix [out, kernel[0], kernel[1], in]: one block of
 * device memory. */
struct cuda_weights {
  struct cuda_slab *slab;
  void *matrix; /* [total, in] of the type of the inputs; paired: packed by cuda_pack_paired */
  float *bias;  /* [total] */
};

/* Records an error of CUDA as the failure of an operation. */
void cuda_check(struct exec *ex, cudaError_t error, const char *operation);
/* Scratch memory for one operation, as large as any so far: later operations overwrite it. NULL
 * after a failure, which is recorded. */
void *cuda_work(struct exec *ex, size_t bytes);
/* Gives a slab back; the last to do so frees it. May be NULL. */
void cuda_slab_release(struct exec *ex, struct cuda_slab *slab);
enum ditmoe_status cuda_failure(struct ditmoe_ctx *ctx, cudaError_t error, const char *what);

/* clang-format off */
#define CUDA_OPS(X)                                                                                \
  X(best_dtype) X(init) X(fini) X(exec_init) X(exec_fini) X(alloc) X(release) X(memory_available)  \
  X(upload) X(download) X(copy) X(fill) X(sync) X(linear_create) X(linear_destroy) X(conv_create)  \
  X(conv_destroy) X(linear_update) X(narrow) X(widen) X(linear) X(hidden) X(silu) X(sigmoid)       \
  X(add) X(add_rows) X(norm_modulate) X(gated_add) X(qk_norm) X(qk_rotate) X(qk_round_f16)         \
  X(time_features) X(assign_biased) X(attention) X(patchify) X(unpatchify) X(gather_rows)          \
  X(normalize_rows) X(softmax_rows) X(softmax_tokens) X(assign_topk) X(assign_tokens)              \
  X(assign_counted) X(assign_label) X(dispatch_order) X(experts_in) X(experts_out)                 \
  X(combine_rows) X(conv2d) X(conv2d_relu) X(max_pool) X(avg_pool_relu) X(mean_pixels)             \
  X(take_channels) X(group_norm) X(group_moments) X(group_norm_given) X(relu) X(tanh_clamp)        \
  X(upsample2x) X(channels_last) X(channels_first)
/* clang-format on */

#define CUDA_DECLARE(op) __typeof__(*((struct backend_ops *)0)->op) cuda_op_##op;
CUDA_OPS(CUDA_DECLARE)
#undef CUDA_DECLARE

#endif

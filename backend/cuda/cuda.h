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
#define CUDA_SLOTS(X)                                                                              \
  X(best_dtype) X(init) X(fini) X(exec_init) X(exec_fini) X(alloc) X(release) X(memory_available)  \
  X(sync) X(linear_create) X(linear_destroy) X(conv_create) X(conv_destroy)
/* clang-format on */

#define CUDA_DECLARE(op) __typeof__(*((struct backend_ops *)0)->op) cuda_op_##op;
CUDA_SLOTS(CUDA_DECLARE)
#undef CUDA_DECLARE
#define BE_OP(op, parameters, ...) void cuda_op_##op(struct exec *ex, BE_UNPACK parameters);
#include "backend/operations.h"
#undef BE_OP

#endif

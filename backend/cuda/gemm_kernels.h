/* The kernels of products, one file each. Each returns cudaErrorNotSupported for a product that it
 * cannot do. */
#ifndef BACKEND_CUDA_GEMM_KERNELS_H
#define BACKEND_CUDA_GEMM_KERNELS_H

#include "backend/cuda/kernels_moe.h"

cudaError_t product_simt(cudaStream_t stream, const struct cuda_product *p);
cudaError_t product_sm80(cudaStream_t stream, const struct cuda_product *p);
cudaError_t product_sm90(cudaStream_t stream, const struct cuda_product *p);

#endif

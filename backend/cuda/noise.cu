/* Random normals: each thread makes the four values of one block of Philox. */
#include "backend/cuda/kernels_noise.h"
#include "backend/cuda/types.cuh"
#include "base/normal.h"

namespace {

enum { THREADS = 256 };

__global__ void __launch_bounds__(THREADS)
    normals_kernel(const __grid_constant__ struct cuda_normals n) {
  const int64_t blocks = (n.count + 3) / 4;
  const int64_t thread = (int64_t)blockIdx.x * THREADS + threadIdx.x;
  const int64_t image = thread / blocks, block = thread % blocks;
  if (image >= n.images) return;
  uint32_t bits[4];
  float values[4];
  normal_block(bits, n.seed, n.first_sample + (uint64_t)image, n.step, n.purpose, (uint32_t)block);
  normal_pair(values, bits[0], bits[1]);
  normal_pair(values + 2, bits[2], bits[3]);
  float *out = n.out + image * n.count + 4 * block;
  if (n.count % 4 == 0) {
    *reinterpret_cast<float4 *>(out) = make_float4(values[0], values[1], values[2], values[3]);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (4 * block + i < n.count) out[i] = values[i];
}

} // namespace

cudaError_t cuda_normals(cudaStream_t stream, const struct cuda_normals *n) {
  const int64_t threads = (n->count + 3) / 4 * n->images;
  LAUNCH(normals_kernel, blocks_of(threads, THREADS), THREADS, 0, stream, *n);
  return cudaGetLastError();
}

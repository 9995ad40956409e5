/* Maps of tensors in device memory for the copy engine of sm_90, made on the host. */
#ifndef BACKEND_CUDA_TENSOR_MAP_H
#define BACKEND_CUDA_TENSOR_MAP_H

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Map of 16-bit values (bf16 or f16: bits are copied) [size[2], size[1], size[0]] with `pitch`
 * bytes from one row (axis 1) to the next and plane_pitch from one plane to the next, both
 * multiples of 16, for boxes of box[0] = 64 x box[1] <= 256 (x 1), swizzled by 128 bytes. A tensor
 * without planes: rank 2, size[2] and plane_pitch are ignored. */
struct tensor_shape {
  int rank;
  uint64_t size[3], pitch, plane_pitch;
  uint32_t box[2];
};
cudaError_t tensor_map_create(CUtensorMap *map, void *memory, const struct tensor_shape *shape);

#ifdef __cplusplus
}
#endif

#endif

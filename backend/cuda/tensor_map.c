/* cuTensorMapEncodeTiled, asked for at run time: the library links no driver. */
#include "backend/cuda/tensor_map.h"

#include <stddef.h>

cudaError_t tensor_map_create(CUtensorMap *map, void *memory, const struct tensor_shape *shape) {
  static const cuuint32_t steps[3] = {1, 1, 1};
  __typeof__(&cuTensorMapEncodeTiled) encode = NULL;
  void *entry = NULL;
  enum cudaDriverEntryPointQueryResult found;
  cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                       cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (!entry) return cudaErrorNotSupported;
  *(void **)&encode = entry;
  const cuuint64_t size[3] = {shape->size[0], shape->size[1], shape->size[2]};
  const cuuint64_t pitch[2] = {shape->pitch, shape->plane_pitch};
  const cuuint32_t box[3] = {shape->box[0], shape->box[1], 1};
  CUresult made =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, (cuuint32_t)shape->rank, memory, size, pitch, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return made == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

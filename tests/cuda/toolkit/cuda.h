/* The part of the driver's interface that this project uses, for the emulated device: the map of a
 * tensor, which is backend/cuda/tensor_map.h's shape and its memory. */
#ifndef TESTS_CUDA_TOOLKIT_CUDA_H
#define TESTS_CUDA_TOOLKIT_CUDA_H

#include <stdint.h>

typedef struct CUtensorMap_st {
  void *memory;
  int rank;
  uint64_t size[3], pitch, plane_pitch;
  uint32_t box[2];
} CUtensorMap;

#endif

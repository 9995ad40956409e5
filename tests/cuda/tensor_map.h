/* The emulated device's map of a tensor: backend/cuda/tensor_map.h's shape and its memory. */
#ifndef TESTS_CUDA_TENSOR_MAP_H
#define TESTS_CUDA_TENSOR_MAP_H

#include <stdint.h>

typedef struct CUtensorMap_st {
  void *memory;
  int rank;
  uint64_t size[3], pitch, plane_pitch;
  uint32_t box[2];
} CUtensorMap;

#endif

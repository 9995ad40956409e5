/* Element types and a view of a tensor in memory. */
#ifndef BASE_TENSOR_H
#define BASE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
  DT_F32,
  DT_F16,
  DT_BF16,
  DT_F64,
  DT_I64,
  DT_I32,
  DT_I16,
  DT_I8,
  DT_U8,
  DT_BOOL,
  DT_COUNT
};

enum { TENSOR_MAX_RANK = 8 };

/* Contiguous, row-major; the data belong to somebody else and need no alignment. */
struct tensor {
  const char *name;
  enum dtype dtype;
  int rank;
  int64_t shape[TENSOR_MAX_RANK];
  int64_t elements;
  const void *data;
};

size_t dtype_size(enum dtype dtype);
/* The safetensors spelling, "F32" and so on. */
const char *dtype_name(enum dtype dtype);
/* DT_COUNT if unknown. */
enum dtype dtype_parse(const char *name, size_t length);
bool dtype_is_float(enum dtype dtype);

float f32_from_f16(uint16_t bits);
float f32_from_bf16(uint16_t bits);
/* Round to nearest even. */
uint16_t f16_from_f32(float value);
uint16_t bf16_from_f32(float value);

/* No NaN and no infinity among n values of f32 at any address, or among those of a floating tensor
 * as f32. */
bool f32_all_finite(const void *values, int64_t n);
bool tensor_all_finite(const struct tensor *tensor);

/* dst[i] = (float)src[first + i] for any floating dtype, i < count. */
void tensor_read_f32(float *dst, const struct tensor *src, int64_t first, int64_t count);

#endif

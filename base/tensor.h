/* Element types and a view of a tensor in memory. */
#ifndef BASE_TENSOR_H
#define BASE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
#define X(name, bits, is_float, torch, storage) DT_##name,
#include "base/dtypes.def"
#undef X
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

/* Of one element: bits, and bytes rounded up. */
size_t dtype_bits(enum dtype dtype);
size_t dtype_size(enum dtype dtype);
/* Of all elements. */
size_t tensor_bytes(const struct tensor *tensor);
/* The safetensors spelling, "F32" and so on. */
const char *dtype_name(enum dtype dtype);
/* DT_COUNT if unknown. */
enum dtype dtype_parse(const char *name, size_t length);
/* Whether tensor_read_f32 reads it; whether safetensors files can have it. */
bool dtype_is_float(enum dtype dtype);
bool dtype_is_portable(enum dtype dtype);
/* "float32" and "FloatStorage", say; "" where torch has none. */
const char *dtype_torch_name(enum dtype dtype);
const char *dtype_torch_storage(enum dtype dtype);

float f32_from_f16(uint16_t bits);
float f32_from_bf16(uint16_t bits);
/* 8 bits: E4M3 has no infinity and one NaN (OCP's E4M3, torch.float8_e4m3fn). */
float f32_from_e4m3(uint8_t bits);
float f32_from_e5m2(uint8_t bits);
/* Round to nearest even. */
uint16_t f16_from_f32(float value);
uint16_t bf16_from_f32(float value);

/* No NaN and no infinity among n values of f32 at any address, or among those of a floating tensor
 * as f32. */
bool f32_all_finite(const void *values, int64_t n);
bool tensor_all_finite(const struct tensor *tensor);

/* dst[i] = (float)src[first + i] for a dtype_is_float type, i < count. */
void tensor_read_f32(float *dst, const struct tensor *src, int64_t first, int64_t count);

#endif

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
  /* Listed and kept; of these only the first two have values that anybody reads. */
  DT_F8_E4M3,
  DT_F8_E5M2,
  DT_F8_E8M0,
  DT_F8_E4M3FNUZ,
  DT_F8_E5M2FNUZ,
  DT_F6_E2M3,
  DT_F6_E3M2,
  DT_F4,
  DT_U16,
  DT_U32,
  DT_U64,
  DT_C64,
  /* Types of PyTorch that safetensors files cannot have. */
  DT_C32,
  DT_C128,
  DT_QI8,
  DT_QU8,
  DT_QI32,
  DT_QU4,
  DT_QU2,
  DT_F4X2,
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

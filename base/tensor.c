/* Element types: names, sizes, and conversion to and from f32. */
#include "base/tensor.h"

#include <string.h>

static const struct {
  const char *name;
  uint8_t bits;
  bool is_float;
  const char *torch, *storage;
} dtypes[DT_COUNT] = {
#define X(name, bits, is_float, torch, storage) {#name, bits, is_float, torch, storage},
#include "base/dtypes.def"
#undef X
};

size_t dtype_bits(enum dtype dtype) { return dtypes[dtype].bits; }

size_t dtype_size(enum dtype dtype) { return (dtype_bits(dtype) + 7) / 8; }

size_t tensor_bytes(const struct tensor *tensor) {
  const size_t n = (size_t)tensor->elements, bits = dtype_bits(tensor->dtype);
  return n / 8 * bits + (n % 8 * bits + 7) / 8;
}

const char *dtype_name(enum dtype dtype) { return dtypes[dtype].name; }

bool dtype_is_float(enum dtype dtype) { return dtypes[dtype].is_float; }

const char *dtype_torch_name(enum dtype dtype) { return dtypes[dtype].torch; }

const char *dtype_torch_storage(enum dtype dtype) { return dtypes[dtype].storage; }

bool dtype_is_portable(enum dtype dtype) { return dtype < DT_C32; }

enum dtype dtype_parse(const char *name, size_t length) {
  int dtype = 0;
  while (dtype < DT_COUNT &&
         (strlen(dtypes[dtype].name) != length || memcmp(dtypes[dtype].name, name, length) != 0))
    dtype++;
  return (enum dtype)dtype;
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

float f32_from_f16(uint16_t bits) {
  uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
  uint32_t exponent = bits & 0x7c00, magnitude = (uint32_t)(bits & 0x7fff) << 13;
  if (exponent == 0x7c00) /* infinity, NaN */
    magnitude += 0x70000000;
  else if (exponent == 0) /* subnormal: 2^-14 (1 + m) - 2^-14 */
    magnitude = bits_of(float_of(magnitude + 0x38800000) - 0x1p-14f);
  else
    magnitude += 0x38000000;
  return float_of(sign | magnitude);
}

float f32_from_bf16(uint16_t bits) { return float_of((uint32_t)bits << 16); }

/* Both are the upper bits of an f16 number, whose exponent counts from 15; E4M3's from 7. */
float f32_from_e4m3(uint8_t bits) {
  const bool nan = (bits & 0x7f) == 0x7f;
  return f32_from_f16((uint16_t)((bits & 0x80) << 8 | (nan ? 0x7e00 : (bits & 0x7f) << 7))) *
         0x1p8f;
}

float f32_from_e5m2(uint8_t bits) { return f32_from_f16((uint16_t)(bits << 8)); }

uint16_t f16_from_f32(float value) {
  uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) /* NaN: quiet, upper payload kept */
    half = 0x7e00 | (magnitude >> 13 & 0x1ff);
  else if (magnitude >= 0x477ff000) /* 65520 and above round to infinity */
    half = 0x7c00;
  else if (magnitude < 0x38800000) /* subnormal: the last place of 0.5 is 2^-24 */
    half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000;
  else
    half = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  return (uint16_t)(sign | half);
}

uint16_t bf16_from_f32(float value) {
  uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* From bytes at any address. */
#define READ(name, type, convert)                                                                  \
  static void name(float *dst, const uint8_t *src, int64_t count) {                                \
    for (int64_t i = 0; i < count; i++) {                                                          \
      type value;                                                                                  \
      memcpy(&value, src + (int64_t)sizeof value * i, sizeof value);                               \
      dst[i] = convert(value);                                                                     \
    }                                                                                              \
  }
READ(read_f16, uint16_t, f32_from_f16)
READ(read_bf16, uint16_t, f32_from_bf16)
READ(read_f64, double, (float))

void tensor_read_f32(float *dst, const struct tensor *src, int64_t first, int64_t count) {
  const uint8_t *from = (const uint8_t *)src->data + (size_t)first * dtype_size(src->dtype);
  switch (src->dtype) {
  case DT_F32:
    if (count > 0) memcpy(dst, from, (size_t)count * sizeof *dst);
    break;
  case DT_F16:
    read_f16(dst, from, count);
    break;
  case DT_BF16:
    read_bf16(dst, from, count);
    break;
  case DT_F64:
    read_f64(dst, from, count);
    break;
  case DT_F8_E4M3:
    for (int64_t i = 0; i < count; i++) dst[i] = f32_from_e4m3(from[i]);
    break;
  case DT_F8_E5M2:
    for (int64_t i = 0; i < count; i++) dst[i] = f32_from_e5m2(from[i]);
    break;
  default:
    break;
  }
}

/* Values are checked in blocks of constant size, which become vectors; an exponent of ones alone
 * carries into the sign bit. */
enum { BLOCK = 1024 };

static bool halves_finite(const uint8_t *from, int64_t n, uint16_t exponent) {
  const uint16_t lowest = (uint16_t)(exponent & -exponent);
  for (int64_t at = 0; at < n; at += BLOCK) {
    uint16_t bits[BLOCK] = {0}, seen = 0;
    memcpy(bits, from + 2 * at, (size_t)(n - at < BLOCK ? n - at : BLOCK) * sizeof *bits);
    for (int i = 0; i < BLOCK; i++) seen |= (uint16_t)((bits[i] & exponent) + lowest);
    if (seen >> 15) return false;
  }
  return true;
}

bool f32_all_finite(const void *values, int64_t n) {
  const uint8_t *from = values;
  for (int64_t at = 0; at < n; at += BLOCK) {
    uint32_t bits[BLOCK] = {0}, seen = 0;
    memcpy(bits, from + 4 * at, (size_t)(n - at < BLOCK ? n - at : BLOCK) * sizeof *bits);
    for (int i = 0; i < BLOCK; i++) seen |= (bits[i] & 0x7f800000) + 0x800000;
    if (seen >> 31) return false;
  }
  return true;
}

bool tensor_all_finite(const struct tensor *tensor) {
  float values[BLOCK];
  if (tensor->dtype == DT_F32) return f32_all_finite(tensor->data, tensor->elements);
  if (tensor->dtype == DT_F16) return halves_finite(tensor->data, tensor->elements, 0x7c00);
  if (tensor->dtype == DT_BF16) return halves_finite(tensor->data, tensor->elements, 0x7f80);
  for (int64_t at = 0; at < tensor->elements; at += BLOCK) {
    int64_t count = tensor->elements - at < BLOCK ? tensor->elements - at : BLOCK;
    tensor_read_f32(values, tensor, at, count);
    if (!f32_all_finite(values, count)) return false;
  }
  return true;
}

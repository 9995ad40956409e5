/* Weights on their way into panels: rows are converted, then many of them transposed. */
#include "backend/cpu/formats.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/transpose.h"
#include "base/tensor.h"

/* Exponents of ones alone carry into the sign bit. */
VEC_INLINE vec_bits infinite(vec v) { return ((vec_bits)v & 0x7f800000) + 0x800000; }
VEC_INLINE vec_bits infinite_halves(vec_bits pairs) { return (pairs & 0x7f807f80) + 0x800080; }

VEC_INLINE uint32_t any(vec_bits v) {
  uint32_t bits = 0;
  for (int i = 0; i < VEC_LANES; i++) bits |= v[i];
  return bits;
}

/* One row; what is left over of it goes through a vector of its own. */
#define READ(name, load, size, narrow)                                                             \
  static bool name(void *y, const void *x, int n) {                                                \
    const uint8_t *from = x;                                                                       \
    uint8_t last[(size)*VEC_LANES] = {0};                                                          \
    vec_bits seen = {0};                                                                           \
    int i = 0;                                                                                     \
    for (; i + VEC_LANES <= n; i += VEC_LANES) {                                                   \
      vec v = load(from + (int64_t)i * (size));                                                    \
      seen |= infinite(v);                                                                         \
      vec_put(y, narrow, i, v, VEC_LANES);                                                         \
    }                                                                                              \
    memcpy(last, from + (int64_t)i * (size), (size_t)((n - i) * (size)));                          \
    vec v = load(last);                                                                            \
    if (i < n) vec_put(y, narrow, i, v, n - i);                                                    \
    return !(any(seen | infinite(v)) >> 31);                                                       \
  }
READ(f32_of_f32, load_f32, 4, false)
READ(f32_of_f16, load_f16, 2, false)
READ(f32_of_bf16, load_bf16, 2, false)
READ(f32_of_f64, load_f64, 8, false)
READ(bf16_of_f32, load_f32, 4, true)
READ(bf16_of_f16, load_f16, 2, true)
READ(bf16_of_f64, load_f64, 8, true)

static bool bf16_of_bf16(void *y, const void *x, int n) {
  enum { HALVES = 2 * VEC_LANES };
  const uint16_t *from = x;
  uint16_t *to = y;
  vec_bits seen = {0}, pairs = {0};
  int i = 0;
  for (; i + HALVES <= n; i += HALVES) {
    memcpy(&pairs, from + i, sizeof pairs);
    memcpy(to + i, &pairs, sizeof pairs);
    seen |= infinite_halves(pairs);
  }
  pairs = (vec_bits){0};
  memcpy(&pairs, from + i, (size_t)(n - i) * sizeof *from);
  memcpy(to + i, &pairs, (size_t)(n - i) * sizeof *to);
  seen |= infinite_halves(pairs);
  return !(any(seen) & 0x80008000);
}

VEC_INLINE struct square square_at(const uint32_t *words, int stride) {
  struct square s;
  VEC_UNROLL for (int i = 0; i < VEC_LANES; i++) {
    memcpy(&s.row[i], words + (int64_t)i * stride, sizeof s.row[i]);
  }
  return s;
}

VEC_INLINE void put_square(uint32_t *panel, struct square s, int rows) {
  VEC_UNROLL for (int i = 0; i < rows; i++) {
    memcpy(panel + i * 2 * VEC_LANES, &s.row[i], sizeof s.row[i]);
  }
}

static void transpose(uint32_t *panel, const uint32_t *words, int stride, int count) {
  const int columns = 2 * VEC_LANES;
  for (int w = 0; w < count; w += VEC_LANES)
    for (int j = 0; j < columns; j += VEC_LANES) {
      struct square s = square_at(words + (int64_t)j * stride + w, stride);
      int left = count - w < VEC_LANES ? count - w : VEC_LANES;
      uint32_t *to = panel + (int64_t)w * columns + j;
      if (left == VEC_LANES)
        put_square(to, transposed(s), VEC_LANES);
      else
        put_square(to, transposed(s), left);
    }
}

VEC_INLINE void store_f16(uint16_t *p, vec v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < VEC_LANES; i++) p[i] = f16_from_f32(v[i]);
#endif
}

#define STORAGE(format)                                                                            \
  static void narrow_##format(void *y, const float *x, int n) {                                    \
    for (int i = 0; i < n; i += VEC_LANES) store_##format((uint16_t *)y + i, vec_load(x + i));     \
  }
#define store_bf16 vec_store_bf16
STORAGE(f16)
STORAGE(bf16)

const struct pack_kernels CPU_TIERED(pack_kernels) = {
    .read = {{f32_of_f32, f32_of_f16, f32_of_bf16, f32_of_f64},
             {bf16_of_f32, bf16_of_f16, bf16_of_bf16, bf16_of_f64}},
    .transpose = transpose,
    .narrow = {[DT_F16] = narrow_f16, [DT_BF16] = narrow_bf16},
};

/* Attention with a running maximum (Milakov & Gimelshein 2018; Dao et al. 2022). Queries lie along
 * the vectors, so that maxima and sums over keys are plain vector operations:
 *
 *   s [keys, queries] = k q^T      s = e^(s - max)      o [d, queries] = o e^(old max - max) + v^T
 * s
 */
#include "backend/cpu/kernels.h"
#include "backend/cpu/tile.h"

#define CASE_TRANSPOSED(n)                                                                         \
  case n:                                                                                          \
    product(c, a, 1, stride, panel, k, n, true);                                                   \
    break;

static void tile_transposed(float *c, const float *a, int stride, const float *panel, int m,
                            int k) {
  switch (m) { TILE_FOR_ROWS(CASE_TRANSPOSED) }
}

static void pack(float *panel, const float *q, int64_t stride, int count, int d, float scale) {
  for (int i = 0; i < d; i++, panel += COLUMNS)
    for (int j = 0; j < COLUMNS; j++) panel[j] = j < count ? q[j * stride + i] * scale : 0;
}

/* softmax for one vector of queries. */
VEC_INLINE void softmax_vector(float *s, float *max, float *sum, float *o, int keys, int d) {
  vec largest = vec_load(max), total = vec_set1(0);
  for (int i = 0; i < keys; i++) largest = vec_max(largest, vec_load(s + i * COLUMNS));
  for (int i = 0; i < keys; i++) {
    vec e = vec_exp(vec_load(s + i * COLUMNS) - largest);
    vec_store(s + i * COLUMNS, e);
    total = total + e;
  }
  vec correction = vec_exp(vec_load(max) - largest);
  vec_store(sum, vec_fma(vec_load(sum), correction, total));
  vec_store(max, largest);
  for (int i = 0; i < d; i++) vec_store(o + i * COLUMNS, vec_load(o + i * COLUMNS) * correction);
}

static void softmax(float *s, float *max, float *sum, float *o, int keys, int d) {
  softmax_vector(s, max, sum, o, keys, d);
  softmax_vector(s + VEC_LANES, max + VEC_LANES, sum + VEC_LANES, o + VEC_LANES, keys, d);
}

VEC_INLINE void unpack(void *y, bool narrow, int64_t stride, const float *o, const float *sum,
                       int count, int d) {
  for (int i = 0; i < d; i++, o += COLUMNS) {
    float wide[COLUMNS];
    uint16_t half[COLUMNS];
    vec_put(narrow ? (void *)half : wide, narrow, 0, vec_load(o) / vec_load(sum), VEC_LANES);
    vec_put(narrow ? (void *)half : wide, narrow, VEC_LANES,
            vec_load(o + VEC_LANES) / vec_load(sum + VEC_LANES), VEC_LANES);
    for (int j = 0; j < count; j++)
      if (narrow)
        ((uint16_t *)y)[j * stride + i] = half[j];
      else
        ((float *)y)[j * stride + i] = wide[j];
  }
}

static void unpack_f32(void *y, int64_t stride, const float *o, const float *sum, int count,
                       int d) {
  unpack(y, false, stride, o, sum, count, d);
}

static void unpack_bf16(void *y, int64_t stride, const float *o, const float *sum, int count,
                        int d) {
  unpack(y, true, stride, o, sum, count, d);
}

const struct attention_kernels CPU_TIERED(attention_kernels) = {
    .rows = VEC_TILE_ROWS,
    .columns = COLUMNS,
    .tile_transposed = tile_transposed,
    .pack = pack,
    .softmax = softmax,
    .unpack = {unpack_f32, unpack_bf16},
};

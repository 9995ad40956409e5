/* Attention with a running maximum (Milakov & Gimelshein 2018; Dao et al. 2022). Queries lie along
 * the vectors, so that maxima and sums over keys are plain vector operations:
 *
 *   s [keys, queries] = k q^T      s = e^(s - max)      o [d, queries] = o e^(old max - max) + v^T
 * s
 */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"

enum { COLUMNS = 2 * VEC_LANES };

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

static void unpack(float *y, int64_t stride, float *o, const float *sum, int count, int d) {
  for (int i = 0; i < d; i++, o += COLUMNS) {
    vec_store(o, vec_load(o) / vec_load(sum));
    vec_store(o + VEC_LANES, vec_load(o + VEC_LANES) / vec_load(sum + VEC_LANES));
    for (int j = 0; j < count; j++) y[j * stride + i] = o[j];
  }
}

const struct attention_kernels CPU_TIERED(attention_kernels) = {pack, softmax, unpack};

/* The transformations of Winograd's convolutions F(2 x 2, 3 x 3), see winograd.c: with
 *
 *         | 1  0 -1  0 |          | 1  1  1  0 |
 *   B^T = | 0  1  1  0 |    A^T = | 0  1 -1 -1 |
 *         | 0 -1  1  0 |
 *         | 0  1  0 -1 |
 *
 * along the rows and the columns of a tile, channel by channel. Included by the files that make a
 * struct gemm_kernels. */
#ifndef BACKEND_CPU_WINOGRAD_TILE_H
#define BACKEND_CPU_WINOGRAD_TILE_H

#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"

/* B^T of four values, `step` apart. */
VEC_INLINE void winograd_forward(vec *v, int step) {
  const vec v0 = v[0], v1 = v[step], v2 = v[2 * step], v3 = v[3 * step];
  v[0] = v0 - v2;
  v[step] = v1 + v2;
  v[2 * step] = v2 - v1;
  v[3 * step] = v1 - v3;
}

/* A^T of four values, to the first two. */
VEC_INLINE void winograd_inverse(vec *v, int step) {
  const vec v0 = v[0], v1 = v[step], v2 = v[2 * step], v3 = v[3 * step];
  v[0] = v0 + v1 + v2;
  v[step] = v1 - v2 - v3;
}

/* n channels from c on, to the elements from `at` on. */
VEC_INLINE void winograd_load_at(char *strip, bool narrow_strip, int64_t apart, int at,
                                 const void *const x[WINOGRAD_PLACES], bool narrow, int c, int n) {
  vec tile[WINOGRAD_PLACES];
  VEC_UNROLL for (int i = 0; i < WINOGRAD_PLACES; i++) tile[i] = vec_get(x[i], narrow, c, n);
  VEC_UNROLL for (int i = 0; i < WINOGRAD_SIDE; i++) winograd_forward(tile + i, WINOGRAD_SIDE);
  VEC_UNROLL for (int i = 0; i < WINOGRAD_SIDE; i++) winograd_forward(tile + i * WINOGRAD_SIDE, 1);
  VEC_UNROLL for (int i = 0; i < WINOGRAD_PLACES; i++) {
    vec_put(strip + i * apart, narrow_strip, at, tile[i], n);
  }
}

VEC_INLINE void winograd_load(void *strip, bool narrow_strip, int64_t apart,
                              const void *const x[WINOGRAD_PLACES], bool narrow, int first,
                              int count) {
  int i = 0;
  for (; i + VEC_LANES <= count; i += VEC_LANES)
    winograd_load_at(strip, narrow_strip, apart, i, x, narrow, first + i, VEC_LANES);
  if (i < count) winograd_load_at(strip, narrow_strip, apart, i, x, narrow, first + i, count - i);
}

/* n outputs from c on. */
VEC_INLINE void winograd_finish_at(void *const y[WINOGRAD_OUTPUTS], bool narrow, bool relu,
                                   const float *sums, int64_t apart, const float *bias, int c,
                                   int n) {
  const vec b = vec_load(bias + c);
  vec tile[WINOGRAD_PLACES];
  VEC_UNROLL for (int i = 0; i < WINOGRAD_PLACES; i++) tile[i] = vec_load(sums + i * apart + c);
  VEC_UNROLL for (int i = 0; i < WINOGRAD_SIDE; i++) winograd_inverse(tile + i, WINOGRAD_SIDE);
  VEC_UNROLL for (int i = 0; i < 2; i++) winograd_inverse(tile + i * WINOGRAD_SIDE, 1);
  VEC_UNROLL for (int i = 0; i < WINOGRAD_OUTPUTS; i++) {
    const vec v = tile[i / 2 * WINOGRAD_SIDE + i % 2] + b;
    if (y[i]) vec_put(y[i], narrow, c, relu ? vec_relu(v) : v, n);
  }
}

VEC_INLINE void winograd_finish(void *const y[WINOGRAD_OUTPUTS], bool narrow, bool relu,
                                const float *sums, int64_t apart, const float *bias, int count) {
  int c = 0;
  for (; c + VEC_LANES <= count; c += VEC_LANES)
    winograd_finish_at(y, narrow, relu, sums, apart, bias, c, VEC_LANES);
  if (c < count) winograd_finish_at(y, narrow, relu, sums, apart, bias, c, count - c);
}

#define WINOGRAD_LOAD(name, narrow_strip, narrow)                                                  \
  static void name(void *strip, int64_t apart, const void *const x[WINOGRAD_PLACES], int first,    \
                   int count) {                                                                    \
    winograd_load(strip, narrow_strip, apart, x, narrow, first, count);                            \
  }

#define WINOGRAD_FINISH(name, narrow, relu)                                                        \
  static void name(void *const y[WINOGRAD_OUTPUTS], const float *sums, int64_t apart,              \
                   const float *bias, int count) {                                                 \
    winograd_finish(y, narrow, relu, sums, apart, bias, count);                                    \
  }

#endif

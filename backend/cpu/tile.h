/* A tile of a product in f32, in registers.
 *
 *            columns = 2 VEC_LANES
 *          +---------+   one row of the panel, two vectors, per input k;
 *          |  panel  |   every row of the tile: broadcast a, two fma
 *          +---------+
 *   +----+ +---------+
 *   | a  | | c       |   rows x 2 accumulators stay in registers
 *   +----+ +---------+
 *
 * Element (i, j) is the chain fma(a[i][k], b[k][j], .) over ascending k, whatever the tile. */
#ifndef BACKEND_CPU_TILE_H
#define BACKEND_CPU_TILE_H

#include "backend/cpu/vec.h"

enum { COLUMNS = 2 * VEC_LANES };

struct accumulators {
  vec row[VEC_TILE_ROWS][2];
};

/* Adds a times b0, b1 to a row. */
VEC_INLINE void add_to_row(vec row[2], float a, vec b0, vec b1) {
  vec broadcast = vec_set1(a);
  row[0] = vec_fma(broadcast, b0, row[0]);
  row[1] = vec_fma(broadcast, b1, row[1]);
}

/* Adds one input: a[i * row_step] times b0, b1. */
VEC_INLINE void add_input(struct accumulators *acc, const float *a, int64_t row_step, vec b0,
                          vec b1, int rows) {
  VEC_UNROLL for (int i = 0; i < rows; i++) add_to_row(acc->row[i], a[i * row_step], b0, b1);
}

VEC_INLINE void clear(struct accumulators *acc, int rows) {
  VEC_UNROLL for (int i = 0; i < rows; i++) acc->row[i][0] = acc->row[i][1] = vec_set1(0);
}

VEC_INLINE void put(float *c, vec v, bool add) {
  if (add) v = vec_load(c) + v;
  vec_store(c, v);
}

VEC_INLINE void put_tile(float *c, const struct accumulators *acc, int rows, bool add) {
  VEC_UNROLL for (int i = 0; i < rows; i++, c += COLUMNS) {
    put(c, acc->row[i][0], add);
    put(c + VEC_LANES, acc->row[i][1], add);
  }
}

VEC_INLINE void product(float *c, const float *a, int64_t row_step, int64_t k_step,
                        const float *panel, int k, int rows, bool add) {
  struct accumulators acc;
  clear(&acc, rows);
  for (int p = 0; p < k; p++, panel += COLUMNS, a += k_step)
    add_input(&acc, a, row_step, vec_load(panel), vec_load(panel + VEC_LANES), rows);
  put_tile(c, &acc, rows, add);
}

/* clang-format off */
#if defined(__AVX512F__)
#define TILE_FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif defined(__AVX2__)
#define TILE_FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else
#define TILE_FOR_ROWS(X) X(1) X(2) X(3) X(4)
#endif
/* clang-format on */

#endif

/* Squares of words in registers, as many rows as a vector has lanes. */
#ifndef BACKEND_CPU_TRANSPOSE_H
#define BACKEND_CPU_TRANSPOSE_H

#include "backend/cpu/vec.h"

/* Transposition by perfect shuffles: row i interleaved with row i + LANES / 2 gives rows 2 i and
 * 2 i + 1, which turns the bits of (row, column) by one. */

#if defined(__AVX512F__)
enum { ROUNDS = 4 };
#define LOW(a, b)                                                                                  \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b)                                                                                 \
  __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX2__)
enum { ROUNDS = 3 };
#define LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
enum { ROUNDS = 2 };
#define LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

struct square {
  vec_bits row[VEC_LANES];
};

VEC_INLINE struct square transposed(struct square s) {
  VEC_UNROLL for (int round = 0; round < ROUNDS; round++) {
    struct square next;
    VEC_UNROLL for (int i = 0; i < VEC_LANES / 2; i++) {
      next.row[2 * i] = LOW(s.row[i], s.row[i + VEC_LANES / 2]);
      next.row[2 * i + 1] = HIGH(s.row[i], s.row[i + VEC_LANES / 2]);
    }
    s = next;
  }
  return s;
}

#endif

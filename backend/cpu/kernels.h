/* The kernels of one instruction tier: inner loops over contiguous floats, without threads or
 * memory of their own. Each kernels_*.c is compiled once per tier and exports one of these tables;
 * the files beside it cut the operations into calls of them.
 *
 * A row's result depends on that row and on sizes alone: the tail of a row goes through the same
 * arithmetic as full vectors, and a tile of fewer rows adds in the same order as a full one. */
#ifndef BACKEND_CPU_KERNELS_H
#define BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

enum {
  CPU_TILE_ROWS_MAX = 12, /* rows and columns of a tile in the widest tier */
  CPU_TILE_COLUMNS_MAX = 32,
  CPU_DEPTH_BLOCK = 256,  /* terms of a sum that one tile adds up at a time */
  CPU_STRIP_STRIDE = 272, /* floats between rows of a strip: no power of two, so that its rows fall
                             into different cache sets */
  CPU_COLUMN_BLOCK = 384, /* columns of one task; its block of weights, 384 KiB, stays in the
                             second-level cache */
  CPU_ROW_BLOCK = 96,     /* rows of one task, a multiple of every tier's tile */
  CPU_KEY_BLOCK = 64,     /* keys of attention taken at a time */
  CPU_HEAD_MAX = 512,     /* largest head width of the attention kernels */
};

enum cpu_finish { FINISH_PLAIN, FINISH_GELU, FINISH_SWIGLU, FINISH_COUNT };

/* Products. A tile is `rows` times `columns` = 2 VEC_LANES, stored contiguously; a panel holds k
 * rows of `columns` weights. tile[m] and tile_transposed[m] work on m rows, 1 <= m <= rows. */
struct gemm_kernels {
  int rows, columns, lanes;
  /* c [m, columns] = a panel, or c += a panel, with row i of a [m, k] at a + i * CPU_STRIP_STRIDE.
   */
  void (*tile[CPU_TILE_ROWS_MAX + 1])(float *c, const float *a, const float *panel, int k,
                                      bool add);
  /* c [m, columns] += a^T panel, a [k, m] with `stride` between its rows. */
  void (*tile_transposed[CPU_TILE_ROWS_MAX + 1])(float *c, const float *a, int stride,
                                                 const float *panel, int k);
  /* One row of a task from its tiles: value j of panel p is at c[p * panel_stride + j] and its bias
   * at bias[p * columns + j]. PLAIN y = c + bias, GELU y = gelu(c + bias); SWIGLU: the first half
   * of a panel is gate, the second up, y = silu(gate) up has half as many columns. */
  void (*finish[FINISH_COUNT])(float *y, const float *c, int64_t panel_stride, const float *bias,
                               int count);
};

/* Attention over panels of `columns` queries, keys in rows, as in gemm_kernels. */
struct attention_kernels {
  /* panel [d, columns] = scale q^T for `count` queries, the others 0. */
  void (*pack)(float *panel, const float *q, int64_t stride, int count, int d, float scale);
  /* One block of keys: logits s [keys, columns] become e^(s - max); max, sum [columns] and the
   * output so far, o [d, columns], are brought up to date. */
  void (*softmax)(float *s, float *max, float *sum, float *o, int keys, int d);
  /* y, `count` rows of d values, = (o / sum)^T; o is overwritten. */
  void (*unpack)(float *y, int64_t stride, float *o, const float *sum, int count, int d);
};

/* Rows of n floats. y may be x. */
struct row_kernels {
  void (*silu)(float *y, const float *x, int64_t n);
  void (*gelu)(float *y, const float *x, int64_t n);
  void (*sigmoid)(float *y, const float *x, int64_t n);
  void (*relu)(float *y, const float *x, int64_t n);
  void (*add)(float *y, const float *a, const float *b, int64_t n);
  void (*scale)(float *y, const float *x, float factor, int64_t n);
  void (*multiply_add)(float *x, const float *gate, const float *y, int64_t n); /* x += gate y */
  /* LayerNorm(x) (1 + scale) + shift */
  void (*norm_modulate)(float *y, const float *x, const float *shift, const float *scale, int64_t n,
                        float eps);
  /* LayerNorm(x) weight + bias */
  void (*norm_affine)(float *y, const float *x, const float *weight, const float *bias, int64_t n,
                      float eps);
  void (*normalize)(float *y, const float *x, int64_t n); /* x / max(|x|, 1e-12) */
  void (*softmax)(float *y, const float *x, int64_t n);
  void (*round_f16)(float *x, int64_t n);
  /* sum [n] += x - center, squares [n] += (x - center)^2, over `rows` rows `stride` apart. */
  void (*moments)(double *sum, double *squares, const float *x, const float *center, int64_t rows,
                  int64_t stride, int n);
  /* y = (x - center) scale + bias, then silu if asked */
  void (*affine)(float *y, const float *x, const float *center, const float *scale,
                 const float *bias, int n, bool silu);
};

struct cpu_kernels {
  const char *tier;
  const struct gemm_kernels *gemm;
  const struct attention_kernels *attention;
  const struct row_kernels *rows;
};

#define CPU_DECLARE_TIER(tier)                                                                     \
  extern const struct gemm_kernels gemm_kernels_##tier;                                            \
  extern const struct attention_kernels attention_kernels_##tier;                                  \
  extern const struct row_kernels row_kernels_##tier;
CPU_DECLARE_TIER(generic)
CPU_DECLARE_TIER(avx2)
CPU_DECLARE_TIER(avx512)

#endif

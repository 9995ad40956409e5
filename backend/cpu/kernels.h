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
  CPU_TILE_ROWS_MAX = 32, /* rows and columns of a tile in the widest tier */
  CPU_TILE_COLUMNS_MAX = 32,
  CPU_DEPTH_BLOCK = 256, /* inputs and floats between rows in strips of f32, see gemm_kernels */
  CPU_STRIP_STRIDE = 272,
  CPU_DEPTH_MAX = 768,   /* gemm_kernels' depth in the deepest tier */
  CPU_STRIDE_MAX = 1600, /* bytes between rows of a strip, and of all of it */
  CPU_STRIP_MAX = CPU_TILE_ROWS_MAX * CPU_STRIDE_MAX,
  CPU_COLUMN_BLOCK = 384, /* columns of one task; its block of weights, 384 KiB, stays in the
                             second-level cache */
  CPU_COLUMN_LEAST = 32,  /* columns of a task that is not cut further */
  CPU_ROW_BLOCK = 96,     /* rows of one task, a multiple of every tier's tile */
  CPU_KEY_BLOCK = 64,     /* keys of attention taken at a time */
  CPU_HEAD_MAX = 512,     /* largest head width of the attention kernels */
  CPU_SEGMENTS_MAX = 20,  /* of a struct cpu_segments */
  WINOGRAD_SIDE = 4,      /* see winograd.c: pixels that a tile sees along an axis, */
  WINOGRAD_PLACES = 16,   /* and in all, and its outputs */
  WINOGRAD_OUTPUTS = 4,
};

/* Rows of inputs as they are in memory: element i of row r is, for the segment that i is in, at
 * (x + away[r])[i - the elements of earlier segments], away in bytes and 0 for row 0. As one
 * address and distances, a tile's rows fit into the registers for addresses. */
struct cpu_segments {
  int count;
  struct cpu_segment {
    uintptr_t x;
    const uintptr_t *away; /* one of those below */
    int length;
  } at[CPU_SEGMENTS_MAX];
  uintptr_t away[CPU_SEGMENTS_MAX][CPU_TILE_ROWS_MAX];
};

enum cpu_finish {
  FINISH_PLAIN,
  FINISH_GELU,
  FINISH_SWIGLU,
  FINISH_RELU,
  FINISH_SILU,
  FINISH_COUNT
};

/* Compute types, as an index. */
enum cpu_type { CPU_F32, CPU_BF16, CPU_TYPES };

/* Products of one compute type.
 *
 * A tile is `rows` times `columns` = 2 lanes floats, stored contiguously. A strip holds the inputs
 * of up to `rows` rows, a panel those of `columns` columns in groups of `group` inputs:
 * panel[i / group][column][i % group]. Both are filled with zeros up to k inputs, a multiple of
 * `unit`. */
struct gemm_kernels {
  int rows, columns, lanes;
  int granule; /* strips of a multiple of so many rows are cheapest, but for the last */
  int depth;   /* at most so many inputs go through a tile at a time, a multiple of `unit` */
  int group;   /* 1, or 2 where a product takes pairs */
  int unit;    /* a multiple of `group` */
  int element; /* bytes of an input in a strip */
  int stride;  /* bytes between rows of a strip; no power of two, so that rows fall into different
                  cache sets */
  /* Before and after a thread's products, or NULL: state of the processor that they need. */
  void (*enter)(void);
  void (*leave)(void);
  /* n inputs of the compute type to elements of a strip. */
  void (*load)(void *strip, const void *x, int n);
  /* c [m, columns] = strip panel, or c += strip panel; 1 <= m <= rows. */
  void (*tile)(float *c, const void *strip, const void *panel, int m, int k, bool add);
  /* The same of a panel that is kept in the format F16 or BF16 of enum dtype; its values, widened
   * exactly, go to `panel`, for the tiles that follow, or NULL. */
  void (*tile_widen[3])(float *c, const void *strip, const void *kept, float *panel, int m, int k,
                        bool add);
  /* The same without a strip, to the same bits; segments are multiples of `group`, and all of k, of
   * `unit`. NULL: there is none. */
  void (*tile_segments)(float *c, const struct cpu_segments *x, const void *panel, int m, bool add);
  /* From a tile c [rows, columns] and the bias [columns] of its panel to rows of y, `stride` bytes
   * apart, of `count` values. PLAIN y = c + bias in f32; GELU and RELU y = f(c + bias) in the
   * compute type; SWIGLU: the first half of a panel is gate, the second up, y = silu(gate) up in
   * the compute type, at most `lanes` values. */
  void (*finish[FINISH_COUNT])(void *y, int64_t stride, const float *c, const float *bias, int rows,
                               int count);
  /* Of convolutions by winograd.c, or NULL: inputs first .. first + count - 1 of the pixels x that
   * a tile of it sees, transformed, to elements of strips that are `apart` bytes apart. */
  void (*winograd_load)(void *strip, int64_t apart, const void *const x[WINOGRAD_PLACES], int first,
                        int count);
  /* y = its outputs from sums that are `apart` floats apart, [0] in f32, [1] relu of them in the
   * compute type. y NULL: not needed. */
  void (*winograd_finish[2])(void *const y[WINOGRAD_OUTPUTS], const float *sums, int64_t apart,
                             const float *bias, int count);
};

/* One head of one image; rows of q, k and v are `stride` floats apart; those of o, ldo elements of
 * the compute type. */
struct cpu_head {
  const float *q, *k, *v;
  void *o;
  int64_t stride, ldo;
  int T, d;
};

struct attention_bf16_scratch;

/* Attention in f32 over panels of `columns` = 2 lanes queries, keys in rows, with the tiles of the
 * f32 products. */
struct attention_kernels {
  int rows, columns;
  /* c [m, columns] += a^T panel, a [k, m] with `stride` floats between its rows; m <= rows. */
  void (*tile_transposed)(float *c, const float *a, int stride, const float *panel, int m, int k);
  /* panel [d, columns] = scale q^T for `count` queries, the others 0. */
  void (*pack)(float *panel, const float *q, int64_t stride, int count, int d, float scale);
  /* One block of keys: logits s [keys, columns] become e^(s - max); max, sum [columns] and the
   * output so far, o [d, columns], are brought up to date. */
  void (*softmax)(float *s, float *max, float *sum, float *o, int keys, int d);
  /* y, `count` rows of d values of a compute type, = (o / sum)^T. */
  void (*unpack[CPU_TYPES])(void *y, int64_t stride, const float *o, const float *sum, int count,
                            int d);
};

/* count[0] times count[1] rows, as many elements apart as the strides say. */
struct cpu_block {
  const void *x;
  int64_t count[2], stride[2];
};

/* Rows of n floats. y may be x. */
struct row_kernels {
  void (*silu)(float *y, const float *x, int64_t n);
  void (*sigmoid)(float *y, const float *x, int64_t n);
  void (*relu)(float *y, const float *x, int64_t n);
  void (*add)(float *y, const float *a, const float *b, int64_t n);
  void (*scale)(float *y, const float *x, float factor, int64_t n);
  void (*scaled_add)(float *y, const float *x, float factor, int64_t n);        /* y += factor x */
  void (*multiply_add)(float *x, const float *gate, const float *y, int64_t n); /* x += gate y */
  void (*narrow)(void *y, const float *x, int64_t n);                           /* to bf16 */
  void (*widen)(float *y, const void *x, int64_t n);
  /* LayerNorm(x) (1 + scale) + shift, in a compute type */
  void (*norm_modulate[CPU_TYPES])(void *y, const float *x, const float *shift, const float *scale,
                                   int64_t n, float eps);
  void (*rms_modulate[CPU_TYPES])(void *y, const float *x, const float *weight, const float *shift,
                                  const float *scale, int64_t n, float eps);
  /* LayerNorm(x) weight + bias; RMSNorm without a bias */
  void (*norm_affine)(float *y, const float *x, const float *weight, const float *bias, int64_t n,
                      float eps);
  /* n pairs by their angles (struct rope): of halves, adjacent */
  void (*rotate[2])(float *x, const float *cosine, const float *sine, float direction, int64_t n);
  void (*normalize)(float *y, const float *x, int64_t n); /* x / max(|x|, 1e-12) */
  void (*softmax)(float *y, const float *x, int64_t n);
  void (*round_f16)(float *x, int64_t n);
  /* sum [n] += x - center, squares [n] += (x - center)^2, over `rows` rows `stride` apart. */
  void (*moments)(double *sum, double *squares, const float *x, const float *center, int64_t rows,
                  int64_t stride, int n);
  /* y [n] = the largest of the rows in a block of a compute type, in this type; NaN is the largest.
   * y = their mean. y, of a compute type, = relu of the mean of rows of f32. */
  void (*largest[CPU_TYPES])(void *y, const struct cpu_block *x, int64_t n);
  void (*mean[CPU_TYPES])(float *y, const struct cpu_block *x, int64_t n);
  void (*mean_relu[CPU_TYPES])(void *y, const struct cpu_block *x, int64_t n);
  /* y = (x - center) scale + bias, then silu if asked, in a compute type */
  void (*affine[CPU_TYPES])(void *y, const float *x, const float *center, const float *scale,
                            const float *bias, int n, bool silu);
};

/* Weights on their way into panels, see panels.c. */
struct pack_kernels {
  /* y = n values of x, of a compute type and of a source type: F32, F16, BF16, F64 as in enum
   * dtype. x needs no alignment. Returns whether all values of x are finite in f32. */
  bool (*read[CPU_TYPES][4])(void *y, const void *x, int n);
  /* panel [count][columns] = words^T, words [columns][stride] with stride >= count rounded up to
   * a multiple of `lanes`. A word is an input of f32 or a pair of bf16. */
  void (*transpose)(uint32_t *panel, const uint32_t *words, int stride, int count);
  /* y = n values of x, n a multiple of `lanes`, from f32 to the storage formats F16 and BF16 of
   * enum dtype, to nearest even. */
  void (*narrow[3])(void *y, const float *x, int n);
};

struct cpu_kernels {
  const char *tier;
  enum cpu_type best; /* the type it does best */
  const struct gemm_kernels *gemm[CPU_TYPES];
  const struct attention_kernels *attention;
  /* Attention in bf16 of queries first .. first + count - 1 of a head; NULL: it is done in f32. */
  void (*attention_bf16)(struct attention_bf16_scratch *s, const struct gemm_kernels *g,
                         const struct cpu_head *h, int first, int count);
  const struct row_kernels *rows;
  const struct pack_kernels *pack;
};

#define CPU_DECLARE_TIER(tier)                                                                     \
  extern const struct gemm_kernels gemm_f32_##tier, gemm_bf16_##tier;                              \
  extern const struct attention_kernels attention_kernels_##tier;                                  \
  extern const struct row_kernels row_kernels_##tier;                                              \
  extern const struct pack_kernels pack_kernels_##tier;
CPU_DECLARE_TIER(generic)
CPU_DECLARE_TIER(avx2)
CPU_DECLARE_TIER(avx512)
extern const struct gemm_kernels gemm_bf16_avx512bf16, gemm_bf16_amx;

void attention_bf16(struct attention_bf16_scratch *s, const struct gemm_kernels *g,
                    const struct cpu_head *h, int first, int count);

#endif

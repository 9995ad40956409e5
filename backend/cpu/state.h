/* Private to the CPU backend: its state, its operations, and the driver of matrix products. */
#ifndef BACKEND_CPU_STATE_H
#define BACKEND_CPU_STATE_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

enum {
  CPU_THREADS_MAX = 1024,
  CPU_PARALLEL_MIN = 1 << 14,      /* operations on fewer values stay in one thread, */
  CPU_PARALLEL_PRODUCTS = 1 << 19, /* and those of fewer multiplications             */
  CPU_QUERIES = 128,               /* queries of an attention task                   */
  CPU_QUERY_FLOATS = 1 << 14,      /* and their panels, fewer if heads are wide      */
  CPU_GROUPS_MAX = 64,             /* GroupNorm                                      */
  CPU_GROUP_PIECES = 256,          /* of an image, each with sums of its own         */
};

struct gemm_scratch {
  float strip[CPU_TILE_ROWS_MAX * CPU_STRIP_STRIDE];
  float tiles[CPU_ROW_BLOCK * CPU_COLUMN_BLOCK];
};

struct attention_scratch {
  float query[CPU_QUERY_FLOATS], output[CPU_QUERY_FLOATS];
  float key[CPU_HEAD_MAX / CPU_DEPTH_BLOCK][CPU_KEY_BLOCK * CPU_STRIP_STRIDE];
  float value[CPU_KEY_BLOCK * CPU_HEAD_MAX];
  float logits[CPU_KEY_BLOCK * CPU_TILE_COLUMNS_MAX];
  float max[CPU_QUERIES], sum[CPU_QUERIES];
};

/* Working memory of one thread. */
union cpu_scratch {
  _Alignas(64) struct gemm_scratch gemm;
  struct attention_scratch attention;
};

/* Of one group in one piece of an image. */
struct group_sum {
  double sum, squares;
};

struct cpu_state {
  const struct cpu_kernels *kernels;
  union cpu_scratch *scratch;   /* [threads] */
  struct group_sum *group_sums; /* [CPU_GROUP_PIECES, CPU_GROUPS_MAX] */
};

static inline struct cpu_state *cpu_state(const struct backend *be) { return be->state; }

/* The image that a convolution runs over, and the width of its output. */
struct window {
  const struct conv *conv;
  int height, width, columns;
};

/* y [rows, out] = finish(x [rows, in] W^T + b); ldx and ldy floats between rows. With a window, row
 * i of x is what output pixel i sees of image x, and ldx is not used. */
struct gemm {
  const struct linear *w;
  enum cpu_finish finish;
  const float *x;
  const struct window *window;
  float *y;
  int64_t ldx, ldy, rows;
};

/* Values begin .. begin + count - 1 of row `pixel`. */
void window_read(float *dst, const float *x, const struct window *v, int64_t pixel, int begin,
                 int count);

/* A list of independent products, made on demand: product i is at(source, i). */
struct gemm_list {
  int count;
  struct gemm (*at)(const void *source, int i);
  const void *source;
};

void gemm_run(struct backend *be, const struct gemm_list *list);

/* Before a loop whose iterations are independent and touch `values` floats in all. */
#define CPU_PRAGMA(text) _Pragma(#text)
#define CPU_PARALLEL_FOR(be, values)                                                               \
  CPU_PRAGMA(omp parallel for num_threads((be)->threads) if ((values) > CPU_PARALLEL_MIN))

/* The kernels of a tier, NULL: the best one of this machine. DITMOE_USAGE for an unknown name,
 * DITMOE_DEVICE if the machine lacks it. */
enum ditmoe_status isa_select(struct ditmoe_ctx *ctx, const char *tier,
                              const struct cpu_kernels **out);

/* The operations, cpu_<operation>, each with the signature of its slot in struct backend_ops. */
/* clang-format off */
#define CPU_OPS(X)                                                                                 \
  X(init) X(fini) X(linear_create) X(linear_destroy) X(conv_create) X(conv_destroy)                \
  X(linear) X(silu) X(gelu) X(sigmoid) X(add) X(add_rows) X(norm_modulate) X(gated_add) X(qk_norm) \
  X(qk_round_f16) X(attention) X(gather_rows) X(normalize_rows) X(softmax_rows)                    \
  X(dispatch_rows) X(experts_in) X(experts_out) X(combine_rows) X(unorder_rows)                    \
  X(conv2d) X(group_norm) X(group_moments) X(group_norm_given) X(relu) X(upsample2x)
/* clang-format on */

#define CPU_DECLARE(op) __typeof__(*((struct backend_ops *)0)->op) cpu_##op;
CPU_OPS(CPU_DECLARE)
#undef CPU_DECLARE

#endif

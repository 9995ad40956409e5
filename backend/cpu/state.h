/* Private to the CPU backend: its working memory, and its operations. */
#ifndef BACKEND_CPU_STATE_H
#define BACKEND_CPU_STATE_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

enum {
  CPU_THREADS_MAX = 1024,
  CPU_PARALLEL_MIN = 1 << 14,      /* operations on fewer values stay in one thread, */
  CPU_PARALLEL_PRODUCTS = 1 << 19, /* and those of fewer multiplications             */
  CPU_QUERIES = 256,               /* queries of an attention task                   */
  CPU_QUERY_VALUES = 1 << 14,      /* and their values, so fewer if heads are wide   */
  CPU_GROUPS_MAX = 64,             /* GroupNorm                                      */
  CPU_GROUP_PIECES = 256,          /* of an image, each with sums of its own         */
  WINOGRAD_INPUTS_MAX = 2048,      /* of a convolution by winograd.c,                */
  WINOGRAD_TILES = 96,             /* tiles of its tasks,                            */
  WINOGRAD_SCRATCH = 1792 << 10,   /* and bytes that their inputs take               */
};

struct gemm_scratch {
  _Alignas(64) char strip[CPU_STRIP_MAX];
  float tiles[CPU_ROW_BLOCK * CPU_COLUMN_BLOCK];
  _Alignas(64) float panels[CPU_COLUMN_BLOCK * CPU_DEPTH_BLOCK]; /* that were widened */
};

struct attention_scratch {
  float query[CPU_QUERY_VALUES], output[CPU_QUERY_VALUES];
  float key[CPU_HEAD_MAX / CPU_DEPTH_BLOCK][CPU_KEY_BLOCK * CPU_STRIP_STRIDE];
  float value[CPU_KEY_BLOCK * CPU_HEAD_MAX];
  float logits[CPU_KEY_BLOCK * CPU_TILE_COLUMNS_MAX];
  float max[CPU_QUERIES], sum[CPU_QUERIES];
};

/* Queries are padded to pairs, or to 32 values. */
struct attention_bf16_scratch {
  char key[CPU_KEY_BLOCK * CPU_STRIDE_MAX], value[CPU_HEAD_MAX * CPU_STRIDE_MAX];
  uint32_t query[CPU_QUERY_VALUES], panel[CPU_KEY_BLOCK / 2 * CPU_TILE_COLUMNS_MAX];
  float logits[CPU_KEY_BLOCK * CPU_TILE_COLUMNS_MAX], output[CPU_QUERY_VALUES];
  float max[CPU_QUERIES], sum[CPU_QUERIES];
};

/* Of winograd.c: inputs of tiles as strips, and sums of one panel. */
struct winograd_scratch {
  _Alignas(64) char values[WINOGRAD_SCRATCH];
  float sums[WINOGRAD_PLACES * WINOGRAD_TILES * CPU_TILE_COLUMNS_MAX];
};

/* Working memory of one thread. */
union thread_scratch {
  _Alignas(64) struct gemm_scratch gemm;
  struct attention_scratch attention;
  struct attention_bf16_scratch attention_bf16;
  struct winograd_scratch winograd;
};

/* Of one group in one piece of an image. */
struct group_sum {
  double sum, squares;
};

/* Working memory of an execution. */
struct cpu_scratch {
  union thread_scratch *thread; /* [threads] */
  struct group_sum *group_sums; /* [CPU_GROUP_PIECES, CPU_GROUPS_MAX] */
};

static inline const struct cpu_kernels *cpu_kernels(const struct exec *ex) {
  return ex->device->state;
}
static inline struct cpu_scratch *cpu_scratch(const struct exec *ex) { return ex->state; }

/* Types of activations as an index of kernels. */
static inline enum cpu_type cpu_type(enum dtype type) {
  return type == DT_BF16 ? CPU_BF16 : CPU_F32;
}

/* Element `at` of activations. */
static inline void *act_at(struct act x, int64_t at) { return act_from(x, at).data; }

/* Before a loop whose iterations are independent and touch `values` floats in all. */
#define CPU_PRAGMA(text) _Pragma(#text)
#define CPU_PARALLEL_FOR(ex, values)                                                               \
  CPU_PRAGMA(omp parallel for num_threads((ex)->device->threads) if ((values) > CPU_PARALLEL_MIN))

/* The kernels of a tier, NULL: the best one of this machine. DITMOE_USAGE for an unknown name,
 * DITMOE_DEVICE if the machine lacks it. */
enum ditmoe_status isa_select(struct ditmoe_ctx *ctx, const char *tier,
                              const struct cpu_kernels **out);

/* The operations, cpu_<operation>, each with the signature of its slot in struct backend_ops. */
/* clang-format off */
#define CPU_OPS(X)                                                                                 \
  X(best_dtype) X(init) X(exec_init) X(exec_fini) X(linear_create) X(linear_destroy)       \
  X(linear_update) X(conv_create) X(conv_destroy) X(narrow) X(widen) X(linear) X(hidden) X(silu)   \
  X(sigmoid) X(add) X(add_rows) X(norm_modulate) X(gated_add) X(qk_norm) X(qk_rotate)              \
  X(qk_round_f16) X(attention) X(gather_rows) X(normalize_rows) X(softmax_rows) X(experts_in)      \
  X(experts_out) X(combine_rows) X(conv2d) X(conv2d_relu) X(max_pool) X(avg_pool_relu)             \
  X(mean_pixels) X(group_norm) X(group_moments) X(group_norm_given) X(relu) X(upsample2x)
/* clang-format on */

extern const struct packed_ops cpu_packed;

#define CPU_DECLARE(op) __typeof__(*((struct backend_ops *)0)->op) cpu_##op;
CPU_OPS(CPU_DECLARE)
#undef CPU_DECLARE

#endif

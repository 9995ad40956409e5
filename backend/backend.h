/* The operations that models are made of. A model calls be_*; a backend fills `struct backend_ops`.
 *
 * Conventions. Destination first, sizes last. Arrays are row-major and contiguous unless a stride
 * is named, and live in be->arena. What feeds a product is a `struct act`, an opaque array in the
 * compute type be->dtype (f32 or bf16); all else, residual stream and scores included, is f32.
 * Products add up in f32. B images, T tokens of an image, D width, H heads, d = D
 * / H, E experts, K top-k, R dispatched rows, F hidden width of an expert, C channels.
 *
 * No operation reads a tensor value on the host on behalf of the model, so sizes never depend on
 * data: the true number of dispatched rows stays in dispatch->offset[E]. Every sum has one order
 * that depends on no thread count and on no other row: a row's result has the same bits in any
 * batch.
 *
 * Errors are sticky: an operation that fails sets be->status and all later ones do nothing; a
 * forward pass is a list of plain calls and asks be->status once. While the arena is measuring,
 * operations do nothing at all: running the same forward pass is how its memory is sized. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "backend/weights.h"
#include "base/memory.h"
#include "base/system.h"

struct backend;
struct act; /* activations of be->dtype, see be_acts */

/* Which expert works on which token, with what weight. Routers fill the assignments,
 * be_dispatch_order makes the rest: rows grouped by expert, and for every token its rows in the
 * order of addition. */
struct dispatch {
  int experts, tokens; /* E, all tokens of the call (B * T) */
  int64_t capacity;    /* assignments = upper bound of R    */
  int32_t *expert;     /* [capacity] -1: not used           */
  int32_t *source;     /* [capacity] token                  */
  float *gate;         /* [capacity] weight                 */
  int32_t *offset;     /* [E + 1] rows of expert e: offset[e] .. offset[e + 1] - 1 */
  int32_t *token;      /* [capacity] token of a row, ascending within an expert    */
  float *weight;       /* [capacity] weight of a row                               */
  int32_t *first;      /* [tokens + 1] rows of token t: row[first[t]] .. row[first[t + 1] - 1] */
  int32_t *row;        /* [capacity] by descending weight, ties by lower expert    */
};

struct backend_ops {
  const char *name;
  /* Compute type that this backend does best. */
  enum dtype (*best_dtype)(const struct backend *be);
  enum ditmoe_status (*init)(struct backend *be, const char *tier);
  void (*fini)(struct backend *be);
  /* Memory of the device. */
  enum ditmoe_status (*alloc)(struct backend *be, size_t bytes, const char *what, void **out);
  void (*release)(struct backend *be, void *memory);
  void (*upload)(struct backend *be, void *dst, const void *src, size_t bytes);
  void (*download)(struct backend *be, void *dst, const void *src, size_t bytes);

  enum ditmoe_status (*linear_create)(struct backend *be, const struct linear_source *source,
                                      struct linear **out);
  void (*linear_destroy)(struct backend *be, struct linear *linear);
  const struct packed_ops *packed; /* backend/packed.h, or NULL */
  enum ditmoe_status (*conv_create)(struct backend *be, const struct tensor *weight,
                                    const struct tensor *bias, const struct conv_window *window,
                                    struct conv **out);
  void (*conv_destroy)(struct backend *be, struct conv *conv);

  void (*narrow)(struct backend *be, struct act *y, const float *x, int64_t n);
  void (*widen)(struct backend *be, float *y, const struct act *x, int64_t n);
  void (*linear)(struct backend *be, float *y, const void *x, const struct linear *w, int64_t rows);
  void (*hidden)(struct backend *be, struct act *h, const struct act *x,
                 const struct expert *expert, int64_t rows);
  void (*silu)(struct backend *be, float *y, const float *x, int64_t n);
  void (*sigmoid)(struct backend *be, float *y, const float *x, int64_t n);
  void (*add)(struct backend *be, float *y, const float *a, const float *b, int64_t n);
  void (*add_rows)(struct backend *be, float *x, const float *row, int64_t rows, int64_t n);
  void (*norm_modulate)(struct backend *be, struct act *y, const float *x, const float *shift,
                        const float *scale, int64_t stride, int B, int T, int D, float eps);
  void (*norm_modulate_exact)(struct backend *be, float *y, const float *x, const float *shift,
                              const float *scale, int64_t stride, int B, int T, int D, float eps);
  void (*gated_add)(struct backend *be, float *x, const float *gate, int64_t stride, const float *y,
                    int B, int T, int D);
  void (*qk_norm)(struct backend *be, float *qkv, const float *q_weight, const float *q_bias,
                  const float *k_weight, const float *k_bias, int64_t rows, int H, int d,
                  float eps);
  void (*qk_round_f16)(struct backend *be, float *qkv, int64_t rows, int D);
  void (*attention)(struct backend *be, struct act *o, const float *qkv, int B, int T, int H,
                    int d);
  void (*patchify)(struct backend *be, float *rows, const float *x, int B, int C, int size,
                   int patch);
  void (*unpatchify)(struct backend *be, float *x, const float *rows, int B, int C, int size,
                     int patch);

  void (*gather_rows)(struct backend *be, float *dst, const float *src, const int32_t *index,
                      int64_t n, int D);
  void (*normalize_rows)(struct backend *be, float *y, const float *x, int64_t rows, int D);
  void (*softmax_rows)(struct backend *be, float *y, const float *x, int64_t rows, int n);
  void (*softmax_tokens)(struct backend *be, float *y, const float *x, int B, int T, int E);
  void (*assign)(struct backend *be, struct dispatch *d, int64_t at, int32_t first_token, int64_t n,
                 int32_t expert, float gate);
  void (*assign_topk)(struct backend *be, struct dispatch *d, int64_t at, const float *scores,
                      int32_t first_token, int64_t rows, int E, int K, int skip);
  void (*assign_tokens)(struct backend *be, struct dispatch *d, int64_t at, const float *scores,
                        int32_t first_token, int B, int T, int E, int K);
  void (*assign_counted)(struct backend *be, struct dispatch *d, int64_t at, const float *scores,
                         const float *capacity, const float *threshold, int32_t *work, int64_t S,
                         int E);
  void (*dispatch_order)(struct backend *be, struct dispatch *d);
  void (*experts_in)(struct backend *be, struct act *h, const struct act *x,
                     const struct dispatch *d, const struct expert *const *experts, int D, int F);
  void (*experts_out)(struct backend *be, float *rows, const struct act *h, const struct act *x,
                      const struct dispatch *d, const struct expert *const *experts, int D, int F);
  void (*combine_rows)(struct backend *be, float *y, const float *rows, const struct dispatch *d,
                       const float *add, int D);

  void (*conv2d)(struct backend *be, float *y, const struct act *x, const struct conv *w, int B,
                 int height, int width);
  void (*conv2d_relu)(struct backend *be, const struct conv_branch *branches, int count,
                      const struct act *x, int B, int height, int width);
  void (*max_pool)(struct backend *be, struct act *y, int64_t ldy, int64_t at, const struct act *x,
                   int B, int height, int width, int C, int stride, int pad);
  void (*avg_pool_relu)(struct backend *be, struct act *y, int64_t ldy, int64_t at, const float *x,
                        int B, int height, int width, int C);
  void (*mean_pixels)(struct backend *be, float *y, const struct act *x, int B, int64_t pixels,
                      int C);
  void (*take_channels)(struct backend *be, float *y, const struct act *x, int64_t pixels, int C,
                        int count);
  void (*group_norm)(struct backend *be, struct act *y, const float *x, const float *weight,
                     const float *bias, int B, int64_t pixels, int C, int groups, float eps,
                     bool silu);
  void (*group_moments)(struct backend *be, double *moments, const float *x, int width,
                        const int window[4], int C, int groups, int64_t pixels);
  void (*group_norm_given)(struct backend *be, struct act *y, const float *x, const double *moments,
                           const float *weight, const float *bias, int64_t pixels, int C,
                           int groups, float eps, bool silu);
  void (*relu)(struct backend *be, float *y, const float *x, int64_t n);
  void (*tanh_clamp)(struct backend *be, float *y, const float *x, float limit, int64_t n);
  void (*upsample2x)(struct backend *be, struct act *y, const float *x, int B, int height,
                     int width, int C);
  void (*channels_last)(struct backend *be, float *y, const float *x, int B, int C, int64_t pixels);
  void (*channels_first)(struct backend *be, float *y, const float *x, int B, int C,
                         int64_t pixels);

  /* Gradients, in f32; NULL: not implemented by this backend. Parameter gradients are accumulated,
   * input gradients (those of shift and scale too) are written; an output may be NULL. dw and db
   * have the layout of linear_source_read. */
  void (*linear_bwd)(struct backend *be, float *dx, float *dw, float *db, const float *dy,
                     const float *x, const struct linear *w, int64_t rows);
  void (*norm_modulate_bwd)(struct backend *be, float *dx, float *dshift, float *dscale,
                            const float *dy, const float *x, const float *scale, int64_t stride,
                            int B, int T, int D, float eps);
  void (*attention_bwd)(struct backend *be, float *dqkv, const float *d_o, const float *qkv, int B,
                        int T, int H, int d);
  void (*experts_bwd)(struct backend *be, float *drows, const struct expert_grad *grads,
                      const float *dy, const float *rows, const struct dispatch *d,
                      const struct expert *const *experts, int D);
};

/* Told of every operation that ran, and how long. */
struct backend_profile {
  void *user;
  void (*called)(void *user, const char *operation, double seconds);
};

/* One execution context: its arena, its error. Weights made by one may be used by another of the
 * same name, tier and device. */
struct backend {
  const struct backend_ops *ops;
  struct ditmoe_ctx *ctx;
  struct arena arena;
  enum ditmoe_status status;
  int threads;
  const char *tier;                      /* instruction tier in use */
  enum dtype dtype;                      /* compute type: DT_F32 or DT_BF16 */
  const struct backend_profile *profile; /* NULL: none */
  void *state;
};

/* name: "ref", "cpu", NULL for the best. tier: cap, NULL for the best of this machine;
 * DITMOE_DEVICE if the machine lacks it. threads: 0 for one per available processor. The compute
 * type is f32. */
enum ditmoe_status backend_init(struct backend *be, struct ditmoe_ctx *ctx, const char *name,
                                const char *tier, int threads);
/* Sets the compute type, before any weights are made: "f32", "bf16", or NULL for what this machine
 * does best. */
enum ditmoe_status backend_compute(struct backend *be, const char *dtype);
void backend_fini(struct backend *be);
/* Gives the arena `bytes` of device memory, or starts measuring. */
enum ditmoe_status backend_arena(struct backend *be, size_t bytes, bool keep);
void backend_measure(struct backend *be, bool keep);
/* Forgets an error after it was reported. */
void backend_clear(struct backend *be);
/* Name of backend `index`, 0 is the default; NULL ends the list. */
const char *backend_name(int index);

/* For backends: records the failure of an operation. */
void backend_fail(struct backend *be, enum ditmoe_status status);
/* For backends: [*out, *in] of one of the source's stacks, shape[0] by the product of the others;
 * DITMOE_MISMATCH names a tensor that does not fit. And its rows as f32: weight [total, in], total
 * = out or, paired, 2 out (gate, then up); bias [total], 0 where a part has none. */
enum ditmoe_status linear_source_shape(struct ditmoe_ctx *ctx, const struct linear_source *source,
                                       int *in, int *out);
void linear_source_read(const struct linear_source *source, float *weight, float *bias);
/* Checks a convolution's tensors and makes *out without data; bias may be NULL. */
enum ditmoe_status conv_source_shape(struct ditmoe_ctx *ctx, const struct tensor *weight,
                                     const struct tensor *bias, const struct conv_window *window,
                                     struct conv *out);

/* n elements of the arena; NULL (and DITMOE_FAILED) if it was sized too small. */
float *be_floats(struct backend *be, int64_t n);
struct act *be_acts(struct backend *be, int64_t n);
int32_t *be_ints(struct backend *be, int64_t n);
/* Takes the arrays of a plan from the arena. */
void be_dispatch_alloc(struct backend *be, struct dispatch *d, int experts, int tokens,
                       int64_t capacity);

/* x in the compute type: x itself where that is f32, else a copy in the arena. */
const struct act *be_narrowed(struct backend *be, const float *x, int64_t n);

#include "backend/calls.h"

#endif

/* The contract between models and backends. A model calls be_*; a backend fills `struct
 * backend_ops`.
 *
 * A `struct device` is what all executions share: the table, the tier, the memory that weights lie
 * in. Nothing of it changes after it was opened, so any number of threads may use it, and weights
 * too once they are made. A `struct exec` is one execution: its arena, error, stream and scratch
 * memory; one thread uses it at a time.
 *
 * Conventions. Destination first, sizes last. Arrays are row-major and contiguous unless a stride
 * is named; they live in device memory, which the host reaches by upload and download alone. What
 * feeds a product is a `struct act`, an array that knows its type; all else, residual stream and
 * scores included, is f32. Products add up in f32. B images, T tokens of an image, D width, H
 * heads, d = D / H, E experts, K top-k, R dispatched rows, F hidden width of an expert, C channels.
 *
 * No operation reads a tensor value on the host on behalf of the model, so the list of operations
 * and their sizes depend on shapes alone: the true number of dispatched rows stays in
 * dispatch->offset[E]. Every sum has one order that depends on no thread count and on no other row:
 * a row's result has the same bits in any batch.
 *
 * Errors are sticky: an operation that fails sets ex->status and all later ones do nothing; a
 * forward pass is a list of plain calls and asks ex->status once. While an execution is dry
 * (exec_dry), operations do nothing at all: running the same forward pass is how its memory is
 * sized. Layers that a dry execution makes have their sizes and no values. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "backend/experts.h"
#include "base/memory.h"
#include "base/system.h"

struct device;
struct exec;

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

/* The choice of DeepSeek-V3's gate (arXiv 2412.19437): by score + bias, from the best groups. */
struct biased_choice {
  const float *bias; /* [E], device memory */
  int groups,
      kept;     /* of consecutive experts, by the sum of their two best; those not kept count 0 */
  float factor; /* of the weights */
};

#define BE_UNPACK(...)             __VA_ARGS__
#define BE_OP(op, parameters, ...) void (*op)(struct exec * ex, BE_UNPACK parameters);

struct gradient_ops {
#include "backend/gradients.h"
};

struct backend_ops {
  const char *name;
  /* The type of weights and activations that this device does best; NULL: f32. */
  enum dtype (*best_dtype)(const struct device *device);
  /* Fill tier and state of a device and state of an execution; fini takes what init made, however
   * far it came. All but the first may be NULL. */
  enum ditmoe_status (*init)(struct device *device, struct ditmoe_ctx *ctx, const char *tier);
  void (*fini)(struct device *device, struct ditmoe_ctx *ctx);
  enum ditmoe_status (*exec_init)(struct exec *ex);
  void (*exec_fini)(struct exec *ex);
  /* Memory of the device; bytes of it that are free. */
  enum ditmoe_status (*alloc)(struct exec *ex, size_t bytes, const char *what, void **out);
  void (*release)(struct exec *ex, void *memory);
  uint64_t (*memory_available)(const struct device *device);
  /* Waits for all operations so far; NULL: they are done when they return. */
  void (*sync)(struct exec *ex);

  enum ditmoe_status (*linear_create)(struct exec *ex, const struct linear_source *source,
                                      struct linear **out);
  void (*linear_destroy)(struct exec *ex, struct linear *linear);
  const struct packed_ops *packed; /* backend/packed.h, or NULL */
  enum ditmoe_status (*conv_create)(struct exec *ex, const struct tensor *weight,
                                    const struct tensor *bias, const struct conv_window *window,
                                    struct conv **out);
  void (*conv_destroy)(struct exec *ex, struct conv *conv);

#include "backend/operations.h"

  struct gradient_ops bwd;
};
#undef BE_OP

/* Told of every operation that ran, and how long. */
struct backend_profile {
  void *user;
  void (*called)(void *user, const char *operation, double seconds);
};

struct device {
  const struct backend_ops *ops;
  int threads;       /* of the host that work for an execution */
  const char *tier;  /* instruction tier in use */
  const void *state; /* of the backend */
};

struct exec {
  const struct device *device;
  struct ditmoe_ctx *ctx;
  struct arena arena;
  enum ditmoe_status status;
  bool dry;           /* operations do nothing: a run for its memory, or for what no one needs */
  enum dtype compute; /* of the weights that it makes: DT_F32 or DT_BF16 */
  const struct backend_profile *profile; /* NULL: none */
  void *state;                           /* of the backend */
  struct device *own;                    /* the device, if it goes with this execution */
};

/* A device and a first execution on it, which takes the device along when it is closed: all others
 * must be closed by then. name: "ref", "cpu", NULL for the best. tier: cap, NULL for the best of
 * this machine; DITMOE_DEVICE if the machine lacks it. threads: 0 for one per available processor.
 * The compute type is f32. On failure there is nothing to close. */
enum ditmoe_status backend_open(struct exec *ex, struct ditmoe_ctx *ctx, const char *name,
                                const char *tier, int threads);
/* One more execution on a device. */
enum ditmoe_status exec_open(struct exec *ex, struct ditmoe_ctx *ctx, const struct device *device);
void exec_close(struct exec *ex);
/* Sets the type of weights to be made: "f32", "bf16", or NULL for what the device does best. */
enum ditmoe_status backend_compute(struct exec *ex, const char *dtype);
/* Gives the arena `bytes` of device memory. */
enum ditmoe_status exec_reserve(struct exec *ex, size_t bytes);
/* A copy of an execution that does nothing, for a pass that is run for its memory: arena.peak tells
 * it afterwards. Such a copy is not closed. */
struct exec exec_dry(const struct exec *ex);
/* Forgets an error after it was reported. */
void exec_clear(struct exec *ex);
/* Name of backend `index`, 0 is the default; NULL ends the list. */
const char *backend_name(int index);

/* Records the failure of an operation; the second, that the backend has none of this name. */
void exec_fail(struct exec *ex, enum ditmoe_status status);
void exec_lacks(struct exec *ex, const char *operation);
/* For backends: a layer as the source describes it, all but its data; [out, in] of one of its
 * stacks is shape[0] by the product of the others. DITMOE_MISMATCH names a tensor that does not
 * fit. And its rows as f32: weight [total, in], total = out or, paired, 2 out (gate, then up); bias
 * [total], 0 where a part has none. */
enum ditmoe_status linear_source_shape(struct ditmoe_ctx *ctx, const struct linear_source *source,
                                       struct linear *shape);
void linear_source_read(const struct linear_source *source, float *weight, float *bias);
/* Checks a convolution's tensors and makes *out without data; bias may be NULL. */
enum ditmoe_status conv_source_shape(struct ditmoe_ctx *ctx, const struct tensor *weight,
                                     const struct tensor *bias, const struct conv_window *window,
                                     struct conv *out);

/* n elements of the arena; NULL (and DITMOE_FAILED) if it was sized too small. */
float *be_floats(struct exec *ex, int64_t n);
struct act be_acts(struct exec *ex, enum dtype type, int64_t n);
int32_t *be_ints(struct exec *ex, int64_t n);
/* Takes the arrays of a plan from the arena. */
void be_dispatch_alloc(struct exec *ex, struct dispatch *d, int experts, int tokens,
                       int64_t capacity);

/* rows [experts] (host) = how many rows each expert has: the one value of a forward pass that the
 * host reads, for stores that want it. */
void be_dispatch_rows(struct exec *ex, int32_t *rows, const struct dispatch *d);

/* x as activations of a type: x itself if that is f32, else a copy in the arena. */
struct act be_narrowed(struct exec *ex, enum dtype type, const float *x, int64_t n);

#include "backend/calls.h"

#endif

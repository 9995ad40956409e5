/* The be_* callers of operations.h and gradients.h. */
#ifndef BACKEND_CALLS_H
#define BACKEND_CALLS_H

static inline bool be_active(const struct exec *ex) { return ex->status == DITMOE_OK && !ex->dry; }

/* When an operation ended, for the profile: after the device has done it. */
static inline double be_time(struct exec *ex) {
  if (ex->device->ops->sync) ex->device->ops->sync(ex);
  return system_seconds();
}

/* Whether weights for inputs of type `input` may meet x; if not, the execution has failed. */
static inline bool be_fits(struct exec *ex, struct act x, enum dtype input) {
  if (be_active(ex) && x.type != input)
    exec_fail(ex, fail(ex->ctx, DITMOE_FAILED, "a product for %s is given %s", dtype_name(input),
                       dtype_name(x.type)));
  return x.type == input;
}

/* Pixels of a convolution's output along an axis (0: rows, 1: columns) that has `size` of them; */
static inline int conv_size(const struct conv *w, int axis, int size) {
  return (size + w->before[axis] + w->after[axis] - w->kernel[axis]) / w->stride + 1;
}
/* and after 3x3 pooling with so many pixels of padding on either side. */
static inline int pool_size(int size, int stride, int pad) {
  return (size + 2 * pad - 3) / stride + 1;
}

#define BE_CALL(ex, slot, name, ...)                                                               \
  do {                                                                                             \
    if (!be_active(ex)) break;                                                                     \
    if (!(ex)->device->ops->slot) {                                                                \
      exec_lacks(ex, name);                                                                        \
      break;                                                                                       \
    }                                                                                              \
    const double start = (ex)->profile ? be_time(ex) : 0;                                          \
    (ex)->device->ops->slot((ex), __VA_ARGS__);                                                    \
    if ((ex)->profile) (ex)->profile->called((ex)->profile->user, name, be_time(ex) - start);      \
  } while (0)

#undef BE_PRODUCT
#define BE_OP(op, parameters, ...)                                                                 \
  static inline void be_##op(struct exec *ex, BE_UNPACK parameters) {                              \
    BE_CALL(ex, BE_SLOT(op), #op, __VA_ARGS__);                                                    \
  }
#define BE_PRODUCT(op, x, type, parameters, ...)                                                   \
  static inline void be_##op(struct exec *ex, BE_UNPACK parameters) {                              \
    if (be_fits(ex, x, type)) BE_CALL(ex, BE_SLOT(op), #op, __VA_ARGS__);                          \
  }
#define BE_SLOT(op) op
#include "backend/operations.h"
#undef BE_SLOT
#define BE_SLOT(op) bwd.op
#include "backend/gradients.h"
#undef BE_SLOT
#undef BE_OP
#undef BE_PRODUCT

#endif

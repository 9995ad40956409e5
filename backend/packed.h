/* Linear layers in a file as the backend has them in memory, so that they are used where the file
 * is mapped. Of a `shape` in, out, paired, input and format count. */
#ifndef BACKEND_PACKED_H
#define BACKEND_PACKED_H

#include "backend/backend.h"

enum { PACKED_ALIGN = 64, LAYOUT_SIZE = 100 };

struct packed_ops {
  /* A text for all that the layouts of the compute type and of f32 depend on. */
  void (*layout)(const struct exec *ex, char text[LAYOUT_SIZE]);
  /* Bytes of a layer, a multiple of PACKED_ALIGN; 0: too large. */
  size_t (*bytes)(const struct exec *ex, const struct linear *shape);
  /* A layer over such bytes, U8, which must outlive it; DITMOE_FORMAT names them if their number or
   * their alignment is wrong. No values can do harm. */
  enum ditmoe_status (*adopt)(struct exec *ex, const struct linear *shape,
                              const struct tensor *bytes, struct linear **out);
};

#endif

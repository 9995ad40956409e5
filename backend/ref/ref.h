/* The reference backend: plain loops in one thread, the executable definition of every
 * operation. Sums are taken in double and rounded once, so that it also says how accurate
 * another backend is.
 *
 * Other backends may start from a copy of this table and replace what they do faster. All
 * operations but those that read weights (linear, experts, conv2d and the gradients of the first
 * two) work on plain arrays and hold for any backend in host memory. */
#ifndef BACKEND_REF_REF_H
#define BACKEND_REF_REF_H

#include "backend/backend.h"

extern const struct backend_ops backend_ref;

#endif

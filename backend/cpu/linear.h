/* The layout of packed weights; see linear.c. */
#ifndef BACKEND_CPU_LINEAR_H
#define BACKEND_CPU_LINEAR_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

/* Outputs that one panel makes. */
static inline int linear_outputs(const struct linear *w, const struct gemm_kernels *k) {
  return w->paired ? k->lanes : k->columns;
}

static inline int64_t linear_panels(const struct linear *w, const struct gemm_kernels *k) {
  int outputs = linear_outputs(w, k);
  return ((int64_t)w->out + outputs - 1) / outputs;
}

/* Inputs in the block that begins at `begin`. */
static inline int linear_depth(const struct linear *w, int begin) {
  return w->in - begin < CPU_DEPTH_BLOCK ? w->in - begin : CPU_DEPTH_BLOCK;
}

static inline float *linear_panel(const struct linear *w, const struct gemm_kernels *k, int begin,
                                  int64_t panel) {
  int64_t columns = linear_panels(w, k) * k->columns;
  return (float *)w->data + begin * columns + panel * linear_depth(w, begin) * k->columns;
}

static inline float *linear_bias(const struct linear *w, const struct gemm_kernels *k) {
  return (float *)w->data + w->in * linear_panels(w, k) * k->columns;
}

#endif

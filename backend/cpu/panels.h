/* The layout of packed weights; see panels.c. */
#ifndef BACKEND_CPU_PANELS_H
#define BACKEND_CPU_PANELS_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

/* The kernels for weights of a layer. */
static inline const struct gemm_kernels *linear_kernels(const struct linear *w,
                                                        const struct cpu_kernels *kernels) {
  return kernels->gemm[w->input == DT_BF16 ? CPU_BF16 : CPU_F32];
}

/* Bytes of a weight. */
static inline int64_t linear_element(const struct linear *w) {
  return (int64_t)dtype_size(w->format);
}

/* Whether panels are kept in a type that products do not take. */
static inline bool linear_is_widened(const struct linear *w) { return w->format != w->input; }

/* Outputs that one panel makes. */
static inline int linear_outputs(const struct linear *w, const struct gemm_kernels *k) {
  return w->paired ? k->lanes : k->columns;
}

static inline int64_t linear_panels(const struct linear *w, const struct gemm_kernels *k) {
  int outputs = linear_outputs(w, k);
  return ((int64_t)w->out + outputs - 1) / outputs;
}

static inline int linear_padded(int inputs, const struct gemm_kernels *k) {
  return (inputs + k->unit - 1) / k->unit * k->unit;
}

/* Inputs of a block: all blocks but the last are alike, and a multiple of k->unit. */
static inline int linear_block(const struct linear *w, const struct gemm_kernels *k) {
  int blocks = (w->in + k->depth - 1) / k->depth;
  return linear_padded((w->in + blocks - 1) / blocks, k);
}

/* Inputs in the block that begins at `begin`. */
static inline int linear_depth(const struct linear *w, const struct gemm_kernels *k, int begin) {
  int block = linear_block(w, k);
  return w->in - begin < block ? w->in - begin : block;
}

static inline void *linear_panel(const struct linear *w, const struct gemm_kernels *k, int begin,
                                 int64_t panel) {
  int64_t columns = linear_panels(w, k) * k->columns;
  int64_t depth = linear_padded(linear_depth(w, k, begin), k);
  int64_t element = begin * columns + panel * depth * k->columns;
  return (char *)w->data + element * linear_element(w);
}

static inline float *linear_bias(const struct linear *w, const struct gemm_kernels *k) {
  int64_t elements = linear_padded(w->in, k) * linear_panels(w, k) * k->columns;
  return (float *)(void *)((char *)w->data + elements * linear_element(w));
}

#endif

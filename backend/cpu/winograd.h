/* Convolutions by Winograd's algorithm; see winograd.c. */
#ifndef BACKEND_CPU_WINOGRAD_H
#define BACKEND_CPU_WINOGRAD_H

#include "backend/cpu/window.h"

/* Weights of a convolution: one matrix over windows, or WINOGRAD_PLACES over tiles. */
struct cpu_conv {
  int count;
  struct linear *matrix[WINOGRAD_PLACES];
};

/* Whether a convolution is done so. */
bool winograd_fits(const struct exec *ex, const struct conv *w);

/* out[i * apart + c], i < WINOGRAD_PLACES = what becomes of the kernel [3, 3] of input c in weight
 * [in, 3, 3]. */
void winograd_weights(float *out, int64_t apart, const float *weight, int in);

/* The product that a convolution of which winograd_fits is true would be over windows, PLAIN or
 * RELU, without those beside it. */
void winograd_run(struct exec *ex, const struct gemm *g);

#endif

/* Convolutions by Winograd's algorithm; see winograd.c. */
#ifndef BACKEND_CPU_WINOGRAD_H
#define BACKEND_CPU_WINOGRAD_H

#include "backend/cpu/state.h"

/* Whether a convolution is done so. */
bool winograd_fits(const struct backend *be, const struct conv *w);

/* out[i * apart], i < WINOGRAD_PLACES = what becomes of the kernel weight [3, 3] of one input and
 * output. */
void winograd_weights(float *out, int64_t apart, const float *weight);

/* y[p * ldy + c] = convolution of x [B, height, width, in] for pixel p of all images and output c,
 * in f32, or relu of it in the compute type. */
struct winograd_call {
  const struct conv *conv; /* of which winograd_fits is true */
  const void *x;
  int B, height, width;
  bool relu;
  void *y;
  int64_t ldy;
};

void winograd_run(struct backend *be, const struct winograd_call *call);

#endif

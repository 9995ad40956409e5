/* Bytes of an image to the input of a feature network, about [-1, 1]. */
#ifndef EVAL_RESIZE_H
#define EVAL_RESIZE_H

#include <stdint.h>

enum resize_rule {
  RESIZE_ADM,        /* TensorFlow 1, as in ADM's evaluator: bilinear without half-pixel centres, on
                        0 .. 255, then (x - 128) / 128 */
  RESIZE_PYTORCH_FID /* x / 255, bilinear with half-pixel centres, no antialias, then 2 x - 1 */
};

/* out [side, side, 3] of pixels [height, width, 3]; an image of that size is not interpolated. */
void resize_image(float *out, const uint8_t *pixels, int height, int width, int side,
                  enum resize_rule rule);

#endif

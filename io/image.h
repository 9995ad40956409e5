/* What io/image.c and io/image_png.c share. */
#ifndef IO_IMAGE_H
#define IO_IMAGE_H

#include "io/file.h"

/* Writes pixels [height, width, 3] as PNG to the open output. */
enum ditmoe_status image_png_write(struct ditmoe_ctx *ctx, struct file_output *output,
                                   const uint8_t *pixels, int width, int height,
                                   const struct ditmoe_text *text);

#endif

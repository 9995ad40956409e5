/* What a convolution sees of its images, as rows of a product; see window.c. */
#ifndef BACKEND_CPU_WINDOW_H
#define BACKEND_CPU_WINDOW_H

#include "backend/cpu/gemm.h"

/* The images that a convolution runs over, and what it makes of each: rows times columns pixels.
 * Strips take them column by column where the kernel lies in one row: then those that see padding
 * are together. */
struct window {
  const struct conv *conv;
  int64_t size; /* bytes of a value */
  int height, width, rows, columns;
  bool down; /* column by column */
};

struct window window_over(const struct conv *w, int height, int width);

/* Row i of x is what output pixel i, of all images, sees; `view` is a struct window, ldx that of
 * x's pixels. */
extern const struct row_source window_rows;

#endif

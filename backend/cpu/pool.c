/* Pooling of images, channels last: each output is the largest or the mean of a block of pixels,
 * channel by channel. */
#include "backend/cpu/state.h"

enum { SLICE = 256 }; /* channels of a task where one image is one output */

/* [B, height, width, C] of values of `size` bytes. */
struct images {
  const void *data;
  int64_t size;
  int height, width, C;
};

/* The pixels that image `image` has of the 3x3 from (top, left) on. */
static struct cpu_block block_at(const struct images *x, int64_t image, int top, int left) {
  const int row = top < 0 ? 0 : top, column = left < 0 ? 0 : left;
  const int bottom = top + 3 < x->height ? top + 3 : x->height;
  const int right = left + 3 < x->width ? left + 3 : x->width;
  const int64_t pixel = (image * x->height + row) * x->width + column;
  return (struct cpu_block){.x = (const char *)x->data + pixel * x->C * x->size,
                            .count = {bottom - row, right - column},
                            .stride = {(int64_t)x->width * x->C, x->C}};
}

void cpu_max_pool(struct exec *ex, struct act y, int64_t ldy, int64_t at, struct act x, int B,
                  int height, int width, int C, int stride, int pad) {
  const int rows = pool_size(height, stride, pad), columns = pool_size(width, stride, pad);
  const struct images images = {x.data, (int64_t)dtype_size(x.type), height, width, C};
  const int64_t lines = (int64_t)B * rows;
  CPU_PARALLEL_FOR(ex, lines * columns * C)
  for (int64_t r = 0; r < lines; r++)
    for (int64_t j = 0; j < columns; j++) {
      const int top = (int)(r % rows) * stride - pad, left = (int)j * stride - pad;
      struct cpu_block block = block_at(&images, r / rows, top, left);
      cpu_kernels(ex)->rows->largest[cpu_type(y.type)](act_at(y, (r * columns + j) * ldy + at),
                                                       &block, C);
    }
}

void cpu_avg_pool_relu(struct exec *ex, struct act y, int64_t ldy, int64_t at, const float *x,
                       int B, int height, int width, int C) {
  const struct images images = {x, sizeof *x, height, width, C};
  const int64_t lines = (int64_t)B * height;
  CPU_PARALLEL_FOR(ex, lines * width * C)
  for (int64_t r = 0; r < lines; r++)
    for (int j = 0; j < width; j++) {
      struct cpu_block block = block_at(&images, r / height, (int)(r % height) - 1, j - 1);
      cpu_kernels(ex)->rows->mean_relu[cpu_type(y.type)](act_at(y, (r * width + j) * ldy + at),
                                                         &block, C);
    }
}

void cpu_mean_pixels(struct exec *ex, float *y, struct act x, int B, int64_t pixels, int C) {
  const int64_t slices = (C + SLICE - 1) / SLICE;
  CPU_PARALLEL_FOR(ex, B * pixels * C)
  for (int64_t i = 0; i < B * slices; i++) {
    const int64_t b = i / slices, c = i % slices * SLICE;
    struct cpu_block block = {act_at(x, b * pixels * C + c), {1, pixels}, {0, C}};
    cpu_kernels(ex)->rows->mean[cpu_type(x.type)](y + b * C + c, &block,
                                                  C - c < SLICE ? C - c : SLICE);
  }
}

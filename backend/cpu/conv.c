/* Convolutions, as matrix products over windows: row i of x is what the kernel sees around output
 * pixel i, in the order (row, column, channel) of the kernel, and is gathered strip by strip when
 * gemm.c asks for it. So they share the products' speed, and their bits depend on no other pixel,
 * thread or image.
 *
 * (oneDNN's convolution adds in an order that depends on its number of threads, and the format it
 * wants for the weights depends on the size of the image.) */
#include "backend/cpu/state.h"

#include <string.h>

/* dst [out, area of the kernel, in] of weight [out, in, area], through `row`, one output of
 * it. */
static void permute(float *dst, float *row, const struct tensor *weight, const struct conv *w) {
  const int64_t area = (int64_t)w->kernel[0] * w->kernel[1], values = area * w->in;
  for (int64_t o = 0; o < w->out; o++, dst += values) {
    tensor_read_f32(row, weight, o * values, values);
    for (int64_t at = 0; at < area; at++)
      for (int64_t c = 0; c < w->in; c++) dst[at * w->in + c] = row[c * area + at];
  }
}

/* w->data = the matrix of the windows as a linear layer. */
static enum ditmoe_status pack(struct backend *be, struct conv *w, const struct tensor *weight,
                               const struct tensor *bias) {
  float *matrix;
  struct linear *linear;
  const int64_t values = weight->elements / w->out;
  TRY(mem_alloc(be->ctx, (size_t)(weight->elements + values), sizeof *matrix, weight->name,
                &matrix));
  permute(matrix, matrix + weight->elements, weight, w);
  struct tensor tensor = {.name = weight->name,
                          .dtype = DT_F32,
                          .rank = 2,
                          .shape = {w->out, values},
                          .elements = weight->elements,
                          .data = matrix};
  enum ditmoe_status status = cpu_linear_create(
      be, &(struct linear_source){.parts = 1, .weight = {&tensor}, .bias = {bias}}, &linear);
  mem_free(be->ctx, matrix);
  TRY(status);
  w->data = linear;
  w->bytes = linear->bytes;
  return DITMOE_OK;
}

enum ditmoe_status cpu_conv_create(struct backend *be, const struct tensor *weight,
                                   const struct tensor *bias, const struct conv_window *window,
                                   struct conv **out) {
  struct conv shape, *w;
  TRY(conv_source_shape(be->ctx, weight, bias, window, &shape));
  TRY(mem_alloc(be->ctx, 1, sizeof *w, "a convolution", &w));
  enum ditmoe_status status = pack(be, &shape, weight, bias);
  if (status != DITMOE_OK) {
    mem_free(be->ctx, w);
    return status;
  }
  *w = shape;
  *out = w;
  return DITMOE_OK;
}

void cpu_conv_destroy(struct backend *be, struct conv *conv) {
  if (conv) cpu_linear_destroy(be, conv->data);
  mem_free(be->ctx, conv);
}

/* What the kernel sees around an output pixel: where its first row begins, in values of the image,
 * and which values of every row, begin .. end - 1, are in the image. The rest is 0. */
struct view {
  const char *image;
  int64_t first;
  int top, begin, end;
};

static struct view view_of(const struct window *v, const char *image, int row, int column) {
  const struct conv *w = v->conv;
  const int top = row * w->stride - w->before[0], left = column * w->stride - w->before[1];
  const int right = left + w->kernel[1] < v->width ? left + w->kernel[1] : v->width;
  return (struct view){.image = image,
                       .first = ((int64_t)top * v->width + left) * w->in,
                       .top = top,
                       .begin = left < 0 ? -left * w->in : 0,
                       .end = (right - left) * w->in};
}

static char *put_zeros(char *strip, const struct gemm_kernels *k, int n) {
  const size_t bytes = (size_t)n * (size_t)k->element;
  if (n > 0) memset(strip, 0, bytes);
  return strip + bytes;
}

/* Values from .. to - 1 of row i of the kernel. */
static void read_line(char *strip, const struct gemm_kernels *k, const struct window *v,
                      const struct view *view, int i, int from, int to) {
  const bool inside = view->top + i >= 0 && view->top + i < v->height;
  const int begin = view->begin > from ? view->begin : from;
  const int end = view->end < to ? view->end : to;
  if (!inside || begin >= end) {
    put_zeros(strip, k, to - from);
    return;
  }
  const int64_t at = view->first + (int64_t)i * v->width * v->conv->in + begin;
  if (begin > from) strip = put_zeros(strip, k, begin - from);
  k->load(strip, view->image + at * v->size, end - begin);
  if (to > end) put_zeros(strip + (end - begin) * k->element, k, to - end);
}

void window_read(char *strip, const struct gemm_kernels *k, const struct gemm *g, int64_t pixel,
                 int rows, int begin, int count) {
  const struct window *v = g->window;
  const int line = v->conv->kernel[1] * v->conv->in, end = begin + count;
  const int64_t image = (int64_t)v->height * v->width * v->conv->in * v->size;
  int column = (int)(pixel % v->columns), row = (int)(pixel / v->columns % v->rows);
  const char *x = (const char *)g->x + pixel / v->columns / v->rows * image;
  const int first = begin / line;
  for (int r = 0; r < rows; r++, strip += k->stride) {
    const struct view view = view_of(v, x, row, column);
    for (int i = first, at = begin; at < end;) {
      const int start = i * line, to = start + line < end ? start + line : end;
      read_line(strip + (at - begin) * k->element, k, v, &view, i++, at - start, to - start);
      at = to;
    }
    if (++column < v->columns) continue;
    column = 0;
    if (++row < v->rows) continue;
    row = 0;
    x += image;
  }
}

/* Whether windows of so many pixels from (row, column) on, of one row, see nothing but the image.
 */
static bool is_inside(const struct window *v, int row, int column, int pixels) {
  const struct conv *w = v->conv;
  const int top = row * w->stride - w->before[0], left = column * w->stride - w->before[1];
  const int right = left + (pixels - 1) * w->stride + w->kernel[1];
  return column + pixels <= v->columns && top >= 0 && top + w->kernel[0] <= v->height &&
         left >= 0 && right <= v->width;
}

bool window_segments(struct cpu_segments *out, const struct gemm *g, int64_t pixel, int rows,
                     int begin, int count) {
  const struct window *v = g->window;
  const struct conv *w = v->conv;
  const int line = w->kernel[1] * w->in, end = begin + count;
  const int column = (int)(pixel % v->columns);
  const int64_t above = pixel / v->columns, image = above / v->rows;
  const int row = (int)(above % v->rows);
  if (!is_inside(v, row, column, rows)) return false;
  const int64_t left = column * w->stride - w->before[1];
  int i = begin / line;
  int64_t top = image * v->height + row * w->stride - w->before[0] + i;
  out->step = w->stride * g->ldx;
  out->count = 0;
  for (int at = begin, to; at < end; at = to, i++, top++) {
    if (out->count == CPU_SEGMENTS_MAX) return false;
    to = (i + 1) * line < end ? (i + 1) * line : end;
    const int64_t value = (top * v->width + left) * w->in + at - i * line;
    out->at[out->count].x = (const char *)g->x + value * v->size;
    out->at[out->count++].length = to - at;
  }
  return true;
}

/* Whether every window is one pixel of the image, in the same order. */
static bool is_linear(const struct conv *w) {
  const int padding = w->before[0] + w->before[1] + w->after[0] + w->after[1];
  return w->kernel[0] == 1 && w->kernel[1] == 1 && w->stride == 1 && padding == 0;
}

static void convolve(struct backend *be, const struct window *window, const struct act *x, int B,
                     struct gemm g) {
  const struct conv *w = window->conv;
  g.w = w->data;
  g.x = x;
  g.rows = (int64_t)B * window->rows * window->columns;
  g.ldx = w->in;
  if (!is_linear(w)) g.window = window;
  gemm_run_one(be, &g);
}

static struct window window_over(const struct conv *w, int height, int width) {
  const int64_t size = (int64_t)dtype_size(((const struct linear *)w->data)->type);
  return (struct window){w, size, height, width, conv_size(w, 0, height), conv_size(w, 1, width)};
}

void cpu_conv2d(struct backend *be, float *y, const struct act *x, const struct conv *w, int B,
                int height, int width) {
  const struct window window = window_over(w, height, width);
  convolve(be, &window, x, B, (struct gemm){.finish = FINISH_PLAIN, .y = y, .ldy = w->out});
}

void cpu_conv2d_relu(struct backend *be, struct act *y, int64_t ldy, int64_t at,
                     const struct act *x, const struct conv *w, int B, int height, int width) {
  const struct window window = window_over(w, height, width);
  convolve(be, &window, x, B,
           (struct gemm){.finish = FINISH_RELU, .y = act_at(be, y, at), .ldy = ldy});
}

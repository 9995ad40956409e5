/* Windows over images as rows of a product: row i is what the kernel sees around output pixel i, in
 * the order (row, column, channel) of the kernel. A strip is read where the pixels are, or
 * gathered.
 *
 * Steps of the kernel that are padding for all pixels of a strip are left out: adding 0 times a
 * finite weight changes no sum. A kernel of seven rows over an image of 17 has 10% of these. */
#include "backend/cpu/window.h"

#include <string.h>

struct window window_over(const struct conv *w, int height, int width) {
  return (struct window){.conv = w,
                         .size = (int64_t)dtype_size(w->input),
                         .height = height,
                         .width = width,
                         .rows = conv_size(w, 0, height),
                         .columns = conv_size(w, 1, width),
                         .down = w->kernel[0] == 1 && w->before[0] + w->after[0] == 0 &&
                                 w->before[1] + w->after[1] > 0};
}

/* An output pixel. */
struct site {
  int64_t image;
  int row, column;
};

/* Pixel `pixel` in the order of the strips. */
static struct site site_of(const struct window *v, int64_t pixel) {
  const int64_t each = (int64_t)v->rows * v->columns;
  const int rest = (int)(pixel % each), line = v->down ? v->rows : v->columns;
  const int slow = rest / line, fast = rest % line;
  return (struct site){pixel / each, v->down ? fast : slow, v->down ? slow : fast};
}

static void go_on(const struct window *v, struct site *site) {
  int *fast = v->down ? &site->row : &site->column, *slow = v->down ? &site->column : &site->row;
  if (++*fast < (v->down ? v->rows : v->columns)) return;
  *fast = 0;
  if (++*slow < (v->down ? v->columns : v->rows)) return;
  *slow = 0;
  site->image++;
}

static struct places window_places(const struct gemm *g, int64_t pixel, int rows) {
  const struct window *v = g->view;
  if (!v->down) return (struct places){pixel, 1, rows};
  const struct site site = site_of(v, pixel);
  const int left = v->rows - site.row;
  return (struct places){.row = (site.image * v->rows + site.row) * v->columns + site.column,
                         .apart = v->columns,
                         .rows = rows < left ? rows : left};
}

/* What the kernel sees around an output pixel: where its first row begins, in values of the image,
 * and which values of every row, begin .. end - 1, are in the image. The rest is 0. */
struct view {
  const char *image;
  int64_t first;
  int top, begin, end;
};

static struct view view_of(const struct window *v, const char *image, const struct site *site) {
  const struct conv *w = v->conv;
  const int top = site->row * w->stride - w->before[0];
  const int left = site->column * w->stride - w->before[1];
  const int right = left + w->kernel[1] < v->width ? left + w->kernel[1] : v->width;
  return (struct view){.image = image + site->image * v->height * v->width * v->conv->in * v->size,
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

static void window_load(char *strip, const struct gemm *g, const struct gemm_kernels *k,
                        int64_t pixel, int rows, struct inputs inputs) {
  const struct window *v = g->view;
  const int line = v->conv->kernel[1] * v->conv->in, end = inputs.begin + inputs.count;
  const int first = inputs.begin / line;
  struct site site = site_of(v, pixel);
  for (int r = 0; r < rows; r++, strip += k->stride, go_on(v, &site)) {
    const struct view view = view_of(v, g->x, &site);
    for (int i = first, at = inputs.begin; at < end;) {
      const int start = i * line, to = start + line < end ? start + line : end;
      read_line(strip + (at - inputs.begin) * k->element, k, v, &view, i++, at - start, to - start);
      at = to;
    }
  }
}

static struct inputs window_needed(const struct gemm *g, const struct gemm_kernels *k,
                                   int64_t pixel, int rows, struct inputs all) {
  const struct window *v = g->view;
  const struct conv *w = v->conv;
  const int axis = v->down;
  if (w->before[axis] + w->after[axis] == 0) return all;
  const struct site a = site_of(v, pixel), b = site_of(v, pixel + rows - 1);
  if (a.image != b.image) return all;
  const int size = axis ? v->width : v->height;
  const int values = axis ? w->in : w->kernel[1] * w->in; /* of a step of the kernel */
  const int before = w->before[axis] - (axis ? b.column : b.row) * w->stride;
  const int after = size + w->before[axis] - (axis ? a.column : a.row) * w->stride;
  const int from = (before > 0 ? before * values : 0) - all.begin;
  const int to = (after < w->kernel[axis] ? after * values : all.begin + all.count) - all.begin;
  const int begin = from > 0 ? from / k->unit * k->unit : 0;
  const int end = to > 0 ? (to + k->unit - 1) / k->unit * k->unit : 0;
  const int count = (end < all.count ? end : all.count) - begin;
  return count > 0 ? (struct inputs){all.begin + begin, count} : (struct inputs){all.begin, 0};
}

/* Where windows begin, padding or not: their rows and columns of pixels, and their values. */
struct corners {
  int top[CPU_TILE_ROWS_MAX], left[CPU_TILE_ROWS_MAX];
  uintptr_t value[CPU_TILE_ROWS_MAX];
  bool inside; /* they see nothing but the image */
};

/* The rows and columns of the kernel that some inputs belong to. */
struct reach {
  int top, bottom, left, right;
};

static struct reach reach_of(const struct conv *w, const struct inputs *inputs) {
  const int line = w->kernel[1] * w->in, last = inputs->begin + inputs->count - 1;
  const int top = inputs->begin / line, bottom = last / line;
  if (top < bottom) return (struct reach){top, bottom, 0, w->kernel[1] - 1};
  return (struct reach){top, bottom, inputs->begin % line / w->in, last % line / w->in};
}

/* The corners of `count` windows of one line, from window r on. */
static void find_line(struct corners *out, int r, int count, const struct gemm *g,
                      const struct site *site, const struct reach *reach) {
  const struct window *v = g->view;
  const struct conv *w = v->conv;
  const int down = v->down ? w->stride : 0, right = v->down ? 0 : w->stride;
  const int top = site->row * w->stride - w->before[0];
  const int left = site->column * w->stride - w->before[1];
  const int64_t pixel = (site->image * v->height + top) * v->width + left;
  const int64_t size = w->in * v->size, step = ((int64_t)down * v->width + right) * size;
  const uintptr_t value = (uintptr_t)g->x + (uintptr_t)(pixel * size);
  for (int i = 0; i < count; i++) {
    out->top[r + i] = top + i * down;
    out->left[r + i] = left + i * right;
    out->value[r + i] = value + (uintptr_t)(i * step);
  }
  out->inside = out->inside && left + reach->left >= 0 && top + reach->top >= 0 &&
                left + (count - 1) * right + reach->right < v->width &&
                top + (count - 1) * down + reach->bottom < v->height;
}

static void find_corners(struct corners *out, const struct gemm *g, int64_t pixel, int rows,
                         const struct reach *reach) {
  const struct window *v = g->view;
  struct site site = site_of(v, pixel);
  out->inside = true;
  for (int r = 0, count; r < rows; r += count) {
    const int left = v->down ? v->rows - site.row : v->columns - site.column;
    count = rows - r < left ? rows - r : left;
    find_line(out, r, count, g, &site, reach);
    if (r + count < rows) site = site_of(v, pixel + r + count);
  }
}

/* The pixels that lie `down` and `right` of the corners, zeros where they are padding: distances
 * from the first one, which is returned. */
static uintptr_t find_pixels(uintptr_t *away, const struct window *v, const struct corners *corners,
                             int rows, int down, int right) {
  static const float zeros[CPU_DEPTH_MAX];
  const int64_t ahead = ((int64_t)down * v->width + right) * v->conv->in * v->size;
  const unsigned height = (unsigned)v->height, width = (unsigned)v->width;
  uintptr_t first = 0;
  for (int r = 0; r < rows; r++) {
    const unsigned row = (unsigned)(corners->top[r] + down);
    const unsigned column = (unsigned)(corners->left[r] + right);
    const uintptr_t seen = corners->value[r] + (uintptr_t)ahead;
    const uintptr_t pixel = (row < height) & (column < width) ? seen : (uintptr_t)zeros;
    if (r == 0) first = pixel;
    away[r] = pixel - first;
  }
  return first;
}

/* Segments are rows of the kernel. */
static bool split_lines(struct cpu_segments *out, const struct window *v,
                        const struct corners *corners, int rows, const struct inputs *inputs) {
  const int line = v->conv->kernel[1] * v->conv->in, end = inputs->begin + inputs->count;
  const int64_t apart = (int64_t)v->width * v->conv->in - line;
  for (int r = 0; r < rows; r++) out->away[0][r] = corners->value[r] - corners->value[0];
  for (int at = inputs->begin, i = at / line, to; at < end; at = to, i++) {
    if (out->count == CPU_SEGMENTS_MAX) return false;
    const uintptr_t x = corners->value[0] + (uintptr_t)((at + i * apart) * v->size);
    to = (i + 1) * line < end ? (i + 1) * line : end;
    out->at[out->count++] = (struct cpu_segment){x, out->away[0], to - at};
  }
  return true;
}

/* Segments are pixels of the kernel: each may be padding to some windows. */
static bool split_pixels(struct cpu_segments *out, const struct window *v,
                         const struct corners *corners, int rows, const struct inputs *inputs) {
  const int in = v->conv->in, end = inputs->begin + inputs->count;
  if (in > CPU_DEPTH_MAX) return false;
  for (int at = inputs->begin, i = at / in, to; at < end; at = to, i++) {
    if (out->count == CPU_SEGMENTS_MAX) return false;
    uintptr_t *away = out->away[out->count];
    const int down = i / v->conv->kernel[1], right = i % v->conv->kernel[1];
    const uintptr_t x = find_pixels(away, v, corners, rows, down, right);
    to = (i + 1) * in < end ? (i + 1) * in : end;
    out->at[out->count++] =
        (struct cpu_segment){x + (uintptr_t)((at - i * in) * v->size), away, to - at};
  }
  return true;
}

static bool window_segments(struct cpu_segments *out, const struct gemm *g, int64_t pixel, int rows,
                            struct inputs inputs) {
  const struct window *v = g->view;
  const struct reach reach = reach_of(v->conv, &inputs);
  struct corners corners;
  find_corners(&corners, g, pixel, rows, &reach);
  out->count = 0;
  return (corners.inside ? split_lines : split_pixels)(out, v, &corners, rows, &inputs);
}

const struct row_source window_rows = {.load = window_load,
                                       .needed = window_needed,
                                       .segments = window_segments,
                                       .places = window_places};

/* Convolutions, as matrix products over windows: row i of x is what the kernel sees around output
 * pixel i, in the order (row, column, channel) of the kernel, and is gathered strip by strip when
 * gemm.c asks for it. So they share the products' speed, and their bits depend on no other pixel,
 * thread or image.
 *
 * (oneDNN's convolution adds in an order that depends on its number of threads, and the format it
 * wants for the weights depends on the size of the image.) */
#include "backend/cpu/state.h"

#include <string.h>

/* dst [out, kernel kernel, in] of weight [out, in, kernel kernel], through `row`, one output of
 * it. */
static void permute(float *dst, float *row, const struct tensor *weight, const struct conv *w) {
  const int64_t area = (int64_t)w->kernel * w->kernel, values = area * w->in;
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
                                   const struct tensor *bias, int stride, int pad_before,
                                   int pad_after, struct conv **out) {
  struct conv shape = {.stride = stride, .pad_before = pad_before, .pad_after = pad_after}, *w;
  TRY(conv_source_shape(be->ctx, weight, bias, &shape));
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

static bool inside(int i, int size) { return i >= 0 && i < size; }

void window_read(char *strip, const struct gemm_kernels *k, const void *x, const struct window *v,
                 int64_t pixel, int begin, int count) {
  const struct conv *w = v->conv;
  const int64_t size = (int64_t)dtype_size(((const struct linear *)w->data)->type);
  int top = (int)(pixel / v->columns) * w->stride - w->pad_before;
  int left = (int)(pixel % v->columns) * w->stride - w->pad_before;
  for (int at = begin / w->in, c = begin % w->in; count > 0; at++, c = 0) {
    int row = top + at / w->kernel, column = left + at % w->kernel;
    int n = w->in - c < count ? w->in - c : count;
    if (inside(row, v->height) && inside(column, v->width))
      k->load(strip, (const char *)x + (((int64_t)row * v->width + column) * w->in + c) * size, n);
    else
      memset(strip, 0, (size_t)n * (size_t)k->element);
    strip += n * k->element;
    count -= n;
  }
}

struct images {
  const struct backend *be;
  struct window window;
  float *y;
  const struct act *x;
  int64_t pixels;
};

static struct gemm image_at(const void *source, int b) {
  const struct images *images = source;
  const struct window *v = &images->window;
  const struct conv *w = v->conv;
  return (struct gemm){.w = w->data,
                       .finish = FINISH_PLAIN,
                       .x =
                           act_at(images->be, images->x, (int64_t)b * v->height * v->width * w->in),
                       .window = v,
                       .y = images->y + b * images->pixels * w->out,
                       .ldy = w->out,
                       .rows = images->pixels};
}

static int out_size(const struct conv *w, int size) {
  return (size + w->pad_before + w->pad_after - w->kernel) / w->stride + 1;
}

void cpu_conv2d(struct backend *be, float *y, const struct act *x, const struct conv *w, int B,
                int height, int width) {
  int rows = out_size(w, height), columns = out_size(w, width);
  struct images images = {be, {w, height, width, columns}, y, x, (int64_t)rows * columns};
  gemm_run(be, &(struct gemm_list){B, image_at, &images});
}

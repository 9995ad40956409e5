/* Convolutions, as matrix products over windows (window.c). So they share the products' speed, and
 * their bits depend on no other pixel, thread or image. Kernels of 3 x 3 pixels go another way
 * where that is faster: winograd.c.
 *
 * (oneDNN's convolution adds in an order that depends on its number of threads, and the format it
 * wants for the weights depends on the size of the image.) */
#include "backend/cpu/winograd.h"

/* out [area of the kernel, in] = weight [in, area]^T */
static void windows_weights(float *out, const float *weight, const struct conv *w) {
  const int64_t area = (int64_t)w->kernel[0] * w->kernel[1];
  for (int64_t at = 0; at < area; at++)
    for (int64_t c = 0; c < w->in; c++) out[at * w->in + c] = weight[c * area + at];
}

/* matrix [count, out, columns] of weight [out, in, area], through `values`, as many as it has. */
static void transform(struct exec *ex, float *matrix, float *values, const struct tensor *weight,
                      const struct conv *w, int count) {
  const int64_t each = weight->elements / w->out;
  CPU_PARALLEL_FOR(ex, weight->elements)
  for (int64_t o = 0; o < w->out; o++) {
    float *own = values + o * each;
    tensor_read_f32(own, weight, o * each, each);
    if (count == 1)
      windows_weights(matrix + o * each, own, w);
    else
      winograd_weights(matrix + o * w->in, (int64_t)w->out * w->in, own, w->in);
  }
}

/* A matrix [out, columns] as a linear layer. */
static enum ditmoe_status pack(struct exec *ex, const float *matrix, int64_t columns,
                               const struct tensor *weight, const struct tensor *bias,
                               struct linear **out) {
  const int64_t rows = weight->shape[0];
  struct tensor tensor = {.name = weight->name,
                          .dtype = DT_F32,
                          .rank = 2,
                          .shape = {rows, columns},
                          .elements = rows * columns,
                          .data = matrix};
  return cpu_linear_create(
      ex,
      &(struct linear_source){
          .parts = 1, .input = ex->compute, .weight = {&tensor}, .bias = {bias}},
      out);
}

/* The first matrix has the bias. */
static enum ditmoe_status make(struct exec *ex, struct conv *w, const struct tensor *weight,
                               const struct tensor *bias) {
  struct cpu_conv *made = w->data;
  float *matrix;
  made->count = winograd_fits(ex, w) ? WINOGRAD_PLACES : 1;
  const int64_t columns = made->count > 1 ? w->in : weight->elements / w->out;
  const int64_t each = w->out * columns, all = made->count * each;
  TRY(mem_alloc(ex->ctx, (size_t)(all + weight->elements), sizeof *matrix, weight->name, &matrix));
  if (!ex->dry) transform(ex, matrix, matrix + all, weight, w, made->count);
  enum ditmoe_status status = DITMOE_OK;
  for (int i = 0; i < made->count && status == DITMOE_OK; i++) {
    status = pack(ex, matrix + i * each, columns, weight, i == 0 ? bias : NULL, &made->matrix[i]);
    if (status == DITMOE_OK) w->bytes += made->matrix[i]->bytes;
  }
  mem_free(ex->ctx, matrix);
  return status;
}

enum ditmoe_status cpu_conv_create(struct exec *ex, const struct tensor *weight,
                                   const struct tensor *bias, const struct conv_window *window,
                                   struct conv **out) {
  struct conv shape, *w;
  TRY(conv_source_shape(ex->ctx, weight, bias, window, &shape));
  TRY(mem_zalloc(ex->ctx, 1, sizeof *w + sizeof(struct cpu_conv), "a convolution", &w));
  *w = shape;
  w->input = ex->compute;
  w->data = w + 1;
  enum ditmoe_status status = make(ex, w, weight, bias);
  if (status == DITMOE_OK)
    *out = w;
  else
    cpu_conv_destroy(ex, w);
  return status;
}

void cpu_conv_destroy(struct exec *ex, struct conv *conv) {
  struct cpu_conv *made = conv ? conv->data : NULL;
  for (int i = 0; made && i < made->count; i++) cpu_linear_destroy(ex, made->matrix[i]);
  mem_free(ex->ctx, conv);
}

/* Whether every window is one pixel of the image, in the same order. */
static bool is_linear(const struct conv *w) {
  const int padding = w->before[0] + w->before[1] + w->after[0] + w->after[1];
  return w->kernel[0] == 1 && w->kernel[1] == 1 && w->stride == 1 && padding == 0;
}

static const struct linear *matrix_of(const struct conv *w) {
  return ((const struct cpu_conv *)w->data)->matrix[0];
}

/* A branch as a product of the windows over B images x. */
static struct gemm product_of(const struct conv_branch *b, const struct window *window,
                              struct act x, int B) {
  struct gemm g = {.w = matrix_of(b->w),
                   .finish = FINISH_PLAIN,
                   .x = x.data,
                   .y = b->sum,
                   .view = window,
                   .ldx = b->w->in,
                   .ldy = b->w->out,
                   .rows = (int64_t)B * window->rows * window->columns};
  if (b->y.data) g.finish = FINISH_RELU, g.y = act_at(b->y, b->at), g.ldy = b->ldy;
  if (!is_linear(b->w)) g.source = &window_rows;
  return g;
}

void cpu_conv2d(struct exec *ex, float *y, struct act x, const struct conv *w, int B, int height,
                int width) {
  cpu_conv2d_relu(ex, &(struct conv_branch){.w = w, .sum = y}, 1, x, B, height, width);
}

void cpu_conv2d_relu(struct exec *ex, const struct conv_branch *branches, int count, struct act x,
                     int B, int height, int width) {
  const bool tiles = ((const struct cpu_conv *)branches->w->data)->count > 1;
  struct window windows[CONV_BRANCHES];
  struct gemm g[CONV_BRANCHES];
  for (int i = 0; i < count; i++) {
    windows[i] = window_over(branches[i].w, height, width);
    g[i] = product_of(&branches[i], &windows[i], x, B);
    g[i].beside = i + 1 < count ? &g[i + 1] : NULL;
    if (tiles) winograd_run(ex, &g[i]);
  }
  if (!tiles) gemm_run_one(ex, g);
}

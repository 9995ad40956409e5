/* Operations on images: the arguments of the contract to those of the launchers. */
#include "backend/cuda/cuda.h"

#define RUN(op, ...) cuda_check(ex, cuda_##op(cuda_stream(ex), __VA_ARGS__), #op)

static struct cuda_conv conv_of(const struct conv *w, struct act x, int B, int height, int width) {
  const struct cuda_weights *weights = ((const struct linear *)w->data)->data;
  return (struct cuda_conv){.x = x.data,
                            .weight = weights->matrix,
                            .bias = weights->bias,
                            .type = x.type,
                            .y_type = DT_F32,
                            .B = B,
                            .size = {height, width},
                            .result = {conv_size(w, 0, height), conv_size(w, 1, width)},
                            .in = w->in,
                            .out = w->out,
                            .kernel = {w->kernel[0], w->kernel[1]},
                            .stride = w->stride,
                            .before = {w->before[0], w->before[1]},
                            .ldy = w->out};
}

void cuda_op_conv2d(struct exec *ex, float *y, struct act x, const struct conv *w, int B,
                    int height, int width) {
  struct cuda_conv conv = conv_of(w, x, B, height, width);
  conv.y = y;
  RUN(convolve, &conv);
}

void cuda_op_conv2d_relu(struct exec *ex, const struct conv_branch *branches, int count,
                         struct act x, int B, int height, int width) {
  for (int i = 0; i < count; i++) {
    const struct conv_branch *b = &branches[i];
    struct cuda_conv conv = conv_of(b->w, x, B, height, width);
    conv.y = b->sum;
    if (b->y.data)
      conv.y = b->y.data, conv.y_type = b->y.type, conv.relu = true, conv.ldy = b->ldy,
      conv.at = b->at;
    RUN(convolve, &conv);
  }
}

void cuda_op_max_pool(struct exec *ex, struct act y, int64_t ldy, int64_t at, struct act x, int B,
                      int height, int width, int C, int stride, int pad) {
  const struct cuda_images images = {B, height, width, C, ldy, at};
  RUN(max_pool, y.data, x.data, x.type, &images, stride, pad);
}

void cuda_op_avg_pool_relu(struct exec *ex, struct act y, int64_t ldy, int64_t at, const float *x,
                           int B, int height, int width, int C) {
  const struct cuda_images images = {B, height, width, C, ldy, at};
  RUN(avg_pool_relu, y.data, y.type, x, &images);
}

void cuda_op_mean_pixels(struct exec *ex, float *y, struct act x, int B, int64_t pixels, int C) {
  RUN(mean_pixels, y, x.data, x.type, B, pixels, C);
}

void cuda_op_take_channels(struct exec *ex, float *y, struct act x, int64_t pixels, int C,
                           int count) {
  RUN(take_channels, y, x.data, x.type, pixels, C, count);
}

static void normalize(struct exec *ex, const struct cuda_group_norm *norm) {
  RUN(group_norm, norm);
}

/* The moments of the images in scratch memory, then the norm. */
void cuda_op_group_norm(struct exec *ex, struct act y, const float *x, const float *weight,
                        const float *bias, int B, int64_t pixels, int C, int groups, float eps,
                        bool silu) {
  const struct cuda_window all = {.B = B,
                                  .width = (int)pixels,
                                  .bottom = 1,
                                  .right = (int)pixels,
                                  .C = C,
                                  .groups = groups,
                                  .pixels = pixels,
                                  .total = pixels};
  const int64_t results = (int64_t)2 * B * groups;
  double *moments =
      cuda_work(ex, (size_t)(results + cuda_group_moments_work(&all)) * sizeof *moments);
  if (!moments) return;
  RUN(group_moments, moments, x, moments + results, &all, false);
  normalize(ex, &(struct cuda_group_norm){.x = x,
                                          .weight = weight,
                                          .bias = bias,
                                          .moments = moments,
                                          .y = y.data,
                                          .type = y.type,
                                          .B = B,
                                          .C = C,
                                          .groups = groups,
                                          .pixels = pixels,
                                          .eps = eps,
                                          .silu = silu});
}

void cuda_op_group_moments(struct exec *ex, double *moments, const float *x, int width,
                           const int window[4], int C, int groups, int64_t pixels) {
  const struct cuda_window own = {.B = 1,
                                  .width = width,
                                  .top = window[0],
                                  .left = window[1],
                                  .bottom = window[2],
                                  .right = window[3],
                                  .C = C,
                                  .groups = groups,
                                  .pixels = (int64_t)window[2] * width,
                                  .total = pixels};
  double *work = cuda_work(ex, (size_t)cuda_group_moments_work(&own) * sizeof *work);
  if (work) RUN(group_moments, moments, x, work, &own, true);
}

void cuda_op_group_norm_given(struct exec *ex, struct act y, const float *x, const double *moments,
                              const float *weight, const float *bias, int64_t pixels, int C,
                              int groups, float eps, bool silu) {
  normalize(ex, &(struct cuda_group_norm){.x = x,
                                          .weight = weight,
                                          .bias = bias,
                                          .moments = moments,
                                          .y = y.data,
                                          .type = y.type,
                                          .B = 1,
                                          .C = C,
                                          .groups = groups,
                                          .pixels = pixels,
                                          .eps = eps,
                                          .silu = silu});
}

void cuda_op_upsample2x(struct exec *ex, struct act y, const float *x, int B, int height, int width,
                        int C) {
  RUN(upsample2x, y.data, y.type, x, B, height, width, C);
}

void cuda_op_channels_last(struct exec *ex, float *y, const float *x, int B, int C,
                           int64_t pixels) {
  RUN(transpose, y, x, B, C, pixels);
}

void cuda_op_channels_first(struct exec *ex, float *y, const float *x, int B, int C,
                            int64_t pixels) {
  RUN(transpose, y, x, B, pixels, C);
}

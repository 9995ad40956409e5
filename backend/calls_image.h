/* The be_* callers of operations on images, which are channels-last, [B, height, width, C]. */
#ifndef BACKEND_CALLS_IMAGE_H
#define BACKEND_CALLS_IMAGE_H

/* Pixels of a convolution's output along an axis (0: rows, 1: columns) that has `size` of them; */
static inline int conv_size(const struct conv *w, int axis, int size) {
  return (size + w->before[axis] + w->after[axis] - w->kernel[axis]) / w->stride + 1;
}
/* and after 3x3 pooling with so many pixels of padding on either side. */
static inline int pool_size(int size, int stride, int pad) {
  return (size + 2 * pad - 3) / stride + 1;
}

/* y [B, conv_size(w, 0, height), conv_size(w, 1, width), out] = convolution of x + bias */
static inline void be_conv2d(struct exec *ex, float *y, struct act x, const struct conv *w, int B,
                             int height, int width) {
  if (be_fits(ex, x, w->input)) BE_CALL(ex, conv2d, y, x, w, B, height, width);
}
/* Up to CONV_BRANCHES convolutions of one x, alike but for their outputs. */
static inline void be_conv2d_branches(struct exec *ex, const struct conv_branch *branches,
                                      int count, struct act x, int B, int height, int width) {
  if (be_fits(ex, x, branches->w->input))
    BE_CALL(ex, conv2d_relu, branches, count, x, B, height, width);
}
/* relu of one: y[p * ldy + at + c] for pixel p of all images and output c, so that branches write
 * into their channels of a concatenation. */
static inline void be_conv2d_relu(struct exec *ex, struct act y, int64_t ldy, int64_t at,
                                  struct act x, const struct conv *w, int B, int height,
                                  int width) {
  be_conv2d_branches(ex, &(struct conv_branch){w, y, ldy, at, NULL}, 1, x, B, height, width);
}
/* The largest of 3x3 pixels, into channels as above. Padding, 0 or 1, never wins; NaN does. */
static inline void be_max_pool(struct exec *ex, struct act y, int64_t ldy, int64_t at, struct act x,
                               int B, int height, int width, int C, int stride, int pad) {
  BE_CALL(ex, max_pool, y, ldy, at, x, B, height, width, C, stride, pad);
}
/* relu of the mean of those of the 3x3 pixels around each that are in the image, into channels as
 * above. */
static inline void be_avg_pool_relu(struct exec *ex, struct act y, int64_t ldy, int64_t at,
                                    const float *x, int B, int height, int width, int C) {
  BE_CALL(ex, avg_pool_relu, y, ldy, at, x, B, height, width, C);
}
/* y [B, C] = mean over the pixels of x [B, pixels, C] */
static inline void be_mean_pixels(struct exec *ex, float *y, struct act x, int B, int64_t pixels,
                                  int C) {
  BE_CALL(ex, mean_pixels, y, x, B, pixels, C);
}
/* y [pixels, count] = the first channels of x [pixels, C] */
static inline void be_take_channels(struct exec *ex, float *y, struct act x, int64_t pixels, int C,
                                    int count) {
  BE_CALL(ex, take_channels, y, x, pixels, C, count);
}
/* GroupNorm over pixels and the channels of a group, then weight and bias [C], then silu if asked.
 */
static inline void be_group_norm(struct exec *ex, struct act y, const float *x, const float *weight,
                                 const float *bias, int B, int64_t pixels, int C, int groups,
                                 float eps, bool silu) {
  BE_CALL(ex, group_norm, y, x, weight, bias, B, pixels, C, groups, eps, silu);
}
/* For an image that is computed in tiles. moments [groups, 2] += what a window (top, left, bottom,
 * right) of the tile x [height, width, C] adds to the mean and the mean square of each group over
 * the whole image of `pixels`; */
static inline void be_group_moments(struct exec *ex, double *moments, const float *x, int width,
                                    const int window[4], int C, int groups, int64_t pixels) {
  BE_CALL(ex, group_moments, moments, x, width, window, C, groups, pixels);
}
/* and GroupNorm of a tile with these moments. */
static inline void be_group_norm_given(struct exec *ex, struct act y, const float *x,
                                       const double *moments, const float *weight,
                                       const float *bias, int64_t pixels, int C, int groups,
                                       float eps, bool silu) {
  BE_CALL(ex, group_norm_given, y, x, moments, weight, bias, pixels, C, groups, eps, silu);
}
static inline void be_relu(struct exec *ex, float *y, const float *x, int64_t n) {
  BE_CALL(ex, relu, y, x, n);
}
/* y = limit * tanh(x / limit) */
static inline void be_tanh_clamp(struct exec *ex, float *y, const float *x, float limit,
                                 int64_t n) {
  BE_CALL(ex, tanh_clamp, y, x, limit, n);
}
/* Nearest neighbour, y [B, 2 height, 2 width, C]. */
static inline void be_upsample2x(struct exec *ex, struct act y, const float *x, int B, int height,
                                 int width, int C) {
  BE_CALL(ex, upsample2x, y, x, B, height, width, C);
}
/* [B, C, pixels] to [B, pixels, C] and back. */
static inline void be_channels_last(struct exec *ex, float *y, const float *x, int B, int C,
                                    int64_t pixels) {
  BE_CALL(ex, channels_last, y, x, B, C, pixels);
}
static inline void be_channels_first(struct exec *ex, float *y, const float *x, int B, int C,
                                     int64_t pixels) {
  BE_CALL(ex, channels_first, y, x, B, C, pixels);
}

#endif

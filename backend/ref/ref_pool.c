/* Images: pooling, and what a network for features takes from one. */
#include "backend/ref/ref_ops.h"

/* The pixels of x [B, height, width, C] that a 3x3 window with its first corner at (top, left) of
 * image b has in common with it. */
struct pool {
  int64_t first; /* pixel of the image */
  int top, bottom, left, right, width;
};

static struct pool pool_at(int64_t b, int top, int left, int height, int width) {
  return (struct pool){.first = b * height * width,
                       .top = top < 0 ? 0 : top,
                       .bottom = top + 3 < height ? top + 3 : height,
                       .left = left < 0 ? 0 : left,
                       .right = left + 3 < width ? left + 3 : width,
                       .width = width};
}

static int pool_pixels(const struct pool *v) { return (v->bottom - v->top) * (v->right - v->left); }

/* Pixel i of them. */
static int64_t pool_pixel(const struct pool *v, int i) {
  int columns = v->right - v->left;
  return v->first + (int64_t)(v->top + i / columns) * v->width + v->left + i % columns;
}

static float largest(struct act x, const struct pool *v, int C, int c) {
  float max = -INFINITY;
  for (int i = 0; i < pool_pixels(v); i++) {
    float value = act_at(x, pool_pixel(v, i) * C + c);
    if (value > max || isnan(value)) max = value;
    if (isnan(value)) break;
  }
  return max;
}

/* y[b, i, j, c] = max of x[b, i stride - pad + (0..2), j stride - pad + (0..2), c] in the image;
 * pixel p goes to y[p ldy + at + c]. */
void ref_max_pool(struct exec *ex, struct act y, int64_t ldy, int64_t at, struct act x, int B,
                  int height, int width, int C, int stride, int pad) {
  for (int b = 0; b < B; b++)
    for (int i = 0; i < pool_size(height, stride, pad); i++)
      for (int j = 0; j < pool_size(width, stride, pad); j++, at += ldy) {
        struct pool v = pool_at(b, i * stride - pad, j * stride - pad, height, width);
        for (int c = 0; c < C; c++) act_set(y, at + c, (double)largest(x, &v, C, c));
      }
}

/* y[b, i, j, c] = relu(mean of x[b, i - 1 .. i + 1, j - 1 .. j + 1, c] in the image) */
void ref_avg_pool_relu(struct exec *ex, struct act y, int64_t ldy, int64_t at, const float *x,
                       int B, int height, int width, int C) {
  for (int b = 0; b < B; b++)
    for (int i = 0; i < height; i++)
      for (int j = 0; j < width; j++, at += ldy)
        for (int c = 0; c < C; c++) {
          struct pool v = pool_at(b, i - 1, j - 1, height, width);
          double sum = 0;
          for (int p = 0; p < pool_pixels(&v); p++) sum += (double)x[pool_pixel(&v, p) * C + c];
          act_set(y, at + c, sum < 0 ? 0 : sum / pool_pixels(&v)); /* a NaN stays one */
        }
}

/* y[b, c] = sum over p of x[b, p, c] / pixels */
void ref_mean_pixels(struct exec *ex, float *y, struct act x, int B, int64_t pixels, int C) {
  for (int64_t b = 0; b < B; b++)
    for (int64_t c = 0; c < C; c++) {
      double sum = 0;
      for (int64_t p = 0; p < pixels; p++) sum += (double)act_at(x, (b * pixels + p) * C + c);
      y[b * C + c] = (float)(sum / (double)pixels);
    }
}

void ref_take_channels(struct exec *ex, float *y, struct act x, int64_t pixels, int C, int count) {
  for (int64_t i = 0; i < pixels * count; i++) y[i] = act_at(x, i / count * C + i % count);
}

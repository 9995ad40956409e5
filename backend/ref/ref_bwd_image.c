/* Gradients of what decoders and encoders of images are made of: convolution, GroupNorm,
 * upsampling. Channels-last, [B, height, width, C]. */
#include "backend/ref/ref_ops.h"

/* A convolution over B images of size[0] times size[1] pixels. */
struct images {
  const struct conv *w;
  int size[2];
  int64_t pixels; /* of x, all images */
};

static struct images images_of(const struct conv *w, int B, int height, int width) {
  return (struct images){w, {height, width}, (int64_t)B * height * width};
}

/* Along an axis, the output whose tap `tap` sees input `at`: at = stride output - before + tap; -1:
 * none. */
static int64_t output_along(const struct images *m, int axis, int64_t at, int tap) {
  const int64_t shifted = at + m->w->before[axis] - tap, output = shifted / m->w->stride;
  if (shifted < 0 || shifted % m->w->stride != 0) return -1;
  return output < conv_size(m->w, axis, m->size[axis]) ? output : -1;
}

/* Of all images, the output pixel whose tap (i, j) sees pixel q of x; -1: none. So
 * y[p, o] = b[o] + sum over i, j, c, and q with p = output_of(q, i, j), of W[o, c, i, j] x[q, c].
 */
static int64_t output_of(const struct images *m, int64_t q, int i, int j) {
  const int64_t row = output_along(m, 0, q / m->size[1] % m->size[0], i);
  const int64_t column = output_along(m, 1, q % m->size[1], j);
  const int64_t rows = conv_size(m->w, 0, m->size[0]), columns = conv_size(m->w, 1, m->size[1]);
  if (row < 0 || column < 0) return -1;
  return (q / m->size[1] / m->size[0] * rows + row) * columns + column;
}

/* dx[q, c] = sum over i, j, o of dy[output_of(q, i, j), o] W[o, c, i, j] */
static double input_gradient(const struct images *m, const float *dy, int64_t q, int c) {
  const struct conv *w = m->w;
  const int64_t area = (int64_t)w->kernel[0] * w->kernel[1];
  double sum = 0;
  for (int tap = 0; tap < area; tap++) {
    const int64_t p = output_of(m, q, tap / w->kernel[1], tap % w->kernel[1]);
    for (int64_t o = 0; p >= 0 && o < w->out; o++)
      sum += (double)dy[p * w->out + o] * ((const float *)w->data)[(o * area + tap) * w->in + c];
  }
  return sum;
}

void ref_conv2d_bwd_input(struct exec *ex, float *dx, const float *dy, const struct conv *w, int B,
                          int height, int width) {
  const struct images m = images_of(w, B, height, width);
  for (int64_t q = 0; q < m.pixels; q++)
    for (int c = 0; c < w->in; c++) dx[q * w->in + c] = (float)input_gradient(&m, dy, q, c);
}

/* dW[o, c, i, j] = sum over q of dy[output_of(q, i, j), o] x[q, c] */
static double weight_gradient(const struct images *m, const float *dy, struct act x, int o, int c,
                              int tap) {
  const struct conv *w = m->w;
  double sum = 0;
  for (int64_t q = 0; q < m->pixels; q++) {
    const int64_t p = output_of(m, q, tap / w->kernel[1], tap % w->kernel[1]);
    if (p >= 0) sum += (double)dy[p * w->out + o] * act_at(x, q * w->in + c);
  }
  return sum;
}

void ref_conv2d_bwd_weight(struct exec *ex, const struct linear_grad *grad, const float *dy,
                           struct act x, const struct conv *w, int B, int height, int width) {
  const struct images m = images_of(w, B, height, width);
  const int area = w->kernel[0] * w->kernel[1];
  float *dw = grad->weight;
  for (int o = 0; dw && o < w->out; o++)
    for (int c = 0; c < w->in; c++)
      for (int tap = 0; tap < area; tap++, dw++)
        *dw = (float)(*dw + weight_gradient(&m, dy, x, o, c, tap));
  if (grad->bias)
    ref_add_rows_bwd(ex, grad->bias, dy,
                     (int64_t)B * conv_size(w, 0, height) * conv_size(w, 1, width), w->out);
}

/* A group of one image: y = f(a), a = n weight + bias, n = (x - mean) / sigma, f silu or nothing.
 */
struct group {
  const float *x, *dy, *weight, *bias;
  struct moments moments;
  int64_t pixels;
  int C, begin, end; /* channels of the image, of the group */
  bool silu;
};

static double normalised(const struct group *g, int64_t p, int c) {
  return (g->x[p * g->C + c] - g->moments.mean) * g->moments.scale;
}

/* By a. */
static double affine_gradient(const struct group *g, int64_t p, int c) {
  const double a = normalised(g, p, c) * g->weight[c] + g->bias[c];
  return g->dy[p * g->C + c] * (g->silu ? silu_slope(a) : 1);
}

/* With h = da weight: dx = (h - mean(h) - n mean(h n)) / sigma, means over the group;
 * dweight[c] += sum over pixels of da n, dbias[c] += sum of da. */
static void group_bwd(float *dx, const struct linear_grad *grad, const struct group *g) {
  const double count = (double)g->pixels * (g->end - g->begin);
  double mean = 0, along = 0;
  for (int c = g->begin; c < g->end; c++) {
    double dweight = 0, dbias = 0;
    for (int64_t p = 0; p < g->pixels; p++) {
      const double da = affine_gradient(g, p, c);
      dweight += da * normalised(g, p, c);
      dbias += da;
    }
    mean += dbias * g->weight[c] / count;
    along += dweight * g->weight[c] / count;
    if (grad->weight) grad->weight[c] = (float)(grad->weight[c] + dweight);
    if (grad->bias) grad->bias[c] = (float)(grad->bias[c] + dbias);
  }
  for (int64_t p = 0; p < g->pixels; p++)
    for (int c = g->begin; c < g->end; c++) {
      const double h = affine_gradient(g, p, c) * g->weight[c];
      dx[p * g->C + c] = (float)((h - mean - normalised(g, p, c) * along) * g->moments.scale);
    }
}

void ref_group_norm_bwd(struct exec *ex, float *dx, const struct linear_grad *grad, const float *dy,
                        const float *x, const float *weight, const float *bias, int B,
                        int64_t pixels, int C, int groups, float eps, bool silu) {
  const int n = C / groups;
  for (int64_t at = 0; at < B * pixels * C; at += pixels * C)
    for (int c = 0; c < C; c += n) {
      const struct moments moments = ref_moments(x + at + c, pixels, C, n, eps);
      group_bwd(dx + at, grad,
                &(struct group){x + at, dy + at, weight, bias, moments, pixels, C, c, c + n, silu});
    }
}

void ref_upsample2x_bwd(struct exec *ex, float *dx, const float *dy, int B, int height, int width,
                        int C) {
  const int64_t line = 2 * (int64_t)width * C; /* of y */
  for (int64_t row = 0; row < (int64_t)B * height; row++)
    for (int64_t j = 0; j < width; j++, dx += C) {
      const float *y = dy + 2 * row * line + 2 * j * C;
      for (int64_t c = 0; c < C; c++)
        dx[c] = (float)((double)y[c] + y[C + c] + y[line + c] + y[line + C + c]);
    }
}

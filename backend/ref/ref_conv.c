/* Images: convolution, upsampling, patches and layouts. Channels-last unless said. */
#include "backend/ref/ref_ops.h"

/* Weights are kept [out, kernel[0], kernel[1], in], the bias [out] behind them. */
enum ditmoe_status ref_conv_create(struct exec *ex, const struct tensor *weight,
                                   const struct tensor *bias, const struct conv_window *window,
                                   struct conv **out) {
  struct conv shape, *w;
  TRY(conv_source_shape(ex->ctx, weight, bias, window, &shape));
  int64_t n = weight->elements, in = shape.in, area = n / shape.out / in;
  shape.input = ex->compute;
  shape.bytes = (size_t)(n + shape.out) * sizeof(float);
  TRY(mem_zalloc(ex->ctx, sizeof *w + shape.bytes, 1, weight->name, &w));
  shape.data = w + 1;
  float *packed = shape.data;
  for (int64_t i = 0; !ex->dry && i < n; i++) {
    int64_t o = i / (in * area), channel = i / area % in, at = i % area;
    tensor_read_f32(&packed[(o * area + at) * in + channel], weight, i, 1);
  }
  if (!ex->dry) ref_round(packed, shape.input, n);
  if (bias && !ex->dry) tensor_read_f32(packed + n, bias, 0, shape.out);
  *w = shape;
  *out = w;
  return DITMOE_OK;
}

void ref_conv_destroy(struct exec *ex, struct conv *conv) { mem_free(ex->ctx, conv); }

/* Output o of pixel (r, s) of an image, `pixel` of all images, size: height and width of x:
 *
 *   b[o] + sum over i, j, c of
 *     W[o, c, i, j] x[r stride + i - before[0], s stride + j - before[1], c]
 *
 * in which x is 0 outside of the image. */
static double output_at(const struct conv *w, struct act x, const int size[2], int64_t pixel,
                        int64_t o) {
  const int64_t area = (int64_t)w->kernel[0] * w->kernel[1];
  const float *kernel = (const float *)w->data + o * area * w->in;
  const int rows = conv_size(w, 0, size[0]), columns = conv_size(w, 1, size[1]);
  const int64_t first = pixel / columns / rows * size[0] * size[1];
  int top = (int)(pixel / columns % rows) * w->stride - w->before[0];
  int left = (int)(pixel % columns) * w->stride - w->before[1];
  double sum = 0;
  for (int row = top; row < top + w->kernel[0]; row++)
    for (int column = left; column < left + w->kernel[1]; column++, kernel += w->in)
      if (row >= 0 && row < size[0] && column >= 0 && column < size[1])
        sum += dot_at(x, (first + (int64_t)row * size[1] + column) * w->in, kernel, w->in);
  return sum + ((const float *)w->data)[w->out * area * w->in + o];
}

static void branch(const struct conv_branch *to, struct act x, int B, int height, int width) {
  const struct conv *w = to->w;
  const int64_t pixels = (int64_t)B * conv_size(w, 0, height) * conv_size(w, 1, width);
  for (int64_t p = 0; p < pixels; p++)
    for (int o = 0; o < w->out; o++) {
      double sum = output_at(w, x, (int[2]){height, width}, p, o);
      if (to->y.data)
        act_set(to->y, p * to->ldy + to->at + o, sum < 0 ? 0 : sum); /* a NaN stays one */
      else
        to->sum[p * w->out + o] = (float)sum;
    }
}

void ref_conv2d_relu(struct exec *ex, const struct conv_branch *branches, int count, struct act x,
                     int B, int height, int width) {
  for (int i = 0; i < count; i++) branch(&branches[i], x, B, height, width);
}

void ref_conv2d(struct exec *ex, float *y, struct act x, const struct conv *w, int B, int height,
                int width) {
  branch(&(struct conv_branch){.w = w, .sum = y}, x, B, height, width);
}

/* y[b, i, j, c] = x[b, i / 2, j / 2, c], i < 2 height, j < 2 width */
void ref_upsample2x(struct exec *ex, struct act y, const float *x, int B, int height, int width,
                    int C) {
  int64_t at = 0;
  for (int64_t row = 0; row < 2 * (int64_t)B * height; row++)
    for (int64_t j = 0; j < 2 * (int64_t)width; j++)
      for (int64_t c = 0; c < C; c++) act_set(y, at++, x[(row / 2 * width + j / 2) * C + c]);
}

/* y[b, p, c] = x[b, c, p] */
void ref_channels_last(struct exec *ex, float *y, const float *x, int B, int C, int64_t pixels) {
  for (int64_t b = 0; b < B; b++, x += C * pixels, y += C * pixels)
    for (int64_t c = 0; c < C; c++)
      for (int64_t p = 0; p < pixels; p++) y[p * C + c] = x[c * pixels + p];
}

/* y[b, c, p] = x[b, p, c] */
void ref_channels_first(struct exec *ex, float *y, const float *x, int B, int C, int64_t pixels) {
  for (int64_t b = 0; b < B; b++, x += C * pixels, y += C * pixels)
    for (int64_t c = 0; c < C; c++)
      for (int64_t p = 0; p < pixels; p++) y[c * pixels + p] = x[p * C + c];
}

/* Where element i of [B, C, height, width] lies: its patch (of all images), its place inside, its
 * channel. */
struct patch_place {
  int64_t patch, inside, channel;
};

static struct patch_place patch_place_of(int64_t i, int C, int height, int width, int patch) {
  const int64_t column = i % width, row = i / width % height, plane = i / width / height;
  const int64_t rows = height / patch, columns = width / patch;
  return (struct patch_place){.patch = (plane / C * rows + row / patch) * columns + column / patch,
                              .inside = row % patch * patch + column % patch,
                              .channel = plane % C};
}

/* rows[patch, c, inside] = x[b, c, row, column]: what a linear layer makes tokens of (Dosovitskiy
 * et al. 2021). */
void ref_patchify(struct exec *ex, float *rows, const float *x, int B, int C, int height, int width,
                  int patch) {
  for (int64_t i = 0; i < (int64_t)B * C * height * width; i++) {
    struct patch_place s = patch_place_of(i, C, height, width, patch);
    rows[(s.patch * C + s.channel) * patch * patch + s.inside] = x[i];
  }
}

/* x[b, c, row, column] = rows[patch, inside, c]: channels are the fastest here. */
void ref_unpatchify(struct exec *ex, float *x, const float *rows, int B, int C, int height,
                    int width, int patch) {
  for (int64_t i = 0; i < (int64_t)B * C * height * width; i++) {
    struct patch_place s = patch_place_of(i, C, height, width, patch);
    x[i] = rows[(s.patch * patch * patch + s.inside) * C + s.channel];
  }
}

void ref_patchify_bwd(struct exec *ex, float *dx, const float *drows, int B, int C, int height,
                      int width, int patch) {
  for (int64_t i = 0; i < (int64_t)B * C * height * width; i++) {
    struct patch_place s = patch_place_of(i, C, height, width, patch);
    dx[i] = drows[(s.patch * C + s.channel) * patch * patch + s.inside];
  }
}

void ref_unpatchify_bwd(struct exec *ex, float *drows, const float *dx, int B, int C, int height,
                        int width, int patch) {
  for (int64_t i = 0; i < (int64_t)B * C * height * width; i++) {
    struct patch_place s = patch_place_of(i, C, height, width, patch);
    drows[(s.patch * patch * patch + s.inside) * C + s.channel] = dx[i];
  }
}

/* Gradients of linear layers, modulated LayerNorm and experts. A hidden activation is computed
 * again where it is needed: nothing of the forward pass is kept but its inputs. */
#include "backend/ref/ref_ops.h"

/* A layer whose outputs go through an activation: its weights, `count` rows of inputs, and the
 * gradient of the loss by the outputs: dy itself [count, width], or dy [count, width] through the
 * matrix `out` that follows. */
struct layer {
  const struct linear *w, *out;
  enum { LINEAR, GELU, SWIGLU } activation;
  const float *x, *dy;
  int64_t count, width;
};

/* Of one hidden unit and row: its value, and the gradients of the loss by its one or two sums. */
struct unit {
  double value, d_sum[2];
};

static double unit_gradient(const struct layer *l, int64_t row, int64_t o) {
  const float *dy = l->dy + row * l->width;
  double sum = 0;
  if (!l->out) return dy[o];
  for (int64_t c = 0; c < l->width; c++) sum += (double)dy[c] * linear_row(l->out, c)[o];
  return sum;
}

static struct unit unit_at(const struct layer *l, int64_t row, int64_t o) {
  const float *x = l->x + row * l->w->in;
  double dy = unit_gradient(l, row, o);
  if (l->activation == LINEAR) return (struct unit){0, {dy, 0}};
  double a = ref_linear_at(l->w, o, act_f32(x), 0);
  if (l->activation == GELU) return (struct unit){gelu_of(a), {dy * gelu_slope(a), 0}};
  double up = ref_linear_at(l->w, l->w->out + o, act_f32(x), 0);
  return (struct unit){silu_of(a) * up, {dy * up * silu_slope(a), dy * silu_of(a)}};
}

/* dx [count, in] = the gradients of the sums times the weights. */
static void input_bwd(float *dx, const struct layer *l) {
  int64_t in = l->w->in;
  for (int64_t r = 0; r < l->count; r++)
    for (int64_t c0 = 0; c0 < in; c0 += REF_CHUNK) {
      double acc[REF_CHUNK] = {0};
      int64_t c1 = chunk_end(c0, in);
      for (int64_t o = 0; o < l->w->out; o++) {
        struct unit u = unit_at(l, r, o);
        for (int half = 0; half <= l->w->paired; half++) {
          const float *w = linear_row(l->w, half * (int64_t)l->w->out + o);
          for (int64_t c = c0; c < c1; c++) acc[c - c0] += u.d_sum[half] * w[c];
        }
      }
      for (int64_t c = c0; c < c1; c++) dx[r * in + c] = (float)acc[c - c0];
    }
}

/* dw [out, in] += gradients of the sums `half` times the inputs; db [out] += their sum. */
static void weight_bwd(float *dw, float *db, const struct layer *l, int half) {
  int64_t in = l->w->in;
  for (int64_t o = 0; o < l->w->out; o++) {
    for (int64_t c0 = 0; dw && c0 < in; c0 += REF_CHUNK) {
      double acc[REF_CHUNK] = {0};
      int64_t c1 = chunk_end(c0, in);
      for (int64_t r = 0; r < l->count; r++) {
        double d_sum = unit_at(l, r, o).d_sum[half];
        for (int64_t c = c0; c < c1; c++) acc[c - c0] += d_sum * l->x[r * in + c];
      }
      for (int64_t c = c0; c < c1; c++) dw[o * in + c] = (float)(dw[o * in + c] + acc[c - c0]);
    }
    double sum = 0;
    for (int64_t r = 0; db && r < l->count; r++) sum += unit_at(l, r, o).d_sum[half];
    if (db) db[o] = (float)(db[o] + sum);
  }
}

static float *offset_by(float *p, int64_t n) { return p ? p + n : NULL; }

void ref_linear_bwd(struct exec *ex, float *dx, float *dw, float *db, const float *dy,
                    const float *x, const struct linear *w, int64_t rows) {
  (void)ex;
  struct layer l = {w, NULL, w->paired ? SWIGLU : LINEAR, x, dy, rows, w->out};
  if (dx) input_bwd(dx, &l);
  for (int half = 0; half <= w->paired; half++)
    weight_bwd(offset_by(dw, half * (int64_t)w->out * w->in), offset_by(db, half * (int64_t)w->out),
               &l, half);
}

/* down [width, F] += dy^T h */
static void down_bwd(float *down, const struct layer *l) {
  int64_t F = l->w->out;
  for (int64_t f = 0; f < F; f++)
    for (int64_t c0 = 0; c0 < l->width; c0 += REF_CHUNK) {
      double acc[REF_CHUNK] = {0};
      int64_t c1 = chunk_end(c0, l->width);
      for (int64_t r = 0; r < l->count; r++) {
        double h = unit_at(l, r, f).value;
        for (int64_t c = c0; c < c1; c++) acc[c - c0] += h * l->dy[r * l->width + c];
      }
      for (int64_t c = c0; c < c1; c++) down[c * F + f] = (float)(down[c * F + f] + acc[c - c0]);
    }
}

static void sum_rows(float *sum, const float *dy, int64_t rows, int64_t width) {
  for (int64_t c = 0; c < width; c++) {
    double acc = 0;
    for (int64_t r = 0; r < rows; r++) acc += dy[r * width + c];
    sum[c] = (float)(sum[c] + acc);
  }
}

void ref_experts_bwd(struct exec *ex, float *drows, const struct expert_grad *grads,
                     const float *dy, const float *rows, const struct dispatch *d,
                     const struct expert_bank *bank) {
  (void)ex;
  const int D = bank->width;
  for (int e = 0; e < d->experts; e++) {
    const struct expert *expert = &bank->expert[e];
    int64_t first = (int64_t)d->offset[e] * D, count = d->offset[e + 1] - d->offset[e];
    if (!expert_has_weights(expert)) {
      for (int64_t i = first; drows && i < first + count * D; i++)
        drows[i] = expert->kind->rows == ROWS_COPY ? dy[i] : 0;
      continue;
    }
    struct layer l = {expert->in,
                      expert->out,
                      expert->kind->activation == ACTIVATION_GELU ? GELU : SWIGLU,
                      rows + first,
                      dy + first,
                      count,
                      D};
    const struct expert_grad *g = &grads[e];
    if (drows) input_bwd(drows + first, &l);
    weight_bwd(g->gate, g->in_bias, &l, 0);
    if (l.activation == SWIGLU) weight_bwd(g->up, offset_by(g->in_bias, expert->hidden), &l, 1);
    if (g->down) down_bwd(g->down, &l);
    if (g->out_bias) sum_rows(g->out_bias, l.dy, count, D);
  }
}

/* With n = (x - mean) / sigma and g = dy (1 + scale): dx = (g - mean(g) - n mean(g n)) / sigma. */
static void norm_row_bwd(float *dx, const float *dy, const float *x, const float *scale, int D,
                         double eps) {
  struct moments m = ref_moments(x, 1, 0, D, eps);
  double mean = 0, along = 0;
  for (int i = 0; i < D; i++) {
    double g = dy[i] * (1 + (double)scale[i]);
    mean += g / D;
    along += g * (x[i] - m.mean) * m.scale / D;
  }
  for (int i = 0; i < D; i++) {
    double g = dy[i] * (1 + (double)scale[i]);
    dx[i] = (float)((g - mean - (x[i] - m.mean) * m.scale * along) * m.scale);
  }
}

/* dshift = sum over tokens of dy, dscale = sum of dy n; of one image. */
static void modulation_bwd(float *dshift, float *dscale, const float *dy, const float *x, int T,
                           int D, double eps) {
  for (int64_t c0 = 0; c0 < D; c0 += REF_CHUNK) {
    double shift[REF_CHUNK] = {0}, scale[REF_CHUNK] = {0};
    int64_t c1 = chunk_end(c0, D);
    for (int64_t t = 0; t < T; t++) {
      struct moments m = ref_moments(x + t * D, 1, 0, D, eps);
      for (int64_t c = c0; c < c1; c++) {
        shift[c - c0] += dy[t * D + c];
        scale[c - c0] += dy[t * D + c] * (x[t * D + c] - m.mean) * m.scale;
      }
    }
    for (int64_t c = c0; c < c1; c++) {
      if (dshift) dshift[c] = (float)shift[c - c0];
      if (dscale) dscale[c] = (float)scale[c - c0];
    }
  }
}

void ref_norm_modulate_bwd(struct exec *ex, float *dx, float *dshift, float *dscale,
                           const float *dy, const float *x, const float *scale, int64_t stride,
                           int B, int T, int D, float eps) {
  (void)ex;
  for (int64_t b = 0; b < B; b++) {
    const float *image = x + b * T * D, *grad = dy + b * T * D;
    modulation_bwd(offset_by(dshift, b * stride), offset_by(dscale, b * stride), grad, image, T, D,
                   eps);
    for (int64_t t = 0; dx && t < T; t++)
      norm_row_bwd(dx + (b * T + t) * D, grad + t * D, image + t * D, scale + b * stride, D, eps);
  }
}

/* Gradients of normalisations, softmax, residual additions and single values. */
#include "backend/ref/ref_ops.h"

static float *offset_by(float *p, int64_t n) { return p ? p + n : NULL; }

/* dx = dy silu'(x), silu'(x) = s (1 + x (1 - s)), s = sigmoid(x) */
void ref_silu_bwd(struct exec *ex, float *dx, const float *dy, const float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) dx[i] = (float)(dy[i] * silu_slope(x[i]));
}

/* dx = dy y (1 - y), by the result y = sigmoid(x) */
void ref_sigmoid_bwd(struct exec *ex, float *dx, const float *dy, const float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) dx[i] = (float)(dy[i] * (double)y[i] * (1 - (double)y[i]));
}

/* drow[i] += sum over r of dx[r, i] */
void ref_add_rows_bwd(struct exec *ex, float *drow, const float *dx, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int64_t r = 0; r < rows; r++) sum += dx[r * n + i];
    drow[i] = (float)(drow[i] + sum);
  }
}

/* Of out = x + gate y: dgate[b, i] = sum over t of dout[b, t, i] y[b, t, i], dy = gate dout. */
void ref_gated_add_bwd(struct exec *ex, float *dgate, float *dy, const float *dout,
                       const float *gate, int64_t stride, const float *y, int B, int T, int D) {
  for (int64_t b = 0; b < B; b++)
    for (int64_t i = 0; i < D; i++) {
      double sum = 0;
      for (int64_t at = b * T * D + i; at < (b + 1) * T * D; at += D) {
        sum += (double)dout[at] * y[at];
        dy[at] = dout[at] * gate[b * stride + i];
      }
      dgate[b * stride + i] = (float)sum;
    }
}

/* What a row was multiplied by after its normalisation. */
struct factors {
  const float *scale, *weight; /* weight NULL: 1 */
  double plus;
};

static double factor_at(const struct factors *f, int i) {
  return (f->plus + f->scale[i]) * (f->weight ? f->weight[i] : 1);
}

/* With n = (x - mean) / sigma and g = dy factor: dx = (g - mean(g) - n mean(g n)) / sigma, without
 * mean(g) in an RMSNorm. */
static void norm_row_bwd(float *dx, const float *dy, const float *x, const struct factors *f,
                         bool rms, int D, double eps) {
  struct moments m = ref_row_moments(x, D, rms, eps);
  double mean = 0, along = 0;
  for (int i = 0; i < D; i++) {
    double g = dy[i] * factor_at(f, i);
    if (!rms) mean += g / D;
    along += g * (x[i] - m.mean) * m.scale / D;
  }
  for (int i = 0; i < D; i++) {
    double g = dy[i] * factor_at(f, i);
    dx[i] = (float)((g - mean - (x[i] - m.mean) * m.scale * along) * m.scale);
  }
}

/* Of y = n (1 + scale) + shift in one image, `scale` its row: dshift[c] = sum over t of dy[t, c],
 * dscale[c] = sum over t of dy[t, c] n[t, c]; with a weight its share too. */
static void modulation_bwd(const struct modulation_grad *grad, const float *dy, const float *x,
                           const float *scale, int T, int D, const struct row_norm *norm) {
  for (int64_t c0 = 0; c0 < D; c0 += REF_CHUNK) {
    double dy_sum[REF_CHUNK] = {0}, dyn_sum[REF_CHUNK] = {0};
    int64_t c1 = chunk_end(c0, D);
    for (int64_t t = 0; t < T; t++) {
      struct moments m = ref_row_moments(x + t * D, D, norm->weight != NULL, norm->eps);
      for (int64_t c = c0; c < c1; c++) {
        dy_sum[c - c0] += dy[t * D + c];
        dyn_sum[c - c0] += dy[t * D + c] * (x[t * D + c] - m.mean) * m.scale;
      }
    }
    for (int64_t c = c0; c < c1; c++) {
      const double weight = norm->weight ? norm->weight[c] : 1, sum = dyn_sum[c - c0];
      if (grad->shift) grad->shift[c] = (float)dy_sum[c - c0];
      if (grad->scale) grad->scale[c] = (float)(sum * weight);
      if (grad->weight) grad->weight[c] = (float)(grad->weight[c] + sum * (1 + (double)scale[c]));
    }
  }
}

void ref_norm_modulate_bwd(struct exec *ex, float *dx, const struct modulation_grad *grad,
                           const float *dy, const float *x, const float *scale, int64_t stride,
                           int B, int T, int D, const struct row_norm *norm) {
  for (int64_t b = 0; b < B; b++, scale += stride) {
    const float *image = x + b * T * D, *dimage = dy + b * T * D;
    const struct factors factors = {scale, norm->weight, 1};
    modulation_bwd(&(struct modulation_grad){offset_by(grad->shift, b * stride),
                                             offset_by(grad->scale, b * stride), grad->weight},
                   dimage, image, scale, T, D, norm);
    for (int64_t t = 0; dx && t < T; t++)
      norm_row_bwd(dx + (b * T + t) * D, dimage + t * D, image + t * D, &factors,
                   norm->weight != NULL, D, norm->eps);
  }
}

/* One head of q or k, y = n weight + bias, [d]: dweight += dy n, dbias += dy, and dx with g = dy
 * weight; rms: without a bias. */
static void head_bwd(float *dx, float *dweight, float *dbias, const float *dy, const float *x,
                     const float *weight, bool rms, int d, double eps) {
  struct moments m = ref_row_moments(x, d, rms, eps);
  norm_row_bwd(dx, dy, x, &(struct factors){.scale = weight}, rms, d, eps);
  for (int i = 0; i < d; i++) {
    if (dweight) dweight[i] = (float)(dweight[i] + dy[i] * (x[i] - m.mean) * m.scale);
    if (dbias) dbias[i] += dy[i];
  }
}

void ref_qk_norm_bwd(struct exec *ex, float *dqkv, const struct qk_norm_grad *grad, const float *dy,
                     const float *qkv, const struct qk_norm *norm, int64_t rows, int H, int d) {
  const int64_t D = (int64_t)H * d;
  for (int64_t r = 0; r < rows; r++, dqkv += 3 * D, dy += 3 * D, qkv += 3 * D) {
    for (int64_t q = 0, k = D; q < D; q += d, k += d) {
      head_bwd(dqkv + q, grad->q_weight, grad->q_bias, dy + q, qkv + q, norm->q_weight,
               !norm->q_bias, d, norm->eps);
      head_bwd(dqkv + k, grad->k_weight, grad->k_bias, dy + k, qkv + k, norm->k_weight,
               !norm->k_bias, d, norm->eps);
    }
    for (int64_t v = 2 * D; v < 3 * D; v++) dqkv[v] = dy[v];
  }
}

/* Of y = x / |x|: dx = (dy - y (y . dy)) / |x|. */
void ref_normalize_rows_bwd(struct exec *ex, float *dx, const float *dy, const float *x,
                            int64_t rows, int D) {
  for (int64_t r = 0; r < rows; r++, dx += D, dy += D, x += D) {
    const double length = sqrt(dot(x, x, D)), along = dot(x, dy, D);
    for (int64_t i = 0; i < D; i++)
      dx[i] = (float)(length > 1e-12 ? (dy[i] - x[i] * along / (length * length)) / length
                                     : dy[i] / 1e-12);
  }
}

/* dx_i = y_i (dy_i - sum over j of dy_j y_j), y = softmax(x); n values that are `stride` apart. */
static void softmax_bwd(float *dx, const float *dy, const float *y, int64_t n, int64_t stride) {
  double along = 0;
  for (int64_t i = 0; i < n * stride; i += stride) along += (double)dy[i] * y[i];
  for (int64_t i = 0; i < n * stride; i += stride) dx[i] = (float)(y[i] * (dy[i] - along));
}

void ref_softmax_rows_bwd(struct exec *ex, float *dx, const float *dy, const float *y, int64_t rows,
                          int n) {
  for (int64_t r = 0; r < rows * n; r += n) softmax_bwd(dx + r, dy + r, y + r, n, 1);
}

void ref_softmax_tokens_bwd(struct exec *ex, float *dx, const float *dy, const float *y, int B,
                            int T, int E) {
  for (int64_t at = 0; at < (int64_t)B * T * E; at += (int64_t)T * E)
    for (int64_t e = at; e < at + E; e++) softmax_bwd(dx + e, dy + e, y + e, T, E);
}

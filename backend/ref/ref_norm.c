/* Normalisations: LayerNorm with modulation (Peebles & Xie 2023, adaLN), of queries and keys,
 * GroupNorm, unit length, softmax. */
#include "backend/ref/ref_ops.h"

#include "base/tensor.h"

struct moments ref_moments(const float *x, int64_t rows, int64_t stride, int64_t n, double eps) {
  double sum = 0, squares = 0, count = (double)rows * (double)n;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) sum += x[r * stride + i];
  double mean = sum / count;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) {
      double centred = x[r * stride + i] - mean;
      squares += centred * centred;
    }
  return (struct moments){mean, 1 / sqrt(squares / count + eps)};
}

/* LayerNorm (Ba et al. 2016) without weights, modulated by rows [D] of each image:
 *
 *   y[b, t] = n (1 + scale[b]) + shift[b], n = (x[b, t] - mean) / sqrt(var + eps)
 *
 * with mean and biased variance over the D values of a token. */
void ref_norm_modulate(struct exec *ex, struct act y, const float *x, const float *shift,
                       const float *scale, int64_t stride, int B, int T, int D,
                       const struct row_norm *norm) {
  int64_t at = 0;
  for (int64_t b = 0; b < B; b++, shift += stride, scale += stride)
    for (int64_t t = 0; t < T; t++, x += D) {
      struct moments m = ref_row_moments(x, D, norm->weight != NULL, norm->eps);
      for (int64_t i = 0; i < D; i++) {
        const double weight = norm->weight ? norm->weight[i] : 1;
        act_set(y, at++, (x[i] - m.mean) * m.scale * weight * (1 + (double)scale[i]) + shift[i]);
      }
    }
}

/* One head of q or of k, [d]: y = (x - mean) / sqrt(var + eps) weight + bias (Dehghani et
 * al. 2023) */
static void norm_head(float *y, const float *x, const float *weight, const float *bias, int d,
                      float eps) {
  struct moments m = ref_row_moments(x, d, !bias, eps);
  for (int i = 0; i < d; i++)
    y[i] = (float)((x[i] - m.mean) * m.scale * weight[i] + (bias ? bias[i] : 0));
}

/* A half of a head, n features, by its n / 2 angles. */
static void rotate_half(float *x, const float *cosine, const float *sine, int n, bool adjacent,
                        double direction) {
  for (int j = 0; j < n / 2; j++) {
    float *first = x + (adjacent ? 2 * j : j), *second = first + (adjacent ? 1 : n / 2);
    const double a = *first, b = *second, c = cosine[j], s = direction * sine[j];
    *first = (float)(a * c - b * s);
    *second = (float)(b * c + a * s);
  }
}

void ref_qk_rotate(struct exec *ex, float *qkv, const struct rope *rope, float direction, int B,
                   int T, int H, int d) {
  for (int64_t r = 0; r < (int64_t)B * T; r++, qkv += 3 * (int64_t)H * d) {
    const int64_t at = r % T * (d / 2);
    for (int half = 0; half < 4 * H; half++) /* of q and of k, which lie side by side */
      rotate_half(qkv + (int64_t)half * (d / 2), rope->cos + at + half % 2 * (d / 4),
                  rope->sin + at + half % 2 * (d / 4), d / 2, rope->adjacent, direction);
  }
}

/* A row of qkv is [3, H, d]: q from 0, k from D, v from 2 D on. v stays as it is. */
void ref_qk_norm(struct exec *ex, float *y, const float *qkv, const struct qk_norm *norm,
                 int64_t rows, int H, int d) {
  int64_t D = (int64_t)H * d;
  for (int64_t r = 0; r < rows; r++, y += 3 * D, qkv += 3 * D) {
    for (int64_t q = 0, k = D; q < D; q += d, k += d) {
      norm_head(y + q, qkv + q, norm->q_weight, norm->q_bias, d, norm->eps);
      norm_head(y + k, qkv + k, norm->k_weight, norm->k_bias, d, norm->eps);
    }
    for (int64_t v = 2 * D; v < 3 * D; v++) y[v] = qkv[v];
  }
}

/* q and k, the first 2 D values of a row of qkv [rows, 3, D] */
void ref_qk_round_f16(struct exec *ex, float *qkv, int64_t rows, int D) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < 2 * (int64_t)D; i++) {
      float *value = &qkv[r * 3 * D + i];
      *value = f32_from_f16(f16_from_f32(*value));
    }
}

/* GroupNorm (Wu & He 2018) of x [B, pixels, C], n = C / groups channels to a group g:
 *
 *   y[b, p, c] = f((x[b, p, c] - mean[b, g]) / sqrt(var[b, g] + eps) weight[c] + bias[c])
 *
 * with mean and biased variance over all pixels and the channels of the group; f is silu or
 * nothing. */
void ref_group_norm(struct exec *ex, struct act y, const float *x, const float *weight,
                    const float *bias, int B, int64_t pixels, int C, int groups, float eps,
                    bool silu) {
  int n = C / groups;
  for (int64_t b = 0; b < B; b++, x += pixels * C)
    for (int c0 = 0; c0 < C; c0 += n) {
      struct moments m = ref_moments(x + c0, pixels, C, n, eps);
      for (int64_t p = 0; p < pixels; p++)
        for (int c = c0; c < c0 + n; c++) {
          double value = (x[p * C + c] - m.mean) * m.scale * weight[c] + bias[c];
          act_set(y, (b * pixels + p) * C + c, silu ? silu_of(value) : value);
        }
    }
}

/* y[r] = x[r] / max(|x[r]|, 1e-12): products of such rows are cosines. */
void ref_normalize_rows(struct exec *ex, float *y, const float *x, int64_t rows, int D) {
  for (int64_t r = 0; r < rows; r++, x += D, y += D) {
    double length = fmax(sqrt(dot(x, x, D)), 1e-12);
    for (int64_t i = 0; i < D; i++) y[i] = (float)(x[i] / length);
  }
}

/* Sum of e^(x - max) over a row in descending order of the values: for each distinct value its
 * exponential as often as it occurs. NaN if a value is. */
static double descending_sum(const float *x, int n, double *max) {
  double sum = 0, value = INFINITY;
  for (int added = 0; added < n;) {
    double next = -INFINITY;
    int count = 0;
    for (int i = 0; i < n; i++) {
      bool candidate = x[i] < value || (added == 0 && !isnan(x[i]));
      if (candidate && (x[i] > next || count == 0)) next = x[i], count = 0;
      count += candidate && x[i] == next;
    }
    if (count == 0) return NAN;
    if (added == 0) *max = next;
    for (int i = 0; i < count; i++) sum += exp(next - *max);
    value = next;
    added += count;
  }
  return sum;
}

/* y[r, i] = e^(x[r, i] - max) / sum over j of e^(x[r, j] - max) */
void ref_softmax_rows(struct exec *ex, float *y, const float *x, int64_t rows, int n) {
  for (int64_t r = 0; r < rows; r++, x += n, y += n) {
    double max = 0, sum = descending_sum(x, n, &max);
    for (int i = 0; i < n; i++) y[i] = (float)(exp(x[i] - max) / sum);
  }
}

/* y[b, t, e] = e^(x[b, t, e] - max) / sum over t of it, max over t: each expert weighs the tokens
 * of an image. */
void ref_softmax_tokens(struct exec *ex, float *y, const float *x, int B, int T, int E) {
  for (int64_t b = 0; b < B; b++, x += (int64_t)T * E, y += (int64_t)T * E)
    for (int64_t e = 0; e < E; e++) {
      double max = -INFINITY, sum = 0;
      for (int64_t t = 0; t < T; t++) max = fmax(max, x[t * E + e]);
      for (int64_t t = 0; t < T; t++) sum += exp(x[t * E + e] - max);
      for (int64_t t = 0; t < T; t++) y[t * E + e] = (float)(exp(x[t * E + e] - max) / sum);
    }
}

/* Attention, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017), and its gradient. */
#include "backend/ref/ref_ops.h"

/* One head of one image: rows of q, k, v and of their gradients are `stride` apart. */
struct head {
  const float *q, *k, *v;
  int64_t stride;
  int T, d;
  double scale;
};

/* Head h of image b in qkv [B, T, 3, H, d]: rows of 3 D values, D = H d. */
static struct head head_of(const float *qkv, int64_t b, int64_t h, int T, int H, int d) {
  int64_t D = (int64_t)H * d;
  const float *q = qkv + b * T * 3 * D + h * d;
  return (struct head){q, q + D, q + 2 * D, 3 * D, T, d, 1 / sqrt(d)};
}

/* s_ij = q_i . k_j / sqrt(d) */
static double logit(const struct head *a, int64_t i, int64_t j) {
  return dot(a->q + i * a->stride, a->k + j * a->stride, a->d) * a->scale;
}

static double largest_logit(const struct head *a, int64_t i) {
  double max = -INFINITY;
  for (int64_t j = 0; j < a->T; j++) max = fmax(max, logit(a, i, j));
  return max;
}

/* o[at ...] = the output of query i, and as the result its lse:
 *
 *   m = max over j of s_ij, p_j = e^(s_ij - m), Z = sum of p_j
 *   o_i = sum over j of p_j v_j / Z, lse_i = m + ln(Z) */
static double attend(struct act o, int64_t at, const struct head *a, int64_t i) {
  double max = largest_logit(a, i), lse = max;
  for (int64_t c0 = 0; c0 < a->d; c0 += REF_CHUNK) {
    double sum = 0, acc[REF_CHUNK] = {0};
    int64_t c1 = chunk_end(c0, a->d);
    for (int64_t j = 0; j < a->T; j++) {
      double p = exp(logit(a, i, j) - max);
      sum += p;
      for (int64_t c = c0; c < c1; c++) acc[c - c0] += p * a->v[j * a->stride + c];
    }
    for (int64_t c = c0; c < c1; c++) act_set(o, at + c, acc[c - c0] / sum);
    lse = max + log(sum);
  }
  return lse;
}

void ref_attention(struct exec *ex, struct act o, float *lse, const float *qkv, int B, int T, int H,
                   int d) {
  for (int64_t b = 0; b < B; b++)
    for (int64_t h = 0; h < H; h++) {
      struct head a = head_of(qkv, b, h, T, H, d);
      for (int64_t t = 0; t < T; t++) {
        double sum = attend(o, ((b * T + t) * H + h) * d, &a, t);
        if (lse) lse[(b * H + h) * T + t] = (float)sum;
      }
    }
}

/* Query i with the gradient d_o of its output: adds its shares to dk and dv, and writes dq. along =
 * d_o . o, which is the mean of d_o . v_j under its probabilities (Dao et al. 2022):
 *
 *   p_ij = e^(s_ij - lse_i), ds_ij = p_ij (d_o_i . v_j - along) / sqrt(d)
 *   dq_i = sum over j of ds_ij k_j, dk_j += ds_ij q_i, dv_j += p_ij d_o_i */
static void attend_bwd(float *dq, float *dk, float *dv, const float *d_o, double along, double lse,
                       const struct head *a, int64_t i) {
  const float *q = a->q + i * a->stride;
  for (int64_t c0 = 0; c0 < a->d; c0 += REF_CHUNK) {
    double acc[REF_CHUNK] = {0};
    int64_t c1 = chunk_end(c0, a->d);
    for (int64_t j = 0; j < a->T; j++) {
      int64_t row = j * a->stride;
      double p = exp(logit(a, i, j) - lse);
      double ds = p * (dot(d_o, a->v + row, a->d) - along) * a->scale;
      for (int64_t c = c0; c < c1; c++) {
        acc[c - c0] += ds * a->k[row + c];
        dk[row + c] = (float)(dk[row + c] + ds * q[c]);
        dv[row + c] = (float)(dv[row + c] + p * d_o[c]);
      }
    }
    for (int64_t c = c0; c < c1; c++) dq[i * a->stride + c] = (float)acc[c - c0];
  }
}

void ref_attention_bwd(struct exec *ex, float *dqkv, const float *d_o, const float *qkv,
                       struct act o, const float *lse, int B, int T, int H, int d) {
  int64_t D = (int64_t)H * d;
  for (int64_t i = 0; i < B * (int64_t)T * 3 * D; i++) dqkv[i] = 0;
  for (int64_t b = 0; b < B; b++)
    for (int64_t h = 0; h < H; h++) {
      struct head a = head_of(qkv, b, h, T, H, d);
      float *dq = dqkv + (a.q - qkv);
      for (int64_t t = 0; t < T; t++) {
        const int64_t at = ((b * T + t) * H + h) * d;
        attend_bwd(dq, dq + D, dq + 2 * D, d_o + at, dot_at(o, at, d_o + at, d),
                   lse[(b * H + h) * T + t], &a, t);
      }
    }
}

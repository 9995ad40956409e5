/* The be_* callers of backend.h: one line each, with the meaning of the operation. Those of images
 * are in calls_image.h. */
#ifndef BACKEND_CALLS_H
#define BACKEND_CALLS_H

static inline bool be_active(const struct backend *be) {
  return be->status == DITMOE_OK && !be->arena.measuring;
}

#define BE_CALL(be, op, ...)                                                                       \
  do {                                                                                             \
    if (!be_active(be)) break;                                                                     \
    const double start = (be)->profile ? system_seconds() : 0;                                     \
    (be)->ops->op((be), __VA_ARGS__);                                                              \
    if ((be)->profile) (be)->profile->called((be)->profile->user, #op, system_seconds() - start);  \
  } while (0)

/* Host memory to device and back; upload returns when src may be reused, download when dst is
 * there. */
static inline void be_upload(struct backend *be, void *dst, const void *src, size_t bytes) {
  BE_CALL(be, upload, dst, src, bytes);
}
static inline void be_download(struct backend *be, void *dst, const void *src, size_t bytes) {
  BE_CALL(be, download, dst, src, bytes);
}

/* Conversions between f32 and the compute type, to nearest even. */
static inline void be_narrow(struct backend *be, struct act *y, const float *x, int64_t n) {
  BE_CALL(be, narrow, y, x, n);
}
static inline void be_widen(struct backend *be, float *y, const struct act *x, int64_t n) {
  BE_CALL(be, widen, y, x, n);
}
/* y [rows, out] = x [rows, in] W^T + b; the second for weights made as `exact`. */
static inline void be_linear(struct backend *be, float *y, const struct act *x,
                             const struct linear *w, int64_t rows) {
  BE_CALL(be, linear, y, x, w, rows);
}
static inline void be_linear_exact(struct backend *be, float *y, const float *x,
                                   const struct linear *w, int64_t rows) {
  BE_CALL(be, linear, y, x, w, rows);
}
/* h [rows, F], the hidden activations of an expert with weights: silu(x G^T) * (x U^T) or
 * gelu(x W^T + b), gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). */
static inline void be_hidden(struct backend *be, struct act *h, const struct act *x,
                             const struct expert *expert, int64_t rows) {
  BE_CALL(be, hidden, h, x, expert, rows);
}
/* y = x / (1 + e^-x) */
static inline void be_silu(struct backend *be, float *y, const float *x, int64_t n) {
  BE_CALL(be, silu, y, x, n);
}
/* y = 1 / (1 + e^-x) */
static inline void be_sigmoid(struct backend *be, float *y, const float *x, int64_t n) {
  BE_CALL(be, sigmoid, y, x, n);
}
static inline void be_add(struct backend *be, float *y, const float *a, const float *b, int64_t n) {
  BE_CALL(be, add, y, a, b, n);
}
/* x [rows, n] += row [n] */
static inline void be_add_rows(struct backend *be, float *x, const float *row, int64_t rows,
                               int64_t n) {
  BE_CALL(be, add_rows, x, row, rows, n);
}
/* y = LN(x) * (1 + scale) + shift over the last axis of x [B, T, D], biased variance; shift and
 * scale are rows of image b at b * stride. */
static inline void be_norm_modulate(struct backend *be, struct act *y, const float *x,
                                    const float *shift, const float *scale, int64_t stride, int B,
                                    int T, int D, float eps) {
  BE_CALL(be, norm_modulate, y, x, shift, scale, stride, B, T, D, eps);
}
/* The same in f32. */
static inline void be_norm_modulate_exact(struct backend *be, float *y, const float *x,
                                          const float *shift, const float *scale, int64_t stride,
                                          int B, int T, int D, float eps) {
  BE_CALL(be, norm_modulate_exact, y, x, shift, scale, stride, B, T, D, eps);
}
/* x [B, T, D] += gate * y, gate of image b at b * stride. */
static inline void be_gated_add(struct backend *be, float *x, const float *gate, int64_t stride,
                                const float *y, int B, int T, int D) {
  BE_CALL(be, gated_add, x, gate, stride, y, B, T, D);
}
/* LayerNorm with weight and bias [d] over each head of q and k in qkv [rows, 3, H, d], in place. */
static inline void be_qk_norm(struct backend *be, float *qkv, const float *q_weight,
                              const float *q_bias, const float *k_weight, const float *k_bias,
                              int64_t rows, int H, int d, float eps) {
  BE_CALL(be, qk_norm, qkv, q_weight, q_bias, k_weight, k_bias, rows, H, d, eps);
}
/* Rounds q and k of qkv [rows, 3, D] to float16 and back, as flash-attn's callers do. */
static inline void be_qk_round_f16(struct backend *be, float *qkv, int64_t rows, int D) {
  BE_CALL(be, qk_round_f16, qkv, rows, D);
}
/* o [B, T, H, d] = softmax(q k^T / sqrt(d)) v with qkv [B, T, 3, H, d]. */
static inline void be_attention(struct backend *be, struct act *o, const float *qkv, int B, int T,
                                int H, int d) {
  BE_CALL(be, attention, o, qkv, B, T, H, d);
}
/* rows [B, T, C * p * p] (channel slowest) of x [B, C, size, size]; T = (size / p)^2, row-major. */
static inline void be_patchify(struct backend *be, float *rows, const float *x, int B, int C,
                               int size, int patch) {
  BE_CALL(be, patchify, rows, x, B, C, size, patch);
}
/* x [B, C, size, size] of rows [B, T, p * p * C] (channel fastest). */
static inline void be_unpatchify(struct backend *be, float *x, const float *rows, int B, int C,
                                 int size, int patch) {
  BE_CALL(be, unpatchify, x, rows, B, C, size, patch);
}

/* dst [n, D]: row i = src row index[i] */
static inline void be_gather_rows(struct backend *be, float *dst, const float *src,
                                  const int32_t *index, int64_t n, int D) {
  BE_CALL(be, gather_rows, dst, src, index, n, D);
}
/* y = x / max(|x|, 1e-12), row by row */
static inline void be_normalize_rows(struct backend *be, float *y, const float *x, int64_t rows,
                                     int D) {
  BE_CALL(be, normalize_rows, y, x, rows, D);
}
/* Softmax over the n values of each row. The sum of the exponentials does not depend on the order
 * of the columns: a permutation of them permutes the result and changes no bit. */
static inline void be_softmax_rows(struct backend *be, float *y, const float *x, int64_t rows,
                                   int n) {
  BE_CALL(be, softmax_rows, y, x, rows, n);
}
/* Softmax over the T tokens of each image and expert, x [B, T, E]. */
static inline void be_softmax_tokens(struct backend *be, float *y, const float *x, int B, int T,
                                     int E) {
  BE_CALL(be, softmax_tokens, y, x, B, T, E);
}
/* Assignments at .. at + n - 1: tokens first_token .. to `expert` with weight `gate`. */
static inline void be_assign(struct backend *be, struct dispatch *d, int64_t at,
                             int32_t first_token, int64_t n, int32_t expert, float gate) {
  BE_CALL(be, assign, d, at, first_token, n, expert, gate);
}
/* Assignments at + r K + j: the experts of ranks skip .. skip + K - 1 of row r of scores [rows, E],
 * descending, ties to the lower index, NaN last; gate = the score. skip + K <= E. */
static inline void be_assign_topk(struct backend *be, struct dispatch *d, int64_t at,
                                  const float *scores, int32_t first_token, int64_t rows, int E,
                                  int K, int skip) {
  BE_CALL(be, assign_topk, d, at, scores, first_token, rows, E, K, skip);
}
/* Assignments at + (b E + e) K + j: for each image and expert the K tokens with the largest scores
 * [B, T, E] (ties to the lower token), in ascending order of the token; gate = the score. */
static inline void be_assign_tokens(struct backend *be, struct dispatch *d, int64_t at,
                                    const float *scores, int32_t first_token, int B, int T, int E,
                                    int K) {
  BE_CALL(be, assign_tokens, d, at, scores, first_token, B, T, E, K);
}
/* DiffMoE: expert e takes as many tokens as have capacity [S, E] > threshold [E], those with the
 * largest scores [S, E]; assignments at + e S + j, unused ones with expert -1. work [S * E]. */
static inline void be_assign_counted(struct backend *be, struct dispatch *d, int64_t at,
                                     const float *scores, const float *capacity,
                                     const float *threshold, int32_t *work, int64_t S, int E) {
  BE_CALL(be, assign_counted, d, at, scores, capacity, threshold, work, S, E);
}
/* Step 1 of the executor: groups the assignments by expert and by token. */
static inline void be_dispatch_order(struct backend *be, struct dispatch *d) {
  BE_CALL(be, dispatch_order, d);
}
/* Steps 2 and 3, dispatch and the first product: h [R, F] (F = largest hidden width, leading
 * dimension), the hidden activations of row r from token[r] of x [tokens, D]. Nothing for ZERO and
 * COPY. */
static inline void be_experts_in(struct backend *be, struct act *h, const struct act *x,
                                 const struct dispatch *d, const struct expert *const *experts,
                                 int D, int F) {
  BE_CALL(be, experts_in, h, x, d, experts, D, F);
}
/* Step 3, the second product: rows [R, D] = out(h), 0 for ZERO, the token of x for COPY. */
static inline void be_experts_out(struct backend *be, float *rows, const struct act *h,
                                  const struct act *x, const struct dispatch *d,
                                  const struct expert *const *experts, int D, int F) {
  BE_CALL(be, experts_out, rows, h, x, d, experts, D, F);
}
/* Steps 4 and 5: y [tokens, D] = sum of each token's rows times their weights in the order of
 * d->row, then + add [tokens, D] unless NULL. */
static inline void be_combine_rows(struct backend *be, float *y, const float *rows,
                                   const struct dispatch *d, const float *add, int D) {
  BE_CALL(be, combine_rows, y, rows, d, add, D);
}

#include "backend/calls_image.h"

#endif

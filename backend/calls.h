/* The be_* callers of backend.h: one line each, with the meaning of the operation. Those of images
 * are in calls_image.h. */
#ifndef BACKEND_CALLS_H
#define BACKEND_CALLS_H

static inline bool be_active(const struct exec *ex) { return ex->status == DITMOE_OK && !ex->dry; }

/* When an operation ended, for the profile: after the device has done it. */
static inline double be_time(struct exec *ex) {
  ex->device->ops->sync(ex);
  return system_seconds();
}

#define BE_CALL(ex, op, ...) BE_CALL_SLOT(ex, op, #op, __VA_ARGS__)
#define BE_CALL_SLOT(ex, op, name, ...)                                                            \
  do {                                                                                             \
    if (!be_active(ex)) break;                                                                     \
    if (!(ex)->device->ops->op) {                                                                  \
      exec_lacks(ex, name);                                                                        \
      break;                                                                                       \
    }                                                                                              \
    const double start = (ex)->profile ? be_time(ex) : 0;                                          \
    (ex)->device->ops->op((ex), __VA_ARGS__);                                                      \
    if ((ex)->profile) (ex)->profile->called((ex)->profile->user, name, be_time(ex) - start);      \
  } while (0)

/* Host memory to device and back; upload returns when src may be reused, download when dst is
 * there. */
static inline void be_upload(struct exec *ex, void *dst, const void *src, size_t bytes) {
  BE_CALL(ex, upload, dst, src, bytes);
}
static inline void be_download(struct exec *ex, void *dst, const void *src, size_t bytes) {
  BE_CALL(ex, download, dst, src, bytes);
}
/* Within device memory. */
static inline void be_copy(struct exec *ex, void *dst, const void *src, size_t bytes) {
  BE_CALL(ex, copy, dst, src, bytes);
}
static inline void be_fill(struct exec *ex, void *dst, int byte, size_t bytes) {
  BE_CALL(ex, fill, dst, byte, bytes);
}

/* Conversions between f32 and the type of activations, to nearest even. */
static inline void be_narrow(struct exec *ex, struct act y, const float *x, int64_t n) {
  BE_CALL(ex, narrow, y, x, n);
}
static inline void be_widen(struct exec *ex, float *y, struct act x, int64_t n) {
  BE_CALL(ex, widen, y, x, n);
}
/* Whether weights for inputs of type `input` may meet x; if not, the execution has failed. */
static inline bool be_fits(struct exec *ex, struct act x, enum dtype input) {
  if (be_active(ex) && x.type != input)
    exec_fail(ex, fail(ex->ctx, DITMOE_FAILED, "a product for %s is given %s", dtype_name(input),
                       dtype_name(x.type)));
  return x.type == input;
}

/* Makes w again, in place, of the rows weight [total, in] and bias [total] (linear_source_read),
 * NULL: zeros. They are rounded to w->format; else it is what linear_create makes of them. Weights
 * that belong to somebody else cannot change. */
static inline void be_linear_update(struct exec *ex, struct linear *w, const float *weight,
                                    const float *bias) {
  BE_CALL(ex, linear_update, w, weight, bias);
}
/* y [rows, out] = x [rows, in] W^T + b */
static inline void be_linear(struct exec *ex, float *y, struct act x, const struct linear *w,
                             int64_t rows) {
  if (be_fits(ex, x, w->input)) BE_CALL(ex, linear, y, x, w, rows);
}
/* h [rows, F], the hidden activations of an expert with weights. */
static inline void be_hidden(struct exec *ex, struct act h, struct act x,
                             const struct expert *expert, int64_t rows) {
  if (be_fits(ex, x, expert->in->input)) BE_CALL(ex, hidden, h, x, expert, rows);
}
/* y = x / (1 + e^-x) */
static inline void be_silu(struct exec *ex, float *y, const float *x, int64_t n) {
  BE_CALL(ex, silu, y, x, n);
}
/* y = 1 / (1 + e^-x) */
static inline void be_sigmoid(struct exec *ex, float *y, const float *x, int64_t n) {
  BE_CALL(ex, sigmoid, y, x, n);
}
static inline void be_add(struct exec *ex, float *y, const float *a, const float *b, int64_t n) {
  BE_CALL(ex, add, y, a, b, n);
}
/* x [rows, n] += row [n] */
static inline void be_add_rows(struct exec *ex, float *x, const float *row, int64_t rows,
                               int64_t n) {
  BE_CALL(ex, add_rows, x, row, rows, n);
}
/* y = norm(x) * (1 + scale) + shift over the last axis of x [B, T, D]; norm(x) = (x - mean) /
 * sqrt(biased variance + eps), or, with a weight, x / sqrt(mean(x^2) + eps) * weight; shift and
 * scale are rows of image b at b * stride. */
static inline void be_norm_modulate(struct exec *ex, struct act y, const float *x,
                                    const float *shift, const float *scale, int64_t stride, int B,
                                    int T, int D, const struct row_norm *norm) {
  BE_CALL(ex, norm_modulate, y, x, shift, scale, stride, B, T, D, norm);
}
/* out [B, T, D] = x + gate * y, gate of image b at b * stride; out may be x. */
static inline void be_gated_add(struct exec *ex, float *out, const float *x, const float *gate,
                                int64_t stride, const float *y, int B, int T, int D) {
  BE_CALL(ex, gated_add, out, x, gate, stride, y, B, T, D);
}
/* y = qkv [rows, 3, H, d] with a norm over each head of q and k; y may be qkv. */
static inline void be_qk_norm(struct exec *ex, float *y, const float *qkv,
                              const struct qk_norm *norm, int64_t rows, int H, int d) {
  BE_CALL(ex, qk_norm, y, qkv, norm, rows, H, d);
}
/* Turns q and k of qkv [B, T, 3, H, d], d a multiple of 4: with x, y a pair of features and c, s
 * the cosine and sine of its token's angle, x c - y s and y c + x s. direction -1 turns back, as
 * gradients do. */
static inline void be_qk_rotate(struct exec *ex, float *qkv, const struct rope *rope,
                                float direction, int B, int T, int H, int d) {
  BE_CALL(ex, qk_rotate, qkv, rope, direction, B, T, H, d);
}
/* features [B, n] of time [B]: cos(t f_i), then sin(t f_i), f_i = 10000^(-i / (n / 2 - shift)) for
 * i < n / 2; f_i and the angle are rounded to f32 as the original program's are. */
static inline void be_time_features(struct exec *ex, float *features, const float *time, int B,
                                    int n, float shift) {
  BE_CALL(ex, time_features, features, time, B, n, shift);
}
/* Rounds q and k of qkv [rows, 3, D] to float16 and back, as flash-attn's callers do. */
static inline void be_qk_round_f16(struct exec *ex, float *qkv, int64_t rows, int D) {
  BE_CALL(ex, qk_round_f16, qkv, rows, D);
}
/* o [B, T, H, d] = softmax(q k^T / sqrt(d)) v with qkv [B, T, 3, H, d]; lse [B, H, T], or NULL, the
 * logarithm of the sum of e^logit over a query's keys. */
static inline void be_attention(struct exec *ex, struct act o, float *lse, const float *qkv, int B,
                                int T, int H, int d) {
  BE_CALL(ex, attention, o, lse, qkv, B, T, H, d);
}
/* rows [B, T, C * p * p] (channel slowest) of x [B, C, height, width]; T = height / p * width / p,
 * row-major. */
static inline void be_patchify(struct exec *ex, float *rows, const float *x, int B, int C,
                               int height, int width, int patch) {
  BE_CALL(ex, patchify, rows, x, B, C, height, width, patch);
}
/* x [B, C, height, width] of rows [B, T, p * p * C] (channel fastest). */
static inline void be_unpatchify(struct exec *ex, float *x, const float *rows, int B, int C,
                                 int height, int width, int patch) {
  BE_CALL(ex, unpatchify, x, rows, B, C, height, width, patch);
}

/* dst [n, D]: row i = src row index[i] */
static inline void be_gather_rows(struct exec *ex, float *dst, const float *src,
                                  const int32_t *index, int64_t n, int D) {
  BE_CALL(ex, gather_rows, dst, src, index, n, D);
}
/* y = x / max(|x|, 1e-12), row by row */
static inline void be_normalize_rows(struct exec *ex, float *y, const float *x, int64_t rows,
                                     int D) {
  BE_CALL(ex, normalize_rows, y, x, rows, D);
}
/* Softmax over the n values of each row. The sum of the exponentials does not depend on the order
 * of the columns: a permutation of them permutes the result and changes no bit. */
static inline void be_softmax_rows(struct exec *ex, float *y, const float *x, int64_t rows, int n) {
  BE_CALL(ex, softmax_rows, y, x, rows, n);
}
/* Softmax over the T tokens of each image and expert, x [B, T, E]. */
static inline void be_softmax_tokens(struct exec *ex, float *y, const float *x, int B, int T,
                                     int E) {
  BE_CALL(ex, softmax_tokens, y, x, B, T, E);
}
/* Assignments r K + j: the experts of ranks skip .. skip + K - 1 of token r by its scores [rows,
 * E], descending, ties to the lower index, NaN last; gate = the score. skip + K <= E. */
static inline void be_assign_topk(struct exec *ex, struct dispatch *d, const float *scores,
                                  int64_t rows, int E, int K, int skip) {
  BE_CALL(ex, assign_topk, d, scores, rows, E, K, skip);
}
/* Likewise, but by ranked [rows, E], which is made here: score + bias, 0 in groups that are not
 * kept, of two or more experts each (a tie of groups goes to the lower one). gate = score / (sum of
 * the K scores + 1e-20), if K > 1, else the score, times the factor. */
static inline void be_assign_biased(struct exec *ex, struct dispatch *d, float *ranked,
                                    const float *scores, const struct biased_choice *choice,
                                    int64_t rows, int E, int K, int skip) {
  BE_CALL(ex, assign_biased, d, ranked, scores, choice, rows, E, K, skip);
}
/* Assignments b stride + e K + j: for each image and expert the K tokens with the largest scores
 * [B, T, E] (ties to the lower token), in ascending order of the token; gate = the score. What is
 * left of the stride >= E K is unused. */
static inline void be_assign_tokens(struct exec *ex, struct dispatch *d, const float *scores, int B,
                                    int T, int E, int K, int64_t stride) {
  BE_CALL(ex, assign_tokens, d, scores, B, T, E, K, stride);
}
/* DiffMoE: expert e takes as many tokens as have capacity [S, E] > threshold [E], those with the
 * largest scores [S, E]; assignments e S + j, unused ones with expert -1. */
static inline void be_assign_counted(struct exec *ex, struct dispatch *d, const float *scores,
                                     const float *capacity, const float *threshold, int64_t S,
                                     int E) {
  BE_CALL(ex, assign_counted, d, scores, capacity, threshold, S, E);
}
/* ProMoE's first step, after all images have been assigned, capacity / B assignments each: those
 * with this label are assigned anew, all T tokens to `expert` with gate 1, the rest unused.
 * labels [B]. */
static inline void be_assign_label(struct exec *ex, struct dispatch *d, const int32_t *labels,
                                   int32_t label, int32_t expert, int B, int T) {
  BE_CALL(ex, assign_label, d, labels, label, expert, B, T);
}
/* Step 1 of the executor: groups the assignments by expert and by token. */
static inline void be_dispatch_order(struct exec *ex, struct dispatch *d) {
  BE_CALL(ex, dispatch_order, d);
}
/* Steps 2 and 3, dispatch and the first product, for the experts of a wave: h [R, F] (F = largest
 * hidden width, leading dimension), the hidden activations of row r from token[r] of x [tokens, D].
 * Nothing for kinds without weights. */
static inline void be_experts_in(struct exec *ex, struct act h, struct act x,
                                 const struct dispatch *d, const struct expert_wave *wave) {
  if (be_fits(ex, x, wave->bank->input)) BE_CALL(ex, experts_in, h, x, d, wave);
}
/* Step 3, the second product: rows [R, D] = out(h), 0 for ROWS_ZERO, the token of x for
 * ROWS_COPY. */
static inline void be_experts_out(struct exec *ex, float *rows, struct act h, struct act x,
                                  const struct dispatch *d, const struct expert_wave *wave) {
  if (be_fits(ex, h, wave->bank->input)) BE_CALL(ex, experts_out, rows, h, x, d, wave);
}
/* Steps 4 and 5: y [tokens, D] = sum of each token's rows times their weights in the order of
 * d->row, then + add [tokens, D] unless NULL. */
static inline void be_combine_rows(struct exec *ex, float *y, const float *rows,
                                   const struct dispatch *d, const float *add, int D) {
  BE_CALL(ex, combine_rows, y, rows, d, add, D);
}

#include "backend/calls_bwd.h"
#include "backend/calls_image.h"

#endif

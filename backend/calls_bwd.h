/* The be_* callers of gradients.h: with y = op(x), be_..._bwd makes dx of dy. */
#ifndef BACKEND_CALLS_BWD_H
#define BACKEND_CALLS_BWD_H

#define BE_BWD(ex, op, ...) BE_CALL_SLOT(ex, bwd.op, #op, __VA_ARGS__)

/* Linear layers; dy [rows, total], total = out or, paired, 2 out: the sums of gate, then of up.
 * dx [rows, in] = dy W */
static inline void be_linear_bwd_input(struct exec *ex, float *dx, const float *dy,
                                       const struct linear *w, int64_t rows) {
  BE_BWD(ex, linear_bwd_input, dx, dy, w, rows);
}
/* dW [total, in] += dy^T x, db += sum of the rows of dy */
static inline void be_linear_bwd_weight(struct exec *ex, const struct linear_grad *grad,
                                        const float *dy, struct act x, const struct linear *w,
                                        int64_t rows) {
  if (be_fits(ex, x, w->input)) BE_BWD(ex, linear_bwd_weight, grad, dy, x, w, rows);
}
/* dsums [rows, total]: the gradients by the sums a = x W^T + b that h = activation(a) was made of,
 * which are computed again. */
static inline void be_hidden_bwd(struct exec *ex, float *dsums, const float *dh, struct act x,
                                 const struct expert *expert, int64_t rows) {
  if (be_fits(ex, x, expert->in->input)) BE_BWD(ex, hidden_bwd, dsums, dh, x, expert, rows);
}
/* dx = dy s (1 + x (1 - s)), s = sigmoid(x); dx may be dy. */
static inline void be_silu_bwd(struct exec *ex, float *dx, const float *dy, const float *x,
                               int64_t n) {
  BE_BWD(ex, silu_bwd, dx, dy, x, n);
}
/* dx = dy y (1 - y); dx may be dy. */
static inline void be_sigmoid_bwd(struct exec *ex, float *dx, const float *dy, const float *y,
                                  int64_t n) {
  BE_BWD(ex, sigmoid_bwd, dx, dy, y, n);
}
/* drow [n] += sum of the rows of dx [rows, n] */
static inline void be_add_rows_bwd(struct exec *ex, float *drow, const float *dx, int64_t rows,
                                   int64_t n) {
  BE_BWD(ex, add_rows_bwd, drow, dx, rows, n);
}
/* dx [B, T, D], and dshift, dscale, rows of image b at b * stride, which may be NULL. With
 * n = (x - mean) / sigma and g = dy (1 + scale): dx = (g - mean(g) - n mean(g n)) / sigma,
 * dshift = sum over tokens of dy, dscale = sum of dy n. */
static inline void be_norm_modulate_bwd(struct exec *ex, float *dx, float *dshift, float *dscale,
                                        const float *dy, const float *x, const float *scale,
                                        int64_t stride, int B, int T, int D, float eps) {
  BE_BWD(ex, norm_modulate_bwd, dx, dshift, dscale, dy, x, scale, stride, B, T, D, eps);
}
/* dgate = sum over tokens of dout y, dy = gate dout [B, T, D]; dx is dout. */
static inline void be_gated_add_bwd(struct exec *ex, float *dgate, float *dy, const float *dout,
                                    const float *gate, int64_t stride, const float *y, int B, int T,
                                    int D) {
  BE_BWD(ex, gated_add_bwd, dgate, dy, dout, gate, stride, y, B, T, D);
}
/* dqkv [rows, 3, H, d] of dy, by the qkv before the normalisation. */
static inline void be_qk_norm_bwd(struct exec *ex, float *dqkv, const struct qk_norm_grad *grad,
                                  const float *dy, const float *qkv, const struct qk_norm *norm,
                                  int64_t rows, int H, int d) {
  BE_BWD(ex, qk_norm_bwd, dqkv, grad, dy, qkv, norm, rows, H, d);
}
/* dqkv [B, T, 3, H, d] of d_o [B, T, H, d]. With p = e^(logit - lse) and
 * ds_ij = p_ij (do_i . v_j - do_i . o_i) / sqrt(d):
 * dq_i = sum_j ds_ij k_j, dk_j = sum_i ds_ij q_i, dv_j = sum_i p_ij do_i (Dao et al. 2022). */
static inline void be_attention_bwd(struct exec *ex, float *dqkv, const float *d_o,
                                    const float *qkv, struct act o, const float *lse, int B, int T,
                                    int H, int d) {
  BE_BWD(ex, attention_bwd, dqkv, d_o, qkv, o, lse, B, T, H, d);
}
/* dx [B, C, size, size] of drows [B, T, C p p] */
static inline void be_patchify_bwd(struct exec *ex, float *dx, const float *drows, int B, int C,
                                   int size, int patch) {
  BE_BWD(ex, patchify_bwd, dx, drows, B, C, size, patch);
}
/* drows [B, T, p p C] of dx [B, C, size, size] */
static inline void be_unpatchify_bwd(struct exec *ex, float *drows, const float *dx, int B, int C,
                                     int size, int patch) {
  BE_BWD(ex, unpatchify_bwd, drows, dx, B, C, size, patch);
}

/* dsrc row index[i] += dy row i, i ascending */
static inline void be_gather_rows_bwd(struct exec *ex, float *dsrc, const float *dy,
                                      const int32_t *index, int64_t n, int D) {
  BE_BWD(ex, gather_rows_bwd, dsrc, dy, index, n, D);
}
/* dx = (dy - y (y . dy)) / |x|; dy / 1e-12 where x is shorter */
static inline void be_normalize_rows_bwd(struct exec *ex, float *dx, const float *dy,
                                         const float *x, int64_t rows, int D) {
  BE_BWD(ex, normalize_rows_bwd, dx, dy, x, rows, D);
}
/* dx = y (dy - y . dy) in each row of n; dx may be dy. */
static inline void be_softmax_rows_bwd(struct exec *ex, float *dx, const float *dy, const float *y,
                                       int64_t rows, int n) {
  BE_BWD(ex, softmax_rows_bwd, dx, dy, y, rows, n);
}
/* The same over the T tokens of each image and expert, [B, T, E]. */
static inline void be_softmax_tokens_bwd(struct exec *ex, float *dx, const float *dy,
                                         const float *y, int B, int T, int E) {
  BE_BWD(ex, softmax_tokens_bwd, dx, dy, y, B, T, E);
}
/* The choice of a router is a constant, its weights are scores: dscores [tokens, E], 0 but where
 * row r of expert e < E and token t has dscores[t, e] = dweight[r]. */
static inline void be_gates_bwd(struct exec *ex, float *dscores, const float *dweight,
                                const struct dispatch *d, int E) {
  BE_BWD(ex, gates_bwd, dscores, dweight, d, E);
}
/* dx [tokens, D] = sum of each token's rows of drows [R, D], in the order of d->row. */
static inline void be_dispatch_bwd(struct exec *ex, float *dx, const float *drows,
                                   const struct dispatch *d, int D) {
  BE_BWD(ex, dispatch_bwd, dx, drows, d, D);
}
/* Both products of the experts of a wave: dx [R, D] by each row's token of x, of drows [R, D], with
 * the x [tokens, D] and h [R, F] of the forward pass; grads [E]. */
static inline void be_experts_bwd(struct exec *ex, float *dx, const struct expert_grad *grads,
                                  const float *drows, struct act x, struct act h,
                                  const struct dispatch *d, const struct expert_wave *wave) {
  BE_BWD(ex, experts_bwd, dx, grads, drows, x, h, d, wave);
}
/* drows [R, D] = weight dy, dweight [R] = row . dy, dy that of a row's token; `add` has dy itself.
 */
static inline void be_combine_rows_bwd(struct exec *ex, float *drows, float *dweight,
                                       const float *dy, const float *rows, const struct dispatch *d,
                                       int D) {
  BE_BWD(ex, combine_rows_bwd, drows, dweight, dy, rows, d, D);
}

/* Images, [B, height, width, C]. dx [B, height, width, in]: each pixel's share of the windows of
 * dy [B, conv_size, conv_size, out] that see it. */
static inline void be_conv2d_bwd_input(struct exec *ex, float *dx, const float *dy,
                                       const struct conv *w, int B, int height, int width) {
  BE_BWD(ex, conv2d_bwd_input, dx, dy, w, B, height, width);
}
/* dW [out, in, kernel[0], kernel[1]] += sum over pixels of dy times what their windows see, db +=
 * sum of dy */
static inline void be_conv2d_bwd_weight(struct exec *ex, const struct linear_grad *grad,
                                        const float *dy, struct act x, const struct conv *w, int B,
                                        int height, int width) {
  if (be_fits(ex, x, w->input)) BE_BWD(ex, conv2d_bwd_weight, grad, dy, x, w, B, height, width);
}
/* dx [B, pixels, C] of dy, by the x of the forward pass; with silu, the gradient of both. With
 * n = (x - mean) / sigma, a = n weight + bias, da = dy or dy silu'(a), h = da weight and means over
 * a group: dx = (h - mean(h) - n mean(h n)) / sigma, dweight += sum over images and pixels of da n,
 * dbias += sum of da (Wu & He 2018). */
static inline void be_group_norm_bwd(struct exec *ex, float *dx, const struct linear_grad *grad,
                                     const float *dy, const float *x, const float *weight,
                                     const float *bias, int B, int64_t pixels, int C, int groups,
                                     float eps, bool silu) {
  BE_BWD(ex, group_norm_bwd, dx, grad, dy, x, weight, bias, B, pixels, C, groups, eps, silu);
}
/* dx [B, height, width, C] = sum of the four pixels of dy that x went to. */
static inline void be_upsample2x_bwd(struct exec *ex, float *dx, const float *dy, int B, int height,
                                     int width, int C) {
  BE_BWD(ex, upsample2x_bwd, dx, dy, B, height, width, C);
}

#endif

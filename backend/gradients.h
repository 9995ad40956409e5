/* Gradients, a list like operations.h: with y = op(x), be_..._bwd makes dx of dy.
 *
 * Arrays are f32, or activations as the forward pass made them. dX is the gradient of the loss by
 * X. Gradients of parameters are accumulated, those of inputs are written; where a gradient of a
 * parameter is NULL it is not wanted. Sums have one order, as everywhere. A slot may be NULL: an
 * error that names it. */
#ifndef BE_PRODUCT
#define BE_PRODUCT(op, x, type, ...) BE_OP(op, __VA_ARGS__)
#endif

/* Linear layers; dy [rows, total], total = out or, paired, 2 out: the sums of gate, then of up.
 * dx [rows, in] = dy W */
BE_OP(linear_bwd_input, (float *dx, const float *dy, const struct linear *w, int64_t rows), dx, dy,
      w, rows)
/* dW [total, in] += dy^T x, db += sum of the rows of dy */
BE_PRODUCT(linear_bwd_weight, x, w->input,
           (const struct linear_grad *grad, const float *dy, struct act x, const struct linear *w,
            int64_t rows),
           grad, dy, x, w, rows)
/* dsums [rows, total]: the gradients by the sums a = x W^T + b that h = activation(a) was made of,
 * which are computed again. */
BE_PRODUCT(hidden_bwd, x, expert->in->input,
           (float *dsums, const float *dh, struct act x, const struct expert *expert, int64_t rows),
           dsums, dh, x, expert, rows)
/* dx = dy s (1 + x (1 - s)), s = sigmoid(x); dx may be dy. */
BE_OP(silu_bwd, (float *dx, const float *dy, const float *x, int64_t n), dx, dy, x, n)
/* dx = dy y (1 - y); dx may be dy. */
BE_OP(sigmoid_bwd, (float *dx, const float *dy, const float *y, int64_t n), dx, dy, y, n)
/* drow [n] += sum of the rows of dx [rows, n] */
BE_OP(add_rows_bwd, (float *drow, const float *dx, int64_t rows, int64_t n), drow, dx, rows, n)
/* dx [B, T, D], which may be NULL, and those of shift, scale and weight w (1 without). With
 * n = (x - mean) / sigma and g = dy (1 + scale) w: dx = (g - mean(g) - n mean(g n)) / sigma, in an
 * RMSNorm, where sigma is the root of the mean square, without mean(g); dshift = sum over tokens of
 * dy, dscale = sum of dy n w, dw = sum over tokens and images of dy n (1 + scale). */
BE_OP(norm_modulate_bwd,
      (float *dx, const struct modulation_grad *grad, const float *dy, const float *x,
       const float *scale, int64_t stride, int B, int T, int D, const struct row_norm *norm),
      dx, grad, dy, x, scale, stride, B, T, D, norm)
/* dgate = sum over tokens of dout y, dy = gate dout [B, T, D]; dx is dout. */
BE_OP(gated_add_bwd,
      (float *dgate, float *dy, const float *dout, const float *gate, int64_t stride,
       const float *y, int B, int T, int D),
      dgate, dy, dout, gate, stride, y, B, T, D)
/* dqkv [rows, 3, H, d] of dy, by the qkv before the normalisation. */
BE_OP(qk_norm_bwd,
      (float *dqkv, const struct qk_norm_grad *grad, const float *dy, const float *qkv,
       const struct qk_norm *norm, int64_t rows, int H, int d),
      dqkv, grad, dy, qkv, norm, rows, H, d)
/* dqkv [B, T, 3, H, d] of d_o [B, T, H, d]. With p = e^(logit - lse) and
 * ds_ij = p_ij (do_i . v_j - do_i . o_i) / sqrt(d):
 * dq_i = sum_j ds_ij k_j, dk_j = sum_i ds_ij q_i, dv_j = sum_i p_ij do_i (Dao et al. 2022). */
BE_OP(attention_bwd,
      (float *dqkv, const float *d_o, const float *qkv, struct act o, const float *lse, int B,
       int T, int H, int d),
      dqkv, d_o, qkv, o, lse, B, T, H, d)
/* dx [B, C, height, width] of drows [B, T, C p p] */
BE_OP(patchify_bwd, (float *dx, const float *drows, int B, int C, int height, int width, int patch),
      dx, drows, B, C, height, width, patch)
/* drows [B, T, p p C] of dx [B, C, height, width] */
BE_OP(unpatchify_bwd,
      (float *drows, const float *dx, int B, int C, int height, int width, int patch), drows, dx, B,
      C, height, width, patch)

/* dsrc row index[i] += dy row i, i ascending */
BE_OP(gather_rows_bwd, (float *dsrc, const float *dy, const int32_t *index, int64_t n, int D), dsrc,
      dy, index, n, D)
/* dx = (dy - y (y . dy)) / |x|; dy / 1e-12 where x is shorter */
BE_OP(normalize_rows_bwd, (float *dx, const float *dy, const float *x, int64_t rows, int D), dx, dy,
      x, rows, D)
/* dx = y (dy - y . dy) in each row of n; dx may be dy. */
BE_OP(softmax_rows_bwd, (float *dx, const float *dy, const float *y, int64_t rows, int n), dx, dy,
      y, rows, n)
/* The same over the T tokens of each image and expert, [B, T, E]. */
BE_OP(softmax_tokens_bwd, (float *dx, const float *dy, const float *y, int B, int T, int E), dx, dy,
      y, B, T, E)
/* The choice of a router is a constant, its weights are scores: dscores [tokens, E], 0 but where
 * row r of expert e < E and token t has dscores[t, e] = dweight[r]. */
BE_OP(gates_bwd, (float *dscores, const float *dweight, const struct dispatch *d, int E), dscores,
      dweight, d, E)
/* dx [tokens, D] = sum of each token's rows of drows [R, D], in the order of d->row. */
BE_OP(dispatch_bwd, (float *dx, const float *drows, const struct dispatch *d, int D), dx, drows, d,
      D)
/* Both products of the experts of a wave: dx [R, D] by each row's token of x, of drows [R, D], with
 * the x [tokens, D] and h [R, F] of the forward pass; grads [E]. */
BE_OP(experts_bwd,
      (float *dx, const struct expert_grad *grads, const float *drows, struct act x, struct act h,
       const struct dispatch *d, const struct expert_wave *wave),
      dx, grads, drows, x, h, d, wave)
/* drows [R, D] = weight dy, dweight [R] = row . dy, dy that of a row's token; `add` has dy itself.
 */
BE_OP(combine_rows_bwd,
      (float *drows, float *dweight, const float *dy, const float *rows, const struct dispatch *d,
       int D),
      drows, dweight, dy, rows, d, D)

/* Images, [B, height, width, C]. dx [B, height, width, in]: each pixel's share of the windows of
 * dy [B, conv_size, conv_size, out] that see it. */
BE_OP(conv2d_bwd_input,
      (float *dx, const float *dy, const struct conv *w, int B, int height, int width), dx, dy, w,
      B, height, width)
/* dW [out, in, kernel[0], kernel[1]] += sum over pixels of dy times what their windows see, db +=
 * sum of dy */
BE_PRODUCT(conv2d_bwd_weight, x, w->input,
           (const struct linear_grad *grad, const float *dy, struct act x, const struct conv *w,
            int B, int height, int width),
           grad, dy, x, w, B, height, width)
/* dx [B, pixels, C] of dy, by the x of the forward pass; with silu, the gradient of both. With
 * n = (x - mean) / sigma, a = n weight + bias, da = dy or dy silu'(a), h = da weight and means over
 * a group: dx = (h - mean(h) - n mean(h n)) / sigma, dweight += sum over images and pixels of da n,
 * dbias += sum of da (Wu & He 2018). */
BE_OP(group_norm_bwd,
      (float *dx, const struct linear_grad *grad, const float *dy, const float *x,
       const float *weight, const float *bias, int B, int64_t pixels, int C, int groups, float eps,
       bool silu),
      dx, grad, dy, x, weight, bias, B, pixels, C, groups, eps, silu)
/* dx [B, height, width, C] = sum of the four pixels of dy that x went to. */
BE_OP(upsample2x_bwd, (float *dx, const float *dy, int B, int height, int width, int C), dx, dy, B,
      height, width, C)

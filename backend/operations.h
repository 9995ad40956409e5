/* The operations of a backend: BE_OP(name, (parameters), arguments), each of which takes the
 * execution first; of a product, BE_PRODUCT, also the type that the activations x must have.
 * Whoever makes something of every operation includes this list: the slots of struct backend_ops,
 * their be_* callers, the functions of a backend. */
#ifndef BE_PRODUCT
#define BE_PRODUCT(op, x, type, ...) BE_OP(op, __VA_ARGS__)
#endif

/* Host memory to device and back; upload returns when src may be reused, download when dst is
 * there. */
BE_OP(upload, (void *dst, const void *src, size_t bytes), dst, src, bytes)
BE_OP(download, (void *dst, const void *src, size_t bytes), dst, src, bytes)
/* Within device memory. */
BE_OP(copy, (void *dst, const void *src, size_t bytes), dst, src, bytes)
BE_OP(fill, (void *dst, int byte, size_t bytes), dst, byte, bytes)

/* Conversions between f32 and the type of activations, to nearest even. */
BE_OP(narrow, (struct act y, const float *x, int64_t n), y, x, n)
BE_OP(widen, (float *y, struct act x, int64_t n), y, x, n)

/* Makes w again, in place, of the rows weight [total, in] and bias [total] (linear_source_read),
 * NULL: zeros. They are rounded to w->format; else it is what linear_create makes of them. Weights
 * that belong to somebody else cannot change. */
BE_OP(linear_update, (struct linear * w, const float *weight, const float *bias), w, weight, bias)
/* y [rows, out] = x [rows, in] W^T + b */
BE_PRODUCT(linear, x, w->input, (float *y, struct act x, const struct linear *w, int64_t rows), y,
           x, w, rows)
/* h [rows, F], the hidden activations of an expert with weights. */
BE_PRODUCT(hidden, x, expert->in->input,
           (struct act h, struct act x, const struct expert *expert, int64_t rows), h, x, expert,
           rows)
/* y = x / (1 + e^-x) */
BE_OP(silu, (float *y, const float *x, int64_t n), y, x, n)
/* y = 1 / (1 + e^-x) */
BE_OP(sigmoid, (float *y, const float *x, int64_t n), y, x, n)
BE_OP(add, (float *y, const float *a, const float *b, int64_t n), y, a, b, n)
/* x [rows, n] += row [n] */
BE_OP(add_rows, (float *x, const float *row, int64_t rows, int64_t n), x, row, rows, n)
/* y = LN(x) * (1 + scale) + shift over the last axis of x [B, T, D], biased variance; shift and
 * scale are rows of image b at b * stride. */
BE_OP(norm_modulate,
      (struct act y, const float *x, const float *shift, const float *scale, int64_t stride, int B,
       int T, int D, float eps),
      y, x, shift, scale, stride, B, T, D, eps)
/* out [B, T, D] = x + gate * y, gate of image b at b * stride; out may be x. */
BE_OP(gated_add,
      (float *out, const float *x, const float *gate, int64_t stride, const float *y, int B, int T,
       int D),
      out, x, gate, stride, y, B, T, D)
/* y = qkv [rows, 3, H, d] with LayerNorm over each head of q and k; y may be qkv. */
BE_OP(qk_norm, (float *y, const float *qkv, const struct qk_norm *norm, int64_t rows, int H, int d),
      y, qkv, norm, rows, H, d)
/* features [B, n] of time [B]: cos(t f_i), then sin(t f_i), f_i = 10000^(-i / (n / 2 - shift)) for
 * i < n / 2; f_i and the angle are rounded to f32 as the original program's are. */
BE_OP(time_features, (float *features, const float *time, int B, int n, float shift), features,
      time, B, n, shift)
/* Rounds q and k of qkv [rows, 3, D] to float16 and back, as flash-attn's callers do. */
BE_OP(qk_round_f16, (float *qkv, int64_t rows, int D), qkv, rows, D)
/* o [B, T, H, d] = softmax(q k^T / sqrt(d)) v with qkv [B, T, 3, H, d]; lse [B, H, T], or NULL, the
 * logarithm of the sum of e^logit over a query's keys. */
BE_OP(attention, (struct act o, float *lse, const float *qkv, int B, int T, int H, int d), o, lse,
      qkv, B, T, H, d)
/* rows [B, T, C * p * p] (channel slowest) of x [B, C, height, width]; T = height / p * width / p,
 * row-major. */
BE_OP(patchify, (float *rows, const float *x, int B, int C, int height, int width, int patch), rows,
      x, B, C, height, width, patch)
/* x [B, C, height, width] of rows [B, T, p * p * C] (channel fastest). */
BE_OP(unpatchify, (float *x, const float *rows, int B, int C, int height, int width, int patch), x,
      rows, B, C, height, width, patch)

/* dst [n, D]: row i = src row index[i] */
BE_OP(gather_rows, (float *dst, const float *src, const int32_t *index, int64_t n, int D), dst, src,
      index, n, D)
/* y = x / max(|x|, 1e-12), row by row */
BE_OP(normalize_rows, (float *y, const float *x, int64_t rows, int D), y, x, rows, D)
/* Softmax over the n values of each row. The sum of the exponentials does not depend on the order
 * of the columns: a permutation of them permutes the result and changes no bit. */
BE_OP(softmax_rows, (float *y, const float *x, int64_t rows, int n), y, x, rows, n)
/* Softmax over the T tokens of each image and expert, x [B, T, E]. */
BE_OP(softmax_tokens, (float *y, const float *x, int B, int T, int E), y, x, B, T, E)
/* Assignments r K + j: the experts of ranks skip .. skip + K - 1 of token r by its scores [rows,
 * E], descending, ties to the lower index, NaN last; gate = the score. skip + K <= E. */
BE_OP(assign_topk, (struct dispatch * d, const float *scores, int64_t rows, int E, int K, int skip),
      d, scores, rows, E, K, skip)
/* Assignments b stride + e K + j: for each image and expert the K tokens with the largest scores
 * [B, T, E] (ties to the lower token), in ascending order of the token; gate = the score. What is
 * left of the stride >= E K is unused. */
BE_OP(assign_tokens,
      (struct dispatch * d, const float *scores, int B, int T, int E, int K, int64_t stride), d,
      scores, B, T, E, K, stride)
/* DiffMoE: expert e takes as many tokens as have capacity [S, E] > threshold [E], those with the
 * largest scores [S, E]; assignments e S + j, unused ones with expert -1. */
BE_OP(assign_counted,
      (struct dispatch * d, const float *scores, const float *capacity, const float *threshold,
       int64_t S, int E),
      d, scores, capacity, threshold, S, E)
/* ProMoE's first step, after all images have been assigned, capacity / B assignments each: those
 * with this label are assigned anew, all T tokens to `expert` with gate 1, the rest unused.
 * labels [B]. */
BE_OP(assign_label,
      (struct dispatch * d, const int32_t *labels, int32_t label, int32_t expert, int B, int T), d,
      labels, label, expert, B, T)
/* Step 1 of the executor: groups the assignments by expert and by token. */
BE_OP(dispatch_order, (struct dispatch * d), d)
/* Steps 2 and 3, dispatch and the first product, for the experts of a wave: h [R, F] (F = largest
 * hidden width, leading dimension), the hidden activations of row r from token[r] of x [tokens, D].
 * Nothing for kinds without weights. */
BE_PRODUCT(experts_in, x, wave->bank->input,
           (struct act h, struct act x, const struct dispatch *d, const struct expert_wave *wave),
           h, x, d, wave)
/* Step 3, the second product: rows [R, D] = out(h), 0 for ROWS_ZERO, the token of x for
 * ROWS_COPY. */
BE_PRODUCT(experts_out, h, wave->bank->input,
           (float *rows, struct act h, struct act x, const struct dispatch *d,
            const struct expert_wave *wave),
           rows, h, x, d, wave)
/* Steps 4 and 5: y [tokens, D] = sum of each token's rows times their weights in the order of
 * d->row, then + add [tokens, D] unless NULL. */
BE_OP(combine_rows,
      (float *y, const float *rows, const struct dispatch *d, const float *add, int D), y, rows, d,
      add, D)

/* Of images, which are channels-last, [B, height, width, C]. */

/* y [B, conv_size(w, 0, height), conv_size(w, 1, width), out] = convolution of x + bias */
BE_PRODUCT(conv2d, x, w->input,
           (float *y, struct act x, const struct conv *w, int B, int height, int width), y, x, w, B,
           height, width)
/* Up to CONV_BRANCHES convolutions of one x, alike but for their outputs, and relu of them:
 * branches write into their channels of a concatenation, y[p * ldy + at + c] for pixel p of all
 * images and output c. */
BE_PRODUCT(conv2d_relu, x, branches->w->input,
           (const struct conv_branch *branches, int count, struct act x, int B, int height,
            int width),
           branches, count, x, B, height, width)
/* The largest of 3x3 pixels, into channels as above. Padding, 0 or 1, never wins; NaN does. */
BE_OP(max_pool,
      (struct act y, int64_t ldy, int64_t at, struct act x, int B, int height, int width, int C,
       int stride, int pad),
      y, ldy, at, x, B, height, width, C, stride, pad)
/* relu of the mean of those of the 3x3 pixels around each that are in the image, into channels as
 * above. */
BE_OP(avg_pool_relu,
      (struct act y, int64_t ldy, int64_t at, const float *x, int B, int height, int width, int C),
      y, ldy, at, x, B, height, width, C)
/* y [B, C] = mean over the pixels of x [B, pixels, C] */
BE_OP(mean_pixels, (float *y, struct act x, int B, int64_t pixels, int C), y, x, B, pixels, C)
/* y [pixels, count] = the first channels of x [pixels, C] */
BE_OP(take_channels, (float *y, struct act x, int64_t pixels, int C, int count), y, x, pixels, C,
      count)
/* GroupNorm over pixels and the channels of a group, then weight and bias [C], then silu if asked.
 */
BE_OP(group_norm,
      (struct act y, const float *x, const float *weight, const float *bias, int B, int64_t pixels,
       int C, int groups, float eps, bool silu),
      y, x, weight, bias, B, pixels, C, groups, eps, silu)
/* For an image that is computed in tiles. moments [groups, 2] += what a window (top, left, bottom,
 * right) of the tile x [height, width, C] adds to the mean and the mean square of each group over
 * the whole image of `pixels`; */
BE_OP(group_moments,
      (double *moments, const float *x, int width, const int window[4], int C, int groups,
       int64_t pixels),
      moments, x, width, window, C, groups, pixels)
/* and GroupNorm of a tile with these moments. */
BE_OP(group_norm_given,
      (struct act y, const float *x, const double *moments, const float *weight, const float *bias,
       int64_t pixels, int C, int groups, float eps, bool silu),
      y, x, moments, weight, bias, pixels, C, groups, eps, silu)
BE_OP(relu, (float *y, const float *x, int64_t n), y, x, n)
/* y = limit * tanh(x / limit) */
BE_OP(tanh_clamp, (float *y, const float *x, float limit, int64_t n), y, x, limit, n)
/* Nearest neighbour, y [B, 2 height, 2 width, C]. */
BE_OP(upsample2x, (struct act y, const float *x, int B, int height, int width, int C), y, x, B,
      height, width, C)
/* [B, C, pixels] to [B, pixels, C] and back. */
BE_OP(channels_last, (float *y, const float *x, int B, int C, int64_t pixels), y, x, B, C, pixels)
BE_OP(channels_first, (float *y, const float *x, int B, int C, int64_t pixels), y, x, B, C, pixels)

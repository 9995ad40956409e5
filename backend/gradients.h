/* Gradients: the slots of a backend and their be_* callers, included by backend.h.
 *
 * Arrays are f32, or activations as the forward pass made them. dX is the gradient of the loss by
 * X. Gradients of parameters are accumulated, those of inputs are written; where a gradient of a
 * parameter is NULL it is not wanted. Sums have one order, as everywhere. A slot may be NULL: an
 * error that names it. */
#ifndef BACKEND_GRADIENTS_H
#define BACKEND_GRADIENTS_H

/* Of a linear layer, in the layout of linear_source_read: weight [total, in], bias [total]; of a
 * convolution, weight [out, in, kernel[0], kernel[1]], bias [out]; of a norm, [C] each. */
struct linear_grad {
  float *weight, *bias;
};

/* Of an expert's matrices. */
struct expert_grad {
  struct linear_grad in, out;
};

/* Of a struct qk_norm, [d] each. */
struct qk_norm_grad {
  float *q_weight, *q_bias, *k_weight, *k_bias;
};

struct gradient_ops {
  void (*linear_bwd_input)(struct exec *ex, float *dx, const float *dy, const struct linear *w,
                           int64_t rows);
  void (*linear_bwd_weight)(struct exec *ex, const struct linear_grad *grad, const float *dy,
                            struct act x, const struct linear *w, int64_t rows);
  void (*hidden_bwd)(struct exec *ex, float *dsums, const float *dh, struct act x,
                     const struct expert *expert, int64_t rows);
  void (*silu_bwd)(struct exec *ex, float *dx, const float *dy, const float *x, int64_t n);
  void (*sigmoid_bwd)(struct exec *ex, float *dx, const float *dy, const float *y, int64_t n);
  void (*add_rows_bwd)(struct exec *ex, float *drow, const float *dx, int64_t rows, int64_t n);
  void (*norm_modulate_bwd)(struct exec *ex, float *dx, float *dshift, float *dscale,
                            const float *dy, const float *x, const float *scale, int64_t stride,
                            int B, int T, int D, float eps);
  void (*gated_add_bwd)(struct exec *ex, float *dgate, float *dy, const float *dout,
                        const float *gate, int64_t stride, const float *y, int B, int T, int D);
  void (*qk_norm_bwd)(struct exec *ex, float *dqkv, const struct qk_norm_grad *grad,
                      const float *dy, const float *qkv, const struct qk_norm *norm, int64_t rows,
                      int H, int d);
  void (*attention_bwd)(struct exec *ex, float *dqkv, const float *d_o, const float *qkv,
                        struct act o, const float *lse, int B, int T, int H, int d);
  void (*patchify_bwd)(struct exec *ex, float *dx, const float *drows, int B, int C, int size,
                       int patch);
  void (*unpatchify_bwd)(struct exec *ex, float *drows, const float *dx, int B, int C, int size,
                         int patch);
  void (*gather_rows_bwd)(struct exec *ex, float *dsrc, const float *dy, const int32_t *index,
                          int64_t n, int D);
  void (*normalize_rows_bwd)(struct exec *ex, float *dx, const float *dy, const float *x,
                             int64_t rows, int D);
  void (*softmax_rows_bwd)(struct exec *ex, float *dx, const float *dy, const float *y,
                           int64_t rows, int n);
  void (*softmax_tokens_bwd)(struct exec *ex, float *dx, const float *dy, const float *y, int B,
                             int T, int E);
  void (*gates_bwd)(struct exec *ex, float *dscores, const float *dweight, const struct dispatch *d,
                    int E);
  void (*dispatch_bwd)(struct exec *ex, float *dx, const float *drows, const struct dispatch *d,
                       int D);
  void (*experts_bwd)(struct exec *ex, float *dx, const struct expert_grad *grads,
                      const float *drows, struct act x, struct act h, const struct dispatch *d,
                      const struct expert_wave *wave);
  void (*combine_rows_bwd)(struct exec *ex, float *drows, float *dweight, const float *dy,
                           const float *rows, const struct dispatch *d, int D);

  void (*conv2d_bwd_input)(struct exec *ex, float *dx, const float *dy, const struct conv *w, int B,
                           int height, int width);
  void (*conv2d_bwd_weight)(struct exec *ex, const struct linear_grad *grad, const float *dy,
                            struct act x, const struct conv *w, int B, int height, int width);
  void (*group_norm_bwd)(struct exec *ex, float *dx, const struct linear_grad *grad,
                         const float *dy, const float *x, const float *weight, const float *bias,
                         int B, int64_t pixels, int C, int groups, float eps, bool silu);
  void (*upsample2x_bwd)(struct exec *ex, float *dx, const float *dy, int B, int height, int width,
                         int C);
};

#endif

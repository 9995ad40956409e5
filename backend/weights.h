/* Weights as a backend keeps them, what they are made from, and their gradients. */
#ifndef BACKEND_WEIGHTS_H
#define BACKEND_WEIGHTS_H

#include "base/tensor.h"

/* Activations that feed a product: an array in device memory that knows its type, f32 or bf16. */
struct act {
  void *data; /* NULL: none */
  enum dtype type;
};

static inline struct act act_f32(const float *x) {
  return (struct act){(void *)(uintptr_t)x, DT_F32};
}

/* Element `at` and what follows. */
static inline struct act act_from(struct act x, int64_t at) {
  return (struct act){(char *)x.data + at * (int64_t)dtype_size(x.type), x.type};
}

/* Norm of the rows of tokens: LayerNorm without an affine part; with a weight [D], device memory,
 * RMSNorm (Zhang & Sennrich 2019). */
struct row_norm {
  const float *weight;
  float eps;
};

/* LayerNorm of q and of k, each of a head [d], device memory; RMSNorm where the biases are NULL. */
struct qk_norm {
  const float *q_weight, *q_bias, *k_weight, *k_bias;
  float eps;
};

/* Rotary positions (Su et al. 2021) of two axes: in each half of a head, [d / 2] features, the
 * pairs j < d / 4 turn by the angles of a row, in the second half by those of a column. cos, sin
 * [T, d / 2], device memory, one value for each pair. */
struct rope {
  const float *cos, *sin;
  bool adjacent; /* pairs (2 j, 2 j + 1) of a half, else (j, j + d / 4) */
};

/* Weights of y = x W^T + b, b in f32, in the layout of the backend that made them. */
struct linear {
  int in, out;
  bool paired;          /* two matrices [out, in], gate and up, used together by a SwiGLU */
  enum dtype input;     /* type of the x that they are used with, and of the products */
  enum dtype format;    /* that they are kept in: F32, F16 or BF16, widened exactly when used */
  bool finite, adopted; /* no NaN nor infinity in its sources; data belong to somebody else */
  size_t bytes;
  void *data;
};

/* weight[i] [out_i, in] are stacked along the outputs; with `paired` there are two of equal shape,
 * or one of both, gate first.
 * bias[i] [out_i] or NULL. Any floating type. */
struct linear_source {
  int parts;
  bool paired;
  enum dtype input; /* type of the x that the layer is for */
  const struct tensor *weight[3], *bias[3];
};

/* The type that such weights are kept in: that of bf16 inputs, else the one 16-bit type that all
 * matrices have, else F32. Matrices that are NULL do not count. */
enum dtype linear_source_format(const struct linear_source *source);

/* How a convolution moves over an image. Padding with zeros, in pixels, above and left of the image
 * and below and right of it. Here and in struct conv [0] is of rows, [1] of columns. */
struct conv_window {
  int stride, before[2], after[2];
};

/* Weights of a convolution, weight [out, in, kernel[0], kernel[1]]. */
struct conv {
  int in, out, kernel[2], stride, before[2], after[2];
  enum dtype input; /* type of the x that they are used with */
  size_t bytes;
  void *data;
};

enum { CONV_BRANCHES = 4 };

/* A convolution and where it goes to: y[p * ldy + at + c] = relu of it, for pixel p of
 * all images and output c, or, without y, sum [pixels, out] = itself. */
struct conv_branch {
  const struct conv *w;
  struct act y;
  int64_t ldy, at;
  float *sum;
};

/* Gradients of a linear layer, in the layout of linear_source_read: weight [total, in], bias
 * [total]; of a convolution, weight [out, in, kernel[0], kernel[1]], bias [out]; of a norm, [C]
 * each. */
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

/* Of a modulated norm: shift and scale, rows of image b at b * stride, are written, weight [D] is
 * accumulated. Each may be NULL. */
struct modulation_grad {
  float *shift, *scale, *weight;
};

#endif

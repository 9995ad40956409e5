/* What follows a matrix product: bias and activation. Included by the files that make a struct
 * gemm_kernels. */
#ifndef BACKEND_CPU_FINISH_H
#define BACKEND_CPU_FINISH_H

#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"
#include "base/tensor.h"

VEC_INLINE vec finish_identity(vec x) { return x; }

/* y = f(c + bias) */
VEC_INLINE void finish_each(void *y, bool narrow, int64_t stride, const float *c, const float *bias,
                            int rows, int count, vec (*f)(vec)) {
  const vec bias0 = vec_load(bias), bias1 = vec_load(bias + VEC_LANES);
  for (int r = 0; r < rows; r++, y = (char *)y + stride, c += 2 * VEC_LANES) {
    const vec v0 = f(vec_load(c) + bias0), v1 = f(vec_load(c + VEC_LANES) + bias1);
    if (count == 2 * VEC_LANES) {
      vec_put_two(y, narrow, v0, v1);
    } else {
      vec_put(y, narrow, 0, v0, count);
      if (count > VEC_LANES) vec_put(y, narrow, VEC_LANES, v1, count - VEC_LANES);
    }
  }
}

VEC_INLINE void finish_pairs(void *y, bool narrow, int64_t stride, const float *c,
                             const float *bias, int rows, int count, vec (*f)(vec)) {
  const vec gate_bias = vec_load(bias), up_bias = vec_load(bias + VEC_LANES);
  for (int r = 0; r < rows; r++, y = (char *)y + stride, c += 2 * VEC_LANES) {
    vec gate = vec_load(c) + gate_bias, up = vec_load(c + VEC_LANES) + up_bias;
    vec_put(y, narrow, 0, f(gate) * up, count);
  }
}

static inline void finish_plain(void *y, int64_t stride, const float *c, const float *bias,
                                int rows, int count) {
  finish_each(y, false, stride, c, bias, rows, count, finish_identity);
}

#define FINISH_ACTIVATIONS(type, narrow, gelu, silu)                                               \
  static inline void finish_gelu_##type(void *y, int64_t stride, const float *c,                   \
                                        const float *bias, int rows, int count) {                  \
    finish_each(y, narrow, stride, c, bias, rows, count, gelu);                                    \
  }                                                                                                \
  static inline void finish_relu_##type(void *y, int64_t stride, const float *c,                   \
                                        const float *bias, int rows, int count) {                  \
    finish_each(y, narrow, stride, c, bias, rows, count, vec_relu);                                \
  }                                                                                                \
  static inline void finish_silu_##type(void *y, int64_t stride, const float *c,                   \
                                        const float *bias, int rows, int count) {                  \
    finish_each(y, narrow, stride, c, bias, rows, count, silu);                                    \
  }                                                                                                \
  static inline void finish_swiglu_##type(void *y, int64_t stride, const float *c,                 \
                                          const float *bias, int rows, int count) {                \
    finish_pairs(y, narrow, stride, c, bias, rows, count, silu);                                   \
  }
FINISH_ACTIVATIONS(f32, false, vec_gelu, vec_silu)
FINISH_ACTIVATIONS(bf16, true, vec_gelu_bf16, vec_silu_bf16)

#endif

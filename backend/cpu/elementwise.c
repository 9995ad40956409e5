/* Operations on single values and on rows: rows, or pieces of flat arrays, are shared among
 * threads. */
#include "backend/cpu/state.h"

#include <string.h>

enum { PIECE = 4096 };

static const struct row_kernels *rows_of(const struct backend *be) {
  return cpu_state(be)->kernels->rows;
}

static void map(struct backend *be, float *y, const float *x, int64_t n,
                void (*f)(float *, const float *, int64_t)) {
  CPU_PARALLEL_FOR(be, n)
  for (int64_t i = 0; i < n; i += PIECE) f(y + i, x + i, n - i < PIECE ? n - i : PIECE);
}

void cpu_silu(struct backend *be, float *y, const float *x, int64_t n) {
  map(be, y, x, n, rows_of(be)->silu);
}

void cpu_sigmoid(struct backend *be, float *y, const float *x, int64_t n) {
  map(be, y, x, n, rows_of(be)->sigmoid);
}

void cpu_relu(struct backend *be, float *y, const float *x, int64_t n) {
  map(be, y, x, n, rows_of(be)->relu);
}

void cpu_add(struct backend *be, float *y, const float *a, const float *b, int64_t n) {
  CPU_PARALLEL_FOR(be, n)
  for (int64_t i = 0; i < n; i += PIECE)
    rows_of(be)->add(y + i, a + i, b + i, n - i < PIECE ? n - i : PIECE);
}

void cpu_add_rows(struct backend *be, float *x, const float *row, int64_t rows, int64_t n) {
  CPU_PARALLEL_FOR(be, rows * n)
  for (int64_t r = 0; r < rows; r++) rows_of(be)->add(x + r * n, x + r * n, row, n);
}

void cpu_narrow(struct backend *be, struct act *y, const float *x, int64_t n) {
  CPU_PARALLEL_FOR(be, n)
  for (int64_t i = 0; i < n; i += PIECE) {
    int64_t count = n - i < PIECE ? n - i : PIECE;
    if (be->dtype == DT_BF16)
      rows_of(be)->narrow(act_at(be, y, i), x + i, count);
    else
      memcpy(act_at(be, y, i), x + i, (size_t)count * sizeof *x);
  }
}

void cpu_widen(struct backend *be, float *y, const struct act *x, int64_t n) {
  CPU_PARALLEL_FOR(be, n)
  for (int64_t i = 0; i < n; i += PIECE) {
    int64_t count = n - i < PIECE ? n - i : PIECE;
    if (be->dtype == DT_BF16)
      rows_of(be)->widen(y + i, act_at(be, x, i), count);
    else
      memcpy(y + i, act_at(be, x, i), (size_t)count * sizeof *y);
  }
}

void cpu_norm_modulate(struct backend *be, struct act *y, const float *x, const float *shift,
                       const float *scale, int64_t stride, int B, int T, int D, float eps) {
  int64_t rows = (int64_t)B * T;
  CPU_PARALLEL_FOR(be, rows * D)
  for (int64_t r = 0; r < rows; r++)
    rows_of(be)->norm_modulate[cpu_type(be)](
        act_at(be, y, r * D), x + r * D, shift + r / T * stride, scale + r / T * stride, D, eps);
}

void cpu_norm_modulate_exact(struct backend *be, float *y, const float *x, const float *shift,
                             const float *scale, int64_t stride, int B, int T, int D, float eps) {
  int64_t rows = (int64_t)B * T;
  CPU_PARALLEL_FOR(be, rows * D)
  for (int64_t r = 0; r < rows; r++)
    rows_of(be)->norm_modulate[CPU_F32](y + r * D, x + r * D, shift + r / T * stride,
                                        scale + r / T * stride, D, eps);
}

void cpu_gated_add(struct backend *be, float *x, const float *gate, int64_t stride, const float *y,
                   int B, int T, int D) {
  int64_t rows = (int64_t)B * T;
  CPU_PARALLEL_FOR(be, rows * D)
  for (int64_t r = 0; r < rows; r++)
    rows_of(be)->multiply_add(x + r * D, gate + r / T * stride, y + r * D, D);
}

void cpu_qk_norm(struct backend *be, float *qkv, const float *q_weight, const float *q_bias,
                 const float *k_weight, const float *k_bias, int64_t rows, int H, int d,
                 float eps) {
  const struct row_kernels *kernels = rows_of(be);
  CPU_PARALLEL_FOR(be, rows * H * d)
  for (int64_t r = 0; r < rows; r++) {
    float *q = qkv + r * 3 * H * d, *k = q + H * d;
    for (int h = 0; h < H; h++, q += d, k += d) {
      kernels->norm_affine(q, q, q_weight, q_bias, d, eps);
      kernels->norm_affine(k, k, k_weight, k_bias, d, eps);
    }
  }
}

void cpu_qk_round_f16(struct backend *be, float *qkv, int64_t rows, int D) {
  CPU_PARALLEL_FOR(be, rows * D)
  for (int64_t r = 0; r < rows; r++) rows_of(be)->round_f16(qkv + r * 3 * D, 2 * D);
}

void cpu_normalize_rows(struct backend *be, float *y, const float *x, int64_t rows, int D) {
  CPU_PARALLEL_FOR(be, rows * D)
  for (int64_t r = 0; r < rows; r++) rows_of(be)->normalize(y + r * D, x + r * D, D);
}

void cpu_softmax_rows(struct backend *be, float *y, const float *x, int64_t rows, int n) {
  CPU_PARALLEL_FOR(be, rows * n)
  for (int64_t r = 0; r < rows; r++) rows_of(be)->softmax(y + r * n, x + r * n, n);
}

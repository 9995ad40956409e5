/* Operations on single values and on rows: rows, or pieces of flat arrays, are shared among
 * threads. */
#include "backend/cpu/state.h"

#include <string.h>

enum { PIECE = 4096 };

static const struct row_kernels *rows_of(const struct exec *ex) { return cpu_kernels(ex)->rows; }

static void map(struct exec *ex, float *y, const float *x, int64_t n,
                void (*f)(float *, const float *, int64_t)) {
  CPU_PARALLEL_FOR(ex, n)
  for (int64_t i = 0; i < n; i += PIECE) f(y + i, x + i, n - i < PIECE ? n - i : PIECE);
}

#define CPU_MAP(op)                                                                                \
  void cpu_##op(struct exec *ex, float *y, const float *x, int64_t n) {                            \
    map(ex, y, x, n, rows_of(ex)->op);                                                             \
  }
CPU_MAP(silu)
CPU_MAP(sigmoid)
CPU_MAP(relu)

void cpu_add(struct exec *ex, float *y, const float *a, const float *b, int64_t n) {
  CPU_PARALLEL_FOR(ex, n)
  for (int64_t i = 0; i < n; i += PIECE)
    rows_of(ex)->add(y + i, a + i, b + i, n - i < PIECE ? n - i : PIECE);
}

void cpu_add_rows(struct exec *ex, float *x, const float *row, int64_t rows, int64_t n) {
  CPU_PARALLEL_FOR(ex, rows * n)
  for (int64_t r = 0; r < rows; r++) rows_of(ex)->add(x + r * n, x + r * n, row, n);
}

void cpu_narrow(struct exec *ex, struct act y, const float *x, int64_t n) {
  CPU_PARALLEL_FOR(ex, n)
  for (int64_t i = 0; i < n; i += PIECE) {
    int64_t count = n - i < PIECE ? n - i : PIECE;
    if (y.type == DT_BF16)
      rows_of(ex)->narrow(act_at(y, i), x + i, count);
    else
      memcpy(act_at(y, i), x + i, (size_t)count * sizeof *x);
  }
}

void cpu_widen(struct exec *ex, float *y, struct act x, int64_t n) {
  CPU_PARALLEL_FOR(ex, n)
  for (int64_t i = 0; i < n; i += PIECE) {
    int64_t count = n - i < PIECE ? n - i : PIECE;
    if (x.type == DT_BF16)
      rows_of(ex)->widen(y + i, act_at(x, i), count);
    else
      memcpy(y + i, act_at(x, i), (size_t)count * sizeof *y);
  }
}

void cpu_norm_modulate(struct exec *ex, struct act y, const float *x, const float *shift,
                       const float *scale, int64_t stride, int B, int T, int D,
                       const struct row_norm *norm) {
  const struct row_kernels *kernels = rows_of(ex);
  const enum cpu_type type = cpu_type(y.type);
  int64_t rows = (int64_t)B * T;
  CPU_PARALLEL_FOR(ex, rows * D)
  for (int64_t r = 0; r < rows; r++) {
    const int64_t image = r / T * stride;
    if (norm->weight)
      kernels->rms_modulate[type](act_at(y, r * D), x + r * D, norm->weight, shift + image,
                                  scale + image, D, norm->eps);
    else
      kernels->norm_modulate[type](act_at(y, r * D), x + r * D, shift + image, scale + image, D,
                                   norm->eps);
  }
}

void cpu_gated_add(struct exec *ex, float *out, const float *x, const float *gate, int64_t stride,
                   const float *y, int B, int T, int D) {
  int64_t rows = (int64_t)B * T;
  CPU_PARALLEL_FOR(ex, rows * D)
  for (int64_t r = 0; r < rows; r++) {
    if (out != x) memcpy(out + r * D, x + r * D, (size_t)D * sizeof *x);
    rows_of(ex)->multiply_add(out + r * D, gate + r / T * stride, y + r * D, D);
  }
}

void cpu_qk_norm(struct exec *ex, float *y, const float *qkv, const struct qk_norm *norm,
                 int64_t rows, int H, int d) {
  const struct row_kernels *kernels = rows_of(ex);
  const int64_t D = (int64_t)H * d;
  CPU_PARALLEL_FOR(ex, rows * D)
  for (int64_t r = 0; r < rows; r++) {
    const float *from = qkv + r * 3 * D;
    float *to = y + r * 3 * D;
    for (int64_t q = 0, k = D; q < D; q += d, k += d) {
      kernels->norm_affine(to + q, from + q, norm->q_weight, norm->q_bias, d, norm->eps);
      kernels->norm_affine(to + k, from + k, norm->k_weight, norm->k_bias, d, norm->eps);
    }
    if (to != from) memcpy(to + 2 * D, from + 2 * D, (size_t)D * sizeof *to);
  }
}

void cpu_qk_rotate(struct exec *ex, float *qkv, const struct rope *rope, float direction, int B,
                   int T, int H, int d) {
  const int64_t rows = (int64_t)B * T, D = (int64_t)H * d;
  CPU_PARALLEL_FOR(ex, rows * D)
  for (int64_t r = 0; r < rows; r++) {
    const int64_t at = r % T * (d / 2);
    for (int half = 0; half < 4 * H; half++) { /* of q and of k, which lie side by side */
      const int64_t angle = at + half % 2 * (d / 4);
      rows_of(ex)->rotate[rope->adjacent](qkv + r * 3 * D + half * (d / 2), rope->cos + angle,
                                          rope->sin + angle, direction, d / 4);
    }
  }
}

void cpu_qk_round_f16(struct exec *ex, float *qkv, int64_t rows, int D) {
  CPU_PARALLEL_FOR(ex, rows * D)
  for (int64_t r = 0; r < rows; r++) rows_of(ex)->round_f16(qkv + r * 3 * D, 2 * D);
}

void cpu_normalize_rows(struct exec *ex, float *y, const float *x, int64_t rows, int D) {
  CPU_PARALLEL_FOR(ex, rows * D)
  for (int64_t r = 0; r < rows; r++) rows_of(ex)->normalize(y + r * D, x + r * D, D);
}

void cpu_softmax_rows(struct exec *ex, float *y, const float *x, int64_t rows, int n) {
  CPU_PARALLEL_FOR(ex, rows * n)
  for (int64_t r = 0; r < rows; r++) rows_of(ex)->softmax(y + r * n, x + r * n, n);
}

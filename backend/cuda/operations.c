/* Operations: the arguments of the contract to those of the launchers. */
#include "backend/cuda/cuda.h"

/* Runs a launcher and records what it says. */
#define RUN(op, ...) cuda_check(ex, cuda_##op(cuda_stream(ex), __VA_ARGS__), #op)

void cuda_op_narrow(struct exec *ex, struct act y, const float *x, int64_t n) {
  RUN(narrow, y.data, y.type, x, n);
}

void cuda_op_widen(struct exec *ex, float *y, struct act x, int64_t n) {
  RUN(widen, y, x.data, x.type, n);
}

#define CUDA_MAP(op)                                                                               \
  void cuda_op_##op(struct exec *ex, float *y, const float *x, int64_t n) { RUN(op, y, x, n); }
CUDA_MAP(silu)
CUDA_MAP(sigmoid)
CUDA_MAP(relu)

void cuda_op_tanh_clamp(struct exec *ex, float *y, const float *x, float limit, int64_t n) {
  RUN(tanh_clamp, y, x, limit, n);
}

void cuda_op_add(struct exec *ex, float *y, const float *a, const float *b, int64_t n) {
  RUN(add, y, a, b, n);
}

void cuda_op_add_rows(struct exec *ex, float *x, const float *row, int64_t rows, int64_t n) {
  RUN(add_rows, x, row, rows, n);
}

void cuda_op_norm_modulate(struct exec *ex, struct act y, const float *x, const float *shift,
                           const float *scale, int64_t stride, int B, int T, int D, float eps) {
  RUN(norm_modulate, y.data, y.type, x, shift, scale, stride, B, T, D, eps);
}

void cuda_op_gated_add(struct exec *ex, float *out, const float *x, const float *gate,
                       int64_t stride, const float *y, int B, int T, int D) {
  RUN(gated_add, out, x, gate, stride, y, B, T, D);
}

void cuda_op_qk_norm(struct exec *ex, float *y, const float *qkv, const struct qk_norm *norm,
                     int64_t rows, int H, int d) {
  const float *const affine[4] = {norm->q_weight, norm->q_bias, norm->k_weight, norm->k_bias};
  RUN(qk_norm, y, qkv, affine, norm->eps, rows, H, d);
}

void cuda_op_qk_round_f16(struct exec *ex, float *qkv, int64_t rows, int D) {
  RUN(qk_round_f16, qkv, rows, D);
}

void cuda_op_time_features(struct exec *ex, float *features, const float *time, int B, int n,
                           float shift) {
  RUN(time_features, features, time, B, n, shift);
}

void cuda_op_attention(struct exec *ex, struct act o, float *lse, const float *qkv, int B, int T,
                       int H, int d) {
  const struct cuda_attention a = {.qkv = qkv,
                                   .o = o.data,
                                   .lse = lse,
                                   .qkv_type = DT_F32,
                                   .o_type = o.type,
                                   .B = B,
                                   .T = T,
                                   .H = H,
                                   .d = d};
  RUN(attention, &a);
}

void cuda_op_patchify(struct exec *ex, float *rows, const float *x, int B, int C, int height,
                      int width, int patch) {
  RUN(patchify, rows, x, B, C, height, width, patch);
}

void cuda_op_unpatchify(struct exec *ex, float *x, const float *rows, int B, int C, int height,
                        int width, int patch) {
  RUN(unpatchify, x, rows, B, C, height, width, patch);
}

void cuda_op_gather_rows(struct exec *ex, float *dst, const float *src, const int32_t *index,
                         int64_t n, int D) {
  RUN(gather_rows, dst, src, index, n, D);
}

void cuda_op_normalize_rows(struct exec *ex, float *y, const float *x, int64_t rows, int D) {
  RUN(normalize_rows, y, x, rows, D);
}

void cuda_op_softmax_rows(struct exec *ex, float *y, const float *x, int64_t rows, int n) {
  RUN(softmax_rows, y, x, rows, n);
}

void cuda_op_softmax_tokens(struct exec *ex, float *y, const float *x, int B, int T, int E) {
  RUN(softmax_tokens, y, x, B, T, E);
}

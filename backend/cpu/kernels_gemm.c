/* Tiles of matrix products, and what follows them: bias and activation.
 *
 *            columns = 2 VEC_LANES
 *          +---------+   one row of the panel, two vectors, per step k;
 *          |  panel  |   every row of the tile: broadcast a, two fma
 *          +---------+
 *   +----+ +---------+
 *   | a  | | c       |   rows x 2 accumulators stay in registers
 *   +----+ +---------+
 *
 * Element (i, j) is the chain fma(a[i][k], b[k][j], .) over ascending k, whatever the tile. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"

VEC_INLINE void product(float *c, const float *a, int64_t row_step, int64_t k_step,
                        const float *panel, int k, int rows, bool add) {
  vec acc[VEC_TILE_ROWS][2];
  VEC_UNROLL for (int i = 0; i < rows; i++) acc[i][0] = acc[i][1] = vec_set1(0);
  for (int p = 0; p < k; p++, panel += 2 * VEC_LANES, a += k_step) {
    vec b0 = vec_load(panel), b1 = vec_load(panel + VEC_LANES);
    VEC_UNROLL for (int i = 0; i < rows; i++) {
      vec broadcast = vec_set1(a[i * row_step]);
      acc[i][0] = vec_fma(broadcast, b0, acc[i][0]);
      acc[i][1] = vec_fma(broadcast, b1, acc[i][1]);
    }
  }
  if (add) {
    VEC_UNROLL for (int i = 0; i < rows; i++) {
      acc[i][0] = vec_load(c + i * 2 * VEC_LANES) + acc[i][0];
      acc[i][1] = vec_load(c + i * 2 * VEC_LANES + VEC_LANES) + acc[i][1];
    }
  }
  VEC_UNROLL for (int i = 0; i < rows; i++) {
    vec_store(c + i * 2 * VEC_LANES, acc[i][0]);
    vec_store(c + i * 2 * VEC_LANES + VEC_LANES, acc[i][1]);
  }
}

#define TILE(m)                                                                                    \
  static void tile_##m(float *c, const float *a, const float *panel, int k, bool add) {            \
    product(c, a, CPU_STRIP_STRIDE, 1, panel, k, m, add);                                          \
  }                                                                                                \
  static void tile_transposed_##m(float *c, const float *a, int stride, const float *panel,        \
                                  int k) {                                                         \
    product(c, a, 1, stride, panel, k, m, true);                                                   \
  }
#define ENTRY(m) .tile[m] = tile_##m, .tile_transposed[m] = tile_transposed_##m,

/* clang-format off */
#if defined(__AVX512F__)
#define FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif defined(__AVX2__)
#define FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else
#define FOR_ROWS(X) X(1) X(2) X(3) X(4)
#endif
/* clang-format on */

FOR_ROWS(TILE)

VEC_INLINE vec identity(vec x) { return x; }

/* y [count] = f(c + bias) */
VEC_INLINE void finish(float *y, const float *c, int64_t panel_stride, const float *bias, int count,
                       vec (*f)(vec)) {
  for (int j = 0; j < count; c += panel_stride)
    for (int half = 0; half < 2 && j < count; half++, j += VEC_LANES) {
      vec v = f(vec_load(c + half * VEC_LANES) + vec_load(bias + j));
      if (count - j >= VEC_LANES)
        vec_store(y + j, v);
      else
        vec_store_n(y + j, v, count - j);
    }
}

static void finish_plain(float *y, const float *c, int64_t panel_stride, const float *bias,
                         int count) {
  finish(y, c, panel_stride, bias, count, identity);
}

static void finish_gelu(float *y, const float *c, int64_t panel_stride, const float *bias,
                        int count) {
  finish(y, c, panel_stride, bias, count, vec_gelu);
}

static void finish_swiglu(float *y, const float *c, int64_t panel_stride, const float *bias,
                          int count) {
  for (int j = 0; j < count; j += VEC_LANES, c += panel_stride, bias += 2 * VEC_LANES) {
    vec gate = vec_load(c) + vec_load(bias);
    vec up = vec_load(c + VEC_LANES) + vec_load(bias + VEC_LANES);
    vec v = vec_silu(gate) * up;
    if (count - j >= VEC_LANES)
      vec_store(y + j, v);
    else
      vec_store_n(y + j, v, count - j);
  }
}

const struct gemm_kernels CPU_TIERED(gemm_kernels) = {.rows = VEC_TILE_ROWS,
                                                      .columns = 2 * VEC_LANES,
                                                      .lanes = VEC_LANES,
                                                      .finish = {[FINISH_PLAIN] = finish_plain,
                                                                 [FINISH_GELU] = finish_gelu,
                                                                 [FINISH_SWIGLU] = finish_swiglu},
                                                      FOR_ROWS(ENTRY)};

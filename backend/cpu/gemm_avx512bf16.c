/* Products of bf16 with the AVX-512 BF16 instructions, which multiply pairs:
 *
 *   c[j] += a[0] b[j][0] + a[1] b[j][1]
 *
 * in an order and with a rounding of their own, the same on every processor that has them. Rows are
 * broadcast a pair at a time. */
#include "backend/cpu/finish.h"
#include "backend/cpu/tile.h"

enum { DEPTH = 512, STRIDE = DEPTH + 32 };

VEC_INLINE void product_pairs(float *c, const uint32_t *a, const uint32_t *panel, int k, int rows,
                              bool add) {
  struct accumulators acc;
  clear(&acc, rows);
  for (int p = 0; p < k / 2; p++, panel += COLUMNS) {
    __m512bh b0 = (__m512bh)_mm512_loadu_si512(panel);
    __m512bh b1 = (__m512bh)_mm512_loadu_si512(panel + VEC_LANES);
    VEC_UNROLL for (int i = 0; i < rows; i++) {
      __m512bh pair = (__m512bh)_mm512_set1_epi32((int)a[i * STRIDE / 2 + p]);
      acc.row[i][0] = _mm512_dpbf16_ps(acc.row[i][0], pair, b0);
      acc.row[i][1] = _mm512_dpbf16_ps(acc.row[i][1], pair, b1);
    }
  }
  put_tile(c, &acc, rows, add);
}

#define CASE(n)                                                                                    \
  case n:                                                                                          \
    product_pairs(c, strip, panel, k, n, add);                                                     \
    break;

static void tile(float *c, const void *strip, const void *panel, int m, int k, bool add) {
  switch (m) { TILE_FOR_ROWS(CASE) }
}

static void load(void *strip, const void *x, int n) {
  memcpy(strip, x, (size_t)n * sizeof(uint16_t));
}

const struct gemm_kernels gemm_bf16_avx512bf16 = {
    .rows = VEC_TILE_ROWS,
    .columns = COLUMNS,
    .lanes = VEC_LANES,
    .granule = 1,
    .depth = DEPTH,
    .group = 2,
    .unit = 2,
    .element = sizeof(uint16_t),
    .stride = STRIDE * (int)sizeof(uint16_t),
    .load = load,
    .tile = tile,
    .finish = {finish_plain, finish_gelu_bf16, finish_swiglu_bf16},
};

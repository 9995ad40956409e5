/* Products of bf16 with the AVX-512 BF16 instructions, which multiply pairs:
 *
 *   c[j] += a[0] b[j][0] + a[1] b[j][1]
 *
 * in an order and with a rounding of their own, the same on every processor that has them. Rows are
 * broadcast a pair at a time. */
#include "backend/cpu/finish.h"
#include "backend/cpu/tile.h"
#include "backend/cpu/winograd_tile.h"

enum { DEPTH = 512, STRIDE = DEPTH + 32 };

VEC_INLINE __m512bh load_pairs(const uint32_t *p) { return (__m512bh)_mm512_loadu_si512(p); }

/* Adds a pair of inputs times b0, b1 to a row. */
VEC_INLINE void add_pair(vec row[2], uint32_t a, __m512bh b0, __m512bh b1) {
  __m512bh pair = (__m512bh)_mm512_set1_epi32((int)a);
  row[0] = _mm512_dpbf16_ps(row[0], pair, b0);
  row[1] = _mm512_dpbf16_ps(row[1], pair, b1);
}

VEC_INLINE void product_pairs(float *c, const uint32_t *a, const uint32_t *panel, int k, int rows,
                              bool add) {
  struct accumulators acc;
  clear(&acc, rows);
  for (int p = 0; p < k / 2; p++, a++, panel += COLUMNS) {
    const __m512bh b0 = load_pairs(panel), b1 = load_pairs(panel + VEC_LANES);
    VEC_UNROLL for (int i = 0; i < rows; i++) add_pair(acc.row[i], a[i * STRIDE / 2], b0, b1);
  }
  put_tile(c, &acc, rows, add);
}

VEC_INLINE void product_segments(float *c, const struct cpu_segments *x, const uint32_t *panel,
                                 int rows, bool add) {
  struct accumulators acc;
  clear(&acc, rows);
  for (int s = 0; s < x->count; s++) {
    const uintptr_t *away = x->at[s].away;
    uintptr_t a = x->at[s].x, end = a + (uintptr_t)x->at[s].length * sizeof(uint16_t);
    for (; a < end; a += sizeof(uint32_t), panel += COLUMNS) {
      const __m512bh b0 = load_pairs(panel), b1 = load_pairs(panel + VEC_LANES);
      VEC_UNROLL for (int i = 0; i < rows; i++) {
        const uintptr_t at = i ? a + away[i] : a;
        add_pair(acc.row[i], *(const uint32_t *)at, b0, b1);
      }
    }
  }
  put_tile(c, &acc, rows, add);
}

#define CASE(n)                                                                                    \
  case n:                                                                                          \
    product_pairs(c, strip, panel, k, n, add);                                                     \
    break;

#define CASE_SEGMENTS(n)                                                                           \
  case n:                                                                                          \
    product_segments(c, x, panel, n, add);                                                         \
    break;

static void tile(float *c, const void *strip, const void *panel, int m, int k, bool add) {
  switch (m) { TILE_FOR_ROWS(CASE) }
}

static void tile_segments(float *c, const struct cpu_segments *x, const void *panel, int m,
                          bool add) {
  switch (m) { TILE_FOR_ROWS(CASE_SEGMENTS) }
}

static void load(void *strip, const void *x, int n) {
  memcpy(strip, x, (size_t)n * sizeof(uint16_t));
}

WINOGRAD_LOAD(winograd_load_pairs, true, true)
WINOGRAD_FINISH(winograd_plain, false, false)
WINOGRAD_FINISH(winograd_relu, true, true)

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
    .tile_segments = tile_segments,
    .finish = {finish_plain, finish_gelu_bf16, finish_swiglu_bf16, finish_relu_bf16,
               finish_silu_bf16},
    .winograd_load = winograd_load_pairs,
    .winograd_finish = {winograd_plain, winograd_relu},
};

/* Matrix products in f32 and, where the processor has no products of bf16, in bf16: a panel of bf16
 * holds pairs of inputs, which become two rows of a panel of f32. The first of a pair is the upper
 * half of a 32-bit word after a shift, the second one is there already. */
#include "backend/cpu/finish.h"
#include "backend/cpu/formats.h"
#include "backend/cpu/tile.h"
#include "backend/cpu/winograd_tile.h"

VEC_INLINE void product_bf16(float *c, const float *a, const uint32_t *panel, int k, int rows,
                             bool add) {
  struct accumulators acc;
  clear(&acc, rows);
  for (int p = 0; p < k; p += 2, panel += COLUMNS, a += 2) {
    vec_bits b0, b1;
    memcpy(&b0, panel, sizeof b0);
    memcpy(&b1, panel + VEC_LANES, sizeof b1);
    add_input(&acc, a, CPU_STRIP_STRIDE, (vec)(b0 << 16), (vec)(b1 << 16), rows);
    add_input(&acc, a + 1, CPU_STRIP_STRIDE, (vec)(b0 & 0xffff0000), (vec)(b1 & 0xffff0000), rows);
  }
  put_tile(c, &acc, rows, add);
}

typedef vec load_kept(const uint8_t *p);

/* As `product`, of a panel of 16 bits: conversions, and stores for the next strips, run beside the
 * multiplications. The memory, which such panels come from, is asked AHEAD bytes before. */
VEC_INLINE void product_widen(float *c, const float *a, const uint8_t *kept, load_kept *load,
                              float *panel, int k, int rows, bool add) {
  enum { LINE = 64, AHEAD = 64 * LINE };
  struct accumulators acc;
  clear(&acc, rows);
  for (int p = 0; p < k; p++, kept += 2 * COLUMNS, a++) {
    const vec b0 = load(kept), b1 = load(kept + 2 * VEC_LANES);
    __builtin_prefetch(kept + AHEAD);
    if (panel) {
      vec_store(panel + (int64_t)p * COLUMNS, b0);
      vec_store(panel + (int64_t)p * COLUMNS + VEC_LANES, b1);
    }
    add_input(&acc, a, CPU_STRIP_STRIDE, b0, b1, rows);
  }
  put_tile(c, &acc, rows, add);
}

VEC_INLINE void product_segments(float *c, const struct cpu_segments *x, const float *panel,
                                 int rows, bool add) {
  struct accumulators acc;
  clear(&acc, rows);
  for (int s = 0; s < x->count; s++) {
    const uintptr_t *away = x->at[s].away;
    uintptr_t a = x->at[s].x, end = a + (uintptr_t)x->at[s].length * sizeof(float);
    for (; a < end; a += sizeof(float), panel += COLUMNS) {
      const vec b0 = vec_load(panel), b1 = vec_load(panel + VEC_LANES);
      VEC_UNROLL for (int i = 0; i < rows; i++) {
        const uintptr_t at = i ? a + away[i] : a;
        add_to_row(acc.row[i], *(const float *)at, b0, b1);
      }
    }
  }
  put_tile(c, &acc, rows, add);
}

#define CASE_F32(n)                                                                                \
  case n:                                                                                          \
    product(c, strip, CPU_STRIP_STRIDE, 1, panel, k, n, add);                                      \
    break;
#define CASE_WIDEN_F16(n)                                                                          \
  case n:                                                                                          \
    if (panel)                                                                                     \
      product_widen(c, strip, kept, load_f16, panel, k, n, add);                                   \
    else                                                                                           \
      product_widen(c, strip, kept, load_f16, NULL, k, n, add);                                    \
    break;
#define CASE_WIDEN_BF16(n)                                                                         \
  case n:                                                                                          \
    if (panel)                                                                                     \
      product_widen(c, strip, kept, load_bf16, panel, k, n, add);                                  \
    else                                                                                           \
      product_widen(c, strip, kept, load_bf16, NULL, k, n, add);                                   \
    break;
#define CASE_SEGMENTS(n)                                                                           \
  case n:                                                                                          \
    product_segments(c, x, panel, n, add);                                                         \
    break;
#define CASE_BF16(n)                                                                               \
  case n:                                                                                          \
    product_bf16(c, strip, panel, k, n, add);                                                      \
    break;

static void tile_f32(float *c, const void *strip, const void *panel, int m, int k, bool add) {
  switch (m) { TILE_FOR_ROWS(CASE_F32) }
}

static void tile_widen_f16(float *c, const void *strip, const void *kept, float *panel, int m,
                           int k, bool add) {
  switch (m) { TILE_FOR_ROWS(CASE_WIDEN_F16) }
}

static void tile_widen_bf16(float *c, const void *strip, const void *kept, float *panel, int m,
                            int k, bool add) {
  switch (m) { TILE_FOR_ROWS(CASE_WIDEN_BF16) }
}

static void tile_segments_f32(float *c, const struct cpu_segments *x, const void *panel, int m,
                              bool add) {
  switch (m) { TILE_FOR_ROWS(CASE_SEGMENTS) }
}

static void tile_bf16(float *c, const void *strip, const void *panel, int m, int k, bool add) {
  switch (m) { TILE_FOR_ROWS(CASE_BF16) }
}

static void strip_of_f32(void *strip, const void *x, int n) {
  memcpy(strip, x, (size_t)n * sizeof(float));
}

static void strip_of_bf16(void *strip, const void *x, int n) {
  const uint16_t *half = x;
  float *wide = strip;
  int i = 0;
  for (; i + VEC_LANES <= n; i += VEC_LANES) vec_store(wide + i, vec_load_bf16(half + i));
  for (; i < n; i++) wide[i] = f32_from_bf16(half[i]);
}

WINOGRAD_LOAD(winograd_load_f32, false, false)
WINOGRAD_LOAD(winograd_load_bf16, false, true)
WINOGRAD_FINISH(winograd_plain, false, false)
WINOGRAD_FINISH(winograd_relu_f32, false, true)
WINOGRAD_FINISH(winograd_relu_bf16, true, true)

const struct gemm_kernels CPU_TIERED(gemm_f32) = {
    .rows = VEC_TILE_ROWS,
    .columns = COLUMNS,
    .lanes = VEC_LANES,
    .granule = 1,
    .depth = CPU_DEPTH_BLOCK,
    .group = 1,
    .unit = 1,
    .element = sizeof(float),
    .stride = CPU_STRIP_STRIDE * (int)sizeof(float),
    .load = strip_of_f32,
    .tile = tile_f32,
    .tile_widen = {[DT_F16] = tile_widen_f16, [DT_BF16] = tile_widen_bf16},
    .tile_segments = tile_segments_f32,
    .finish = {finish_plain, finish_gelu_f32, finish_swiglu_f32, finish_relu_f32, finish_silu_f32},
    .winograd_load = winograd_load_f32,
    .winograd_finish = {winograd_plain, winograd_relu_f32},
};

const struct gemm_kernels CPU_TIERED(gemm_bf16) = {
    .rows = VEC_TILE_ROWS,
    .columns = COLUMNS,
    .lanes = VEC_LANES,
    .granule = 1,
    .depth = CPU_DEPTH_BLOCK,
    .group = 2,
    .unit = 2,
    .element = sizeof(float),
    .stride = CPU_STRIP_STRIDE * (int)sizeof(float),
    .load = strip_of_bf16,
    .tile = tile_bf16,
    .finish = {finish_plain, finish_gelu_bf16, finish_swiglu_bf16, finish_relu_bf16,
               finish_silu_bf16},
    .winograd_load = winograd_load_bf16,
    .winograd_finish = {winograd_plain, winograd_relu_bf16},
};

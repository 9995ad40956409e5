/* Products of bf16 with Intel AMX. A strip of up to 32 rows meets a panel of 32 columns in four
 * accumulators, each instruction multiplies 16 rows of 32 inputs with 16 columns:
 *
 *                 panel: 2 x [16 pairs][16 columns]     tiles 6, 7
 *   strip:        +-----+-----+
 *   16 x 32  t4   |  0  |  1  |
 *   16 x 32  t5   |  2  |  3  |                         accumulators of f32
 *                 +-----+-----+
 *
 * An element is a chain over the inputs whatever the number of rows, which is in the tile
 * configuration: rows that are not there cost nothing. The configuration belongs to the thread; it
 * is released after every list of products, so that other libraries find the unit as they left it.
 */
#include "backend/cpu/finish.h"

enum { ROWS = 32, COLUMNS = 32, DEPTH = 768, STRIDE = DEPTH + 32, HALF = 16, DEEP = 32 };

/* Layout of LDTILECFG. */
struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

/* gcc's intrinsics do not say that they read the memory behind a pointer. */
#define BARRIER __asm__ volatile("" ::: "memory")

static _Thread_local int configured_rows; /* of the strips; 0: no configuration is loaded */

static void configure(int m) {
  const int upper = m < HALF ? m : HALF, lower = m - upper;
  const int rows[8] = {upper, upper, lower, lower, upper, lower, HALF, HALF};
  struct tile_config config = {.palette = 1};
  for (int i = 0; i < 8; i++)
    if (rows[i]) config.rows[i] = (uint8_t)rows[i], config.row_bytes[i] = 64;
  BARRIER;
  _tile_loadconfig(&config);
  configured_rows = m;
}

static void enter(void) { configured_rows = 0; }

static void leave(void) {
  if (configured_rows) _tile_release();
  configured_rows = 0;
}

/* Up to 16 rows, or, `both`, 17 to 32. */
VEC_INLINE void tile_rows(float *c, const uint16_t *a, const uint16_t *panel, int k, bool add,
                          bool both) {
  const int row = COLUMNS * (int)sizeof(float);
  float *low = c + HALF * COLUMNS;
  if (add) {
    _tile_loadd(0, c, row);
    _tile_loadd(1, c + HALF, row);
    if (both) _tile_loadd(2, low, row);
    if (both) _tile_loadd(3, low + HALF, row);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if (both) _tile_zero(2);
    if (both) _tile_zero(3);
  }
  for (int p = 0; p < k; p += DEEP, a += DEEP, panel += DEEP * COLUMNS) {
    _tile_loadd(4, a, STRIDE * (int)sizeof *a);
    _tile_loadd(6, panel, row);
    _tile_loadd(7, panel + 2 * HALF, row);
    if (both) _tile_loadd(5, a + HALF * STRIDE, STRIDE * (int)sizeof *a);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (both) _tile_dpbf16ps(2, 5, 6);
    if (both) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, row);
  _tile_stored(1, c + HALF, row);
  if (both) _tile_stored(2, low, row);
  if (both) _tile_stored(3, low + HALF, row);
}

static void tile(float *c, const void *strip, const void *panel, int m, int k, bool add) {
  BARRIER;
  if (m != configured_rows) configure(m);
  if (m > HALF)
    tile_rows(c, strip, panel, k, add, true);
  else
    tile_rows(c, strip, panel, k, add, false);
}

static void load(void *strip, const void *x, int n) {
  memcpy(strip, x, (size_t)n * sizeof(uint16_t));
}

const struct gemm_kernels gemm_bf16_amx = {
    .rows = ROWS,
    .columns = COLUMNS,
    .lanes = VEC_LANES,
    .granule = HALF,
    .depth = DEPTH,
    .group = 2,
    .unit = DEEP,
    .element = sizeof(uint16_t),
    .stride = STRIDE * (int)sizeof(uint16_t),
    .enter = enter,
    .leave = leave,
    .load = load,
    .tile = tile,
    .finish = {finish_plain, finish_gelu_bf16, finish_swiglu_bf16, finish_relu_bf16,
               finish_silu_bf16},
};

/* The AMX kernels on a model of the tile unit, for processors that have none: every instruction is
 * a function that follows the rules of the architecture and fails where the processor would raise
 * an exception. What is tested is the file that ships, compiled with these in place of the
 * intrinsics. */
#include "base/tensor.h"

#include <immintrin.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TILES = 8, TILE_ROWS = 16, TILE_BYTES = 64 };

static struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} loaded;
static uint8_t tiles[TILES][TILE_ROWS][TILE_BYTES];

static void load_config(const void *memory) {
  memcpy(&loaded, memory, sizeof loaded);
  assert_int_equal(loaded.palette, 1);
  for (int i = 0; i < 14; i++) assert_int_equal(loaded.reserved[i], 0);
  for (int t = 0; t < 16; t++) {
    assert_true(t < TILES || (loaded.rows[t] == 0 && loaded.row_bytes[t] == 0));
    assert_true(loaded.rows[t] <= TILE_ROWS && loaded.row_bytes[t] <= TILE_BYTES);
    assert_int_equal(loaded.rows[t] == 0, loaded.row_bytes[t] == 0);
  }
  memset(tiles, 0, sizeof tiles);
}

static void release(void) { memset(&loaded, 0, sizeof loaded); }

static void require(int tile) { assert_true(loaded.palette == 1 && loaded.rows[tile] > 0); }

static void zero(int tile) {
  require(tile);
  memset(tiles[tile], 0, sizeof tiles[tile]);
}

static void load_tile(int tile, const void *memory, int64_t stride) {
  zero(tile);
  for (int r = 0; r < loaded.rows[tile]; r++)
    memcpy(tiles[tile][r], (const char *)memory + r * stride, loaded.row_bytes[tile]);
}

static void store_tile(int tile, void *memory, int64_t stride) {
  require(tile);
  for (int r = 0; r < loaded.rows[tile]; r++)
    memcpy((char *)memory + r * stride, tiles[tile][r], loaded.row_bytes[tile]);
}

static float value_of(const uint8_t *bytes) {
  uint16_t bits;
  memcpy(&bits, bytes, sizeof bits);
  return f32_from_bf16(bits);
}

/* c [M, N] += a [M, K pairs] b [K, N pairs] */
static void multiply(int c, int a, int b) {
  require(c), require(a), require(b);
  assert_int_equal(loaded.rows[c], loaded.rows[a]);
  assert_int_equal(loaded.row_bytes[c], loaded.row_bytes[b]);
  assert_int_equal(loaded.row_bytes[a] / 4, loaded.rows[b]);
  for (int m = 0; m < loaded.rows[c]; m++)
    for (int n = 0; n < loaded.row_bytes[c]; n += 4) {
      float sum;
      memcpy(&sum, &tiles[c][m][n], sizeof sum);
      for (int k = 0; k < loaded.rows[b]; k++)
        for (int half = 0; half < 4; half += 2)
          sum += value_of(&tiles[a][m][4 * k + half]) * value_of(&tiles[b][k][n + half]);
      memcpy(&tiles[c][m][n], &sum, sizeof sum);
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig load_config
#define _tile_release    release
#define _tile_zero       zero
#define _tile_loadd      load_tile
#define _tile_stored     store_tile
#define _tile_dpbf16ps   multiply
#define gemm_bf16_amx    modelled
#include "backend/cpu/gemm_amx.c"

static uint16_t strip[ROWS * STRIDE], panel[DEPTH * COLUMNS];
static float c[(ROWS + 1) * COLUMNS], before[(ROWS + 1) * COLUMNS];

static void fill_bf16(uint16_t *values, int n) {
  for (int i = 0; i < n; i++) values[i] = bf16_from_f32((float)(rand() % 2001 - 1000) / 1000);
}

static double expected(int row, int column, int k, bool add) {
  double sum = add ? (double)before[row * COLUMNS + column] : 0;
  for (int i = 0; i < k; i++)
    sum += (double)f32_from_bf16(strip[row * STRIDE + i]) *
           (double)f32_from_bf16(panel[i / 2 * 2 * COLUMNS + 2 * column + i % 2]);
  return sum;
}

static void check_tile(int m, int k, bool add) {
  fill_bf16(strip, ROWS * STRIDE);
  fill_bf16(panel, DEPTH * COLUMNS);
  for (int i = 0; i < (ROWS + 1) * COLUMNS; i++) c[i] = before[i] = (float)(i % 7);
  modelled.tile(c, strip, panel, m, k, add);
  for (int row = 0; row < m; row++)
    for (int column = 0; column < COLUMNS; column++)
      assert_true(fabs((double)c[row * COLUMNS + column] - expected(row, column, k, add)) < 1e-4);
  for (int i = m * COLUMNS; i < (ROWS + 1) * COLUMNS; i++) assert_true(c[i] == before[i]);
}

static void test_tiles(void **state) {
  (void)state;
  modelled.enter();
  for (int m = 1; m <= ROWS; m++)
    for (int k = DEEP; k <= DEPTH; k += DEEP * 5 + (k > DEEP ? 2 * DEEP : 0))
      check_tile(m, k, (m + k / DEEP) % 2 == 0);
  check_tile(ROWS, DEPTH, true);
  modelled.leave();
}

/* Whatever the number of rows, a row has the same bits. */
static void test_rows_are_independent(void **state) {
  (void)state;
  float all[ROWS * COLUMNS], some[ROWS * COLUMNS];
  fill_bf16(strip, ROWS * STRIDE);
  fill_bf16(panel, DEPTH * COLUMNS);
  modelled.enter();
  modelled.tile(all, strip, panel, ROWS, 96, false);
  for (int m = 1; m < ROWS; m++) {
    modelled.tile(some, strip, panel, m, 96, false);
    assert_memory_equal(some, all, (size_t)(m * COLUMNS) * sizeof *some);
  }
  modelled.leave();
}

/* The unit is left as it was found. */
static void test_release(void **state) {
  (void)state;
  modelled.enter();
  modelled.leave();
  modelled.enter();
  check_tile(5, DEEP, false);
  assert_int_equal(loaded.palette, 1);
  modelled.leave();
  assert_int_equal(loaded.palette, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_tiles),
      cmocka_unit_test(test_rows_are_independent),
      cmocka_unit_test(test_release),
  };
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) return 77;
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Both resize rules in one shape: a pixel of the output lies between two pixels of the input along
 * each axis. Columns come first, a row of the input at a time, and such a row is kept while rows of
 * the output lie beside it. Work goes in bands of columns, whose rows fit on the stack. */
#include "eval/resize.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { BAND = 100, CHANNELS = 3, BAND_VALUES = BAND * CHANNELS };

/* Between pixel `low` and pixel `high` of the input, `share` of the way. */
struct place {
  int low, high;
  float share;
};

/* out[i] = what lies between low[i] and high[i] */
typedef void blend_values(float *out, const float *low, const float *high, const float *share);

struct resizing {
  const uint8_t *pixels; /* [height, width, 3] */
  int height, width, side;
  enum resize_rule rule;
  float whole, middle, scale; /* x = byte / whole is interpolated, then (x - middle) * scale */
  blend_values *blend;
};

/* The loops over values have a constant length so that compilers make vectors of them. */

static void blend_adm(float *out, const float *low, const float *high, const float *share) {
#pragma omp simd
  for (int i = 0; i < BAND_VALUES; i++) out[i] = low[i] + (high[i] - low[i]) * share[i];
}

/* The product with `low` and the sum are rounded once, as by torch's kernels for AVX2 and above. */
static inline __attribute__((always_inline)) void
blend_fused(float *out, const float *low, const float *high, const float *share) {
#pragma omp simd
  for (int i = 0; i < BAND_VALUES; i++) out[i] = fmaf(low[i], 1 - share[i], high[i] * share[i]);
}

static void blend_torch(float *out, const float *low, const float *high, const float *share) {
  blend_fused(out, low, high, share);
}

/* fmaf is the fused operation with or without the instruction; the instruction is only faster. */
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void
blend_torch_fma(float *out, const float *low, const float *high, const float *share) {
  blend_fused(out, low, high, share);
}
#define HAVE_FMA (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define blend_torch_fma blend_torch
#define HAVE_FMA        0
#endif

static void start(struct resizing *r) {
  const bool adm = r->rule == RESIZE_ADM;
  r->blend = adm ? blend_adm : HAVE_FMA ? blend_torch_fma : blend_torch;
  r->whole = adm ? 1 : 255;
  r->middle = adm ? 128 : 0.5F;
  r->scale = adm ? 1 / 128.0F : 2;
}

/* Pixel i of the output along an axis of n, all of it in float32. At n = side it is pixel i itself.
 * ATen's area_pixel_compute_source_index, with one rounding as its compilers make of it. */
static struct place locate(int i, int n, const struct resizing *r) {
  const float step = (float)n / (float)r->side;
  const float at =
      r->rule == RESIZE_ADM ? (float)i * step : fmaxf(fmaf(step, (float)i + 0.5F, -0.5F), 0);
  struct place p = {.low = (int)at < n ? (int)at : n - 1};
  p.share = at - (float)p.low;
  p.high = p.low + 1 < n ? p.low + 1 : p.low;
  return p;
}

/* Where the columns of a band lie: pixels, and the share of each value. */
struct band {
  struct place places[BAND];
  float share[BAND_VALUES];
};

static void read_levels(float *out, const uint8_t *bytes, float whole) {
#pragma omp simd
  for (int i = 0; i < BAND_VALUES; i++) out[i] = bytes[i];
  if (whole == 1) return;
#pragma omp simd
  for (int i = 0; i < BAND_VALUES; i++) out[i] /= whole;
}

/* out [BAND, 3] of one row of the input */
static void cross_columns(float *out, const struct resizing *r, const struct band *band, int row) {
  const uint8_t *in = r->pixels + (int64_t)row * r->width * CHANNELS;
  uint8_t low[BAND_VALUES], high[BAND_VALUES];
  float left[BAND_VALUES], right[BAND_VALUES];
  for (int j = 0; j < BAND; j++) {
    memcpy(low + j * CHANNELS, in + (int64_t)band->places[j].low * CHANNELS, CHANNELS);
    memcpy(high + j * CHANNELS, in + (int64_t)band->places[j].high * CHANNELS, CHANNELS);
  }
  read_levels(left, low, r->whole);
  read_levels(right, high, r->whole);
  r->blend(out, left, right, band->share);
}

/* out [BAND, 3] */
static void cross_rows(float *out, const struct resizing *r, const float *top, const float *bottom,
                       float share) {
  const float middle = r->middle, scale = r->scale;
  float shares[BAND_VALUES];
  for (int i = 0; i < BAND_VALUES; i++) shares[i] = share;
  r->blend(out, top, bottom, shares);
#pragma omp simd
  for (int i = 0; i < BAND_VALUES; i++) out[i] = (out[i] - middle) * scale;
}

/* Columns first .. first + BAND - 1 of out [side, side, 3], as far as there are any. */
static void resize_band(float *out, const struct resizing *r, int first) {
  const int columns = r->side - first < BAND ? r->side - first : BAND;
  struct band band;
  float rows[2][BAND_VALUES], line[BAND_VALUES]; /* an input row lies in place row % 2 */
  int held[2] = {-1, -1};
  for (int j = 0; j < BAND; j++)
    band.places[j] = locate(j < columns ? first + j : r->side - 1, r->width, r);
  for (int i = 0; i < BAND_VALUES; i++) band.share[i] = band.places[i / CHANNELS].share;
  for (int i = 0; i < r->side; i++) {
    const struct place p = locate(i, r->height, r);
    for (int row = p.low; row <= p.high; row++)
      if (held[row % 2] != row) cross_columns(rows[row % 2], r, &band, held[row % 2] = row);
    cross_rows(line, r, rows[p.low % 2], rows[p.high % 2], p.share);
    memcpy(out + ((int64_t)i * r->side + first) * CHANNELS, line,
           (size_t)columns * CHANNELS * sizeof *line);
  }
}

void resize_image(float *out, const uint8_t *pixels, int height, int width, int side,
                  enum resize_rule rule) {
  struct resizing r = {
      .pixels = pixels, .height = height, .width = width, .side = side, .rule = rule};
  start(&r);
  for (int first = 0; first < side; first += BAND) resize_band(out, &r, first);
}

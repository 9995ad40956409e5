/* Colour maps. viridis, cividis and magma are those of matplotlib (CC0) as the corners of a polygon
 * that stays within 1/255 of their 256 colours; the others are ramps of even steps of lightness in
 * OKLab. */
#include "plot/plot.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Colour `rgb` at place `at` of 0..255. */
struct corner {
  uint8_t at;
  uint32_t rgb;
};

static const struct corner viridis[] = {
    {0, 0x440154},   {17, 0x481a6c},  {35, 0x46307e},  {58, 0x3e4c8a},  {94, 0x2d718e},
    {129, 0x20928c}, {144, 0x1fa088}, {157, 0x25ac82}, {172, 0x38b977}, {184, 0x4ec36b},
    {203, 0x77d153}, {233, 0xc5e021}, {242, 0xdde318}, {248, 0xece51b}, {255, 0xfde725}};
static const struct corner cividis[] = {
    {0, 0x00224e},   {18, 0x002f6d},  {23, 0x013271},  {26, 0x0c3470},  {32, 0x1a386f},
    {47, 0x31436d},  {83, 0x555c6d},  {130, 0x7e7d78}, {162, 0x9d9576}, {195, 0xbfb06b},
    {224, 0xdec958}, {242, 0xf2da44}, {251, 0xfde334}, {255, 0xfee838}};
static const struct corner magma[] = {
    {0, 0x000004},   {2, 0x010106},   {12, 0x06051a},  {29, 0x19103f},
    {42, 0x2c115f},  {54, 0x400f74},  {66, 0x54137d},  {90, 0x792282},
    {120, 0xaa337d}, {143, 0xcf4070}, {159, 0xe55064}, {172, 0xf2645c},
    {187, 0xfa7f5e}, {206, 0xfea36f}, {227, 0xfeca8d}, {255, 0xfcfdbf}};

/* A ramp from light to dark: hues of both ends in degrees of OKLab, and its chroma, all of which
 * the screen can show. */
struct ramp {
  double light_hue, dark_hue, chroma;
};

struct colormap {
  const char *name;
  const struct corner *corners; /* NULL: ramps */
  struct ramp ramp[2];          /* for signed values: from the middle downwards and upwards */
  bool signed_values;
};

static const struct colormap maps[] = {
    {.name = "viridis", .corners = viridis},
    {.name = "cividis", .corners = cividis},
    {.name = "magma", .corners = magma},
    {.name = "blues", .ramp = {{235, 258, 0.405}}},
    {.name = "greens", .ramp = {{145, 150, 0.32}}},
    {.name = "oranges", .ramp = {{64, 36, 0.41}}},
    {.name = "gray", .ramp = {{0, 0, 0}}},
    {.name = "difference", .signed_values = true, .ramp = {{230, 258, 0.4}, {60, 25, 0.47}}},
};

const char *const colormap_names[] = {"viridis", "cividis", "magma", "blues",
                                      "greens",  "oranges", "gray",  NULL};

const struct colormap *colormap_find(const char *name) {
  for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
    if (strcmp(maps[i].name, name) == 0) return &maps[i];
  return NULL;
}

static double encode(double linear) {
  return linear <= 0.0031308 ? 12.92 * linear : 1.055 * pow(linear, 1 / 2.4) - 0.055;
}

/* Linear RGB of a colour in OKLab. */
static void from_oklab(double lightness, double a, double b, double linear[3]) {
  const double l = pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
  const double m = pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
  const double s = pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
  linear[0] = 4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s;
  linear[1] = -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s;
  linear[2] = -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s;
}

static void from_lightness(double lightness, double chroma, double hue, color rgb) {
  const double angle = hue * 3.14159265358979323846 / 180;
  double linear[3];
  from_oklab(lightness, chroma * cos(angle), chroma * sin(angle), linear);
  for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)lround(255 * fmin(fmax(encode(linear[c]), 0), 1));
}

/* at: 0 light, 1 dark; the strongest colours in between, where the screen has them. */
static void ramp_at(const struct ramp *ramp, double at, color rgb) {
  from_lightness(0.97 - 0.62 * at, ramp->chroma * at * (1 - 0.7 * at),
                 ramp->light_hue + at * (ramp->dark_hue - ramp->light_hue), rgb);
}

static void corner_at(const struct colormap *map, double at, color rgb) {
  const struct corner *c = map->corners;
  const double place = 255 * at;
  while (c[1].at < place) c++;
  const double part = (place - c[0].at) / (c[1].at - c[0].at);
  for (int i = 0; i < 3; i++) {
    const int shift = 16 - 8 * i, low = c[0].rgb >> shift & 255, high = c[1].rgb >> shift & 255;
    rgb[i] = (uint8_t)lround(low + part * (high - low));
  }
}

void colormap_at(const struct colormap *map, double at, color rgb) {
  if (isnan(at)) {
    memset(rgb, 0xd4, 3);
    return;
  }
  at = fmin(fmax(at, 0), 1);
  if (map->corners)
    corner_at(map, at, rgb);
  else if (map->signed_values)
    ramp_at(&map->ramp[at > 0.5], fabs(2 * at - 1), rgb);
  else
    ramp_at(&map->ramp[0], at, rgb);
}

void color_distinct(int index, int count, color rgb) {
  from_lightness(0.72, 0.12, 30 + 360.0 * index / count, rgb);
}

void color_ink(const color rgb, color ink) {
  double light = 0; /* relative luminance, as text contrast is measured */
  static const double weights[] = {0.2126, 0.7152, 0.0722};
  for (int c = 0; c < 3; c++) light += weights[c] * pow(rgb[c] / 255.0, 2.2);
  memset(ink, light > 0.179 ? 0 : 255, 3);
}

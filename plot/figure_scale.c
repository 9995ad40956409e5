/* The scale of the colours: its ends, its ticks, the colour bar. */
#include "plot/figure_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BAR_WIDTH = 16, BAR_TIP = 8, TICK_SPACE = 30 };

/* Ends that are finite and apart: a range of one value, or of rounding errors, is widened. */
static void range_widen(struct range *range) {
  if (!(range->low <= range->high)) *range = (struct range){.low = 0, .high = 1};
  const double size = fmax(fabs(range->low), fabs(range->high));
  if (range->high / 2 - range->low / 2 > 1e-7 * size && range->high - range->low > 1e-290) return;
  const double middle = range->low / 2 + range->high / 2;
  const double half = fmin(size > 1e-280 ? size / 2 : 0.5, 4e307);
  range->low = fmax(middle, -1e308) - half;
  range->high = fmin(middle, 1e308) + half;
}

static void range_add(struct range *range, const struct panel *panel) {
  const int64_t cells = (int64_t)panel->rows * panel->columns;
  double low = INFINITY, high = -INFINITY;
  for (int64_t i = 0; i < cells; i++) {
    const double value = panel->values[i];
    if (isnan(value)) range->missing = true;
    if (!isfinite(value)) continue;
    low = fmin(low, value);
    high = fmax(high, value);
  }
  range->low = fmin(range->low, isfinite(panel->low) ? panel->low : low);
  range->high = fmax(range->high, isfinite(panel->high) ? panel->high : high);
}

struct range range_find(const struct figure *figure, const struct panel *panels, int count) {
  struct range range = {.low = INFINITY, .high = -INFINITY};
  for (int i = 0; i < count; i++) range_add(&range, &panels[i]);
  const bool missing = range.missing;
  if (figure->centered && range.low <= range.high) {
    const double half = fmax(fabs(range.low - figure->center), fabs(range.high - figure->center));
    range.low = fmax(figure->center - half, -1e308);
    range.high = fmin(figure->center + half, 1e308);
  }
  range_widen(&range);
  range.missing = missing;
  for (int i = 0; i < count; i++)
    for (int64_t j = 0; j < (int64_t)panels[i].rows * panels[i].columns; j++) {
      range.below |= panels[i].values[j] < range.low;
      range.above |= panels[i].values[j] > range.high;
    }
  return range;
}

double range_place(const struct range *range, double value) {
  return (value / 2 - range->low / 2) / (range->high / 2 - range->low / 2);
}

/* The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `step`. */
static double round_step(double step) {
  static const double factors[] = {1, 2, 2.5, 5, 10};
  const double power = pow(10, floor(log10(step)));
  for (int i = 0; i < 4; i++)
    if (factors[i] * power >= step * 0.999999) return factors[i] * power;
  return 10 * power;
}

/* Digits after the point that tell multiples of `step` apart. */
static int digits_of(double step) {
  for (int digits = 0; digits < 6; digits++) {
    const double shifted = step * pow(10, digits);
    if (fabs(shifted - round(shifted)) < 1e-6 * shifted) return digits;
  }
  return 6;
}

static void tick_text(char text[TICK_TEXT], double value, double step, double size) {
  static const struct {
    double from, unit;
    const char *name;
  } large[] = {{1e9, 1e9, "G"}, {1e6, 1e6, "M"}, {1e5, 1e3, "k"}};
  const char *sign = value < 0 ? "\xe2\x88\x92" : "";
  value = fabs(value) < step * 1e-6 ? 0 : fabs(value);
  if (value == 0) sign = "";
  double unit = 1;
  const char *name = "";
  for (int i = 2; i >= 0; i--)
    if (size >= large[i].from && step >= large[i].unit / 100)
      unit = large[i].unit, name = large[i].name;
  if (size >= 1e13 || step < 1e-5)
    snprintf(text, TICK_TEXT, "%s%.3g", sign, value);
  else
    snprintf(text, TICK_TEXT, "%s%.*f%s", sign, digits_of(step / unit), value / unit,
             value == 0 ? "" : name);
}

static void make_ticks(struct bar *bar, double step) {
  const double low = bar->range.low, high = bar->range.high;
  const double size = fmax(fabs(low), fabs(high)), first = ceil(low / step - 1e-6);
  bar->ticks = 0;
  for (int i = 0; i < TICKS_MAX; i++) {
    const double value = (first + i) * step;
    if (!(range_place(&bar->range, value) < 1 + 1e-6)) break;
    bar->tick[bar->ticks] = value;
    tick_text(bar->text[bar->ticks++], value, step, size);
  }
}

/* As many as look well, or somewhat more for at least three. */
static void choose_ticks(struct bar *bar) {
  int wanted = bar->height / TICK_SPACE;
  wanted = wanted < 2 ? 2 : wanted > 8 ? 8 : wanted;
  do make_ticks(bar, round_step(bar->range.high / wanted - bar->range.low / wanted));
  while (bar->ticks < 3 && wanted++ < 8);
}

void bar_make(struct bar *bar, const struct range *range, int height) {
  *bar = (struct bar){.range = *range, .height = height};
  choose_ticks(bar);
  int widest = 0;
  for (int i = 0; i < bar->ticks; i++) {
    const int width = canvas_text_width(TEXT_NORMAL, bar->text[i]);
    if (width > widest) widest = width;
  }
  bar->width = BAR_WIDTH + 1 + TICK_LENGTH + TEXT_GAP + widest;
}

int bar_unit_width(void) { return TEXT_GAP + canvas_text_height(TEXT_NORMAL); }

/* Values lie beyond this end: a tip in the colour of the end. */
static void draw_tip(struct canvas *canvas, int x, int y, int down, const color rgb) {
  for (int i = 0; i < BAR_TIP; i++) {
    const struct area row = {x + i, y + i * down, BAR_WIDTH - 2 * i, 1};
    canvas_fill(canvas, (struct area){row.x - 1, row.y, row.width + 2, 1}, ink_dark);
    canvas_fill(canvas, row, rgb);
  }
}

void bar_draw(const struct bar *bar, struct canvas *canvas, int x, int y,
              const struct colormap *map, const char *unit) {
  color rgb;
  canvas_outline(canvas, (struct area){x, y, BAR_WIDTH, bar->height}, ink_dark);
  for (int i = 0; i < bar->height; i++) {
    colormap_at(map, 1 - (i + 0.5) / bar->height, rgb);
    canvas_fill(canvas, (struct area){x, y + i, BAR_WIDTH, 1}, rgb);
  }
  colormap_at(map, 1, rgb);
  if (bar->range.above) draw_tip(canvas, x, y - 2, -1, rgb);
  colormap_at(map, 0, rgb);
  if (bar->range.below) draw_tip(canvas, x, y + bar->height + 1, 1, rgb);
  for (int i = 0; i < bar->ticks; i++) {
    const double place = range_place(&bar->range, bar->tick[i]);
    const int at = y + (int)lround((1 - place) * (bar->height - 1));
    const int right = x + BAR_WIDTH + 1;
    canvas_fill(canvas, (struct area){right, at, TICK_LENGTH, 1}, ink_dark);
    canvas_text(canvas, right + TICK_LENGTH + TEXT_GAP, at - canvas_text_height(TEXT_NORMAL) / 2,
                TEXT_NORMAL, ink_dark, bar->text[i]);
  }
  if (unit) text_centered_vertical(canvas, x + bar->width + TEXT_GAP, y, bar->height, unit);
}

void missing_fill(struct canvas *canvas, struct area area) {
  static const color stripe = {0xb8, 0xb8, 0xb8};
  color gray;
  colormap_at(NULL, NAN, gray);
  canvas_fill(canvas, area, gray);
  for (int y = area.y; y < area.y + area.height; y++)
    for (int x = area.x; x < area.x + area.width; x++)
      if ((x + y) % 6 == 0) canvas_fill(canvas, (struct area){x, y, 1, 1}, stripe);
}

static const char missing_text[] = "no data";

int missing_legend_width(void) {
  return BAR_WIDTH + 1 + TICK_LENGTH + TEXT_GAP + canvas_text_width(TEXT_NORMAL, missing_text);
}

void missing_legend(struct canvas *canvas, int x, int y) {
  const int height = canvas_text_height(TEXT_NORMAL) - 4;
  const struct area area = {x, y + 2, BAR_WIDTH, height};
  missing_fill(canvas, area);
  canvas_outline(canvas, area, ink_dark);
  canvas_text(canvas, x + BAR_WIDTH + 1 + TICK_LENGTH + TEXT_GAP, y, TEXT_NORMAL, ink_dark,
              missing_text);
}

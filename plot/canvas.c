/* Pixels: the canvas, rectangles, images. */
#include "cli/report.h"
#include "cli/text.h"
#include "plot/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum ditmoe_status canvas_create(struct canvas *canvas, int width, int height) {
  *canvas = (struct canvas){0};
  if (width < 1 || height < 1 || width > CANVAS_SIDE_MAX || height > CANVAS_SIDE_MAX)
    return report_error(DITMOE_USAGE, "a picture of %d x %d pixels: a side has 1 to %d", width,
                        height, CANVAS_SIDE_MAX);
  const size_t bytes = 3 * (size_t)width * (size_t)height;
  *canvas = (struct canvas){width, height, memory_get(bytes, 1)};
  memset(canvas->pixels, 255, bytes);
  return DITMOE_OK;
}

void canvas_free(struct canvas *canvas) {
  free(canvas->pixels);
  *canvas = (struct canvas){0};
}

static int clip(int64_t at, int end) { return at < 0 ? 0 : at > end ? end : (int)at; }

/* What of `area` lies on the canvas. */
static struct area visible(const struct canvas *canvas, struct area area) {
  const int left = clip(area.x, canvas->width), top = clip(area.y, canvas->height);
  const int right = clip((int64_t)area.x + area.width, canvas->width),
            bottom = clip((int64_t)area.y + area.height, canvas->height);
  return (struct area){left, top, right > left ? right - left : 0, bottom > top ? bottom - top : 0};
}

static uint8_t *pixel_at(const struct canvas *canvas, int x, int y) {
  return canvas->pixels + 3 * ((size_t)y * (size_t)canvas->width + (size_t)x);
}

void canvas_fill(struct canvas *canvas, struct area area, const color rgb) {
  const struct area part = visible(canvas, area);
  for (int y = part.y; y < part.y + part.height; y++)
    for (int x = part.x; x < part.x + part.width; x++) memcpy(pixel_at(canvas, x, y), rgb, 3);
}

void canvas_blend(struct canvas *canvas, struct area area, const color rgb, double alpha) {
  const struct area part = visible(canvas, area);
  for (int y = part.y; y < part.y + part.height; y++)
    for (int x = part.x; x < part.x + part.width; x++) {
      uint8_t *pixel = pixel_at(canvas, x, y);
      for (int c = 0; c < 3; c++)
        pixel[c] = (uint8_t)lround(pixel[c] + alpha * (rgb[c] - pixel[c]));
    }
}

void canvas_outline(struct canvas *canvas, struct area area, const color rgb) {
  const int x = area.x - 1, y = area.y - 1, width = area.width + 2, height = area.height + 2;
  canvas_fill(canvas, (struct area){x, y, width, 1}, rgb);
  canvas_fill(canvas, (struct area){x, y + height - 1, width, 1}, rgb);
  canvas_fill(canvas, (struct area){x, y, 1, height}, rgb);
  canvas_fill(canvas, (struct area){x + width - 1, y, 1, height}, rgb);
}

/* The source pixels [begin, end) of target pixel `at` out of `target`: at least one. */
static void source_range(int at, int target, int source, int range[2]) {
  range[0] = (int)((int64_t)at * source / target);
  range[1] = (int)((int64_t)(at + 1) * source / target);
  if (range[1] <= range[0]) range[1] = range[0] + 1;
}

static void average(uint8_t out[3], const uint8_t *pixels, int width, const int x[2],
                    const int y[2]) {
  const uint64_t count = (uint64_t)(x[1] - x[0]) * (uint64_t)(y[1] - y[0]);
  uint64_t sum[3] = {0};
  for (int j = y[0]; j < y[1]; j++)
    for (int i = x[0]; i < x[1]; i++)
      for (int c = 0; c < 3; c++)
        sum[c] += pixels[3 * ((size_t)j * (size_t)width + (size_t)i) + (size_t)c];
  for (int c = 0; c < 3; c++) out[c] = (uint8_t)((sum[c] + count / 2) / count);
}

void canvas_image(struct canvas *canvas, struct area area, const uint8_t *pixels, int width,
                  int height) {
  const struct area part = visible(canvas, area);
  for (int j = part.y; j < part.y + part.height; j++)
    for (int i = part.x; i < part.x + part.width; i++) {
      int x[2], y[2];
      source_range(i - area.x, area.width, width, x);
      source_range(j - area.y, area.height, height, y);
      average(pixel_at(canvas, i, j), pixels, width, x, y);
    }
}

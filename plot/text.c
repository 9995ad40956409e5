/* Text: UTF-8, the pen along the paths of the letters, widths. */
#include "cli/text.h"
#include "plot/font.h"
#include "plot/plot.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A text size. */
struct face {
  double scale; /* pixels of two units */
  double round; /* added before a position is cut to a whole pixel: the bar of e is in its middle */
  double pen;   /* pixels */
  int margin;   /* rows above capitals and below the base line */
};

static const struct face faces[] = {
    [TEXT_SMALL] = {7 / 9.0, 0.67, 1.1, 2},
    [TEXT_NORMAL] = {1, 0.5, 1.25, 3},
    [TEXT_TITLE] = {11 / 9.0, 0.5, 2, 5},
};

/* The pixels of one letter before they are mixed with a colour. */
enum { GLYPH_SIDE = 48, GLYPH_ORIGIN = 16, CURVE_PIECES = 6 };
struct coverage {
  float value[GLYPH_SIDE][GLYPH_SIDE]; /* the base line's row and the origin's column: 16 */
};

struct point {
  double x, y;
};

/* The code point at *text, which moves on; U+FFFD for a byte that is not part of UTF-8. */
static uint32_t next_code(const char **text) {
  const unsigned char *c = (const unsigned char *)*text;
  int more = c[0] < 0x80 ? 0 : c[0] < 0xc2 ? -1 : c[0] < 0xe0 ? 1 : c[0] < 0xf0 ? 2 : 3;
  uint32_t code = more <= 0 ? c[0] : c[0] & (0x3f >> more);
  if (c[0] > 0xf4) more = -1;
  for (int i = 1; i <= more; i++) {
    if ((c[i] & 0xc0) != 0x80) more = -1;
    code = code << 6 | (c[i] & 0x3f);
  }
  *text += more < 0 ? 1 : more + 1;
  return more < 0 ? 0xfffd : code;
}

/* Even units land on whole pixels at every size, the others between them. */
static double to_pixels(const struct face *face, double units) {
  const double below = floor(units / 2), part = units / 2 - below;
  const double a = floor(below * face->scale + face->round),
               b = floor((below + 1) * face->scale + face->round);
  return a + part * (b - a);
}

/* Rather wide where letters would touch. */
static int advance_of(const struct face *face, int units) {
  return (int)floor(units / 2 * face->scale + (face->scale == 1 ? 0.5 : 0.8)) + (face->pen > 1.5);
}

static double distance(struct point p, struct point a, struct point b) {
  const double dx = b.x - a.x, dy = b.y - a.y, square = dx * dx + dy * dy;
  double at = square > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / square : 0;
  at = fmin(fmax(at, 0), 1);
  return hypot(p.x - a.x - at * dx, p.y - a.y - at * dy);
}

static int clamp_side(double at) {
  return at < 0 ? 0 : at > GLYPH_SIDE - 1 ? GLYPH_SIDE - 1 : (int)at;
}

/* A straight stroke of the pen, in pixels of the letter's square. */
static void stroke(struct coverage *coverage, double pen, struct point a, struct point b) {
  const double reach = pen / 2 + 1;
  const int left = clamp_side(fmin(a.x, b.x) - reach), right = clamp_side(fmax(a.x, b.x) + reach);
  const int top = clamp_side(fmin(a.y, b.y) - reach), bottom = clamp_side(fmax(a.y, b.y) + reach);
  for (int y = top; y <= bottom; y++)
    for (int x = left; x <= right; x++) {
      const double inside = pen / 2 + 0.5 - distance((struct point){x, y}, a, b);
      const float value = (float)fmin(fmax(inside, 0), 1);
      if (value > coverage->value[y][x]) coverage->value[y][x] = value;
    }
}

static struct point middle(struct point a, struct point b) {
  return (struct point){(a.x + b.x) / 2, (a.y + b.y) / 2};
}

static void curve(struct coverage *coverage, double pen, struct point a, struct point control,
                  struct point b) {
  struct point last = a;
  for (int i = 1; i <= CURVE_PIECES; i++) {
    const double t = (double)i / CURVE_PIECES, u = 1 - t;
    const struct point p = {u * u * a.x + 2 * u * t * control.x + t * t * b.x,
                            u * u * a.y + 2 * u * t * control.y + t * t * b.y};
    stroke(coverage, pen, last, p);
    last = p;
  }
}

/* Walks along a path that begins at `origin` (in units). */
static void draw_path(struct coverage *coverage, const struct face *face, const char *path,
                      struct point origin) {
  struct point last = {0}, control = {0};
  bool down = false, bending = false;
  const double shift = fmod(face->pen, 2) < 1.5 ? 0 : 0.5; /* a pen of two fills two pixels */
  while (*path) {
    if (*path == '/') down = bending = false;
    if (*path == '/' || *path == ' ') {
      path++;
      continue;
    }
    const bool off = *path == '~';
    char *end;
    const double x = origin.x + (double)strtol(path + off, &end, 10);
    const double y = origin.y + (double)strtol(end + 1, &end, 10);
    path = end;
    const struct point p = {GLYPH_ORIGIN + to_pixels(face, x) + shift,
                            2 * GLYPH_ORIGIN - to_pixels(face, y) - shift};
    const struct point to = off ? middle(control, p) : p;
    if (bending) curve(coverage, face->pen, last, control, to);
    if (down && !bending && !off) stroke(coverage, face->pen, last, p);
    if (bending || !off) last = to;
    if (off) control = p;
    bending = off;
    down = true;
  }
}

static void mix(const struct canvas *canvas, int x, int y, const color rgb, double alpha) {
  if (x < 0 || y < 0 || x >= canvas->width || y >= canvas->height) return;
  uint8_t *pixel = canvas->pixels + 3 * ((size_t)y * (size_t)canvas->width + (size_t)x);
  for (int c = 0; c < 3; c++) pixel[c] = (uint8_t)lround(pixel[c] + alpha * (rgb[c] - pixel[c]));
}

static void draw_glyph(const struct face *face, const struct glyph *glyph,
                       struct coverage *coverage) {
  *coverage = (struct coverage){0};
  draw_path(coverage, face, glyph->path, (struct point){0});
  if (!glyph->mark) return;
  const bool capital = glyph->code < 0xe0 || glyph->code == 0x160;
  draw_path(coverage, face, glyph->mark,
            (struct point){glyph->advance / 2 - 1, capital ? FONT_CAPITAL : FONT_SMALL_LETTER + 2});
}

/* Where pixels of a line go: (u, v) along and below the upper left corner of the line. */
struct line {
  struct canvas *canvas;
  int x, y;
  bool vertical;
};

static void put_glyph(const struct line *line, const struct coverage *coverage, int left, int base,
                      const color rgb) {
  for (int j = 0; j < GLYPH_SIDE; j++)
    for (int i = 0; i < GLYPH_SIDE; i++) {
      if (coverage->value[j][i] <= 0) continue;
      const int u = left + i - GLYPH_ORIGIN, v = base + j - 2 * GLYPH_ORIGIN;
      mix(line->canvas, line->vertical ? line->x + v : line->x + u,
          line->vertical ? line->y - u : line->y + v, rgb, coverage->value[j][i]);
    }
}

static int capital_rows(const struct face *face) { return (int)to_pixels(face, FONT_CAPITAL) + 1; }

static void draw_line(const struct line *line, const struct face *face, const color rgb,
                      const char *text) {
  const int base = face->margin + capital_rows(face) - 1 + (face->pen > 1.5);
  struct coverage coverage;
  for (int left = 0; *text && left < CANVAS_SIDE_MAX;) {
    const struct glyph glyph = font_glyph(next_code(&text));
    draw_glyph(face, &glyph, &coverage);
    put_glyph(line, &coverage, left, base, rgb);
    left += advance_of(face, glyph.advance);
  }
}

void canvas_text(struct canvas *canvas, int x, int y, enum text_size size, const color rgb,
                 const char *text) {
  const struct line line = {canvas, x, y, false};
  draw_line(&line, &faces[size], rgb, text);
}

void canvas_text_vertical(struct canvas *canvas, int x, int y, enum text_size size, const color rgb,
                          const char *text) {
  const struct line line = {canvas, x, y + canvas_text_width(size, text) - 1, true};
  draw_line(&line, &faces[size], rgb, text);
}

int canvas_text_height(enum text_size size) {
  return capital_rows(&faces[size]) + 2 * faces[size].margin;
}

int canvas_text_width(enum text_size size, const char *text) {
  int width = 0;
  while (*text && width < INT_MAX / 2)
    width += advance_of(&faces[size], font_glyph(next_code(&text)).advance);
  return width;
}

size_t canvas_text_part(enum text_size size, const char *text, int width) {
  const char *end = text;
  while (*end) {
    const char *next = end;
    width -= advance_of(&faces[size], font_glyph(next_code(&next)).advance);
    if (width < 0) break;
    end = next;
  }
  return (size_t)(end - text);
}

char *canvas_text_fit(enum text_size size, const char *text, int width) {
  static const char ellipsis[] = "\xe2\x80\xa6";
  size_t length = canvas_text_part(size, text, width);
  if (!text[length]) return text_copy(text);
  const int room = width - canvas_text_width(size, ellipsis);
  length = canvas_text_part(size, text, room);
  while (length > 0 && text[length - 1] == ' ') length--;
  return text_format("%.*s%s", (int)length, text, room >= 0 ? ellipsis : "");
}

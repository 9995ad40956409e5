/* Pictures of the programs: a canvas of RGB pixels, text, colour maps, animated PNG. Everything is
 * clipped to the canvas, and any bytes are safe as text: what is not UTF-8 and control characters
 * show as a box. */
#ifndef PLOT_PLOT_H
#define PLOT_PLOT_H

#include "ditmoe.h"

#include <stddef.h>
#include <stdint.h>

enum { CANVAS_SIDE_MAX = 8000 };

struct canvas {
  int width, height;
  uint8_t *pixels; /* [height, width, 3] */
};

struct area {
  int x, y, width, height; /* pixels from the upper left corner */
};

typedef uint8_t color[3];

/* White. DITMOE_USAGE if a side is over CANVAS_SIDE_MAX; canvas_free in the end, also of a canvas
 * that was only cleared. */
enum ditmoe_status canvas_create(struct canvas *canvas, int width, int height);
void canvas_free(struct canvas *canvas);

void canvas_fill(struct canvas *canvas, struct area area, const color rgb);
/* alpha 0..1: the share of rgb in the result. */
void canvas_blend(struct canvas *canvas, struct area area, const color rgb, double alpha);
/* A line of one pixel around `area`, outside of it. */
void canvas_outline(struct canvas *canvas, struct area area, const color rgb);
/* pixels [height, width, 3] stretched over `area`: averaged where it shrinks, squares where it
 * grows. */
void canvas_image(struct canvas *canvas, struct area area, const uint8_t *pixels, int width,
                  int height);

/* Text: one line. (x, y) is the upper left corner of its box, canvas_text_width x
 * canvas_text_height pixels; for vertical text, which reads upwards, width and height change
 * places. */
enum text_size { TEXT_SMALL, TEXT_NORMAL, TEXT_TITLE };

int canvas_text_width(enum text_size size, const char *text);
int canvas_text_height(enum text_size size);
void canvas_text(struct canvas *canvas, int x, int y, enum text_size size, const color rgb,
                 const char *text);
void canvas_text_vertical(struct canvas *canvas, int x, int y, enum text_size size, const color rgb,
                          const char *text);
/* Bytes at the start of `text` that are at most `width` pixels wide: whole characters. */
size_t canvas_text_part(enum text_size size, const char *text, int width);
/* A copy that is at most `width` pixels wide, cut with an ellipsis where it has to be; free(). */
char *canvas_text_fit(enum text_size size, const char *text, int width);

/* Colour maps. colormap_names: those for rising values, the default first, NULL ends;
 * colormap_find also knows "difference", which is light in the middle and for signed values. NULL
 * for a name it does not know. */
struct colormap;
extern const char *const colormap_names[];
const struct colormap *colormap_find(const char *name);
/* at: 0 the lowest value, 1 the highest, what is outside like the nearer of the two; NaN has the
 * gray of missing data. */
void colormap_at(const struct colormap *map, double at, color rgb);
/* Colours of `count` things that have no order, of one lightness. */
void color_distinct(int index, int count, color rgb);
/* Black or white, whichever is easier to read on rgb. */
void color_ink(const color rgb, color ink);

/* Draws frame `index`: creates the canvas, which apng_write frees. All frames are of one size. */
typedef enum ditmoe_status frame_draw(void *user, int index, struct canvas *frame);

struct apng {
  int count;    /* frames, at least 1 */
  int delay_ms; /* of each frame, up to 65535 */
  int loops;    /* 0: without end */
  frame_draw *draw;
  void *user;
};

/* An animated PNG; programs that know only PNG show its first frame. Written to a temporary name
 * and renamed. Holds two frames and what is compressed. */
enum ditmoe_status apng_write(struct ditmoe_ctx *ctx, const char *path, const struct apng *apng);

#endif

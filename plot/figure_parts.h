/* The parts of a figure: text in lines, the scale of the colours, axes. */
#ifndef PLOT_FIGURE_PARTS_H
#define PLOT_FIGURE_PARTS_H

#include "plot/figure.h"

enum { LINES_MAX = 4, TICKS_MAX = 24, TICK_TEXT = 24, TICK_LENGTH = 4, TEXT_GAP = 4 };

extern const color ink_dark, ink_middle; /* of titles and labels, of what explains them */

/* Text of at most LINES_MAX lines; the last one is cut with an ellipsis. */
struct lines {
  int count;
  enum text_size size;
  char *text[LINES_MAX];
};

void lines_wrap(struct lines *lines, enum text_size size, const char *text, int width);
void lines_free(struct lines *lines);
int lines_height(const struct lines *lines);
void lines_draw(struct canvas *canvas, int x, int y, const color rgb, const struct lines *lines);
/* Text in the middle of `width` pixels, cut to them. */
void text_centered(struct canvas *canvas, int x, int y, int width, const char *text);
/* The same from y downwards, reading upwards. */
void text_centered_vertical(struct canvas *canvas, int x, int y, int height, const char *text);

/* The values of the ends of the colours; low < high, finite. */
struct range {
  double low, high;
  bool below, above; /* some value lies outside */
  bool missing;      /* some value is NaN */
};

/* That of `count` panels together. */
struct range range_find(const struct figure *figure, const struct panel *panels, int count);
/* 0..1 between the ends, outside of it beyond them. */
double range_place(const struct range *range, double value);

/* A colour bar `height` pixels high. */
struct bar {
  struct range range;
  int height;
  int ticks;
  double tick[TICKS_MAX];
  char text[TICKS_MAX][TICK_TEXT];
  int width; /* with labels, without the unit */
};

void bar_make(struct bar *bar, const struct range *range, int height);
/* unit: NULL for none. */
void bar_draw(const struct bar *bar, struct canvas *canvas, int x, int y,
              const struct colormap *map, const char *unit);
int bar_unit_width(void);
/* A cell without data, and what it means. */
void missing_fill(struct canvas *canvas, struct area area);
void missing_legend(struct canvas *canvas, int x, int y);
int missing_legend_width(void);

/* The labels of rows or columns. */
struct axis {
  const char *const *labels; /* NULL: numbers from `first` */
  int count, first;
  int cell;     /* pixels of a row or column */
  int stride;   /* one label in so many */
  int start;    /* the first row or column that has one */
  int widest;   /* pixels of the widest label */
  bool upright; /* columns: labels read upwards */
  enum text_size size;
};

struct axis axis_rows(const struct panel *panel, int cell);
struct axis axis_columns(const struct panel *panel, int cell);
/* Draws ticks and labels: leftwards from (x, y), or downwards. */
void axis_draw_rows(const struct axis *axis, struct canvas *canvas, int x, int y);
void axis_draw_columns(const struct axis *axis, struct canvas *canvas, int x, int y);
/* Pixels that labels take, ticks included, away from the cells. */
int axis_depth_rows(const struct axis *axis);
int axis_depth_columns(const struct axis *axis);

#endif

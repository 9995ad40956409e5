/* Figures: heatmaps in a grid of panels with titles, axes, labels and a colour bar. */
#ifndef PLOT_FIGURE_H
#define PLOT_FIGURE_H

#include "plot/plot.h"

#include <stdbool.h>

/* One heatmap; row 0 is at the top. Labels may have any length: they are cut where they would take
 * more than a third of a usual page, and left out where they would overlap. */
struct panel {
  const char *title;                  /* NULL: none */
  int rows, columns;                  /* at least 1 each */
  const double *values;               /* [rows, columns]; NaN: no data, drawn gray */
  const char *row_name, *column_name; /* of the axes; NULL: none */
  const char *const *row_labels, *const *column_labels; /* one each; NULL: numbers */
  int row_first, column_first;                          /* numbers: that of row 0 and column 0 */
  double low, high; /* values of the ends of the colours; NaN: the least and largest finite value */
};

struct figure {
  const char *title;    /* NULL: none; wrapped */
  const char *subtitle; /* NULL: none; wrapped, '\n' begins a line */
  const char *unit;     /* beside the colour bar; NULL: none */
  int count;            /* of panels, at least 1 */
  const struct panel *panels;
  bool shared;   /* one scale and one colour bar: from the least `low` to the largest `high` */
  bool centered; /* the middle of the colours is `center`, the ends equally far from it */
  double center;
  const struct colormap *map;
  int cell;   /* pixels a side of a cell; 0: chosen by the shapes */
  int across; /* panels in a row; 0: chosen */
};

/* Creates `out` (canvas_free). Its size depends on everything but the values, as long as `low` and
 * `high` are given and the titles take the same number of lines. DITMOE_USAGE if a side would be
 * over CANVAS_SIDE_MAX. */
enum ditmoe_status figure_draw(const struct figure *figure, struct canvas *out);

/* So many panels side by side that `count` of them fill their rows; 0 if that would be a strip. */
int figure_full_rows(int count);

#endif

/* Labels of rows and columns: as many as fit without touching. */
#include "cli/text.h"
#include "plot/figure_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  ROW_LABEL_MAX = 240, /* pixels of the longest label */
  COLUMN_LABEL_MAX = 160,
  LABEL_GAP = 8,  /* between labels of columns */
  ROW_SPACE = 14, /* pixels for a row's label */
  SMALL_SPACE = 11,
  THIN_SPACE = 22 /* where not every row has one */
};

static char *label_of(const struct axis *axis, int index, int width) {
  char number[24];
  snprintf(number, sizeof number, "%lld", (long long)axis->first + index);
  return canvas_text_fit(axis->size, axis->labels ? axis->labels[index] : number, width);
}

static int label_width(const struct axis *axis, int index, int most) {
  char *label = label_of(axis, index, most);
  const int width = canvas_text_width(axis->size, label);
  free(label);
  return width;
}

/* The least round number that is `wanted` or more. */
static int round_stride(int64_t wanted) {
  static const int factors[] = {1, 2, 5};
  for (int64_t power = 1; power < 1000000000; power *= 10)
    for (int i = 0; i < 3; i++)
      if (factors[i] * power >= wanted) return (int)(factors[i] * power);
  return 1000000000;
}

/* One label in `stride`; numbers at multiples of it. */
static void set_stride(struct axis *axis, int64_t wanted) {
  axis->stride = round_stride(wanted);
  axis->start = 0;
  if (axis->labels) return;
  const int64_t over = (int64_t)axis->first % axis->stride;
  const int64_t start = over == 0 ? 0 : over > 0 ? axis->stride - over : -over;
  if (start < axis->count) axis->start = (int)start;
}

static void measure(struct axis *axis, int most) {
  axis->widest = 0;
  for (int64_t i = axis->start; i < axis->count; i += axis->stride) {
    const int width = label_width(axis, (int)i, most);
    if (width > axis->widest) axis->widest = width;
  }
}

static struct axis axis_of(const char *const *labels, int count, int first, int cell) {
  return (struct axis){.labels = labels,
                       .count = count,
                       .first = first,
                       .cell = cell,
                       .stride = 1,
                       .size = TEXT_NORMAL};
}

struct axis axis_rows(const struct panel *panel, int cell) {
  struct axis axis = axis_of(panel->row_labels, panel->rows, panel->row_first, cell);
  const bool small = axis.labels && cell >= SMALL_SPACE && cell < ROW_SPACE;
  if (small) axis.size = TEXT_SMALL;
  const int space = small ? SMALL_SPACE : cell >= ROW_SPACE ? ROW_SPACE : THIN_SPACE;
  set_stride(&axis, (space + cell - 1) / cell);
  measure(&axis, ROW_LABEL_MAX);
  return axis;
}

struct axis axis_columns(const struct panel *panel, int cell) {
  struct axis axis = axis_of(panel->column_labels, panel->columns, panel->column_first, cell);
  measure(&axis, COLUMN_LABEL_MAX);
  if (axis.widest + LABEL_GAP <= cell) return axis;
  if (axis.labels) { /* names: all of them upright rather than some of them lying */
    axis.upright = true;
    set_stride(&axis, (ROW_SPACE + cell - 1) / cell);
  } else {
    set_stride(&axis, (axis.widest + LABEL_GAP + cell - 1) / cell);
  }
  measure(&axis, COLUMN_LABEL_MAX);
  return axis;
}

void axis_draw_rows(const struct axis *axis, struct canvas *canvas, int x, int y) {
  const int right = x - TICK_LENGTH - TEXT_GAP, half = canvas_text_height(axis->size) / 2;
  for (int64_t i = axis->start; i < axis->count; i += axis->stride) {
    const int at = y + (int)i * axis->cell + axis->cell / 2;
    char *label = label_of(axis, (int)i, ROW_LABEL_MAX);
    canvas_fill(canvas, (struct area){x - TICK_LENGTH, at, TICK_LENGTH, 1}, ink_dark);
    canvas_text(canvas, right - canvas_text_width(axis->size, label), at - half, axis->size,
                ink_dark, label);
    free(label);
  }
}

void axis_draw_columns(const struct axis *axis, struct canvas *canvas, int x, int y) {
  const int top = y + TICK_LENGTH + (axis->upright ? TEXT_GAP : 0);
  for (int64_t i = axis->start; i < axis->count; i += axis->stride) {
    const int at = x + (int)i * axis->cell + axis->cell / 2;
    char *label = label_of(axis, (int)i, COLUMN_LABEL_MAX);
    canvas_fill(canvas, (struct area){at, y, 1, TICK_LENGTH}, ink_dark);
    if (axis->upright)
      canvas_text_vertical(canvas, at - canvas_text_height(axis->size) / 2, top, axis->size,
                           ink_dark, label);
    else
      canvas_text(canvas, at - canvas_text_width(axis->size, label) / 2, top, axis->size, ink_dark,
                  label);
    free(label);
  }
}

int axis_depth_rows(const struct axis *axis) { return TICK_LENGTH + TEXT_GAP + axis->widest; }

int axis_depth_columns(const struct axis *axis) {
  return TICK_LENGTH + (axis->upright ? TEXT_GAP + axis->widest : canvas_text_height(axis->size));
}

/* How a product is cut into tasks: `strips` of a tile's rows in so many blocks, panels in so many.
 * Blocks differ by one strip, or one panel, at most. */
#ifndef BACKEND_CPU_GRID_H
#define BACKEND_CPU_GRID_H

#include <stdint.h>

struct grid {
  int64_t strips, panels, row_blocks, column_blocks;
};

/* The part of a product that is one task: its first row and panel, and how many. */
struct task {
  int64_t row, panel;
  int rows, panels;
};

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Task `index` of a product of so many rows, `strip` in a strip. */
static inline struct task grid_task(const struct grid *grid, int64_t rows, int strip,
                                    int64_t index) {
  const int64_t i = index % grid->row_blocks, j = index / grid->row_blocks;
  const int64_t row = i * grid->strips / grid->row_blocks * strip;
  const int64_t end = (i + 1) * grid->strips / grid->row_blocks * strip;
  const int64_t panel = j * grid->panels / grid->column_blocks;
  const int64_t last = (j + 1) * grid->panels / grid->column_blocks;
  return (struct task){.row = row,
                       .panel = panel,
                       .rows = (int)((end < rows ? end : rows) - row),
                       .panels = (int)(last - panel)};
}

#endif

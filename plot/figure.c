/* Figures: where everything goes, and the heatmaps themselves. */
#include "plot/figure.h"
#include "cli/text.h"
#include "plot/figure_parts.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  MARGIN = 18,
  GAP = 24,          /* between panels */
  BAR_GAP = 16,      /* between the cells and the colour bar */
  BAR_MIN = 96,      /* height of a colour bar */
  BAR_LARGE = 1400,  /* a bar is as high as the panels up to here */
  BAR_TALL = 560,    /* and so high beside higher ones, near their titles */
  LEGEND_GAP = 16,   /* between the colour bar and what it does not show */
  LEGEND_SPACE = 28, /* and the height of both */
  CELL_MAX = 40,     /* largest cell that is chosen */
  LABELED_CELL = 14, /* a cell as high as its label */
  SMALL_CELL = 11,   /* the same with small letters */
  LABELED_ROWS = 64, /* so many rows get one each */
  TITLE_WIDTH = 440  /* a figure is widened to so much for its titles */
};

/* A panel as it is drawn. */
struct block {
  int cell_width, cell_height;
  struct axis rows, columns;
  struct bar bar; /* its own */
};

struct layout {
  const struct figure *figure;
  struct block *blocks;
  bool shared;                  /* one colour bar, also that of a single panel */
  bool same_rows, same_columns; /* labeled once for a row or column of panels */
  int across, down;
  int64_t plot_width, plot_height; /* the largest of the cells' areas */
  int left, top, right, bottom;    /* around the cells of a panel: labels, title, own bar */
  struct lines title, subtitle;
  int header;     /* height of titles */
  struct bar bar; /* shared */
  int64_t width, height;
};

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static bool same_labels(const char *const *a, const char *const *b, int count) {
  if (a == b) return true;
  if (!a || !b) return false;
  for (int i = 0; i < count; i++)
    if (strcmp(a[i], b[i]) != 0) return false;
  return true;
}

static bool same_name(const char *a, const char *b) {
  return a == b || (a && b && strcmp(a, b) == 0);
}

static void find_same(struct layout *layout) {
  const struct panel *p = layout->figure->panels;
  layout->same_rows = layout->same_columns = true;
  for (int i = 1; i < layout->figure->count; i++) {
    layout->same_rows &= p[i].rows == p->rows && p[i].row_first == p->row_first &&
                         same_name(p[i].row_name, p->row_name) &&
                         same_labels(p[i].row_labels, p->row_labels, p->rows);
    layout->same_columns &= p[i].columns == p->columns && p[i].column_first == p->column_first &&
                            same_name(p[i].column_name, p->column_name) &&
                            same_labels(p[i].column_labels, p->column_labels, p->columns);
  }
}

static int choose_cell(int target, int count) {
  const int cell = (int)(((int64_t)target + count / 2) / count);
  return cell < 1 ? 1 : cell > CELL_MAX ? CELL_MAX : cell;
}

/* Cells at least as high as their names, if these are not too many. */
static int labeled_cell(int rows, int target) {
  if ((int64_t)rows * LABELED_CELL <= 2 * target) return LABELED_CELL;
  return rows <= LABELED_ROWS ? SMALL_CELL : 1;
}

/* Few panels are large, many are small. */
static void choose_cells(const struct figure *figure, const struct panel *panel,
                         struct block *block) {
  const int target = figure->count == 1 ? 560 : figure->count <= 4 ? 340 : 220;
  const int given = figure->cell < CANVAS_SIDE_MAX ? figure->cell : CANVAS_SIDE_MAX;
  block->cell_width = block->cell_height = given;
  if (given > 0) return;
  block->cell_width = choose_cell(figure->count == 1 ? 800 : target, panel->columns);
  block->cell_height = choose_cell(target, panel->rows);
  if (panel->row_labels)
    block->cell_height = (int)larger(block->cell_height, labeled_cell(panel->rows, target));
}

static int bar_height(int64_t height) {
  if (height < BAR_MIN) return BAR_MIN;
  return height <= BAR_LARGE ? (int)height : BAR_TALL;
}

static void make_blocks(struct layout *layout) {
  const struct figure *figure = layout->figure;
  layout->blocks = memory_get((size_t)figure->count, sizeof *layout->blocks);
  if (!layout->shared) layout->plot_height = BAR_MIN;
  for (int i = 0; i < figure->count; i++) {
    const struct panel *panel = &figure->panels[i];
    struct block *block = &layout->blocks[i];
    choose_cells(figure, panel, block);
    block->rows = axis_rows(panel, block->cell_height);
    block->columns = axis_columns(panel, block->cell_width);
    layout->plot_width = larger(layout->plot_width, (int64_t)panel->columns * block->cell_width);
    layout->plot_height = larger(layout->plot_height, (int64_t)panel->rows * block->cell_height);
  }
}

static int name_space(const char *name) {
  return name ? canvas_text_height(TEXT_NORMAL) + 2 * TEXT_GAP : 0;
}

/* Room around the cells: the largest of all panels, so that the grid is even. */
static void measure_sides(struct layout *layout) {
  const struct figure *figure = layout->figure;
  for (int i = 0; i < figure->count; i++) {
    const struct panel *panel = &figure->panels[i];
    struct block *block = &layout->blocks[i];
    if (!layout->shared) {
      const struct range range = range_find(figure, panel, 1);
      const int64_t height = (int64_t)panel->rows * block->cell_height;
      bar_make(&block->bar, &range, bar_height(height));
      layout->right = (int)larger(layout->right, BAR_GAP / 2 + block->bar.width);
    }
    layout->left =
        (int)larger(layout->left, axis_depth_rows(&block->rows) + name_space(panel->row_name));
    layout->bottom = (int)larger(layout->bottom, axis_depth_columns(&block->columns) +
                                                     name_space(panel->column_name));
    if (panel->title) layout->top = canvas_text_height(TEXT_NORMAL) + TEXT_GAP;
  }
}

static int64_t step_x(const struct layout *layout) {
  return layout->plot_width + layout->right + GAP + (layout->same_rows ? 0 : layout->left);
}

static int64_t step_y(const struct layout *layout) {
  return layout->plot_height + layout->top +
         (layout->same_columns ? GAP / 2 : GAP / 2 + layout->bottom);
}

int figure_full_rows(int count) {
  int across = 1;
  while (across * across < count || count % across != 0) across++;
  return across * across <= 2 * count ? across : 0;
}

/* Panels in a row: nearest to a page of 3 : 2 without holes in the last row. */
static int choose_across(const struct layout *layout) {
  const int count = layout->figure->count;
  int best = 1;
  double least = INFINITY;
  if (layout->figure->across > 0)
    return layout->figure->across < count ? layout->figure->across : count;
  for (int across = 1; across <= count && across <= 64; across++) {
    const int down = (count + across - 1) / across;
    const double width = (double)across * (double)step_x(layout) + layout->left;
    const double height = (double)down * (double)step_y(layout) + layout->bottom;
    const double score = fabs(log(width / height / 1.5)) + 1.2 * (across * down - count) / across;
    if (score < least) least = score, best = across;
  }
  return best;
}

static int64_t grid_height(const struct layout *layout) {
  return (layout->down - 1) * step_y(layout) + layout->plot_height;
}

/* The lower end of the colour bar beside the panels, from the top of these. */
static int64_t bar_end(const struct layout *layout) { return larger(grid_height(layout), BAR_MIN); }

static void measure_titles(struct layout *layout) {
  const struct figure *figure = layout->figure;
  const char *title = figure->title ? figure->title : "";
  const int wanted = canvas_text_width(TEXT_TITLE, title);
  const int64_t least = 2 * MARGIN + (wanted < TITLE_WIDTH ? wanted : TITLE_WIDTH);
  layout->width = larger(layout->width, least);
  const int width = (int)(layout->width < CANVAS_SIDE_MAX ? layout->width : CANVAS_SIDE_MAX);
  lines_wrap(&layout->title, TEXT_TITLE, title, width - 2 * MARGIN);
  lines_wrap(&layout->subtitle, TEXT_NORMAL, figure->subtitle, width - 2 * MARGIN);
  const int height = lines_height(&layout->title) + lines_height(&layout->subtitle);
  layout->header = height > 0 ? height + GAP / 2 : 0;
}

static void measure(struct layout *layout) {
  const struct figure *figure = layout->figure;
  find_same(layout);
  make_blocks(layout);
  measure_sides(layout);
  layout->across = choose_across(layout);
  layout->down = (figure->count + layout->across - 1) / layout->across;
  int side = layout->right, unit = figure->unit ? bar_unit_width() : 0;
  if (layout->shared) {
    const struct range range = range_find(figure, figure->panels, figure->count);
    bar_make(&layout->bar, &range, bar_height(grid_height(layout)));
    side = BAR_GAP + layout->bar.width;
  }
  side = (int)larger(side + unit, BAR_GAP + missing_legend_width());
  layout->width =
      2 * MARGIN + layout->left + (layout->across - 1) * step_x(layout) + layout->plot_width + side;
  measure_titles(layout);
  layout->height = 2 * MARGIN + layout->header + layout->top +
                   larger(grid_height(layout) + layout->bottom, bar_end(layout) + LEGEND_SPACE);
}

static void draw_cells(struct canvas *canvas, int x, int y, const struct block *block,
                       const struct panel *panel, const struct range *range,
                       const struct colormap *map) {
  color rgb;
  for (int j = 0; j < panel->rows; j++)
    for (int i = 0; i < panel->columns; i++) {
      const double value = panel->values[(size_t)j * (size_t)panel->columns + (size_t)i];
      const struct area area = {x + i * block->cell_width, y + j * block->cell_height,
                                block->cell_width, block->cell_height};
      if (isnan(value)) {
        missing_fill(canvas, area);
      } else {
        colormap_at(map, range_place(range, value), rgb);
        canvas_fill(canvas, area, rgb);
      }
    }
}

/* Text in the middle above or below the cells; where these are narrow it takes more room. */
static void draw_centered(const struct layout *layout, struct canvas *canvas, int x, int y,
                          int width, const char *text) {
  const int page = canvas->width - 2 * MARGIN;
  const int64_t room = layout->across == 1 ? page : step_x(layout) - TEXT_GAP;
  const int wide = canvas_text_width(TEXT_NORMAL, text);
  int64_t taken = larger(width, wide < room ? wide : room);
  if (taken > page) taken = page;
  int64_t left = larger(x + (width - taken) / 2, MARGIN);
  if (left + taken > canvas->width - MARGIN) left = canvas->width - MARGIN - taken;
  text_centered(canvas, (int)left, y, (int)taken, text);
}

/* Names of the axes and labels; (x, y) is the corner of the cells. */
static void draw_axes(const struct layout *layout, struct canvas *canvas, int index, int x, int y,
                      int width, int height) {
  const struct panel *panel = &layout->figure->panels[index];
  const struct block *block = &layout->blocks[index];
  const bool first = index % layout->across == 0;
  const bool last = index + layout->across >= layout->figure->count;
  if (first || !layout->same_rows) {
    axis_draw_rows(&block->rows, canvas, x - 1, y);
    const int taken = height > BAR_MIN ? height : BAR_MIN;
    if (panel->row_name)
      text_centered_vertical(canvas, x - 1 - layout->left, y + (height - taken) / 2, taken,
                             panel->row_name);
  }
  if (last || !layout->same_columns) {
    axis_draw_columns(&block->columns, canvas, x, y + height + 1);
    if (panel->column_name)
      draw_centered(layout, canvas, x, y + height + axis_depth_columns(&block->columns) + TEXT_GAP,
                    width, panel->column_name);
  }
}

static void draw_panel(const struct layout *layout, struct canvas *canvas, int index) {
  const struct figure *figure = layout->figure;
  const struct panel *panel = &figure->panels[index];
  const struct block *block = &layout->blocks[index];
  const int column = index % layout->across, row = index / layout->across;
  const int x = MARGIN + layout->left + (int)(column * step_x(layout));
  const int y = MARGIN + layout->header + layout->top + (int)(row * step_y(layout));
  const int width = panel->columns * block->cell_width, height = panel->rows * block->cell_height;
  const struct bar *bar = layout->shared ? &layout->bar : &block->bar;
  const bool rightmost = column == layout->across - 1 || index == figure->count - 1;
  if (panel->title) draw_centered(layout, canvas, x, y - layout->top, width, panel->title);
  canvas_outline(canvas, (struct area){x, y, width, height}, ink_dark);
  draw_cells(canvas, x, y, block, panel, &bar->range, figure->map);
  draw_axes(layout, canvas, index, x, y, width, height);
  if (!layout->shared)
    bar_draw(bar, canvas, x + width + BAR_GAP / 2, y, figure->map, rightmost ? figure->unit : NULL);
}

static void draw(const struct layout *layout, struct canvas *canvas) {
  const struct figure *figure = layout->figure;
  bool missing = layout->bar.range.missing;
  lines_draw(canvas, MARGIN, MARGIN - TEXT_GAP, ink_dark, &layout->title);
  lines_draw(canvas, MARGIN, MARGIN + lines_height(&layout->title), ink_middle, &layout->subtitle);
  for (int i = 0; i < figure->count; i++) {
    draw_panel(layout, canvas, i);
    missing |= layout->blocks[i].bar.range.missing;
  }
  const int right = MARGIN + layout->left + (int)((layout->across - 1) * step_x(layout)) +
                    (int)layout->plot_width;
  const int top = MARGIN + layout->header + layout->top;
  if (layout->shared)
    bar_draw(&layout->bar, canvas, right + BAR_GAP, top, figure->map, figure->unit);
  if (missing)
    missing_legend(canvas, right + (layout->shared ? BAR_GAP : BAR_GAP / 2),
                   top + (int)bar_end(layout) + LEGEND_GAP);
}

enum ditmoe_status figure_draw(const struct figure *figure, struct canvas *out) {
  struct layout layout = {.figure = figure, .shared = figure->shared || figure->count == 1};
  measure(&layout);
  const int width = (int)(layout.width < INT_MAX ? layout.width : INT_MAX);
  const int height = (int)(layout.height < INT_MAX ? layout.height : INT_MAX);
  const enum ditmoe_status status = canvas_create(out, width, height);
  if (status == DITMOE_OK) draw(&layout, out);
  lines_free(&layout.title);
  lines_free(&layout.subtitle);
  free(layout.blocks);
  return status;
}

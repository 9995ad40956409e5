/* Figures: all shapes and values, cells, labels, ticks; nothing is cut off. */
#include "cli/report.h"
#include "plot/figure.h"
#include "plot/figure_parts.h"
#include "tests/support.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void assert_drawn(enum ditmoe_status status) {
  if (status != DITMOE_OK) fail_msg("%s", report_last_error());
}

static const uint8_t *pixel(const struct canvas *canvas, int x, int y) {
  return canvas->pixels + 3 * ((size_t)y * (size_t)canvas->width + (size_t)x);
}

static int count_pixels(const struct canvas *canvas, const color rgb) {
  int count = 0;
  for (int y = 0; y < canvas->height; y++)
    for (int x = 0; x < canvas->width; x++) count += memcmp(pixel(canvas, x, y), rgb, 3) == 0;
  return count;
}

static double *values_of(int rows, int columns, double low, double high) {
  const size_t count = (size_t)rows * (size_t)columns;
  double *values = calloc(count, sizeof *values);
  assert_non_null(values);
  for (size_t i = 0; i < count; i++) values[i] = low + (high - low) * (double)(i * 7 % 11) / 10;
  return values;
}

/* Nothing reaches the edge: no text or panel is cut off. */
static void assert_margin_is_white(const struct canvas *canvas) {
  for (int y = 0; y < canvas->height; y++)
    for (int x = 0; x < canvas->width; x++) {
      const bool inside = x >= 6 && y >= 6 && x < canvas->width - 6 && y < canvas->height - 6;
      const uint8_t *p = pixel(canvas, x, y);
      if (!inside && (p[0] & p[1] & p[2]) != 255)
        fail_msg("the margin of %d x %d is marked at %d, %d", canvas->width, canvas->height, x, y);
    }
}

static struct canvas drawn(const struct figure *figure) {
  struct canvas canvas;
  assert_drawn(figure_draw(figure, &canvas));
  assert_margin_is_white(&canvas);
  return canvas;
}

static void check_figure(int rows, int columns, const double *values, int count, bool shared) {
  struct panel panels[12];
  for (int i = 0; i < count; i++)
    panels[i] = (struct panel){.title = "layer 3",
                               .rows = rows,
                               .columns = columns,
                               .values = values,
                               .row_name = "step",
                               .column_name = "expert",
                               .low = NAN,
                               .high = NAN};
  const struct figure figure = {.title = "Expert usage",
                                .subtitle = "conditional half",
                                .unit = "ratio to uniform",
                                .count = count,
                                .panels = panels,
                                .shared = shared,
                                .map = colormap_find("viridis")};
  struct canvas canvas = drawn(&figure);
  canvas_free(&canvas);
}

static void figures_of_all_shapes(void **state) {
  (void)state;
  static const int shapes[][2] = {{1, 1},   {1, 1000}, {1000, 1}, {8, 10},   {12, 250},
                                  {8, 256}, {50, 8},   {1000, 8}, {2, 3000}, {300, 300}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    double *values = values_of(shapes[i][0], shapes[i][1], 0, 3);
    check_figure(shapes[i][0], shapes[i][1], values, 1, true);
    if (shapes[i][1] < 3000)
      for (int count = 2; count <= 7; count++)
        check_figure(shapes[i][0], shapes[i][1], values, count, count % 2);
    free(values);
  }
}

static void figures_of_all_values(void **state) {
  (void)state;
  static const double cases[][4] = {{NAN, NAN, NAN, NAN},
                                    {0, 0, 0, 0},
                                    {-7, -7, -7, -7},
                                    {INFINITY, -INFINITY, NAN, 1},
                                    {INFINITY, INFINITY, INFINITY, INFINITY},
                                    {-1.7e308, 1.7e308, 0, 1},
                                    {1.7e308, 1.7e308, 1.7e308, 1.7e308},
                                    {5e-324, 0, 0, 0},
                                    {1e16, 1e16 + 2, 1e16, 1e16},
                                    {1e-12, 3e-12, 2e-12, 0},
                                    {12345678, 7, 9, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int k = 0; k < 4; k++) {
      const double limit[] = {NAN, 2, -INFINITY, 3};
      struct panel panel = {.rows = 2,
                            .columns = 2,
                            .values = cases[i],
                            .low = limit[k],
                            .high = k == 3 ? -3 : limit[k]};
      struct figure figure = {.count = 1, .panels = &panel, .map = colormap_find("difference")};
      figure.centered = k % 2;
      struct canvas canvas = drawn(&figure);
      canvas_free(&canvas);
    }
}

/* Each value's cell is as large as asked for and has the colour of its value. */
static void cells_have_their_colours(void **state) {
  (void)state;
  enum { CELL = 13 };
  const double values[] = {0, 1, 0.5, NAN};
  const struct colormap *map = colormap_find("magma");
  const struct panel panel = {.rows = 2, .columns = 2, .values = values, .low = 0, .high = 2};
  const struct figure figure = {.count = 1, .panels = &panel, .map = map, .cell = CELL};
  struct canvas canvas = drawn(&figure);
  int x = 0, y = 0;
  color rgb;
  colormap_at(map, 0, rgb);
  while (memcmp(pixel(&canvas, x, y), rgb, 3) != 0) {
    y += ++x == canvas.width;
    x %= canvas.width;
  }
  for (int i = 0; i < 3; i++) {
    colormap_at(map, values[i] / 2, rgb);
    for (int j = 0; j < CELL * CELL; j++)
      assert_memory_equal(pixel(&canvas, x + i % 2 * CELL + j % CELL, y + i / 2 * CELL + j / CELL),
                          rgb, 3);
  }
  colormap_at(map, NAN, rgb);
  assert_true(count_pixels(&canvas, rgb) > CELL * CELL);
  canvas_free(&canvas);
}

static void size_does_not_depend_on_values(void **state) {
  (void)state;
  double *a = values_of(6, 8, 0, 1), *b = values_of(6, 8, -900, 12345);
  b[3] = NAN;
  struct panel panel = {.rows = 6, .columns = 8, .values = a, .low = 0, .high = 1};
  const struct figure figure = {.count = 1, .panels = &panel, .map = colormap_find("gray")};
  struct canvas first = drawn(&figure);
  panel.values = b;
  struct canvas second = drawn(&figure);
  assert_int_equal(first.width, second.width);
  assert_int_equal(first.height, second.height);
  canvas_free(&first);
  canvas_free(&second);
  free(a);
  free(b);
}

static void any_text_is_drawn(void **state) {
  (void)state;
  enum { LONG = 10000 };
  char *text = calloc(LONG + 1, 1);
  assert_non_null(text);
  const double values[] = {1, 2, 3, 4};
  for (int kind = 0; kind < 4; kind++) {
    for (int i = 0; i < LONG; i++)
      text[i] = (char)(kind == 0 ? 'W' : kind == 1 ? 1 + i % 255 : kind == 2 ? "ab "[i % 3] : 0xe2);
    const char *labels[] = {text, text};
    for (int names = 0; names < 2; names++) {
      const struct panel panel = {.title = text,
                                  .rows = 2,
                                  .columns = 2,
                                  .values = values,
                                  .row_name = text,
                                  .column_name = text,
                                  .row_labels = names ? labels : NULL,
                                  .column_labels = names ? labels : NULL,
                                  .low = NAN,
                                  .high = NAN};
      const struct figure figure = {.title = text,
                                    .subtitle = text,
                                    .unit = text,
                                    .count = 1,
                                    .panels = &panel,
                                    .map = colormap_find("blues")};
      struct canvas canvas = drawn(&figure);
      assert_true(canvas.width < 1200 && canvas.height < 1200);
      canvas_free(&canvas);
    }
  }
  free(text);
}

static void large_figures_are_refused(void **state) {
  (void)state;
  double *values = values_of(100, 100, 0, 1);
  struct panel panel = {.rows = 100, .columns = 100, .values = values, .low = 0, .high = 1};
  struct figure figure = {.count = 1, .panels = &panel, .map = colormap_find("gray"), .cell = 81};
  struct canvas canvas;
  for (int i = 0; i < 2; i++, figure.cell = INT32_MAX) {
    assert_int_equal(figure_draw(&figure, &canvas), DITMOE_USAGE);
    assert_non_null(strstr(report_last_error(), "a side has 1 to 8000"));
    assert_null(canvas.pixels);
  }
  free(values);
}

static void labels_do_not_touch(void **state) {
  (void)state;
  static const int counts[] = {1, 8, 16, 50, 256, 1000}, cells[] = {1, 2, 5, 11, 14, 40};
  for (int i = 0; i < 36; i++)
    for (int first = -3; first < 1000; first += 500) {
      const int cell = cells[i % 6];
      const struct panel panel = {.rows = counts[i / 6],
                                  .columns = counts[i / 6],
                                  .row_first = first,
                                  .column_first = first};
      const struct axis rows = axis_rows(&panel, cell), columns = axis_columns(&panel, cell);
      assert_true(rows.stride * cell >= 14);
      assert_true(columns.stride * cell >= columns.widest + 4 || columns.count <= columns.stride);
      assert_true(rows.start < rows.count && columns.start < columns.count);
      if (rows.start + rows.stride < rows.count)
        assert_int_equal((first + rows.start) % rows.stride, 0);
    }
}

static void ticks_are_round(void **state) {
  (void)state;
  static const double ends[][2] = {{0, 1},        {0, 3},      {-0.9, 0.9}, {0.37, 1.86},
                                   {0, 1e6},      {7, 123456}, {0, 5e-7},   {0, 4e10},
                                   {99.5, 100.5}, {-3e5, 0},   {0, 1e300},  {-1e300, 1e300}};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    for (int height = 96; height <= 1100; height += 251) {
      const struct range range = {.low = ends[i][0], .high = ends[i][1]};
      struct bar bar;
      bar_make(&bar, &range, height);
      assert_true(bar.ticks >= 2 && bar.ticks <= 10);
      for (int k = 0; k < bar.ticks; k++) {
        assert_true(range_place(&range, bar.tick[k]) > -1e-3);
        assert_true(range_place(&range, bar.tick[k]) < 1 + 1e-3);
        assert_true(canvas_text_width(TEXT_NORMAL, bar.text[k]) <= 75);
        if (k > 0) assert_string_not_equal(bar.text[k], bar.text[k - 1]);
      }
    }
  const struct range range = {.low = 0, .high = 3};
  struct bar bar;
  bar_make(&bar, &range, 240);
  assert_string_equal(bar.text[0], "0.0");
  assert_string_equal(bar.text[1], "0.5");
  assert_string_equal(bar.text[bar.ticks - 1], "3.0");
}

int main(void) {
  report_start("test_figure");
  report_style(REPORT_QUIET, "never");
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(figures_of_all_shapes),    cmocka_unit_test(figures_of_all_values),
      cmocka_unit_test(cells_have_their_colours), cmocka_unit_test(size_does_not_depend_on_values),
      cmocka_unit_test(any_text_is_drawn),        cmocka_unit_test(large_figures_are_refused),
      cmocka_unit_test(labels_do_not_touch),      cmocka_unit_test(ticks_are_round),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

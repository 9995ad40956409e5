/* Models on grids of tokens that they were not trained on. */
#include "base/rng.h"
#include "support.h"
#include "synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 4, TOKENS = ROWS * ROWS, BATCH = 2, WIDTH = 48, PATCH = 2 }; /* synthetic_uneven's */

/* Value j of the sin-cos position of a place. */
static double position(double row, double column, int j, int width) {
  const int quarter = width / 4, m = j % quarter;
  const double angle = (j < 2 * quarter ? column : row) * pow(10000, -(double)m / quarter);
  return j / quarter % 2 ? cos(angle) : sin(angle);
}

struct table {
  int cols;
  double noise;
};

static void plant_positions(void *user, const char *name, float *values, int64_t count) {
  const struct table *table = user;
  if (strcmp(name, "pos_embed") != 0) return;
  for (int64_t i = 0; i < count; i++) {
    const int n = (int)(i / WIDTH);
    values[i] =
        (float)(position(n / table->cols, n % table->cols, (int)(i % WIDTH), WIDTH) + table->noise);
  }
}

/* synthetic_uneven with the positions of a grid whose rows have `cols` tokens. */
static void open_with(struct opened *out, const char *name, struct table table,
                      const char *backend) {
  struct synthetic spec = synthetic_uneven;
  spec.plant = plant_positions, spec.user = &table;
  synthetic_write(&spec, temporary_path(name));
  model_open(out, temporary_path(name), backend, NULL, NULL, 2);
}

static float *predict(struct opened *o, const struct dit_grid *grid, const float *x) {
  const float time[BATCH] = {0.3F, 0.8F};
  const int32_t labels[BATCH] = {1, 5};
  float *out = malloc(BATCH * model_output_size(o) * sizeof *out);
  assert_non_null(out);
  const struct dit_input in = {.x = x, .time = time, .labels = labels, .B = BATCH, .grid = grid};
  assert_ok(test_ctx(), exec_reserve(&o->ex, dit_predict_bytes(&o->ex, o->model, grid, BATCH)));
  assert_ok(test_ctx(), dit_predict(&o->ex, o->model, out, &in));
  return out;
}

/* The same patches in the same order on a grid of another shape. */
static float *reshape(const float *x, int planes, int cols, int new_cols) {
  const int pp = PATCH * PATCH, plane = TOKENS * pp;
  float *y = malloc((size_t)planes * (size_t)plane * sizeof *y);
  assert_non_null(y);
  for (int i = 0; i < planes * plane; i++) {
    const int c = i / plane, n = i % plane / pp, row = i % pp / PATCH, column = i % PATCH;
    const int from = (n / cols * PATCH + row) * cols * PATCH + n % cols * PATCH + column;
    const int to = (n / new_cols * PATCH + row) * new_cols * PATCH + n % new_cols * PATCH + column;
    y[c * plane + to] = x[c * plane + from];
  }
  return y;
}

/* Tokens know their places by their positions alone: on the patches of a rectangle a model gives
 * what the same model gives that was trained on a square with the positions of that rectangle. */
static void check_rectangle(int rows, int cols, const char *backend) {
  struct opened square, other;
  struct dit_grid grid;
  open_with(&square, "square.safetensors", (struct table){ROWS, 0}, backend);
  open_with(&other, "rectangle.safetensors", (struct table){cols, 0}, backend);
  const int channels = square.model->config.channels;
  assert_ok(test_ctx(), dit_grid_make(&square.ex, square.model, rows * PATCH, cols * PATCH, &grid));
  const int64_t n = (int64_t)BATCH * channels * TOKENS * PATCH * PATCH;
  float *x = malloc((size_t)n * sizeof *x);
  assert_non_null(x);
  rng_normal(x, n, 5, 0, 0, RNG_INITIAL_NOISE);
  float *reshaped = reshape(x, BATCH * channels, cols, ROWS);
  float *found = predict(&square, &grid, x), *expected = predict(&other, NULL, reshaped);
  float *back = reshape(expected, BATCH * other.model->config.out_channels, ROWS, cols);
  assert_memory_equal(found, back, BATCH * model_output_size(&square) * sizeof *found);
  dit_grid_free(&square.ex, square.model, &grid);
  model_close(&square);
  model_close(&other);
  free(x), free(reshaped), free(found), free(expected), free(back);
}

static void test_rectangles(void **state) {
  (void)state;
  static const int shapes[][2] = {{2, 8}, {8, 2}, {1, 16}, {4, 4}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    check_rectangle(shapes[i][0], shapes[i][1], "ref");
    check_rectangle(shapes[i][0], shapes[i][1], "cpu");
  }
}

/* A table that is a little off is no formula, one that was rounded to bfloat16 is. */
static void test_stored(void **state) {
  (void)state;
  struct opened o;
  struct dit_grid grid;
  open_with(&o, "rounded.safetensors", (struct table){ROWS, 0x1p-9}, "ref");
  assert_ok(test_ctx(), dit_grid_make(&o.ex, o.model, 8, 24, &grid));
  assert_int_equal(grid.rows, 4);
  assert_int_equal(grid.cols, 12);
  dit_grid_free(&o.ex, o.model, &grid);
  model_close(&o);
  open_with(&o, "learned.safetensors", (struct table){ROWS, 0x1p-6}, "ref");
  assert_fails(test_ctx(), DITMOE_MISMATCH, "pos_embed",
               dit_grid_make(&o.ex, o.model, 8, 24, &grid));
  assert_ok(test_ctx(), dit_grid_make(&o.ex, o.model, 8, 8, &grid)); /* as trained */
  dit_grid_free(&o.ex, o.model, &grid);
  assert_fails(test_ctx(), DITMOE_USAGE, "7x8", dit_grid_make(&o.ex, o.model, 8, 7, &grid));
  assert_fails(test_ctx(), DITMOE_USAGE, "patch", dit_grid_make(&o.ex, o.model, 0, 8, &grid));
  assert_fails(test_ctx(), DITMOE_USAGE, "patch",
               dit_grid_make(&o.ex, o.model, 1 << 20, 1 << 20, &grid));
  model_close(&o);
}

struct embedded {
  float *values;
};

static void look(void *user, struct exec *ex, const struct dit_tap_data *data) {
  struct embedded *seen = user;
  if (data->point != TAP_EMBEDDED) return;
  const size_t n = (size_t)data->B * (size_t)data->T * (size_t)data->D;
  seen->values = malloc(n * sizeof *seen->values);
  assert_non_null(seen->values);
  be_download(ex, seen->values, data->data, n * sizeof *seen->values);
}

/* Diffusers stretches the numbers of rows and columns over the grid it was trained on, here 4x4. */
static void test_diffusers(void **state) {
  (void)state;
  enum { HEIGHT = 6, COLS = 8, SIDE = 4 };
  struct opened o;
  struct dit_grid grid;
  struct embedded seen = {NULL};
  model_open(&o, fixture_path("diffusers_dit/pipeline/transformer"), "ref", NULL, NULL, 1);
  const struct dit_config *c = &o.model->config;
  const int p = c->patch, D = c->width;
  assert_int_equal(c->tokens, SIDE * SIDE);
  assert_ok(test_ctx(), dit_grid_make(&o.ex, o.model, HEIGHT * p, COLS * p, &grid));
  assert_ok(test_ctx(), exec_reserve(&o.ex, dit_predict_bytes(&o.ex, o.model, &grid, 1)));
  const size_t plane = (size_t)HEIGHT * COLS * (size_t)(p * p);
  float *x = calloc(plane * (size_t)c->channels, sizeof *x);
  float *out = malloc(plane * (size_t)c->out_channels * sizeof *out);
  const float time = 500;
  const int32_t label = 0;
  const struct dit_input in = {.x = x,
                               .time = &time,
                               .labels = &label,
                               .B = 1,
                               .grid = &grid,
                               .tap = &(struct dit_tap){&seen, look}};
  assert_ok(test_ctx(), dit_predict(&o.ex, o.model, out, &in));
  double worst = 0;
  for (int i = 0; i < HEIGHT * COLS * D; i++) {
    const int n = i / D, j = i % D;
    const double row = n / COLS * (double)SIDE / HEIGHT, column = n % COLS * (double)SIDE / COLS;
    const double moved = position(row, column, j, D) - position(0, 0, j, D);
    worst = fmax(worst, fabs(seen.values[i] - seen.values[j] - moved));
  }
  assert_within("positions", worst, 1e-6);
  free(x), free(out), free(seen.values);
  dit_grid_free(&o.ex, o.model, &grid);
  model_close(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_rectangles),
                                     cmocka_unit_test(test_stored),
                                     cmocka_unit_test(test_diffusers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

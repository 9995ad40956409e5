/* Convolutions of 3 x 3 pixels and stride 1 by Winograd's minimal filtering F(2 x 2, 3 x 3) (Lavin
 * and Gray 2015, arXiv 1509.09308). A tile of 2 x 2 outputs sees 4 x 4 pixels d of every channel,
 * and is
 *
 *   sum over channels of A^T [(G g G^T) * (B^T d B)] A
 *
 * where * takes place by place of the 4 x 4: 16 multiplications for 4 outputs instead of 36. So
 * there are 16 matrices of weights, G g G^T, and 16 products, tiles times channels.
 *
 * A task is a block of tiles and a range of panels of outputs. What it makes of the tiles' pixels
 * stays in the second-level cache while all panels go over it:
 *
 *   for tile: pixels to 16 places
 *   for panel:  for place: for strip of tiles: product;  for tile: 16 places to 4 outputs
 *
 * Every output is made from its own pixels alone in one order, whatever the cut. */
#include "backend/cpu/winograd.h"
#include "backend/cpu/grid.h"
#include "backend/cpu/panels.h"

#include <omp.h>

enum { PLACES = WINOGRAD_PLACES, SIDE = WINOGRAD_SIDE, OUTPUTS = WINOGRAD_OUTPUTS };

/* Weights. */

/* Bytes that a strip of tiles takes at one place. */
static int64_t slot_bytes(const struct linear *w, const struct gemm_kernels *k) {
  return ceil_div(w->in, linear_block(w, k)) * k->rows * k->stride;
}

bool winograd_fits(const struct exec *ex, const struct conv *w) {
  enum { LEAST = 16 }; /* inputs; fewer take as long to transform as to multiply */
  const struct linear shape = {.in = w->in, .out = w->out, .input = w->input};
  const struct gemm_kernels *k = linear_kernels(&shape, cpu_kernels(ex));
  return k->winograd_load && w->kernel[0] == 3 && w->kernel[1] == 3 && w->stride == 1 &&
         w->in >= LEAST && w->in <= WINOGRAD_INPUTS_MAX && w->in % k->unit == 0 &&
         PLACES * slot_bytes(&shape, k) <= WINOGRAD_SCRATCH;
}

/* G of three values, g [3] with `step` between them. */
static void transform_line(double out[SIDE], const double *g, int step) {
  const double ends = (g[0] + g[2 * step]) / 2, middle = g[step] / 2;
  out[0] = g[0];
  out[1] = ends + middle;
  out[2] = ends - middle;
  out[3] = g[2 * step];
}

/* The same along the rows and the columns of a kernel, out [PLACES] with `apart` between them. */
static void transform_kernel(float *out, int64_t apart, const float *weight) {
  double g[9], half[SIDE * 3], line[SIDE];
  for (int i = 0; i < 9; i++) g[i] = (double)weight[i];
  for (int j = 0; j < 3; j++) {
    transform_line(line, g + j, 3);
    for (int i = 0; i < SIDE; i++) half[i * 3 + j] = line[i];
  }
  for (int i = 0; i < SIDE; i++) {
    transform_line(line, half + i * 3, 1);
    for (int j = 0; j < SIDE; j++) out[(i * SIDE + j) * apart] = (float)line[j];
  }
}

void winograd_weights(float *out, int64_t apart, const float *weight, int in) {
  for (int c = 0; c < in; c++) transform_kernel(out + c, apart, weight + (int64_t)9 * c);
}

/* Running. */

/* How a convolution is cut: tiles of 2 x 2 outputs, `down` times `across` of an image. */
struct plan {
  const struct gemm *g;
  const struct gemm_kernels *k;
  struct linear *const *matrix;
  int threads, down, across;
  int block; /* inputs that go through a product at a time */
  int64_t tiles;
  struct grid grid;
  int64_t place, slot; /* bytes between places, between strips of a place */
};

/* Strips whose inputs stay in the second-level cache, at least two, so that weights are not read
 * for one strip alone. */
static int64_t strips_at_a_time(const struct plan *plan) {
  enum { CACHED = 512 << 10, LEAST = 2 };
  const struct gemm_kernels *k = plan->k;
  const int64_t strip = (int64_t)PLACES * k->rows * plan->g->w->in * k->element;
  const int64_t room = WINOGRAD_SCRATCH / (PLACES * plan->slot), sums = WINOGRAD_TILES / k->rows;
  const int64_t most = room < sums ? room : sums, cached = CACHED / strip;
  const int64_t strips = cached > LEAST ? cached : LEAST;
  return strips < most ? strips : most;
}

/* Into as many blocks of tiles as the threads can share evenly. Only where these are too few are
 * the outputs cut too, as every task transforms its tiles anew. */
static void choose_tasks(struct plan *plan) {
  struct grid *grid = &plan->grid;
  const int64_t blocks = ceil_div(grid->strips, strips_at_a_time(plan));
  const int64_t even = ceil_div(blocks, plan->threads) * plan->threads;
  grid->row_blocks = even < grid->strips ? even : grid->strips;
  const int64_t columns = ceil_div(plan->threads, grid->row_blocks);
  grid->column_blocks = columns < grid->panels ? columns : grid->panels;
  plan->place = ceil_div(grid->strips, grid->row_blocks) * plan->slot;
}

static struct plan plan_for(const struct exec *ex, const struct gemm *g) {
  const struct window *v = g->view;
  const struct cpu_conv *weights = v->conv->data;
  const struct gemm_kernels *k = linear_kernels(g->w, cpu_kernels(ex));
  struct plan plan = {.g = g,
                      .k = k,
                      .matrix = weights->matrix,
                      .down = (v->rows + 1) / 2,
                      .across = (v->columns + 1) / 2,
                      .block = linear_block(g->w, k),
                      .slot = slot_bytes(g->w, k)};
  plan.tiles = g->rows / ((int64_t)v->rows * v->columns) * plan.down * plan.across;
  plan.grid =
      (struct grid){.strips = ceil_div(plan.tiles, k->rows), .panels = linear_panels(g->w, k)};
  const double products = (double)PLACES * (double)plan.tiles * g->w->in * g->w->out;
  plan.threads = products > CPU_PARALLEL_PRODUCTS ? ex->device->threads : 1;
  choose_tasks(&plan);
  return plan;
}

/* A tile: its image, and the row and the column of its first output. */
struct spot {
  int64_t image;
  int row, column;
};

static struct spot spot_of(const struct plan *plan, int64_t tile) {
  const int64_t each = (int64_t)plan->down * plan->across;
  const int rest = (int)(tile % each);
  return (struct spot){tile / each, rest / plan->across * 2, rest % plan->across * 2};
}

/* Where the pixels are that a tile sees; padding is zeros. */
static void tile_pixels(const void *x[PLACES], const struct plan *plan, const struct spot *spot) {
  static const float zeros[WINOGRAD_INPUTS_MAX];
  const struct window *v = plan->g->view;
  const struct conv *w = v->conv;
  const int top = spot->row - w->before[0], left = spot->column - w->before[1];
  for (int i = 0; i < PLACES; i++) {
    const int row = top + i / SIDE, column = left + i % SIDE;
    const bool inside = row >= 0 && row < v->height && column >= 0 && column < v->width;
    const int64_t pixel = (spot->image * v->height + row) * v->width + column;
    x[i] = inside ? (const char *)plan->g->x + pixel * w->in * v->size : (const char *)zeros;
  }
}

/* Where outputs of a tile go to, from output `first` on; NULL: beyond the image. */
static void tile_outputs(void *y[OUTPUTS], const struct plan *plan, const struct spot *spot,
                         int64_t first) {
  const struct window *v = plan->g->view;
  const struct gemm *g = plan->g;
  const int64_t size = g->finish == FINISH_PLAIN ? (int64_t)sizeof(float) : v->size;
  for (int i = 0; i < OUTPUTS; i++) {
    const int row = spot->row + i / 2, column = spot->column + i % 2;
    const int64_t pixel = (spot->image * v->rows + row) * v->columns + column;
    const bool inside = row < v->rows && column < v->columns;
    y[i] = inside ? (char *)g->y + (pixel * g->ldy + first) * size : NULL;
  }
}

static void transform_tiles(const struct plan *plan, const struct task *t, char *scratch) {
  const struct gemm_kernels *k = plan->k;
  const int in = plan->g->w->in;
  const void *x[PLACES];
  for (int i = 0; i < t->rows; i++) {
    const struct spot spot = spot_of(plan, t->row + i);
    tile_pixels(x, plan, &spot);
    char *v = scratch + i / k->rows * plan->slot + i % k->rows * k->stride;
    for (int c = 0; c < in; c += plan->block, v += (int64_t)k->rows * k->stride)
      k->winograd_load(v, plan->place, x, c, in - c < plan->block ? in - c : plan->block);
  }
}

/* sums [tiles, columns] of one panel at one place */
static void multiply(const struct plan *plan, const struct task *t, int64_t panel, int place,
                     const char *values, float *sums) {
  const struct gemm_kernels *k = plan->k;
  const struct linear *w = plan->matrix[place];
  for (int r = 0; r < t->rows; r += k->rows, sums += k->rows * k->columns) {
    const int rows = t->rows - r < k->rows ? t->rows - r : k->rows;
    const char *v = values + place * plan->place + r / k->rows * plan->slot;
    for (int b = 0; b < w->in; b += plan->block, v += (int64_t)k->rows * k->stride)
      k->tile(sums, v, linear_panel(w, k, b, panel), rows, linear_depth(w, k, b), b > 0);
  }
}

static void put_outputs(const struct plan *plan, const struct task *t, int64_t panel,
                        const struct winograd_scratch *s) {
  const struct gemm_kernels *k = plan->k;
  const float *bias = linear_bias(plan->g->w, k) + panel * k->columns;
  const int64_t first = panel * k->columns, left = plan->g->w->out - first;
  const int count = left < k->columns ? (int)left : k->columns;
  void *y[OUTPUTS];
  for (int i = 0; i < t->rows; i++) {
    const struct spot spot = spot_of(plan, t->row + i);
    tile_outputs(y, plan, &spot, first);
    k->winograd_finish[plan->g->finish == FINISH_RELU](y, s->sums + (int64_t)i * k->columns,
                                                       (int64_t)t->rows * k->columns, bias, count);
  }
}

static void run_tiles(const struct plan *plan, const struct task *t, struct winograd_scratch *s) {
  transform_tiles(plan, t, s->values);
  for (int64_t panel = t->panel; panel < t->panel + t->panels; panel++) {
    for (int place = 0; place < PLACES; place++)
      multiply(plan, t, panel, place, s->values,
               s->sums + (int64_t)place * t->rows * plan->k->columns);
    put_outputs(plan, t, panel, s);
  }
}

void winograd_run(struct exec *ex, const struct gemm *g) {
  const struct plan plan = plan_for(ex, g);
  const int64_t tasks = plan.grid.row_blocks * plan.grid.column_blocks;
#pragma omp parallel num_threads(plan.threads)
  {
    struct winograd_scratch *scratch = &cpu_scratch(ex)->thread[omp_get_thread_num()].winograd;
    if (plan.k->enter) plan.k->enter();
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) {
      const struct task task = grid_task(&plan.grid, plan.tiles, plan.k->rows, i);
      run_tiles(&plan, &task, scratch);
    }
    if (plan.k->leave) plan.k->leave();
  }
}

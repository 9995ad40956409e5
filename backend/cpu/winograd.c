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
#include "backend/cpu/linear.h"

#include <omp.h>

enum { PLACES = WINOGRAD_PLACES, SIDE = WINOGRAD_SIDE, OUTPUTS = WINOGRAD_OUTPUTS };

/* Weights. */

/* Bytes that a strip of tiles takes at one place. */
static int64_t slot_bytes(const struct linear *w, const struct gemm_kernels *k) {
  const int blocks = (w->in + linear_block(w, k) - 1) / linear_block(w, k);
  return (int64_t)blocks * k->rows * k->stride;
}

bool winograd_fits(const struct backend *be, const struct conv *w) {
  enum { LEAST = 16 }; /* inputs; fewer take as long to transform as to multiply */
  const struct linear shape = {.in = w->in, .out = w->out, .type = be->dtype};
  const struct gemm_kernels *k = linear_kernels(&shape, cpu_state(be)->kernels);
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

void winograd_weights(float *out, int64_t apart, const float *weight) {
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

/* Running. */

/* A convolution as it is cut: tiles of 2 x 2 outputs, `down` times `across` of an image. */
struct cut {
  const struct winograd_call *call;
  const struct gemm_kernels *k;
  struct linear *const *matrix;
  int threads;
  int rows, columns, down, across; /* of an image: outputs, tiles */
  int block;                       /* inputs that go through a product at a time */
  int64_t tiles, strips, panels;
  int64_t row_blocks, column_blocks; /* tasks */
  int64_t place, slot;               /* bytes between places, between strips of a place */
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Strips whose inputs stay in the second-level cache, at least two, so that weights are not read
 * for one strip alone. */
static int64_t strips_at_a_time(const struct cut *cut) {
  enum { CACHED = 512 << 10, LEAST = 2 };
  const struct gemm_kernels *k = cut->k;
  const int64_t strip = (int64_t)PLACES * k->rows * cut->matrix[0]->in * k->element;
  const int64_t room = WINOGRAD_SCRATCH / (PLACES * cut->slot), sums = WINOGRAD_TILES / k->rows;
  const int64_t most = room < sums ? room : sums, cached = CACHED / strip;
  const int64_t strips = cached > LEAST ? cached : LEAST;
  return strips < most ? strips : most;
}

/* Into as many blocks of tiles as the threads can share evenly. Only where these are too few are
 * the outputs cut too, as every task transforms its tiles anew. */
static void choose_tasks(struct cut *cut) {
  const int64_t blocks = ceil_div(cut->strips, strips_at_a_time(cut));
  const int64_t even = ceil_div(blocks, cut->threads) * cut->threads;
  cut->row_blocks = even < cut->strips ? even : cut->strips;
  const int64_t columns = ceil_div(cut->threads, cut->row_blocks);
  cut->column_blocks = columns < cut->panels ? columns : cut->panels;
  cut->place = ceil_div(cut->strips, cut->row_blocks) * cut->slot;
}

static struct cut cut_for(const struct backend *be, const struct winograd_call *call) {
  const struct conv *w = call->conv;
  const struct cpu_conv *weights = w->data;
  const struct linear *first = weights->matrix[0];
  const struct gemm_kernels *k = linear_kernels(first, cpu_state(be)->kernels);
  struct cut cut = {.call = call,
                    .k = k,
                    .matrix = weights->matrix,
                    .rows = conv_size(w, 0, call->height),
                    .columns = conv_size(w, 1, call->width),
                    .block = linear_block(first, k),
                    .panels = linear_panels(first, k),
                    .slot = slot_bytes(first, k)};
  cut.down = (cut.rows + 1) / 2;
  cut.across = (cut.columns + 1) / 2;
  cut.tiles = (int64_t)call->B * cut.down * cut.across;
  cut.strips = ceil_div(cut.tiles, k->rows);
  const double products = (double)PLACES * (double)cut.tiles * w->in * w->out;
  cut.threads = products > CPU_PARALLEL_PRODUCTS ? be->threads : 1;
  choose_tasks(&cut);
  return cut;
}

/* A tile: its image, and the row and the column of its first output. */
struct site {
  int64_t image;
  int row, column;
};

static struct site site_of(const struct cut *cut, int64_t tile) {
  const int64_t each = (int64_t)cut->down * cut->across;
  const int rest = (int)(tile % each);
  return (struct site){tile / each, rest / cut->across * 2, rest % cut->across * 2};
}

/* Where the pixels are that a tile sees; padding is zeros. */
static void find_pixels(const void *x[PLACES], const struct cut *cut, const struct site *site) {
  static const float zeros[WINOGRAD_INPUTS_MAX];
  const struct winograd_call *call = cut->call;
  const struct conv *w = call->conv;
  const int top = site->row - w->before[0], left = site->column - w->before[1];
  const int64_t size = w->in * (int64_t)dtype_size(cut->matrix[0]->type);
  for (int i = 0; i < PLACES; i++) {
    const int row = top + i / SIDE, column = left + i % SIDE;
    const bool inside = row >= 0 && row < call->height && column >= 0 && column < call->width;
    const int64_t pixel = (site->image * call->height + row) * call->width + column;
    x[i] = inside ? (const char *)call->x + pixel * size : (const char *)zeros;
  }
}

/* Where outputs of a tile go to, from output `first` on; NULL: beyond the image. */
static void find_outputs(void *y[OUTPUTS], const struct cut *cut, const struct site *site,
                         int64_t first) {
  const struct winograd_call *call = cut->call;
  const size_t size = call->relu ? dtype_size(cut->matrix[0]->type) : sizeof(float);
  for (int i = 0; i < OUTPUTS; i++) {
    const int row = site->row + i / 2, column = site->column + i % 2;
    const int64_t pixel = (site->image * cut->rows + row) * cut->columns + column;
    const int64_t at = (pixel * call->ldy + first) * (int64_t)size;
    y[i] = row < cut->rows && column < cut->columns ? (char *)call->y + at : NULL;
  }
}

/* Tiles and panels of a task. */
struct task {
  int64_t tile, panel;
  int tiles, panels;
};

static struct task task_at(const struct cut *cut, int64_t index) {
  const int64_t i = index % cut->row_blocks, j = index / cut->row_blocks;
  const int64_t tile = i * cut->strips / cut->row_blocks * cut->k->rows;
  const int64_t end = (i + 1) * cut->strips / cut->row_blocks * cut->k->rows;
  const int64_t panel = j * cut->panels / cut->column_blocks;
  const int64_t last = (j + 1) * cut->panels / cut->column_blocks;
  return (struct task){.tile = tile,
                       .panel = panel,
                       .tiles = (int)((end < cut->tiles ? end : cut->tiles) - tile),
                       .panels = (int)(last - panel)};
}

static void transform_tiles(const struct cut *cut, const struct task *t, char *scratch) {
  const struct gemm_kernels *k = cut->k;
  const int in = cut->call->conv->in;
  const void *x[PLACES];
  for (int i = 0; i < t->tiles; i++) {
    const struct site site = site_of(cut, t->tile + i);
    find_pixels(x, cut, &site);
    char *v = scratch + i / k->rows * cut->slot + i % k->rows * k->stride;
    for (int c = 0; c < in; c += cut->block, v += (int64_t)k->rows * k->stride)
      k->winograd_load(v, cut->place, x, c, in - c < cut->block ? in - c : cut->block);
  }
}

/* sums [tiles, columns] of one panel at one place */
static void multiply(const struct cut *cut, const struct task *t, int64_t panel, int place,
                     const char *values, float *sums) {
  const struct gemm_kernels *k = cut->k;
  const struct linear *w = cut->matrix[place];
  for (int r = 0; r < t->tiles; r += k->rows, sums += k->rows * k->columns) {
    const int rows = t->tiles - r < k->rows ? t->tiles - r : k->rows;
    const char *v = values + place * cut->place + r / k->rows * cut->slot;
    for (int b = 0; b < w->in; b += cut->block, v += (int64_t)k->rows * k->stride)
      k->tile(sums, v, linear_panel(w, k, b, panel), rows, linear_depth(w, k, b), b > 0);
  }
}

static void put_outputs(const struct cut *cut, const struct task *t, int64_t panel,
                        const struct winograd_scratch *s) {
  const struct gemm_kernels *k = cut->k;
  const float *bias = linear_bias(cut->matrix[0], k) + panel * k->columns;
  const int64_t first = panel * k->columns, left = cut->call->conv->out - first;
  const int count = left < k->columns ? (int)left : k->columns;
  void *y[OUTPUTS];
  for (int i = 0; i < t->tiles; i++) {
    const struct site site = site_of(cut, t->tile + i);
    find_outputs(y, cut, &site, first);
    k->winograd_finish[cut->call->relu](y, s->sums + (int64_t)i * k->columns,
                                        (int64_t)t->tiles * k->columns, bias, count);
  }
}

static void run_task(const struct cut *cut, const struct task *t, struct winograd_scratch *s) {
  transform_tiles(cut, t, s->values);
  for (int64_t panel = t->panel; panel < t->panel + t->panels; panel++) {
    for (int place = 0; place < PLACES; place++)
      multiply(cut, t, panel, place, s->values,
               s->sums + (int64_t)place * t->tiles * cut->k->columns);
    put_outputs(cut, t, panel, s);
  }
}

void winograd_run(struct backend *be, const struct winograd_call *call) {
  const struct cut cut = cut_for(be, call);
  const int64_t tasks = cut.row_blocks * cut.column_blocks;
#pragma omp parallel num_threads(cut.threads)
  {
    struct winograd_scratch *scratch = &cpu_state(be)->scratch[omp_get_thread_num()].winograd;
    if (cut.k->enter) cut.k->enter();
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) {
      const struct task task = task_at(&cut, i);
      run_task(&cut, &task, scratch);
    }
    if (cut.k->leave) cut.k->leave();
  }
}

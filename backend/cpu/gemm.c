/* Matrix products y = finish(x W^T + b), many of them at a time, cut into tasks for threads.
 *
 * A task is a block of rows times a block of columns of one product. For every block of inputs it
 * takes strips of x (a tile's rows), in the first-level cache, through all its panels, which stay
 * in the second-level cache:
 *
 *   for block of inputs:  for strip of rows:  for panel:  tile += strip panel
 *
 * A strip is copied, but where it is windows over an image that a tile can read where they are.
 *
 * Each element is the sum, in ascending order, of one partial sum per block of inputs: neither the
 * cut into tasks nor the other rows matter. */
#include "backend/cpu/linear.h"
#include "backend/cpu/state.h"

#include <omp.h>
#include <string.h>

/* Rows and columns of a task, the columns as they are in panels. */
struct cut {
  int rows, columns;
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* n in equal parts of at most `most`: the size of all but the last. */
static int64_t part_of(int64_t n, int64_t most) { return ceil_div(n, ceil_div(n, most)); }

static const struct gemm_kernels *kernels_of(const struct cpu_state *cpu, const struct gemm *g) {
  return linear_kernels(g->w, cpu->kernels);
}

/* Equal blocks of at most this size: rows in whole tiles, columns in whole panels. */
static struct cut cut_of(const struct gemm *g, const struct gemm_kernels *k, struct cut most) {
  int64_t strips = ceil_div(part_of(g->rows, most.rows), k->rows);
  int64_t panels = most.columns > k->columns ? most.columns / k->columns : 1;
  return (struct cut){(int)strips * k->rows,
                      (int)part_of(linear_panels(g->w, k), panels) * k->columns};
}

static int64_t tasks_of(const struct gemm *g, const struct gemm_kernels *k, struct cut most) {
  if (g->rows <= 0) return 0;
  struct cut cut = cut_of(g, k, most);
  return ceil_div(g->rows, cut.rows) * ceil_div(linear_panels(g->w, k) * k->columns, cut.columns);
}

static int64_t tasks_in(const struct cpu_state *cpu, const struct gemm_list *list,
                        struct cut most) {
  int64_t tasks = 0;
  for (int i = 0; i < list->count; i++) {
    struct gemm g = list->at(list->source, i);
    if (g.rows > 0) tasks += tasks_of(&g, kernels_of(cpu, &g), most);
  }
  return tasks;
}

/* The largest blocks that still keep all threads busy. */
static struct cut choose_cut(const struct cpu_state *cpu, const struct gemm_list *list,
                             int threads) {
  struct cut cut = {CPU_ROW_BLOCK, CPU_COLUMN_BLOCK};
  int64_t enough = threads > 1 ? 4 * (int64_t)threads : 1;
  while (cut.rows > CPU_TILE_ROWS_MAX && tasks_in(cpu, list, cut) < enough) cut.rows /= 2;
  while (cut.columns > CPU_COLUMN_LEAST && tasks_in(cpu, list, cut) < enough) cut.columns /= 2;
  return cut;
}

/* The part of a product that is one task: its first row and panel, and how many. */
struct task {
  int64_t row, panel;
  int rows, panels;
};

static struct task task_at(const struct gemm *g, const struct gemm_kernels *k, struct cut most,
                           int64_t index) {
  struct cut cut = cut_of(g, k, most);
  int64_t row_blocks = ceil_div(g->rows, cut.rows), step = cut.columns / k->columns;
  int64_t panels = linear_panels(g->w, k);
  struct task t = {.row = index % row_blocks * cut.rows, .panel = index / row_blocks * step};
  t.rows = (int)(g->rows - t.row < cut.rows ? g->rows - t.row : cut.rows);
  t.panels = (int)(panels - t.panel < step ? panels - t.panel : step);
  return t;
}

static const void *input_row(const struct gemm *g, int64_t row) {
  int64_t at = g->index ? g->index[row] : row;
  return (const char *)g->x + at * g->ldx * (int64_t)dtype_size(g->w->type);
}

/* Inputs begin .. begin + depth - 1 of `rows` rows, then zeros up to `padded`. */
static void load_strip(char *strip, const struct gemm *g, const struct gemm_kernels *k, int64_t row,
                       int rows, int begin, int depth, int padded) {
  const int64_t skip = begin * (int64_t)dtype_size(g->w->type);
  if (g->window) window_read(strip, k, g, row, rows, begin, depth);
  for (int i = 0; i < rows; i++, strip += k->stride) {
    if (!g->window) k->load(strip, (const char *)input_row(g, row + i) + skip, depth);
    if (padded > depth)
      memset(strip + depth * k->element, 0, (size_t)(padded - depth) * (size_t)k->element);
  }
}

/* A task under way. */
struct work {
  const struct gemm *g;
  const struct gemm_kernels *k;
  const struct task *t;
  struct gemm_scratch *s;
  const float *bias; /* of its first panel */
  int64_t element;   /* bytes of an input in memory */
  int step, block;   /* rows of a strip, inputs of a block */
  bool in_place;     /* see can_stay */
};

/* The inputs of a block and the task's panels for it. */
struct block {
  int begin, depth, padded;
  bool in_place; /* strips that lie in one row of an image need no copies */
  const char *panels;
  int64_t panel; /* bytes of one */
};

/* Rows row .. row + rows - 1 of the task, inputs begin .. begin + depth - 1; 0 rows: none. */
struct strip {
  int row, rows, begin, depth;
};

/* Whether a tile can read windows where they are. Pixels whose addresses differ by a multiple of
 * SETS fall into few sets of the first-level cache, and a copy is faster. */
static bool can_stay(const struct gemm *g, const struct gemm_kernels *k) {
  enum { SETS = 2048 };
  const int64_t element = (int64_t)dtype_size(g->w->type);
  return g->window && k->tile_segments && g->ldx % k->group == 0 &&
         (uintptr_t)g->x % (uintptr_t)(k->group * element) == 0 && g->ldx * element % SETS != 0;
}

static struct block block_at(const struct work *w, int begin) {
  const int depth = linear_depth(w->g->w, w->k, begin), padded = linear_padded(depth, w->k);
  return (struct block){.begin = begin,
                        .depth = depth,
                        .padded = padded,
                        .in_place = depth == padded && w->in_place,
                        .panels = linear_panel(w->g->w, w->k, begin, w->t->panel),
                        .panel = (int64_t)padded * w->k->columns * w->element};
}

static struct strip strip_at(const struct work *w, int row, int begin) {
  const int rows = w->t->rows - row, depth = w->g->w->in - begin;
  return (struct strip){row, rows < w->step ? rows : w->step, begin,
                        depth < w->block ? depth : w->block};
}

static struct strip strip_after(const struct work *w, const struct strip *strip) {
  int row = strip->row + strip->rows, begin = strip->begin + w->block;
  if (row < w->t->rows) return strip_at(w, row, strip->begin);
  return begin < w->g->w->in ? strip_at(w, 0, begin) : (struct strip){0};
}

/* Brings part `part` of `parts` of a strip nearer before it is copied: its rows lie apart in
 * memory, where the processor does not foresee them. The rows of a window overlap and are near
 * already. */
static void prefetch_strip(const struct work *w, const struct strip *strip, int part, int parts) {
  enum { LINE = 64 };
  const struct gemm *g = w->g;
  if (g->window) return;
  const int64_t bytes = strip->depth * w->element;
  for (int i = strip->rows * part / parts; i < strip->rows * (part + 1) / parts; i++) {
    const char *row = (const char *)input_row(g, w->t->row + strip->row + i);
    for (int64_t at = 0; at < bytes; at += LINE)
      __builtin_prefetch(row + strip->begin * w->element + at, 0, 2);
  }
}

/* Rows r .. r + rows - 1 of the task, panel p: from the tile to y. */
static void finish_tile(const struct work *w, const float *tile, int r, int rows, int p) {
  const struct gemm *g = w->g;
  const struct gemm_kernels *k = w->k;
  const int outputs = linear_outputs(g->w, k);
  const int64_t first = (w->t->panel + p) * outputs, left = g->w->out - first;
  const int64_t size = g->finish == FINISH_PLAIN ? (int64_t)sizeof(float) : w->element;
  char *y = (char *)g->y + ((w->t->row + r) * g->ldy + first) * size;
  k->finish[g->finish](y, g->ldy * size, tile, w->bias + p * k->columns, rows,
                       left < outputs ? (int)left : outputs);
}

/* Takes a strip through the panels of its inputs. After the last inputs a tile is finished while
 * the next one is computed: a matrix unit and the vector units then work at the same time. Where
 * there is one block of inputs alone, tiles need not be kept. */
static void run_strip(const struct work *w, const struct block *b, const struct strip *strip,
                      const struct strip *next) {
  const struct gemm *g = w->g;
  const struct gemm_kernels *k = w->k;
  const int r = strip->row, rows = strip->rows;
  const int64_t row = w->t->row + r;
  const bool add = b->begin > 0, last = b->begin + b->depth == g->w->in;
  const bool kept = b->depth < g->w->in;
  float *tile = NULL, *previous = NULL;
  struct cpu_segments x;
  const bool in_place = b->in_place && window_segments(&x, g, row, rows, b->begin, b->depth);
  if (!in_place) load_strip(w->s->strip, g, k, row, rows, b->begin, b->depth, b->padded);
  for (int p = 0; p < w->t->panels; p++, previous = tile) {
    const char *panel = b->panels + p * b->panel;
    prefetch_strip(w, next, p, w->t->panels);
    tile = w->s->tiles + (kept ? p * w->t->rows + r : p % 2 * k->rows) * k->columns;
    if (in_place)
      k->tile_segments(tile, &x, panel, rows, add);
    else
      k->tile(tile, w->s->strip, panel, rows, b->padded, add);
    if (last && p > 0) finish_tile(w, previous, r, rows, p - 1);
  }
  if (last) finish_tile(w, tile, r, rows, w->t->panels - 1);
}

static void run_task(struct gemm_scratch *s, const struct gemm *g, const struct gemm_kernels *k,
                     const struct task *t) {
  const struct work w = {.g = g,
                         .k = k,
                         .t = t,
                         .s = s,
                         .bias = linear_bias(g->w, k) + t->panel * k->columns,
                         .element = (int64_t)dtype_size(g->w->type),
                         .step =
                             (int)(ceil_div(part_of(t->rows, k->rows), k->granule) * k->granule),
                         .block = linear_block(g->w, k),
                         .in_place = can_stay(g, k)};
  struct block block = block_at(&w, 0);
  for (struct strip strip = strip_at(&w, 0, 0), next; strip.rows > 0; strip = next) {
    next = strip_after(&w, &strip);
    if (strip.begin != block.begin) block = block_at(&w, strip.begin);
    run_strip(&w, &block, &strip, &next);
  }
}

static int64_t take(int64_t *next) {
  int64_t index;
#pragma omp atomic capture
  index = (*next)++;
  return index;
}

/* One thread's share: tasks are numbered through all products, and `next` hands them out. */
static void run_share(const struct cpu_state *cpu, const struct gemm_list *list, struct cut cut,
                      int64_t *next) {
  struct gemm_scratch *scratch = &cpu->scratch[omp_get_thread_num()].gemm;
  const struct gemm_kernels *k = NULL;
  int64_t begin = 0, index = take(next);
  for (int i = 0; i < list->count; i++) {
    struct gemm g = list->at(list->source, i);
    if (g.rows <= 0) continue;
    const struct gemm_kernels *own = kernels_of(cpu, &g);
    if (own != k && k && k->leave) k->leave();
    if (own != k && own->enter) own->enter();
    k = own;
    int64_t end = begin + tasks_of(&g, k, cut);
    for (; index < end; index = take(next)) {
      struct task t = task_at(&g, k, cut, index - begin);
      run_task(scratch, &g, k, &t);
    }
    begin = end;
  }
  if (k && k->leave) k->leave();
}

/* Whether the products are worth waking the other threads. */
static bool is_large(const struct gemm_list *list) {
  double products = 0;
  for (int i = 0; i < list->count; i++) {
    struct gemm g = list->at(list->source, i);
    if (g.rows > 0) products += (double)g.rows * g.w->in * g.w->out;
  }
  return products > CPU_PARALLEL_PRODUCTS;
}

void gemm_run(struct backend *be, const struct gemm_list *list) {
  const struct cpu_state *cpu = cpu_state(be);
  int threads = is_large(list) ? be->threads : 1;
  struct cut cut = choose_cut(cpu, list, threads);
  int64_t next = 0;
#pragma omp parallel num_threads(threads)
  run_share(cpu, list, cut, &next);
}

static struct gemm only_one(const void *source, int i) {
  (void)i;
  return *(const struct gemm *)source;
}

void gemm_run_one(struct backend *be, const struct gemm *g) {
  gemm_run(be, &(struct gemm_list){1, only_one, g});
}

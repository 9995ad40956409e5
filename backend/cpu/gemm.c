/* Matrix products, cut into tasks for threads.
 *
 * A task is a block of rows times a block of columns of one product. For every block of inputs it
 * takes strips of x (a tile's rows), in the first-level cache, through all its panels, which stay
 * in the second-level cache:
 *
 *   for block of inputs:  for strip of rows:  for panel:  tile += strip panel
 *
 * A strip is copied, but where a tile can read its rows where they are.
 *
 * Each element is the sum, in ascending order, of one partial sum per block of inputs: neither the
 * cut into tasks nor the other rows matter. */
#include "backend/cpu/gemm.h"
#include "backend/cpu/grid.h"
#include "backend/cpu/panels.h"

#include <omp.h>
#include <string.h>

/* The largest task: its rows and columns, the columns as they are in panels. A product has a
 * multiple of so many blocks of rows, so that threads share it evenly. */
struct cut {
  int rows, columns, multiple;
};

static const struct gemm_kernels *kernels_of(const struct cpu_kernels *cpu, const struct gemm *g) {
  return linear_kernels(g->w, cpu);
}

/* Panels of a product and those beside it. */
static int64_t panels_of(const struct gemm *g, const struct gemm_kernels *k) {
  int64_t panels = 0;
  for (; g; g = g->beside) panels += linear_panels(g->w, k);
  return panels;
}

static struct grid grid_of(const struct gemm *g, const struct gemm_kernels *k, struct cut most) {
  struct grid grid = {.strips = ceil_div(g->rows, k->rows), .panels = panels_of(g, k)};
  const int panels = most.columns > k->columns ? most.columns / k->columns : 1;
  const int64_t blocks = ceil_div(grid.strips, ceil_div(most.rows, k->rows));
  const int64_t even = ceil_div(blocks, most.multiple) * most.multiple;
  grid.row_blocks = even < grid.strips ? even : grid.strips;
  grid.column_blocks = ceil_div(grid.panels, panels);
  return grid;
}

static int64_t tasks_of(const struct gemm *g, const struct gemm_kernels *k, struct cut most) {
  if (g->rows <= 0) return 0;
  const struct grid grid = grid_of(g, k, most);
  return grid.row_blocks * grid.column_blocks;
}

static int64_t tasks_in(const struct cpu_kernels *cpu, const struct gemm_list *list,
                        struct cut most) {
  int64_t tasks = 0;
  for (int i = 0; i < list->count; i++) {
    struct gemm g = list->at(list->source, i);
    if (g.rows > 0) tasks += tasks_of(&g, kernels_of(cpu, &g), most);
  }
  return tasks;
}

/* The largest blocks that still keep all threads busy. */
static struct cut choose_cut(const struct cpu_kernels *cpu, const struct gemm_list *list,
                             int threads) {
  struct cut cut = {CPU_ROW_BLOCK, CPU_COLUMN_BLOCK, list->count == 1 ? threads : 1};
  int64_t enough = threads > 1 ? 4 * (int64_t)threads : 1;
  while (cut.rows > CPU_TILE_ROWS_MAX && tasks_in(cpu, list, cut) < enough) cut.rows /= 2;
  while (cut.columns > CPU_COLUMN_LEAST && tasks_in(cpu, list, cut) < enough) cut.columns /= 2;
  return cut;
}

static struct task task_at(const struct gemm *g, const struct gemm_kernels *k, struct cut most,
                           int64_t index) {
  const struct grid grid = grid_of(g, k, most);
  return grid_task(&grid, g->rows, k->rows, index);
}

/* n in equal parts of at most `most`: the size of all but the last. */
static int64_t part_of(int64_t n, int64_t most) { return ceil_div(n, ceil_div(n, most)); }

static const void *input_row(const struct gemm *g, int64_t row) {
  int64_t at = g->index ? g->index[row] : row;
  return (const char *)g->x + at * g->ldx * (int64_t)dtype_size(g->w->input);
}

static void load_rows(char *strip, const struct gemm *g, const struct gemm_kernels *k, int64_t row,
                      int rows, struct inputs inputs) {
  const int64_t skip = inputs.begin * (int64_t)dtype_size(g->w->input);
  for (int i = 0; i < rows; i++, strip += k->stride)
    k->load(strip, (const char *)input_row(g, row + i) + skip, inputs.count);
}

/* Rows lie apart in memory, where the processor does not foresee them. */
static void prefetch_rows(const struct gemm *g, int64_t row, int rows, struct inputs inputs) {
  enum { LINE = 64 };
  const int64_t element = (int64_t)dtype_size(g->w->input), bytes = inputs.count * element;
  for (int i = 0; i < rows; i++) {
    const char *x = (const char *)input_row(g, row + i) + inputs.begin * element;
    for (int64_t at = 0; at < bytes; at += LINE) __builtin_prefetch(x + at, 0, 2);
  }
}

static const struct row_source *source_of(const struct gemm *g) {
  static const struct row_source in_memory = {.load = load_rows, .prefetch = prefetch_rows};
  return g->source ? g->source : &in_memory;
}

/* Zeros behind the `count` inputs of a strip's rows, up to `padded`. */
static void pad_strip(char *strip, const struct gemm_kernels *k, int rows, int count, int padded) {
  const size_t bytes = (size_t)(padded - count) * (size_t)k->element;
  strip += count * k->element;
  for (int i = 0; i < rows && bytes > 0; i++, strip += k->stride) memset(strip, 0, bytes);
}

/* The panels of a task that belong to one product, from the product's panel `first` on. */
struct share {
  const struct gemm *g;
  const float *bias; /* of its first panel */
  int64_t first;
  int panels;
  /* As in struct gemm_kernels; NULL: panels are as they are kept. */
  void (*widen)(float *c, const void *strip, const void *kept, float *panel, int m, int k,
                bool add);
};

/* A task under way. */
struct work {
  const struct gemm *g;
  const struct row_source *source;
  const struct gemm_kernels *k;
  const struct task *t;
  struct gemm_scratch *s;
  struct share share[GEMM_BESIDE]; /* the products beside g included */
  int shares;
  int64_t element; /* bytes of an input in memory */
  int step, block; /* rows of a strip, inputs of a block */
  bool in_place;   /* see can_stay */
};

/* The inputs of a block and the panels of the task's shares for it. */
struct block {
  struct inputs inputs;
  const char *panels[GEMM_BESIDE];
  int panel; /* values of one */
};

/* Rows row .. row + rows - 1 of the task, inputs begin .. begin + depth - 1; 0 rows: none. */
struct strip {
  int row, rows, begin, depth;
};

/* Whether a tile can read rows where they are. Those whose addresses differ by a multiple of SETS
 * fall into few sets of the first-level cache, and a copy is faster. */
static bool can_stay(const struct gemm *g, const struct gemm_kernels *k) {
  enum { SETS = 2048 };
  const int64_t element = (int64_t)dtype_size(g->w->input);
  return source_of(g)->segments && k->tile_segments && g->ldx % k->group == 0 &&
         (uintptr_t)g->x % (uintptr_t)(k->group * element) == 0 && g->ldx * element % SETS != 0;
}

static void find_shares(struct work *w) {
  int64_t begin = 0;
  for (const struct gemm *g = w->g; g; g = g->beside) {
    const int64_t panels = linear_panels(g->w, w->k), end = w->t->panel + w->t->panels;
    const int64_t first = w->t->panel > begin ? w->t->panel : begin;
    const int64_t last = end < begin + panels ? end : begin + panels;
    if (first < last)
      w->share[w->shares++] =
          (struct share){.g = g,
                         .bias = linear_bias(g->w, w->k) + (first - begin) * w->k->columns,
                         .first = first - begin,
                         .panels = (int)(last - first),
                         .widen = linear_is_widened(g->w) ? w->k->tile_widen[g->w->format] : NULL};
    begin += panels;
  }
}

static struct block block_at(const struct work *w, int begin) {
  const int depth = linear_depth(w->g->w, w->k, begin), padded = linear_padded(depth, w->k);
  struct block block = {.inputs = {begin, depth}, .panel = padded * w->k->columns};
  for (int i = 0; i < w->shares; i++)
    block.panels[i] = linear_panel(w->share[i].g->w, w->k, begin, w->share[i].first);
  return block;
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

/* Part `part` of `parts` of a strip, before it is copied. */
static void prefetch_strip(const struct work *w, const struct strip *strip, int part, int parts) {
  const int first = strip->rows * part / parts, end = strip->rows * (part + 1) / parts;
  if (w->source->prefetch)
    w->source->prefetch(w->g, w->t->row + strip->row + first, end - first,
                        (struct inputs){strip->begin, strip->depth});
}

/* Sums of one strip and panel. */
struct made {
  float *tile;
  const struct share *share; /* NULL: none yet */
  int panel;                 /* of the share */
};

/* From the tile to y. */
static void finish_tile(const struct work *w, const struct strip *strip, const struct made *made) {
  if (!made->share) return;
  const struct gemm *g = made->share->g;
  const struct gemm_kernels *k = w->k;
  const int outputs = linear_outputs(g->w, k);
  const int64_t first = (made->share->first + made->panel) * outputs, left = g->w->out - first;
  const int64_t size = g->finish == FINISH_PLAIN ? (int64_t)sizeof(float) : w->element;
  for (int r = 0; r < strip->rows;) {
    struct places at = {w->t->row + strip->row + r, 1, strip->rows - r};
    if (w->source->places) at = w->source->places(w->g, at.row, at.rows);
    char *y = (char *)g->y + (at.row * g->ldy + first) * size;
    k->finish[g->finish](y, at.apart * g->ldy * size, made->tile + r * k->columns,
                         made->share->bias + made->panel * k->columns, at.rows,
                         left < outputs ? (int)left : outputs);
    r += at.rows;
  }
}

/* A strip of inputs as it meets panels. */
struct ready {
  bool in_place;
  struct cpu_segments segments; /* if it is, else in the scratch memory */
  int padded;                   /* inputs */
  int64_t skip;                 /* bytes of a panel before those of its first input */
};

static void make_ready(struct ready *ready, const struct work *w, const struct block *b,
                       const struct strip *strip) {
  const struct gemm *g = w->g;
  const int64_t row = w->t->row + strip->row;
  const int rows = strip->rows;
  struct inputs inputs = b->inputs;
  if (w->source->needed) inputs = w->source->needed(g, w->k, row, rows, inputs);
  ready->padded = linear_padded(inputs.count, w->k);
  ready->skip = (int64_t)(inputs.begin - b->inputs.begin) * w->k->columns * w->element;
  ready->in_place = w->in_place && inputs.count > 0 && ready->padded == inputs.count &&
                    w->source->segments(&ready->segments, g, row, rows, inputs);
  if (ready->in_place) return;
  w->source->load(w->s->strip, g, w->k, row, rows, inputs);
  pad_strip(w->s->strip, w->k, rows, inputs.count, ready->padded);
}

/* tile = strip panel, for a panel that is number `at` of the task. One of 16 bits is widened by its
 * first strip, and stays in the second-level cache for the others. */
static void multiply(const struct work *w, const struct block *b, const struct strip *strip,
                     const struct ready *ready, const struct made *made, int at) {
  const struct share *share = made->share;
  const char *kept = b->panels[share - w->share] +
                     (int64_t)made->panel * b->panel * linear_element(share->g->w) + ready->skip;
  float *wide = w->t->rows <= w->step ? NULL : w->s->panels + (int64_t)at * b->panel;
  const bool add = b->inputs.begin > 0;
  if (ready->in_place)
    w->k->tile_segments(made->tile, &ready->segments, kept, strip->rows, add);
  else if (!share->widen)
    w->k->tile(made->tile, w->s->strip, kept, strip->rows, ready->padded, add);
  else if (strip->row == 0)
    share->widen(made->tile, w->s->strip, kept, wide, strip->rows, ready->padded, add);
  else
    w->k->tile(made->tile, w->s->strip, wide, strip->rows, ready->padded, add);
}

/* Takes a strip through the panels of its inputs. After the last inputs a tile is finished while
 * the next one is computed: a matrix unit and the vector units then work at the same time. Where
 * there is one block of inputs alone, tiles need not be kept. */
static void run_strip(const struct work *w, const struct block *b, const struct strip *strip,
                      const struct strip *next) {
  const struct gemm *g = w->g;
  const struct gemm_kernels *k = w->k;
  const int r = strip->row;
  const bool last = b->inputs.begin + b->inputs.count == g->w->in;
  const bool kept = b->inputs.count < g->w->in;
  struct ready ready;
  struct made previous = {0};
  make_ready(&ready, w, b, strip);
  for (int i = 0, at = 0; i < w->shares; i++)
    for (int p = 0; p < w->share[i].panels; p++, at++) {
      float *tile = w->s->tiles + (kept ? at * w->t->rows + r : at % 2 * k->rows) * k->columns;
      const struct made made = {tile, &w->share[i], p};
      prefetch_strip(w, next, at, w->t->panels);
      multiply(w, b, strip, &ready, &made, at);
      if (last) finish_tile(w, strip, &previous);
      previous = made;
    }
  if (last) finish_tile(w, strip, &previous);
}

static void run_task(struct gemm_scratch *s, const struct gemm *g, const struct gemm_kernels *k,
                     const struct task *t) {
  struct work w = {.g = g,
                   .source = source_of(g),
                   .k = k,
                   .t = t,
                   .s = s,
                   .element = (int64_t)dtype_size(g->w->input),
                   .step = (int)(ceil_div(part_of(t->rows, k->rows), k->granule) * k->granule),
                   .block = linear_block(g->w, k),
                   .in_place = can_stay(g, k)};
  find_shares(&w);
  struct block block = block_at(&w, 0);
  for (struct strip strip = strip_at(&w, 0, 0), next; strip.rows > 0; strip = next) {
    next = strip_after(&w, &strip);
    if (strip.begin != block.inputs.begin) block = block_at(&w, strip.begin);
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
static void run_share(const struct exec *ex, const struct gemm_list *list, struct cut cut,
                      int64_t *next) {
  struct gemm_scratch *scratch = &cpu_scratch(ex)->thread[omp_get_thread_num()].gemm;
  const struct gemm_kernels *k = NULL;
  int64_t begin = 0, index = take(next);
  for (int i = 0; i < list->count; i++) {
    struct gemm g = list->at(list->source, i);
    if (g.rows <= 0) continue;
    const struct gemm_kernels *own = kernels_of(cpu_kernels(ex), &g);
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
    for (const struct gemm *p = &g; g.rows > 0 && p; p = p->beside)
      products += (double)g.rows * p->w->in * p->w->out;
  }
  return products > CPU_PARALLEL_PRODUCTS;
}

void gemm_run(struct exec *ex, const struct gemm_list *list) {
  int threads = is_large(list) ? ex->device->threads : 1;
  struct cut cut = choose_cut(cpu_kernels(ex), list, threads);
  int64_t next = 0;
#pragma omp parallel num_threads(threads)
  run_share(ex, list, cut, &next);
}

static struct gemm only_one(const void *source, int i) {
  (void)i;
  return *(const struct gemm *)source;
}

void gemm_run_one(struct exec *ex, const struct gemm *g) {
  gemm_run(ex, &(struct gemm_list){1, only_one, g});
}

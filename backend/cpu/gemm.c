/* Matrix products y = finish(x W^T + b), many of them at a time, cut into tasks for threads.
 *
 * A task is a block of rows times a block of columns of one product. For every block of inputs it
 * copies strips of x (a tile's rows) into the first-level cache and takes each through all its
 * panels, which stay in the second-level cache:
 *
 *   for block of inputs:  for strip of rows:  for panel:  tile += strip panel
 *
 * Each element is the sum, in ascending order, of one partial sum per block of inputs: neither the
 * cut into tasks nor the other rows matter. */
#include "backend/cpu/linear.h"
#include "backend/cpu/state.h"

#include <omp.h>
#include <string.h>

/* How products are cut. */
struct cut {
  int rows, panels;
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* n in equal parts of at most `most`: the size of all but the last. */
static int64_t part_of(int64_t n, int64_t most) { return ceil_div(n, ceil_div(n, most)); }

static int64_t tasks_of(const struct gemm *g, const struct gemm_kernels *k, struct cut cut) {
  return g->rows > 0 ? ceil_div(g->rows, cut.rows) * ceil_div(linear_panels(g->w, k), cut.panels)
                     : 0;
}

static int64_t tasks_in(const struct gemm_list *list, const struct gemm_kernels *k,
                        struct cut cut) {
  int64_t tasks = 0;
  for (int i = 0; i < list->count; i++) {
    struct gemm g = list->at(list->source, i);
    tasks += tasks_of(&g, k, cut);
  }
  return tasks;
}

/* The largest blocks that still keep all threads busy. */
static struct cut choose_cut(const struct gemm_list *list, const struct gemm_kernels *k,
                             int threads) {
  struct cut cut = {CPU_ROW_BLOCK, CPU_COLUMN_BLOCK / k->columns};
  int64_t enough = threads > 1 ? 4 * (int64_t)threads : 1;
  while (cut.rows / 2 >= k->rows && tasks_in(list, k, cut) < enough) cut.rows /= 2;
  while (cut.panels > 1 && tasks_in(list, k, cut) < enough) cut.panels /= 2;
  return cut;
}

/* The part of a product that is one task. */
struct task {
  int64_t row, panel;
  int rows, panels;
};

static struct task task_at(const struct gemm *g, const struct gemm_kernels *k, struct cut cut,
                           int64_t index) {
  int64_t row_blocks = ceil_div(g->rows, cut.rows), panels = linear_panels(g->w, k);
  int64_t step = part_of(panels, cut.panels);
  struct task t = {.row = index % row_blocks * cut.rows, .panel = index / row_blocks * step};
  t.rows = (int)(g->rows - t.row < cut.rows ? g->rows - t.row : cut.rows);
  t.panels = (int)(panels - t.panel < step ? panels - t.panel : step);
  return t;
}

static void load_strip(float *strip, const struct gemm *g, int64_t row, int rows, int begin,
                       int depth) {
  for (int i = 0; i < rows; i++, strip += CPU_STRIP_STRIDE)
    if (g->window)
      window_read(strip, g->x, g->window, row + i, begin, depth);
    else
      memcpy(strip, g->x + (row + i) * g->ldx + begin, (size_t)depth * sizeof *strip);
}

/* Adds the inputs from `begin` on to the tiles of a task. */
static void accumulate(struct gemm_scratch *s, const struct gemm *g, const struct gemm_kernels *k,
                       const struct task *t, int begin) {
  int depth = linear_depth(g->w, begin), step = (int)part_of(t->rows, k->rows);
  const float *panels = linear_panel(g->w, k, begin, t->panel);
  for (int r = 0; r < t->rows; r += step) {
    int rows = t->rows - r < step ? t->rows - r : step;
    load_strip(s->strip, g, t->row + r, rows, begin, depth);
    for (int p = 0; p < t->panels; p++)
      k->tile[rows](s->tiles + (p * t->rows + r) * k->columns, s->strip,
                    panels + (int64_t)p * depth * k->columns, depth, begin > 0);
  }
}

static void run_task(struct gemm_scratch *s, const struct gemm *g, const struct gemm_kernels *k,
                     const struct task *t) {
  for (int begin = 0; begin < g->w->in; begin += CPU_DEPTH_BLOCK) accumulate(s, g, k, t, begin);
  int outputs = linear_outputs(g->w, k);
  int64_t first = t->panel * outputs, rest = g->w->out - first;
  int count = rest < t->panels * outputs ? (int)rest : t->panels * outputs;
  const float *bias = linear_bias(g->w, k) + t->panel * k->columns;
  for (int r = 0; r < t->rows; r++)
    k->finish[g->finish](g->y + (t->row + r) * g->ldy + first, s->tiles + r * k->columns,
                         (int64_t)t->rows * k->columns, bias, count);
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
  const struct gemm_kernels *k = cpu->kernels->gemm;
  int64_t begin = 0, index = take(next);
  for (int i = 0; i < list->count; i++) {
    struct gemm g = list->at(list->source, i);
    int64_t end = begin + tasks_of(&g, k, cut);
    for (; index < end; index = take(next)) {
      struct task t = task_at(&g, k, cut, index - begin);
      run_task(&cpu->scratch[omp_get_thread_num()].gemm, &g, k, &t);
    }
    begin = end;
  }
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
  struct cut cut = choose_cut(list, cpu->kernels->gemm, threads);
  int64_t next = 0;
#pragma omp parallel num_threads(threads)
  run_share(cpu, list, cut, &next);
}

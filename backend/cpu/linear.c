/* Linear layers: their weights in panels, and the operation itself.
 *
 * A panel holds `columns` outputs (gemm_kernels). With paired weights its first half is `lanes`
 * rows of gate, its second the same rows of up, so that one tile holds what SwiGLU needs. Panels
 * are cut along the inputs into blocks of CPU_DEPTH_BLOCK, and those of one block lie together:
 *
 *   data: [block of inputs][panel][input][column], then bias [panel][column]
 *
 * Columns past the last output are 0. */
#include "backend/cpu/linear.h"
#include "backend/cpu/state.h"

/* One row of the stacked matrices; weight is NULL past the last one. */
struct source_row {
  const struct tensor *weight, *bias;
  int64_t row;
};

/* What column j of panel p holds. */
static struct source_row find_row(const struct linear_source *source, const struct linear *w,
                                  const struct gemm_kernels *k, int64_t p, int j) {
  int64_t row = p * k->columns + j;
  int part = 0;
  if (w->paired) {
    part = j / k->lanes;
    row = p * k->lanes + j % k->lanes;
    if (row >= w->out) part = source->parts;
  } else {
    while (part < source->parts && row >= source->weight[part]->shape[0])
      row -= source->weight[part++]->shape[0];
  }
  if (part == source->parts) return (struct source_row){0};
  return (struct source_row){source->weight[part], source->bias[part], row};
}

/* Panel p, block by block, so that the strided writes stay in the first-level cache. */
static void pack_panel(const struct linear_source *source, const struct linear *w,
                       const struct gemm_kernels *k, int64_t p) {
  float piece[CPU_DEPTH_BLOCK];
  for (int begin = 0; begin < w->in; begin += CPU_DEPTH_BLOCK) {
    int depth = linear_depth(w, begin);
    float *block = linear_panel(w, k, begin, p);
    for (int j = 0; j < k->columns; j++) {
      struct source_row from = find_row(source, w, k, p, j);
      if (from.weight) tensor_read_f32(piece, from.weight, from.row * w->in + begin, depth);
      for (int i = 0; i < depth; i++) block[i * k->columns + j] = from.weight ? piece[i] : 0;
    }
  }
  for (int j = 0; j < k->columns; j++) {
    struct source_row from = find_row(source, w, k, p, j);
    float *bias = linear_bias(w, k) + p * k->columns + j;
    *bias = 0;
    if (from.bias) tensor_read_f32(bias, from.bias, from.row, 1);
  }
}

enum ditmoe_status cpu_linear_create(struct backend *be, const struct linear_source *source,
                                     struct linear **out) {
  const struct gemm_kernels *k = cpu_state(be)->kernels->gemm;
  struct linear shape = {.paired = source->paired}, *w;
  size_t floats;
  TRY(linear_source_shape(be->ctx, source, &shape.in, &shape.out));
  int64_t panels = linear_panels(&shape, k);
  if (!mul_size((size_t)(panels * k->columns), (size_t)shape.in + 1, &floats) ||
      !mul_size(floats, sizeof(float), &shape.bytes))
    return fail(be->ctx, DITMOE_NOMEM, "not enough memory: %s [%d, %d] is too large",
                source->weight[0]->name, shape.out, shape.in);
  TRY(mem_alloc(be->ctx, 1, sizeof *w, "a linear layer", &w));
  enum ditmoe_status status =
      mem_alloc(be->ctx, shape.bytes, 1, source->weight[0]->name, &shape.data);
  if (status != DITMOE_OK) {
    mem_free(be->ctx, w);
    return status;
  }
  CPU_PARALLEL_FOR(be, floats)
  for (int64_t p = 0; p < panels; p++) pack_panel(source, &shape, k, p);
  *w = shape;
  *out = w;
  return DITMOE_OK;
}

void cpu_linear_destroy(struct backend *be, struct linear *linear) {
  if (linear) mem_free(be->ctx, linear->data);
  mem_free(be->ctx, linear);
}

static struct gemm only_one(const void *source, int i) {
  (void)i;
  return *(const struct gemm *)source;
}

void cpu_linear(struct backend *be, float *y, const float *x, const struct linear *w,
                int64_t rows) {
  struct gemm g = {.w = w,
                   .finish = w->paired ? FINISH_SWIGLU : FINISH_PLAIN,
                   .x = x,
                   .y = y,
                   .ldx = w->in,
                   .ldy = w->out,
                   .rows = rows};
  gemm_run(be, &(struct gemm_list){1, only_one, &g});
}

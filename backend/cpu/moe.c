/* The grouped products of a mixture-of-experts layer, and the steps that move rows. */
#include "backend/cpu/state.h"

#include <string.h>

void cpu_gather_rows(struct exec *ex, float *dst, const float *src, const int32_t *index, int64_t n,
                     int D) {
  CPU_PARALLEL_FOR(ex, n * D)
  for (int64_t i = 0; i < n; i++)
    memcpy(dst + i * D, src + (int64_t)index[i] * D, (size_t)D * sizeof *dst);
}

static bool has_weights(const struct expert *expert) {
  return expert->kind == EXPERT_SWIGLU || expert->kind == EXPERT_GELU;
}

/* What the products of the experts read and write: tokens x [tokens, D], h [R, F], rows [R, D]. */
struct grouped {
  const struct dispatch *d;
  const struct expert *const *experts;
  struct act x;
  struct act h;
  float *rows;
  int D, F;
};

static int64_t rows_of(const struct grouped *g, int e) {
  return has_weights(g->experts[e]) ? g->d->offset[e + 1] - g->d->offset[e] : 0;
}

static struct gemm expert_in(const void *source, int e) {
  const struct grouped *g = source;
  const struct expert *expert = g->experts[e];
  const int64_t first = g->d->offset[e];
  return (struct gemm){.w = expert->in,
                       .finish = expert->kind == EXPERT_SWIGLU ? FINISH_SWIGLU : FINISH_GELU,
                       .x = g->x.data,
                       .index = g->d->token + first,
                       .y = act_at(g->h, first * g->F),
                       .ldx = g->D,
                       .ldy = g->F,
                       .rows = rows_of(g, e)};
}

static struct gemm expert_out(const void *source, int e) {
  const struct grouped *g = source;
  const int64_t first = g->d->offset[e];
  return (struct gemm){.w = g->experts[e]->out,
                       .x = act_at(g->h, first * g->F),
                       .y = g->rows + first * g->D,
                       .ldx = g->F,
                       .ldy = g->D,
                       .rows = rows_of(g, e)};
}

void cpu_experts_in(struct exec *ex, struct act h, struct act x, const struct dispatch *d,
                    const struct expert *const *experts, int D, int F) {
  struct grouped g = {d, experts, x, h, NULL, D, F};
  gemm_run(ex, &(struct gemm_list){d->experts, expert_in, &g});
}

void cpu_experts_out(struct exec *ex, float *rows, struct act h, struct act x,
                     const struct dispatch *d, const struct expert *const *experts, int D, int F) {
  struct grouped g = {d, experts, x, h, rows, D, F};
  gemm_run(ex, &(struct gemm_list){d->experts, expert_out, &g});
  for (int e = 0; e < d->experts; e++) {
    if (has_weights(experts[e])) continue;
    for (int64_t r = d->offset[e]; r < d->offset[e + 1]; r++)
      if (experts[e]->kind == EXPERT_COPY)
        cpu_widen(ex, rows + r * D, act_from(x, (int64_t)d->token[r] * D), D);
      else
        memset(rows + r * D, 0, (size_t)D * sizeof *rows);
  }
}

void cpu_combine_rows(struct exec *ex, float *y, const float *rows, const struct dispatch *d,
                      const float *add, int D) {
  const struct row_kernels *kernels = cpu_kernels(ex)->rows;
  CPU_PARALLEL_FOR(ex, (int64_t)d->tokens * D)
  for (int64_t t = 0; t < d->tokens; t++) {
    float *sum = y + t * D;
    int32_t i = d->first[t], end = d->first[t + 1];
    if (i < end)
      kernels->scale(sum, rows + (int64_t)d->row[i] * D, d->weight[d->row[i]], D);
    else
      memset(sum, 0, (size_t)D * sizeof *sum);
    for (i++; i < end; i++)
      kernels->scaled_add(sum, rows + (int64_t)d->row[i] * D, d->weight[d->row[i]], D);
    if (add) kernels->add(sum, sum, add + t * D, D);
  }
}

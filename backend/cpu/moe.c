/* The steps of a mixture-of-experts layer that move rows, and its grouped products. */
#include "backend/cpu/state.h"

#include <string.h>

void cpu_gather_rows(struct backend *be, float *dst, const float *src, const int32_t *index,
                     int64_t n, int D) {
  CPU_PARALLEL_FOR(be, n * D)
  for (int64_t i = 0; i < n; i++)
    memcpy(dst + i * D, src + (int64_t)index[i] * D, (size_t)D * sizeof *dst);
}

void cpu_dispatch_rows(struct backend *be, float *rows, const float *x, const struct dispatch *d,
                       int D) {
  cpu_gather_rows(be, rows, x, d->token, d->offset[d->experts], D);
}

/* What both products of the experts read and write. */
struct grouped {
  const struct dispatch *d;
  const struct expert *const *experts;
  const float *x;
  float *y;
  int ldx, ldy;
};

static bool has_weights(const struct expert *expert) {
  return expert->kind == EXPERT_SWIGLU || expert->kind == EXPERT_GELU;
}

static struct gemm rows_of_expert(const struct grouped *g, int e) {
  int64_t first = g->d->offset[e], end = g->d->offset[e + 1];
  return (struct gemm){.x = g->x + first * g->ldx,
                       .y = g->y + first * g->ldy,
                       .ldx = g->ldx,
                       .ldy = g->ldy,
                       .rows = has_weights(g->experts[e]) ? end - first : 0};
}

static struct gemm expert_in(const void *source, int e) {
  const struct grouped *grouped = source;
  const struct expert *expert = grouped->experts[e];
  struct gemm g = rows_of_expert(grouped, e);
  g.w = expert->in;
  g.finish = expert->kind == EXPERT_SWIGLU ? FINISH_SWIGLU : FINISH_GELU;
  return g;
}

static struct gemm expert_out(const void *source, int e) {
  const struct grouped *grouped = source;
  struct gemm g = rows_of_expert(grouped, e);
  g.w = grouped->experts[e]->out;
  g.finish = FINISH_PLAIN;
  return g;
}

void cpu_experts_in(struct backend *be, float *h, const float *rows, const struct dispatch *d,
                    const struct expert *const *experts, int D, int F) {
  struct grouped g = {d, experts, rows, h, D, F};
  gemm_run(be, &(struct gemm_list){d->experts, expert_in, &g});
}

void cpu_experts_out(struct backend *be, float *y, const float *h, const float *rows,
                     const struct dispatch *d, const struct expert *const *experts, int D, int F) {
  struct grouped g = {d, experts, h, y, F, D};
  gemm_run(be, &(struct gemm_list){d->experts, expert_out, &g});
  for (int e = 0; e < d->experts; e++) {
    int64_t first = (int64_t)d->offset[e] * D, n = (int64_t)d->offset[e + 1] * D - first;
    if (experts[e]->kind == EXPERT_ZERO) memset(y + first, 0, (size_t)n * sizeof *y);
    if (experts[e]->kind == EXPERT_COPY) memcpy(y + first, rows + first, (size_t)n * sizeof *y);
  }
}

void cpu_combine_rows(struct backend *be, float *rows, const struct dispatch *d, int D) {
  const struct row_kernels *kernels = cpu_state(be)->kernels->rows;
  int64_t R = d->offset[d->experts];
  CPU_PARALLEL_FOR(be, R * D)
  for (int64_t r = 0; r < R; r++) kernels->scale(rows + r * D, rows + r * D, d->weight[r], D);
}

void cpu_unorder_rows(struct backend *be, float *y, const float *rows, const struct dispatch *d,
                      int D) {
  const struct row_kernels *kernels = cpu_state(be)->kernels->rows;
  CPU_PARALLEL_FOR(be, (int64_t)d->tokens * D)
  for (int64_t t = 0; t < d->tokens; t++) {
    memset(y + t * D, 0, (size_t)D * sizeof *y);
    for (int32_t i = d->first[t]; i < d->first[t + 1]; i++)
      kernels->add(y + t * D, y + t * D, rows + (int64_t)d->row[i] * D, D);
  }
}

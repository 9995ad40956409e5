/* The grouped products of a mixture-of-experts layer, and the steps that move rows. */
#include "backend/cpu/gemm.h"

#include <string.h>

void cpu_gather_rows(struct exec *ex, float *dst, const float *src, const int32_t *index, int64_t n,
                     int D) {
  CPU_PARALLEL_FOR(ex, n * D)
  for (int64_t i = 0; i < n; i++)
    memcpy(dst + i * D, src + (int64_t)index[i] * D, (size_t)D * sizeof *dst);
}

/* What the products of a wave read and write: tokens x [tokens, D], h [R, F], rows [R, D]. */
struct grouped {
  const struct dispatch *d;
  const struct expert_wave *wave;
  struct act x, h;
  float *rows;
};

static int64_t rows_of(const struct dispatch *d, int e) { return d->offset[e + 1] - d->offset[e]; }

/* The first product of expert i of the wave, or the second. */
static struct gemm expert_product(const struct grouped *g, int i, bool second) {
  const struct expert_bank *bank = g->wave->bank;
  const struct expert *expert = wave_expert(g->wave, i);
  const int e = wave_index(g->wave, i);
  const int64_t first = g->d->offset[e];
  if (!expert_has_weights(expert)) return (struct gemm){.rows = 0};
  if (second)
    return (struct gemm){.w = expert->out,
                         .x = act_at(g->h, first * bank->hidden),
                         .y = g->rows + first * bank->width,
                         .ldx = bank->hidden,
                         .ldy = bank->width,
                         .rows = rows_of(g->d, e)};
  return (struct gemm){.w = expert->in,
                       .finish = finish_of(expert->kind->activation),
                       .x = g->x.data,
                       .index = g->d->token + first,
                       .y = act_at(g->h, first * bank->hidden),
                       .ldx = bank->width,
                       .ldy = bank->hidden,
                       .rows = rows_of(g->d, e)};
}

static struct gemm expert_in(const void *source, int i) { return expert_product(source, i, false); }
static struct gemm expert_out(const void *source, int i) { return expert_product(source, i, true); }

void cpu_experts_in(struct exec *ex, struct act h, struct act x, const struct dispatch *d,
                    const struct expert_wave *wave) {
  struct grouped g = {d, wave, x, h, NULL};
  gemm_run(ex, &(struct gemm_list){wave->count, expert_in, &g});
}

/* Rows of experts without products. */
static void copy_rows(struct exec *ex, float *rows, struct act x, const struct dispatch *d, int e,
                      int D) {
  const struct row_kernels *kernels = cpu_kernels(ex)->rows;
  CPU_PARALLEL_FOR(ex, rows_of(d, e) * D)
  for (int64_t r = d->offset[e]; r < d->offset[e + 1]; r++) {
    const void *token = act_at(x, (int64_t)d->token[r] * D);
    if (x.type == DT_BF16)
      kernels->widen(rows + r * D, token, D);
    else
      memcpy(rows + r * D, token, (size_t)D * sizeof *rows);
  }
}

void cpu_experts_out(struct exec *ex, float *rows, struct act h, struct act x,
                     const struct dispatch *d, const struct expert_wave *wave) {
  struct grouped g = {d, wave, x, h, rows};
  const int D = wave->bank->width;
  gemm_run(ex, &(struct gemm_list){wave->count, expert_out, &g});
  for (int i = 0; i < wave->count; i++) {
    const int e = wave_index(wave, i);
    const enum expert_rows from = wave_expert(wave, i)->kind->rows;
    if (from == ROWS_COPY) copy_rows(ex, rows, x, d, e, D);
    if (from == ROWS_ZERO)
      memset(rows + (int64_t)d->offset[e] * D, 0, (size_t)(rows_of(d, e) * D) * sizeof *rows);
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

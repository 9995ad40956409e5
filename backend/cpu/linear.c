/* Linear layers: one product each. */
#include "backend/cpu/gemm.h"

void cpu_linear(struct exec *ex, float *y, struct act x, const struct linear *w, int64_t rows) {
  struct gemm g = {.w = w, .x = x.data, .y = y, .ldx = w->in, .ldy = w->out, .rows = rows};
  gemm_run_one(ex, &g);
}

void cpu_hidden(struct exec *ex, struct act h, struct act x, const struct expert *expert,
                int64_t rows) {
  const struct linear *w = expert->in;
  struct gemm g = {.w = w,
                   .finish = finish_of(expert->kind->activation),
                   .x = x.data,
                   .y = h.data,
                   .ldx = w->in,
                   .ldy = w->out,
                   .rows = rows};
  gemm_run_one(ex, &g);
}

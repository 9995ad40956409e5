/* Gradients of the steps of a mixture of experts around its products, and of gathering rows. */
#include "backend/ref/ref_ops.h"

/* dsrc[index[i]] += dy[i], rows of D */
void ref_gather_rows_bwd(struct exec *ex, float *dsrc, const float *dy, const int32_t *index,
                         int64_t n, int D) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t c = 0; c < D; c++) dsrc[(int64_t)index[i] * D + c] += dy[i * D + c];
}

/* dscores[token[r], e] = dweight[r] for the rows r of expert e, all others 0; [tokens, E] */
void ref_gates_bwd(struct exec *ex, float *dscores, const float *dweight, const struct dispatch *d,
                   int E) {
  for (int64_t i = 0; i < (int64_t)d->tokens * E; i++) dscores[i] = 0;
  for (int e = 0; e < E; e++)
    for (int32_t r = d->offset[e]; r < d->offset[e + 1]; r++)
      dscores[(int64_t)d->token[r] * E + e] += dweight[r];
}

/* dx[t] = sum of drows[r] over the rows r of token t, [D] */
void ref_dispatch_bwd(struct exec *ex, float *dx, const float *drows, const struct dispatch *d,
                      int D) {
  for (int64_t t = 0; t < d->tokens; t++)
    for (int64_t c = 0; c < D; c++) {
      double sum = 0;
      for (int32_t i = d->first[t]; i < d->first[t + 1]; i++)
        sum += drows[(int64_t)d->row[i] * D + c];
      dx[t * D + c] = (float)sum;
    }
}

/* drows[r] = weight[r] dy[token[r]], dweight[r] = dy[token[r]] . rows[r] */
void ref_combine_rows_bwd(struct exec *ex, float *drows, float *dweight, const float *dy,
                          const float *rows, const struct dispatch *d, int D) {
  for (int64_t r = 0; r < d->offset[d->experts]; r++) {
    const float *dy_row = dy + (int64_t)d->token[r] * D;
    dweight[r] = (float)dot(dy_row, rows + r * D, D);
    for (int64_t c = 0; c < D; c++) drows[r * D + c] = (float)((double)d->weight[r] * dy_row[c]);
  }
}

#include "eval/pairs.h"

#include <math.h>
#include <string.h>

/* With q the mean of the n rows of a split, the mean divergence is
 * (1/n) sum_n sum_c p ln p - sum_c q ln q: one pass, and no row is kept. */
struct score { /* and behind it, its arrays */
  int classes;
  int64_t split, count; /* rows of a full split, rows so far    */
  int64_t rows;         /* in the current split                 */
  double entropy;       /* sum of p ln p, in the current split  */
  double *sum;          /* [classes] of p, in the current split */
  double *row;          /* [classes] one row's probabilities    */
  double total;         /* of the scores of full splits         */
  int64_t splits;       /* full ones                            */
};

enum ditmoe_status score_create(struct ditmoe_ctx *ctx, int classes, int64_t split,
                                struct score **out) {
  const size_t bytes = 2 * (size_t)classes * sizeof(double);
  struct score *score;
  TRY(mem_zalloc(ctx, sizeof *score + bytes, 1, "Inception Score", out));
  score = *out;
  score->sum = (double *)(void *)(score + 1);
  score->row = score->sum + classes;
  score->classes = classes;
  score->split = split;
  return DITMOE_OK;
}

void score_free(struct ditmoe_ctx *ctx, struct score *score) { mem_free(ctx, score); }

static double p_log_p(double p) { return p > 0 ? p * log(p) : 0; }

static double split_score(const struct score *score) {
  const double n = (double)score->rows;
  double divergence = score->entropy / n;
  for (int c = 0; c < score->classes; c++) divergence -= p_log_p(score->sum[c] / n);
  return exp(divergence);
}

/* Adds score->row. */
static void add_row(struct score *score) {
  double entropy = 0;
  for (int c = 0; c < score->classes; c++) {
    entropy += p_log_p(score->row[c]);
    score->sum[c] += score->row[c];
  }
  score->entropy += entropy;
  score->count++;
  if (++score->rows < score->split) return;
  score->total += split_score(score);
  score->splits++;
  score->rows = 0;
  score->entropy = 0;
  memset(score->sum, 0, (size_t)score->classes * sizeof *score->sum);
}

enum ditmoe_status score_add(struct ditmoe_ctx *ctx, struct score *score,
                             const float *probabilities, int64_t n) {
  TRY(rows_finite(ctx, "class probabilities", probabilities, n, score->classes, score->count));
  for (int64_t i = 0; i < n; i++) {
    const float *p = probabilities + i * score->classes;
    for (int c = 0; c < score->classes; c++) {
      if (p[c] < 0)
        return fail(ctx, DITMOE_NONFINITE, "class probabilities: row %lld has a negative one",
                    (long long)score->count);
      score->row[c] = (double)p[c];
    }
    add_row(score);
  }
  return DITMOE_OK;
}

enum ditmoe_status score_add_logits(struct ditmoe_ctx *ctx, struct score *score,
                                    const float *logits, int64_t n) {
  const int classes = score->classes;
  TRY(rows_finite(ctx, "logits", logits, n, classes, score->count));
  for (int64_t i = 0; i < n; i++) {
    const float *z = logits + i * classes;
    double top = (double)z[0], sum = 0;
    for (int c = 1; c < classes; c++) top = fmax(top, (double)z[c]);
    for (int c = 0; c < classes; c++) sum += score->row[c] = exp((double)z[c] - top);
    for (int c = 0; c < classes; c++) score->row[c] /= sum;
    add_row(score);
  }
  return DITMOE_OK;
}

enum ditmoe_status score_read(struct ditmoe_ctx *ctx, const struct score *score, double *out) {
  if (score->count == 0) return fail(ctx, DITMOE_USAGE, "an Inception Score needs images");
  const bool partial = score->rows > 0;
  const double total = score->total + (partial ? split_score(score) : 0);
  *out = total / (double)(score->splits + partial);
  return DITMOE_OK;
}

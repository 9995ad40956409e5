/* The steps of a mixture-of-experts layer: order, dispatch, experts, combine, un-order. */
#include "backend/ref/ref_ops.h"

/* count[i + 1] values of i become the first place of i in count[i]; and back, after every place was
 * advanced past its last. */
static void count_to_place(int32_t *count, int n) {
  count[0] = 0;
  for (int i = 0; i < n; i++) count[i + 1] += count[i];
}

static void place_to_start(int32_t *place, int n) {
  for (int i = n; i > 0; i--) place[i] = place[i - 1];
  place[0] = 0;
}

static void clear(int32_t *values, int64_t n) {
  for (int64_t i = 0; i < n; i++) values[i] = 0;
}

/* list = the used assignments, stably sorted by token; first = where each token's begin. */
static void sort_by_token(struct dispatch *d, int32_t *list) {
  clear(d->first, (int64_t)d->tokens + 1);
  for (int64_t a = 0; a < d->capacity; a++)
    if (d->expert[a] >= 0) d->first[d->source[a] + 1]++;
  count_to_place(d->first, d->tokens);
  for (int64_t a = 0; a < d->capacity; a++)
    if (d->expert[a] >= 0) list[d->first[d->source[a]]++] = (int32_t)a;
  place_to_start(d->first, d->tokens);
}

/* Rows = list, stably sorted by expert, so that tokens ascend within an expert. */
static void sort_by_expert(struct dispatch *d, const int32_t *list) {
  int64_t R = d->first[d->tokens];
  clear(d->offset, (int64_t)d->experts + 1);
  for (int64_t i = 0; i < R; i++) d->offset[d->expert[list[i]] + 1]++;
  count_to_place(d->offset, d->experts);
  for (int64_t i = 0; i < R; i++) {
    int32_t r = d->offset[d->expert[list[i]]]++;
    d->token[r] = d->source[list[i]];
    d->weight[r] = d->gate[list[i]];
  }
  place_to_start(d->offset, d->experts);
}

/* Insertion sort of one token's rows, which come by ascending expert: larger weights first, NaN
 * last, ties stay. */
static void sort_by_weight(int32_t *row, int64_t n, const float *weight) {
  for (int64_t i = 1; i < n; i++) {
    int32_t moved = row[i];
    float w = weight[moved];
    int64_t j = i;
    for (; j > 0 && (w > weight[row[j - 1]] || (isnan(weight[row[j - 1]]) && !isnan(w))); j--)
      row[j] = row[j - 1];
    row[j] = moved;
  }
}

/* Assignments a = (expert, source, gate) to rows. Two experts, three tokens, token 1 chose both:
 *
 *   expert  1  0  1  0        offset  0  2  4         rows of expert e: offset[e] ..
 *   source  0  1  1  2        token   1  2  0  1      of a row
 *   gate    a  b  c  d        weight  b  d  a  c
 *                             first   0  1  3  4      rows of token t: row[first[t]] ..
 *                             row     2  0  3  1      if b >= c, else 2  3  0  1 */
void ref_dispatch_order(struct exec *ex, struct dispatch *d) {
  sort_by_token(d, d->row); /* row is free until its own turn */
  sort_by_expert(d, d->row);
  for (int32_t r = 0; r < d->offset[d->experts]; r++) d->row[d->first[d->token[r]]++] = r;
  place_to_start(d->first, d->tokens);
  for (int t = 0; t < d->tokens; t++)
    sort_by_weight(d->row + d->first[t], d->first[t + 1] - d->first[t], d->weight);
}

/* h[f] of an expert for x [D], a = x W_in^T + b_in:
 *   GELU (Hendrycks & Gimpel 2016) gelu(a[f]), SwiGLU (Shazeer 2020) silu(a[f]) a[F + f], ReLU */
static double hidden_at(const struct expert *expert, int64_t f, struct act x, int64_t first) {
  const struct linear *w = expert->in;
  double value = ref_linear_at(w, f, x, first);
  switch (expert->kind->activation) {
  case ACTIVATION_GELU:
    return gelu_of(value);
  case ACTIVATION_SWIGLU:
    return silu_of(value) * ref_linear_at(w, w->out + f, x, first);
  case ACTIVATION_SILU:
    return silu_of(value);
  case ACTIVATION_RELU:
    break;
  }
  return value < 0 ? 0 : value; /* a NaN stays one */
}

void ref_hidden(struct exec *ex, struct act h, struct act x, const struct expert *expert,
                int64_t rows) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t f = 0; f < expert->hidden; f++)
      act_set(h, r * expert->hidden + f, hidden_at(expert, f, x, r * expert->in->in));
}

/* h[r, f] for row r of expert e by its own W_in, from token[r] of x [tokens, D]; h [R, F]. */
void ref_experts_in(struct exec *ex, struct act h, struct act x, const struct dispatch *d,
                    const struct expert_wave *wave) {
  const struct expert_bank *bank = wave->bank;
  for (int i = 0; i < wave->count; i++) {
    const int e = wave_index(wave, i);
    const struct expert *expert = wave_expert(wave, i);
    for (int64_t r = d->offset[e]; r < d->offset[e + 1]; r++)
      for (int64_t f = 0; f < expert->hidden; f++)
        act_set(h, r * bank->hidden + f,
                hidden_at(expert, f, x, (int64_t)d->token[r] * bank->width));
  }
}

/* Column c of a row: W_out h + b_out; the token itself or 0 (MoE++, Jin et al. 2024). */
static double row_at(const struct expert *expert, int64_t c, struct act h, int64_t hidden,
                     struct act x, int64_t token) {
  switch (expert->kind->rows) {
  case ROWS_PRODUCT:
    return ref_linear_at(expert->out, c, h, hidden);
  case ROWS_COPY:
    return act_at(x, token + c);
  case ROWS_ZERO:
    break;
  }
  return 0;
}

void ref_experts_out(struct exec *ex, float *rows, struct act h, struct act x,
                     const struct dispatch *d, const struct expert_wave *wave) {
  const struct expert_bank *bank = wave->bank;
  const int64_t D = bank->width;
  for (int i = 0; i < wave->count; i++) {
    const int e = wave_index(wave, i);
    for (int64_t r = d->offset[e]; r < d->offset[e + 1]; r++)
      for (int64_t c = 0; c < D; c++)
        rows[r * D + c] =
            (float)row_at(wave_expert(wave, i), c, h, r * bank->hidden, x, d->token[r] * D);
  }
}

/* y[t] = add[t] + sum of weight[r] rows[r] over the rows r of token t (Shazeer et al. 2017), [D] */
void ref_combine_rows(struct exec *ex, float *y, const float *rows, const struct dispatch *d,
                      const float *add, int D) {
  for (int64_t t = 0; t < d->tokens; t++)
    for (int64_t c = 0; c < D; c++) {
      double sum = 0;
      for (int32_t i = d->first[t]; i < d->first[t + 1]; i++)
        sum += (double)d->weight[d->row[i]] * rows[(int64_t)d->row[i] * D + c];
      y[t * D + c] = (float)(add ? sum + add[t * D + c] : sum);
    }
}

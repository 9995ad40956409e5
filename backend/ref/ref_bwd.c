/* Gradients of linear layers and experts. The sums before an activation are computed again where
 * they are needed. */
#include "backend/ref/ref_ops.h"

/* A layer and what follows it: `count` rows of inputs, in f32 or bf16, and the gradient of the loss
 * by what becomes of its sums, dy [count, width], directly or through the matrix `out`. */
struct layer {
  const struct linear *w, *out;
  const struct expert_kind *kind; /* whose activation takes the sums; NULL: dy is of them */
  struct act x;
  const int32_t *index; /* row r of x is index[r]; NULL: r */
  int64_t ldx;          /* between rows of x */
  const float *dy;
  int64_t count, width;
};

static bool is_paired(const struct layer *l) { return l->kind && l->w->paired; }

/* Sums that have a gradient of their own: with an activation, hidden units. */
static int64_t units(const struct layer *l) { return l->kind ? l->w->out : linear_total(l->w); }

static int64_t row_of(const struct layer *l, int64_t r) {
  return (l->index ? l->index[r] : r) * l->ldx;
}

/* Gradients of the loss by the one or two sums of a unit. */
struct unit {
  double d_sum[2];
};

/* dh[o], of what becomes of unit o in a row: dy[o], or sum over c of dy[c] W_out[c, o]. */
static double unit_gradient(const struct layer *l, int64_t row, int64_t o) {
  const float *dy = l->dy + row * l->width;
  double sum = 0;
  if (!l->out) return dy[o];
  for (int64_t c = 0; c < l->width; c++) sum += (double)dy[c] * linear_row(l->out, c)[o];
  return sum;
}

/* da[o] of dh[o] through the activation, a = x W^T + b:
 *   GELU da = dh gelu'(a), ReLU da = dh where a > 0,
 *   SwiGLU d gate = dh up silu'(gate), d up = dh silu(gate) */
static struct unit unit_at(const struct layer *l, int64_t row, int64_t o) {
  const int64_t x = row_of(l, row);
  const double dy = unit_gradient(l, row, o);
  if (!l->kind) return (struct unit){{dy, 0}};
  const double a = ref_linear_at(l->w, o, l->x, x);
  switch (l->kind->activation) {
  case ACTIVATION_GELU:
    return (struct unit){{dy * gelu_slope(a), 0}};
  case ACTIVATION_SWIGLU: {
    const double up = ref_linear_at(l->w, l->w->out + o, l->x, x);
    return (struct unit){{dy * up * silu_slope(a), dy * silu_of(a)}};
  }
  case ACTIVATION_SILU:
    return (struct unit){{dy * silu_slope(a), 0}};
  case ACTIVATION_RELU:
    break;
  }
  return (struct unit){{a > 0 ? dy : 0, 0}};
}

/* dx[r, c] = sum over o of da[r, o] W[o, c]; dx [count, in]. */
static void input_bwd(float *dx, const struct layer *l) {
  const int64_t in = l->w->in;
  for (int64_t r = 0; r < l->count; r++)
    for (int64_t c0 = 0; c0 < in; c0 += REF_CHUNK) {
      double acc[REF_CHUNK] = {0};
      const int64_t c1 = chunk_end(c0, in);
      for (int64_t o = 0; o < units(l); o++) {
        const struct unit u = unit_at(l, r, o);
        for (int half = 0; half <= is_paired(l); half++) {
          const float *w = linear_row(l->w, half * units(l) + o);
          for (int64_t c = c0; c < c1; c++) acc[c - c0] += u.d_sum[half] * w[c];
        }
      }
      for (int64_t c = c0; c < c1; c++) dx[r * in + c] = (float)acc[c - c0];
    }
}

/* dw[c] += sum over r of da[r] x[r, c], da of the sums `half` of unit o; dw [in]. */
static void weight_row_bwd(float *dw, const struct layer *l, int64_t o, int half) {
  for (int64_t c0 = 0; c0 < l->w->in; c0 += REF_CHUNK) {
    double acc[REF_CHUNK] = {0};
    const int64_t c1 = chunk_end(c0, l->w->in);
    for (int64_t r = 0; r < l->count; r++) {
      const double d_sum = unit_at(l, r, o).d_sum[half];
      for (int64_t c = c0; c < c1; c++) acc[c - c0] += d_sum * act_at(l->x, row_of(l, r) + c);
    }
    for (int64_t c = c0; c < c1; c++) dw[c] = (float)(dw[c] + acc[c - c0]);
  }
}

/* dW[o, c] += sum over r of da[r, o] x[r, c], db[o] += sum over r of da[r, o] */
static void weight_bwd(const struct linear_grad *grad, const struct layer *l) {
  for (int half = 0; half <= is_paired(l); half++)
    for (int64_t o = 0; o < units(l); o++) {
      const int64_t row = half * units(l) + o;
      double sum = 0;
      if (grad->weight) weight_row_bwd(grad->weight + row * l->w->in, l, o, half);
      for (int64_t r = 0; grad->bias && r < l->count; r++) sum += unit_at(l, r, o).d_sum[half];
      if (grad->bias) grad->bias[row] = (float)(grad->bias[row] + sum);
    }
}

void ref_linear_bwd_input(struct exec *ex, float *dx, const float *dy, const struct linear *w,
                          int64_t rows) {
  input_bwd(dx, &(struct layer){.w = w, .dy = dy, .count = rows, .width = linear_total(w)});
}

void ref_linear_bwd_weight(struct exec *ex, const struct linear_grad *grad, const float *dy,
                           struct act x, const struct linear *w, int64_t rows) {
  weight_bwd(grad,
             &(struct layer){
                 .w = w, .x = x, .ldx = w->in, .dy = dy, .count = rows, .width = linear_total(w)});
}

/* dsums [rows, total]: da[r, f], paired [gate F, up F]. */
void ref_hidden_bwd(struct exec *ex, float *dsums, const float *dh, struct act x,
                    const struct expert *expert, int64_t rows) {
  const struct layer l = {.w = expert->in,
                          .kind = expert->kind,
                          .x = x,
                          .ldx = expert->in->in,
                          .dy = dh,
                          .count = rows,
                          .width = expert->hidden};
  for (int64_t r = 0; r < rows; r++)
    for (int64_t f = 0; f < units(&l); f++)
      for (int half = 0; half <= is_paired(&l); half++)
        dsums[r * linear_total(l.w) + half * units(&l) + f] = (float)unit_at(&l, r, f).d_sum[half];
}

/* Rows first .. first + count - 1, those of one expert, y = h W_out^T + b_out with h [count, F]:
 * dW_out of dy and h, then dW_in and dx of dh = dy W_out. */
static void expert_bwd(float *dx, const struct expert_grad *grad, const struct expert *expert,
                       struct act h, int64_t F, const struct layer *given) {
  struct layer in = *given;
  in.w = expert->in;
  in.out = expert->out;
  in.kind = expert->kind;
  struct layer out = {.w = expert->out,
                      .x = h,
                      .ldx = F,
                      .dy = given->dy,
                      .count = given->count,
                      .width = given->width};
  input_bwd(dx, &in);
  weight_bwd(&grad->in, &in);
  weight_bwd(&grad->out, &out);
}

void ref_experts_bwd(struct exec *ex, float *dx, const struct expert_grad *grads,
                     const float *drows, struct act x, struct act h, const struct dispatch *d,
                     const struct expert_wave *wave) {
  const struct expert_bank *bank = wave->bank;
  const int64_t D = bank->width, F = bank->hidden;
  for (int i = 0; i < wave->count; i++) {
    const int e = wave_index(wave, i);
    const struct expert *expert = wave_expert(wave, i);
    const int64_t first = d->offset[e], count = d->offset[e + 1] - first;
    const struct layer rows = {.x = x,
                               .index = d->token + first,
                               .ldx = D,
                               .dy = drows + first * D,
                               .count = count,
                               .width = D};
    if (expert_has_weights(expert))
      expert_bwd(dx + first * D, &grads[e], expert, act_from(h, first * F), F, &rows);
    else
      for (int64_t c = first * D; c < (first + count) * D; c++)
        dx[c] = expert->kind->rows == ROWS_COPY ? drows[c] : 0;
  }
}

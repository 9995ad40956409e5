/* Products and the steps of a mixture-of-experts layer: the arguments of the contract to those of
 * the launchers. */
#include "backend/cuda/cuda.h"

#define RUN(op, ...) cuda_check(ex, cuda_##op(cuda_stream(ex), __VA_ARGS__), #op)

static enum cuda_activation activation_of(const struct expert *expert) {
  switch (expert->kind->activation) {
  case ACTIVATION_GELU:
    return CUDA_GELU;
  case ACTIVATION_SWIGLU:
    return CUDA_PAIRED;
  case ACTIVATION_SILU:
    return CUDA_SILU;
  case ACTIVATION_RELU:
    break;
  }
  return CUDA_RELU;
}

static const struct cuda_weights *weights_of(const struct linear *w) { return w->data; }

/* Rows of x times the weights of one layer. */
static struct cuda_product product_of(const struct linear *w, struct act x, int64_t rows) {
  const struct cuda_weights *weights = weights_of(w);
  return (struct cuda_product){.type = w->input,
                               .y_type = DT_F32,
                               .in = w->in,
                               .out = w->out,
                               .experts = 1,
                               .rows = rows,
                               .x = x.data,
                               .x_rows = rows,
                               .ldx = w->in,
                               .weight = weights->matrix,
                               .bias = weights->bias,
                               .ldy = w->out};
}

/* By the best kernel of the tier, or the one for all sizes and types. */
static void multiply(struct exec *ex, const struct cuda_product *p, const char *operation) {
  cudaError_t error = cuda_multiply_by(cuda_stream(ex), p, cuda_state(ex)->kernel);
  if (error == cudaErrorNotSupported)
    error = cuda_multiply_by(cuda_stream(ex), p, CUDA_PRODUCT_SIMT);
  cuda_check(ex, error, operation);
}

void cuda_op_linear(struct exec *ex, float *y, struct act x, const struct linear *w, int64_t rows) {
  struct cuda_product p = product_of(w, x, rows);
  p.y = y;
  multiply(ex, &p, "linear");
}

void cuda_op_hidden(struct exec *ex, struct act h, struct act x, const struct expert *expert,
                    int64_t rows) {
  struct cuda_product p = product_of(expert->in, x, rows);
  p.activation = activation_of(expert);
  p.y_type = h.type;
  p.y = h.data;
  multiply(ex, &p, "hidden");
}

static struct cuda_plan plan_of(const struct dispatch *d) {
  return (struct cuda_plan){d->experts, d->tokens, d->capacity, d->expert, d->source, d->gate,
                            d->offset,  d->token,  d->weight,   d->first,  d->row};
}

void cuda_op_assign_topk(struct exec *ex, struct dispatch *d, const float *scores, int64_t rows,
                         int E, int K, int skip) {
  const struct cuda_plan plan = plan_of(d);
  RUN(assign_topk, &plan, 0, scores, 0, rows, E, K, skip);
}

void cuda_op_assign_biased(struct exec *ex, struct dispatch *d, float *ranked, const float *scores,
                           const struct biased_choice *choice, int64_t rows, int E, int K,
                           int skip) {
  const struct cuda_plan plan = plan_of(d);
  const struct cuda_biased biased = {choice->bias, choice->groups, choice->kept, choice->factor};
  RUN(assign_biased, &plan, ranked, scores, &biased, rows, E, K, skip);
}

void cuda_op_assign_tokens(struct exec *ex, struct dispatch *d, const float *scores, int B, int T,
                           int E, int K, int64_t stride) {
  const struct cuda_plan plan = plan_of(d);
  RUN(assign_tokens, &plan, 0, scores, 0, B, T, E, K, stride);
}

void cuda_op_assign_counted(struct exec *ex, struct dispatch *d, const float *scores,
                            const float *capacity, const float *threshold, int64_t S, int E) {
  const struct cuda_plan plan = plan_of(d);
  RUN(assign_counted, &plan, 0, scores, capacity, threshold, S, E);
}

void cuda_op_assign_label(struct exec *ex, struct dispatch *d, const int32_t *labels, int32_t label,
                          int32_t expert, int B, int T) {
  const struct cuda_plan plan = plan_of(d);
  RUN(assign_by_label, &plan, 0, labels, label, expert, B, T, d->capacity / B);
}

void cuda_op_dispatch_order(struct exec *ex, struct dispatch *d) {
  const struct cuda_plan plan = plan_of(d);
  int32_t *work =
      cuda_work(ex, (size_t)cuda_dispatch_work(d->tokens, d->experts, d->capacity) * sizeof *work);
  if (work) RUN(dispatch_order, &plan, work);
}

/* Experts of a wave that follow one another, are alike and have their weights at one distance: one
 * launch does them all. */
struct group {
  int first, count; /* of the wave */
  int64_t weight_stride, bias_stride;
};

static bool are_alike(const struct expert *a, const struct expert *b, bool second) {
  const struct linear *v = second ? a->out : a->in, *w = second ? b->out : b->in;
  return a->kind == b->kind && expert_has_weights(a) && v->in == w->in && v->out == w->out;
}

/* Elements from one layer's weights to another's; 0: not a whole number of them. */
static int64_t distance(const struct linear *v, const struct linear *w) {
  const int64_t bytes = (const char *)weights_of(w)->matrix - (const char *)weights_of(v)->matrix;
  const int64_t size = (int64_t)dtype_size(v->input);
  return bytes % 16 == 0 ? bytes / size : 0;
}

static struct group group_at(const struct expert_wave *wave, int first, bool second) {
  struct group g = {.first = first, .count = 1};
  const struct expert *expert = wave_expert(wave, first);
  for (int i = first + 1; i < wave->count; i++, g.count++) {
    const struct expert *last = wave_expert(wave, i - 1), *next = wave_expert(wave, i);
    if (wave_index(wave, i) != wave_index(wave, first) + g.count) break;
    if (!are_alike(expert, next, second)) break;
    const int64_t apart = distance(second ? last->out : last->in, second ? next->out : next->in);
    if (g.count == 1) g.weight_stride = apart;
    if (apart <= 0 || apart != g.weight_stride) break;
  }
  const struct linear *w = second ? expert->out : expert->in;
  if (w) g.bias_stride = g.weight_stride * (int64_t)dtype_size(w->input) / (int64_t)sizeof(float);
  return g;
}

/* The product of a group's experts, whose rows are those of the plan. */
static struct cuda_product group_product(const struct expert_wave *wave, const struct group *g,
                                         const struct dispatch *d, struct act x, bool second) {
  const struct expert *expert = wave_expert(wave, g->first);
  struct cuda_product p = product_of(second ? expert->out : expert->in, x, d->capacity);
  p.experts = g->count;
  p.offset = d->offset + wave_index(wave, g->first);
  p.weight_stride = g->weight_stride;
  p.bias_stride = g->bias_stride;
  return p;
}

/* The tokens of all rows, one after the other: the copy engine of sm_90 takes them from there
 * faster than its kernel gathers them. NULL: the kernel gathers. */
static const void *gathered(struct exec *ex, struct act x, const struct dispatch *d, int D) {
  if (cuda_state(ex)->kernel != CUDA_PRODUCT_BEST || x.type == DT_F32 || D % 8 != 0) return NULL;
  void *rows = cuda_work(ex, (size_t)d->capacity * (size_t)D * dtype_size(x.type));
  if (rows)
    RUN(rows_copy, rows, x.type, x.data, x.type, d->offset, d->experts, d->token, d->capacity, D);
  return rows;
}

void cuda_op_experts_in(struct exec *ex, struct act h, struct act x, const struct dispatch *d,
                        const struct expert_wave *wave) {
  const void *rows = gathered(ex, x, d, wave->bank->width);
  struct group g;
  for (int i = 0; i < wave->count; i += g.count) {
    const struct expert *expert = wave_expert(wave, i);
    g = (struct group){.count = 1};
    if (!expert_has_weights(expert)) continue;
    g = group_at(wave, i, false);
    struct cuda_product p = group_product(wave, &g, d, x, false);
    p.activation = activation_of(expert);
    p.token = rows ? NULL : d->token;
    p.x = rows ? rows : x.data;
    p.x_rows = rows ? d->capacity : d->tokens;
    p.y_type = h.type;
    p.y = h.data;
    p.ldy = wave->bank->hidden;
    multiply(ex, &p, "experts_in");
  }
}

void cuda_op_experts_out(struct exec *ex, float *rows, struct act h, struct act x,
                         const struct dispatch *d, const struct expert_wave *wave) {
  const struct expert_bank *bank = wave->bank;
  struct group g;
  for (int i = 0; i < wave->count; i += g.count) {
    const struct expert *expert = wave_expert(wave, i);
    g = (struct group){.count = 1};
    if (!expert_has_weights(expert)) {
      const void *from = expert->kind->rows == ROWS_COPY ? x.data : NULL;
      RUN(rows_copy, rows, DT_F32, from, x.type, d->offset + wave_index(wave, i), 1, d->token,
          d->capacity, bank->width);
      continue;
    }
    g = group_at(wave, i, true);
    struct cuda_product p = group_product(wave, &g, d, h, true);
    p.ldx = bank->hidden;
    p.y = rows;
    p.ldy = bank->width;
    multiply(ex, &p, "experts_out");
  }
}

void cuda_op_combine_rows(struct exec *ex, float *y, const float *rows, const struct dispatch *d,
                          const float *add, int D) {
  const struct cuda_plan plan = plan_of(d);
  RUN(combine_rows, y, rows, DT_F32, &plan, add, D);
}

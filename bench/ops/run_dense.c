/* Calls of the dense operations: conversions, linear layers, single values, norms, attention,
 * softmax. */
#include "bench/ops/run.h"

void run_narrow(struct trial *t) {
  float *x = trial_items(t, 1);
  be_narrow(t->ex, trial_act_results(t, 1), x, t->count);
}

void run_narrow_tiny(struct trial *t) { run_narrow(t); }

void run_widen(struct trial *t) {
  struct act x = trial_acts(t, 1);
  be_widen(t->ex, trial_results(t, 1), x, t->count);
}

void run_linear(struct trial *t) {
  const struct shape *s = t->s;
  int parts = s->parts ? s->parts : 1;
  struct linear *w = trial_linear(t, s->in, s->out, parts, false, s->bias);
  float *y = trial_results(t, (int64_t)parts * s->out);
  struct act x = s->exact ? act_f32(trial_items(t, s->in)) : trial_acts(t, s->in);
  be_linear(t->ex, y, x, w, t->count);
}

void run_linear_update(struct trial *t) {
  const struct shape *s = t->s;
  struct linear *w = trial_linear(t, s->in, s->out, 1, false, true);
  float *weight = trial_values(t, (int64_t)s->out * s->in, 1.0F / 16, 0);
  float *bias = s->bias ? trial_values(t, s->out, 1, 0) : NULL;
  float *y = trial_results(t, s->out);
  struct act x = s->exact ? act_f32(trial_items(t, s->in)) : trial_acts(t, s->in);
  be_linear_update(t->ex, w, weight, bias);
  be_linear(t->ex, y, x, w, t->count);
}

static void hidden(struct trial *t, const struct expert_kind *kind) {
  const struct shape *s = t->s;
  struct linear *in = trial_linear(t, s->D, s->F, 1, kind == &expert_swiglu, s->bias);
  struct expert expert = {kind, s->F, in, NULL};
  struct act x = trial_acts(t, s->D);
  be_hidden(t->ex, trial_act_results(t, s->F), x, &expert, t->count);
}

void run_hidden(struct trial *t) {
  hidden(t, t->s->kinds == KINDS_GELU ? &expert_gelu : &expert_swiglu);
}

void run_hidden_silu(struct trial *t) { hidden(t, &expert_silu); }

#define RUN_MAP(op)                                                                                \
  void run_##op(struct trial *t) {                                                                 \
    float *x = trial_items(t, 1);                                                                  \
    be_##op(t->ex, trial_results(t, 1), x, t->count);                                              \
    float *y = trial_in_place(t, 1);                                                               \
    be_##op(t->ex, y, y, t->count);                                                                \
  }
RUN_MAP(silu)
RUN_MAP(sigmoid)
RUN_MAP(relu)

void run_tanh_clamp(struct trial *t) {
  float *x = trial_items(t, 1);
  be_tanh_clamp(t->ex, trial_results(t, 1), x, 3, t->count);
}

void run_add(struct trial *t) {
  float *a = trial_items(t, 1), *b = trial_items(t, 1), *x = trial_in_place(t, 1);
  be_add(t->ex, trial_results(t, 1), a, b, t->count);
  be_add(t->ex, x, x, a, t->count);
}

void run_add_rows(struct trial *t) {
  float *row = trial_values(t, t->s->D, 1, 0);
  be_add_rows(t->ex, trial_in_place(t, t->s->D), row, t->count, t->s->D);
}

/* Shift, scale and gate are parts of rows of 3 D values. */
static void modulate(struct trial *t, struct act y, const float *weight) {
  const struct shape *s = t->s;
  float *x = trial_items(t, (int64_t)s->T * s->D);
  float *m = trial_standard_items(t, 3 * (int64_t)s->D);
  be_norm_modulate(t->ex, y, x, m, m + s->D, 3 * (int64_t)s->D, (int)t->count, s->T, s->D,
                   &(struct row_norm){weight, (float)s->eps});
}

void run_norm_modulate(struct trial *t) {
  modulate(t, trial_act_results(t, (int64_t)t->s->T * t->s->D), NULL);
}

void run_norm_modulate_exact(struct trial *t) {
  modulate(t, act_f32(trial_results(t, (int64_t)t->s->T * t->s->D)), NULL);
}

void run_norm_modulate_rms(struct trial *t) {
  modulate(t, trial_act_results(t, (int64_t)t->s->T * t->s->D), trial_values(t, t->s->D, 0.2F, 1));
}

void run_gated_add(struct trial *t) {
  const struct shape *s = t->s;
  const int64_t item = (int64_t)s->T * s->D, stride = 3 * (int64_t)s->D;
  float *gate = trial_items(t, stride), *y = trial_items(t, item), *x = trial_items(t, item);
  float *in_place = trial_in_place(t, item);
  be_gated_add(t->ex, trial_results(t, item), x, gate + 2 * s->D, stride, y, (int)t->count, s->T,
               s->D);
  be_gated_add(t->ex, in_place, in_place, gate + 2 * s->D, stride, y, (int)t->count, s->T, s->D);
}

static void normalise_heads(struct trial *t, const struct qk_norm *norm) {
  const struct shape *s = t->s;
  const int64_t item = 3 * (int64_t)s->H * s->d;
  float *x = trial_items(t, item), *in_place = trial_in_place(t, item);
  be_qk_norm(t->ex, trial_results(t, item), x, norm, t->count, s->H, s->d);
  be_qk_norm(t->ex, in_place, in_place, norm, t->count, s->H, s->d);
}

void run_qk_norm(struct trial *t) {
  const struct shape *s = t->s;
  normalise_heads(t,
                  &(struct qk_norm){trial_values(t, s->d, 0.1F, 1), trial_values(t, s->d, 0.1F, 0),
                                    trial_values(t, s->d, 0.1F, 1), trial_values(t, s->d, 0.1F, 0),
                                    (float)s->eps});
}

void run_qk_norm_rms(struct trial *t) {
  const struct shape *s = t->s;
  normalise_heads(t, &(struct qk_norm){.q_weight = trial_values(t, s->d, 0.1F, 1),
                                       .k_weight = trial_values(t, s->d, 0.1F, 1),
                                       .eps = (float)s->eps});
}

/* There and back, by sines and cosines of nothing in particular. */
void run_qk_rotate(struct trial *t) {
  const struct shape *s = t->s;
  const int64_t pairs = (int64_t)s->T * s->d / 2, item = 3 * (int64_t)s->T * s->H * s->d;
  const struct rope rope = {trial_values(t, pairs, 1, 0), trial_values(t, pairs, 1, 0),
                            s->adjacent};
  float *there = trial_in_place(t, item), *back = trial_in_place(t, item);
  be_qk_rotate(t->ex, there, &rope, 1, (int)t->count, s->T, s->H, s->d);
  be_qk_rotate(t->ex, back, &rope, -1, (int)t->count, s->T, s->H, s->d);
}

void run_qk_round_f16(struct trial *t) {
  be_qk_round_f16(t->ex, trial_in_place(t, 3 * (int64_t)t->s->D), t->count, t->s->D);
}

void run_attention(struct trial *t) {
  const struct shape *s = t->s;
  int64_t item = (int64_t)s->T * s->H * s->d;
  float *qkv = trial_items(t, 3 * item);
  struct act o = trial_act_results(t, item);
  float *lse = trial_results(t, (int64_t)s->H * s->T);
  be_attention(t->ex, o, lse, qkv, (int)t->count, s->T, s->H, s->d);
}

void run_attention_sharp(struct trial *t) { run_attention(t); }

void run_gather_rows(struct trial *t) {
  const struct shape *s = t->s;
  float *table = trial_values(t, (int64_t)s->B * s->D, 1, 0);
  int32_t *index = trial_indices(t, 1, s->B);
  be_gather_rows(t->ex, trial_results(t, s->D), table, index, t->count, s->D);
}

void run_normalize_rows(struct trial *t) {
  float *x = trial_items(t, t->s->D);
  be_normalize_rows(t->ex, trial_results(t, t->s->D), x, t->count, t->s->D);
}

void run_softmax_rows(struct trial *t) {
  float *x = trial_items(t, t->s->E);
  be_softmax_rows(t->ex, trial_results(t, t->s->E), x, t->count, t->s->E);
}

void run_softmax_tokens(struct trial *t) {
  const struct shape *s = t->s;
  float *x = trial_items(t, (int64_t)s->T * s->E);
  be_softmax_tokens(t->ex, trial_results(t, (int64_t)s->T * s->E), x, (int)t->count, s->T, s->E);
}

/* Times up to a thousand. */
void run_time_features(struct trial *t) {
  const struct shape *s = t->s;
  float *time = trial_items(t, 1);
  be_time_features(t->ex, trial_results(t, s->D), time, (int)t->count, s->D, 0);
}

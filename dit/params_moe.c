/* The parameters of mixtures: router, routed experts, the unconditional and the shared expert. */
#include "dit/params.h"

#include <stdio.h>

/* How many matrices of a form are under the prefix, and how many it has. */
static int count_matrices(const struct params *params, const struct expert_form *form, int *all) {
  const char *const parts[3] = {form->in, form->second, form->out};
  char name[PARAM_NAME];
  int found = 0;
  *all = 0;
  for (int i = 0; i < 3; i++) {
    if (!parts[i]) continue;
    snprintf(name, sizeof name, "%s.weight", parts[i]);
    found += params_find(params, name) != NULL;
    ++*all;
  }
  return found;
}

/* The form that most of the names under the prefix fit; NULL if none does. Where matrices are
 * missing, that of the expert before is the better guess. */
static const struct expert_form *find_form(const struct params *params,
                                           const struct expert_form *hint) {
  const struct expert_form *form, *best = NULL;
  int all, most = -2;
  if (hint && count_matrices(params, hint, &all)) return hint;
  for (int i = 0; (form = expert_form_at(i)); i++) {
    const int found = count_matrices(params, form, &all), score = 2 * found - all;
    if (found && score > most) best = form, most = score;
  }
  return best;
}

/* Whether there is an expert under the prefix, which is left as it was before `length`. */
static bool leave_expert(struct params *params, size_t length) {
  const bool found = find_form(params, NULL) != NULL;
  params_leave(params, length);
  return found;
}

void list_expert(struct params *params, struct expert *expert, int D,
                 const struct expert_form **hint) {
  const struct expert_form *form = find_form(params, *hint);
  if (!form) form = *hint ? *hint : expert_form_at(0);
  char in[PARAM_NAME];
  snprintf(in, sizeof in, "%s.weight", form->in);
  const struct tensor *first = params_find(params, in);
  const bool usable = first && first->rank == 2 && first->shape[0] > 0 && first->shape[0] < 1 << 24;
  const bool stacked = form->kind->activation == ACTIVATION_SWIGLU && !form->second;
  const int rows = usable ? (int)first->shape[0] : D, F = stacked ? rows / 2 : rows;
  *hint = form;
  expert->kind = form->kind;
  expert->hidden = F;
  params_linear(params, &expert->in,
                &(struct linear_form){.parts = form->second ? 2 : 1,
                                      .in = D,
                                      .out = {stacked ? 2 * F : F, F},
                                      .name = {form->in, form->second},
                                      .bias = form->bias,
                                      .flags = form->second || stacked ? PARAM_PAIRED : 0});
  params_matrix(params, &expert->out, D, F, form->bias, 0, form->out);
}

static void list_shared(struct exec *ex, struct params *params, struct dit_moe *moe,
                        const char *name) {
  const struct expert_form *form = NULL;
  if (params->status != DITMOE_OK || !leave_expert(params, params_enter(params, "%s", name)))
    return;
  params->status = mem_zalloc(ex->ctx, 1, sizeof *moe->shared, "shared expert", &moe->shared);
  if (params->status != DITMOE_OK) return;
  const size_t length = params_enter(params, "%s", name);
  list_expert(params, moe->shared, moe->bank.width, &form);
  params_leave(params, length);
}

/* Enters the prefix of expert e. */
static size_t enter_expert(struct params *params, const struct mixture *mixture, int e) {
  return params_enter(params, "%s%d.", mixture->experts ? mixture->experts : "experts.", e);
}

/* Experts 0 .. ffn - 1 have tensors, then come `zero` that drop their token and those that copy it,
 * then the unconditional one. */
static void list_experts(struct params *params, struct dit_moe *moe, const struct mixture *mixture,
                         int ffn, int zero) {
  struct expert_bank *bank = &moe->bank;
  const struct expert_form *form = NULL;
  for (int e = 0; e < bank->count; e++) {
    struct expert *expert = &bank->expert[e];
    if (e >= ffn && e != moe->router->uncond_expert) {
      expert->kind = e < ffn + zero ? &expert_zero : &expert_copy;
      continue;
    }
    const size_t length = enter_expert(params, mixture, e);
    params->expert = e;
    list_expert(params, expert, bank->width, &form);
    params_leave(params, length);
    if (expert->hidden > bank->hidden) bank->hidden = expert->hidden;
  }
  params->expert = -1;
}

/* What the record says about the router. */
static void configure(struct router_layer *layer, const struct dit_record *r, int number) {
  const struct router *router = layer->router;
  layer->top_k = record_has(r, REC_TOP_K) ? layer_int(&r->top_k, number) : 1;
  for (int k = 0; k < router->key_count; k++) {
    const struct record_key *key = &router->keys[k].key;
    void *out = (char *)layer + key->offset;
    const double value = *record_own(r, key->name);
    if (key->type == RECORD_NUMBER)
      *(double *)out = value;
    else
      *(int *)out = (int)value;
  }
}

static enum ditmoe_status create(struct exec *ex, struct dit *model, int number,
                                 struct dit_moe **out) {
  const struct mixture *mixture = model->config.record.kind;
  const struct router *router = mixture->router;
  const int E = model->config.experts[number];
  struct dit_moe *moe;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *moe, "mixture", &moe));
  model->blocks[number].moe = *out = moe;
  TRY(mem_zalloc(ex->ctx, 1, router->size, "router", &moe->router));
  const bool uncond = router->unconditional &&
                      leave_expert(&model->params, enter_expert(&model->params, mixture, E));
  *moe->router =
      (struct router_layer){.router = router, .experts = E, .uncond_expert = uncond ? E : -1};
  configure(moe->router, &model->config.record, number);
  moe->bank.count = E + uncond;
  moe->bank.width = model->config.width;
  moe->bank.input = ex->compute;
  return mem_zalloc(ex->ctx, (size_t)moe->bank.count, sizeof *moe->bank.expert, "experts",
                    &moe->bank.expert);
}

void list_moe(struct exec *ex, struct dit *model, int number) {
  struct params *params = &model->params;
  const struct dit_record *r = &model->config.record;
  const struct mixture *mixture = r->kind;
  const int E = model->config.experts[number];
  const int zero = layer_int(&r->zero_experts, number), copy = layer_int(&r->copy_experts, number);
  struct dit_moe *moe;
  const size_t length = params_enter(params, "%s", mixture->prefix);
  if (params->status == DITMOE_OK && zero + copy > E)
    params->status = fail(
        ex->ctx, DITMOE_MISMATCH, "%s: %d zero and %d copy experts in block %d, but %s has %d rows",
        params->file->path, zero, copy, number, params_find(params, mixture->gate)->name, E);
  if (params->status == DITMOE_OK) params->status = create(ex, model, number, &moe);
  if (params->status == DITMOE_OK) {
    mixture->router->params(moe->router, params, mixture->gate, model->config.width);
    list_experts(params, moe, mixture, E - zero - copy, zero);
    list_shared(ex, params, moe, mixture->shared);
    moe->adds_input = mixture->adds_input && !moe->shared;
  }
  params_leave(params, length);
}

void moe_free(struct exec *ex, struct dit_moe *moe) {
  if (!moe) return;
  mem_free(ex->ctx, moe->router);
  mem_free(ex->ctx, moe->bank.expert);
  mem_free(ex->ctx, moe->shared);
  mem_free(ex->ctx, moe);
}

/* Binds the mixtures: router, routed experts, the unconditional and the shared expert. */
#include "dit/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const router_names[DIT_KINDS] = {
    [DIT_MOE] = "softmax-topk",
    [DIT_PROMOE_TC] = "prototype-token-choice",
    [DIT_PROMOE_EC] = "prototype-expert-choice",
    [DIT_TC] = "softmax-topk",
    [DIT_EC] = "expert-choice",
    [DIT_DIFFMOE] = "diffmoe",
};

static bool has_form(const struct ditmoe_checkpoint *checkpoint, const char *prefix,
                     const struct expert_form *form) {
  const char *parts[3] = {form->in, form->second, form->out};
  char name[256];
  for (int i = 0; i < 3; i++) {
    if (!parts[i]) continue;
    snprintf(name, sizeof name, "%s%s.weight", prefix, parts[i]);
    if (checkpoint_find(checkpoint, name)) return true;
  }
  return false;
}

static const struct expert_form *find_form(const struct ditmoe_checkpoint *checkpoint,
                                           const char *prefix, const struct expert_form *hint) {
  if (hint && has_form(checkpoint, prefix, hint)) return hint;
  char name[256];
  for (int i = 0; i < EXPERT_FORMS; i++) {
    snprintf(name, sizeof name, "%s%s.weight", prefix, expert_forms[i].in);
    if (checkpoint_find(checkpoint, name)) return &expert_forms[i];
  }
  return hint ? hint : &expert_forms[0];
}

enum ditmoe_status bind_expert(struct binder *b, struct expert *expert, const char *prefix,
                               const struct expert_form **hint) {
  const int D = b->model->config.width;
  const struct expert_form *form = find_form(b->checkpoint, prefix, *hint);
  char in[256], second[256], out[256];
  snprintf(in, sizeof in, "%s%s", prefix, form->in);
  snprintf(second, sizeof second, "%s%s", prefix, form->second ? form->second : "");
  snprintf(out, sizeof out, "%s%s", prefix, form->out);
  const struct tensor *first = checkpoint_find(b->checkpoint, name_at(in, 0, ".weight"));
  bool usable = first && first->rank == 2 && first->shape[0] > 0 && first->shape[0] < 1 << 24;
  int F = usable ? (int)first->shape[0] : D;
  bool paired = form->kind == &expert_swiglu;
  *hint = form;
  expert->kind = form->kind;
  expert->hidden = F;
  struct linear *made = NULL;
  TRY(binder_linear(b, &made,
                    &(struct linear_names){.parts = paired ? 2 : 1,
                                           .paired = paired,
                                           .bias = form->bias,
                                           .in = D,
                                           .out = {F, F},
                                           .name = {in, second}}));
  expert->in = made;
  made = NULL;
  TRY(binder_linear(
      b, &made,
      &(struct linear_names){.parts = 1, .bias = form->bias, .in = F, .out = {D}, .name = {out}}));
  expert->out = made;
  return DITMOE_OK;
}

/* The prototypes with norm 1: a cosine is then a product with a unit token. */
static enum ditmoe_status bind_prototypes(struct binder *b, struct dit_moe *moe, const char *name) {
  const int E = moe->router.experts, D = b->model->config.width;
  const int64_t shape[2] = {E, D};
  struct ditmoe_ctx *ctx = b->ex->ctx;
  const struct tensor *tensor = binder_take(b, name, 2, shape);
  if (!b->create) return DITMOE_OK;
  float *rows = NULL;
  TRY(mem_alloc(ctx, (size_t)tensor->elements, sizeof *rows, "prototypes", &rows));
  tensor_read_f32(rows, tensor, 0, tensor->elements);
  for (int e = 0; e < E; e++) {
    double sum = 0;
    for (int i = 0; i < D; i++) sum += (double)rows[e * D + i] * (double)rows[e * D + i];
    double norm = sqrt(sum) > 1e-12 ? sqrt(sum) : 1e-12;
    for (int i = 0; i < D; i++) rows[e * D + i] = (float)((double)rows[e * D + i] / norm);
  }
  struct tensor unit = {name, DT_F32, 2, {E, D}, tensor->elements, rows};
  struct linear_source source = {.parts = 1, .input = DT_F32, .weight = {&unit}};
  struct linear *gate = NULL;
  enum ditmoe_status status = binder_create(b, &gate, &source);
  moe->router.gate = gate;
  mem_free(ctx, rows);
  return status;
}

static enum ditmoe_status bind_router(struct binder *b, struct dit_moe *moe,
                                      const struct moe_names *family, int layer) {
  const struct dit_record *r = &b->model->config.record;
  const int E = moe->router.experts, D = b->model->config.width;
  const char *gate = name_at(family->prefix, layer, family->gate);
  struct linear *made = NULL;
  moe->router.router = router_find(router_names[r->kind]);
  moe->router.top_k = record_has(r, REC_TOP_K) ? layer_int(&r->top_k, layer) : 1;
  moe->router.capacity = r->capacity;
  moe->router.weights = (enum router_weights)r->router_weight_mode;
  moe->router.uncond_label = r->uncond_label;
  if (r->kind == DIT_PROMOE_TC || r->kind == DIT_PROMOE_EC) return bind_prototypes(b, moe, gate);
  TRY(binder_matrix(b, &made, gate, E, D));
  moe->router.gate = made;
  if (r->kind != DIT_DIFFMOE) return DITMOE_OK;
  char name[256];
  snprintf(name, sizeof name, "%scapacity_predictor.0", name_at(family->prefix, layer, ""));
  TRY(binder_linear(
      b, &made,
      &(struct linear_names){
          .parts = 1, .bias = true, .exact = true, .in = D, .out = {D}, .name = {name}}));
  moe->router.predictor_in = made;
  snprintf(name, sizeof name, "%scapacity_predictor.2", name_at(family->prefix, layer, ""));
  TRY(binder_linear(
      b, &made,
      &(struct linear_names){
          .parts = 1, .bias = true, .exact = true, .in = D, .out = {E}, .name = {name}}));
  moe->router.predictor_out = made;
  binder_ignore(b, name_at(family->prefix, layer, "ema_decay"));
  const int64_t shape[1] = {E};
  float *threshold = NULL;
  TRY(binder_floats(b, &threshold, name_at(family->prefix, layer, "expert_threshold"), 1, shape));
  moe->router.threshold = threshold;
  return DITMOE_OK;
}

static enum ditmoe_status bind_shared(struct binder *b, struct dit_moe *moe, const char *prefix) {
  const struct expert_form *form = NULL;
  bool present = false;
  for (int i = 0; i < EXPERT_FORMS; i++)
    present |= has_form(b->checkpoint, prefix, &expert_forms[i]);
  if (!present) return DITMOE_OK;
  if (!moe->shared)
    TRY(mem_zalloc(b->ex->ctx, 1, sizeof *moe->shared, "shared expert", &moe->shared));
  return bind_expert(b, moe->shared, prefix, &form);
}

/* Experts 0 .. ffn - 1 have tensors, then come those that copy or drop their token, then the
 * unconditional one. */
static enum ditmoe_status bind_experts(struct binder *b, struct dit_moe *moe,
                                       const struct moe_names *family, int layer, int ffn,
                                       int zero) {
  struct expert_bank *bank = &moe->bank;
  struct expert *experts = bank->expert;
  const struct expert_form *form = NULL;
  char prefix[200];
  bank->width = b->model->config.width;
  bank->hidden = 0;
  bank->input = b->ex->compute;
  for (int e = 0; e < bank->count; e++) {
    bool uncond = e == moe->router.uncond_expert;
    b->expert = e;
    if (e >= ffn && !uncond) {
      experts[e] = (struct expert){.kind = e < ffn + zero ? &expert_zero : &expert_copy};
      continue;
    }
    snprintf(prefix, sizeof prefix, "%sexperts.%d.", name_at(family->prefix, layer, ""), e);
    TRY(bind_expert(b, &experts[e], prefix, &form));
    if (experts[e].hidden > bank->hidden) bank->hidden = experts[e].hidden;
  }
  b->expert = -1;
  return DITMOE_OK;
}

enum ditmoe_status bind_moe(struct binder *b, int layer) {
  struct dit *model = b->model;
  struct ditmoe_ctx *ctx = b->ex->ctx;
  const struct dit_record *r = &model->config.record;
  const struct moe_names *family = config_family(b->checkpoint, layer);
  const int E = model->config.experts[layer];
  const int zero = layer_int(&r->zero_experts, layer), copy = layer_int(&r->copy_experts, layer);
  if (zero + copy > E)
    return fail(
        ctx, DITMOE_MISMATCH, "%s: %d zero and %d copy experts in block %d, but %s has %d rows",
        b->checkpoint->path, zero, copy, layer, name_at(family->prefix, layer, family->gate), E);
  struct dit_moe *moe = model->blocks[layer].moe;
  if (!moe) {
    char name[200];
    TRY(mem_zalloc(ctx, 1, sizeof *moe, "mixture", &moe));
    model->blocks[layer].moe = moe;
    snprintf(name, sizeof name, "%sexperts.%d.", name_at(family->prefix, layer, ""), E);
    bool uncond = false;
    for (int i = 0; i < EXPERT_FORMS; i++)
      uncond |= has_form(b->checkpoint, name, &expert_forms[i]);
    uncond &= r->kind == DIT_PROMOE_TC || r->kind == DIT_PROMOE_EC;
    moe->router.experts = E;
    moe->router.uncond_expert = uncond ? E : -1;
    moe->bank.count = E + (uncond ? 1 : 0);
    TRY(mem_zalloc(ctx, (size_t)moe->bank.count, sizeof(struct expert), "experts",
                   &moe->bank.expert));
  }
  TRY(bind_router(b, moe, family, layer));
  TRY(bind_experts(b, moe, family, layer, E - zero - copy, zero));
  char prefix[200];
  snprintf(prefix, sizeof prefix, "%s%s", name_at(family->prefix, layer, ""), family->shared);
  return bind_shared(b, moe, prefix);
}

void free_expert(struct exec *ex, struct expert *expert) {
  if (expert->in) ex->device->ops->linear_destroy(ex, (struct linear *)expert->in);
  if (expert->out) ex->device->ops->linear_destroy(ex, (struct linear *)expert->out);
}

void free_moe(struct exec *ex, struct dit *model, int layer) {
  struct dit_moe *moe = model->blocks[layer].moe;
  if (!moe) return;
  for (int e = 0; moe->bank.expert && e < moe->bank.count; e++)
    free_expert(ex, &moe->bank.expert[e]);
  mem_free(ex->ctx, moe->bank.expert);
  const struct linear *linears[3] = {moe->router.gate, moe->router.predictor_in,
                                     moe->router.predictor_out};
  for (int i = 0; i < 3; i++)
    if (linears[i]) ex->device->ops->linear_destroy(ex, (struct linear *)linears[i]);
  if (moe->router.threshold) ex->device->ops->release(ex, (void *)moe->router.threshold);
  if (moe->shared) free_expert(ex, moe->shared);
  mem_free(ex->ctx, moe->shared);
  mem_free(ex->ctx, moe);
}

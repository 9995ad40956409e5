/* The memory of gradients. */
#include "dit/grads.h"

#include "dit/embed.h"

/* Takes n values of one block of memory; without one, counts them. */
static float *take(struct dit_grads *g, int64_t n) {
  float *values = g->values ? g->values + g->count : NULL;
  g->count += (size_t)n;
  return values;
}

/* [total, in] and [total], as linear_source_read has them. */
static struct linear_grad take_linear(struct dit_grads *g, const struct linear *w) {
  const int64_t total = (int64_t)w->out << w->paired;
  float *weight = take(g, total * w->in);
  return (struct linear_grad){weight, take(g, total)};
}

static struct expert_grad take_expert(struct dit_grads *g, const struct expert *expert) {
  if (!expert || !expert_has_weights(expert)) return (struct expert_grad){{NULL, NULL}, {0}};
  const struct linear_grad in = take_linear(g, expert->in);
  return (struct expert_grad){in, take_linear(g, expert->out)};
}

static struct dit_embedder_grad take_embedder(struct dit_grads *g, const struct dit *model,
                                              const struct dit_embedder *embedder) {
  struct dit_embedder_grad grad = {.time_in = take_linear(g, embedder->time_in)};
  grad.time_out = take_linear(g, embedder->time_out);
  grad.labels = take(g, (int64_t)model->config.label_rows * model->config.width);
  return grad;
}

/* In the order of the forward pass; a mixture's shared expert is its `mlp`. */
static void take_block(struct dit_grads *g, const struct dit *model, int layer) {
  const struct dit_block *block = &model->blocks[layer];
  struct dit_block_grad *grad = &g->blocks[layer];
  const int64_t d = model->config.head_dim, D = model->config.width;
  if (block->embedder) grad->embedder = take_embedder(g, model, block->embedder);
  grad->modulation = take_linear(g, block->modulation);
  grad->qkv = take_linear(g, block->qkv);
  grad->proj = take_linear(g, block->proj);
  if (model->config.rms_norm) grad->norm1 = take(g, D), grad->norm2 = take(g, D);
  if (model->config.qk_norm) {
    grad->qk_norm.q_weight = take(g, d), grad->qk_norm.k_weight = take(g, d);
    if (model->config.qk_bias) grad->qk_norm.q_bias = take(g, d), grad->qk_norm.k_bias = take(g, d);
  }
  grad->mlp = take_expert(g, block->moe ? block->moe->shared : block->mlp);
  if (!block->moe) return;
  grad->router.gate = take_linear(g, block->moe->router->gate);
  for (int e = 0; e < block->moe->bank.count; e++)
    grad->experts[e] = take_expert(g, &block->moe->bank.expert[e]);
}

static void take_all(struct dit_grads *g, const struct dit *model) {
  g->count = 0;
  g->embedder = take_embedder(g, model, &model->embedder);
  if (model->patch_reduce) g->patch_reduce = take_linear(g, model->patch_reduce);
  g->patch_embed = take_linear(g, model->patch_embed);
  if (model->grid.pos_embed)
    g->pos_embed = take(g, (int64_t)model->config.tokens * model->config.width);
  if (model->config.rms_final) g->final_norm = take(g, model->config.width);
  for (int layer = 0; layer < model->config.depth; layer++) take_block(g, model, layer);
  g->final_modulation = take_linear(g, model->final_modulation);
  g->final_linear = take_linear(g, model->final_linear);
}

static enum ditmoe_status alloc_lists(struct exec *ex, const struct dit *model,
                                      struct dit_grads *g) {
  TRY(mem_zalloc(ex->ctx, (size_t)model->config.depth, sizeof *g->blocks, "gradients", &g->blocks));
  for (int layer = 0; layer < model->config.depth; layer++) {
    const struct dit_moe *moe = model->blocks[layer].moe;
    struct expert_grad **experts = &g->blocks[layer].experts;
    if (moe)
      TRY(mem_zalloc(ex->ctx, (size_t)moe->bank.count, sizeof **experts, "gradients", experts));
  }
  return DITMOE_OK;
}

enum ditmoe_status dit_grads_alloc(struct exec *ex, const struct dit *model,
                                   struct dit_grads *out) {
  *out = (struct dit_grads){0};
  enum ditmoe_status status = alloc_lists(ex, model, out);
  if (status == DITMOE_OK) {
    take_all(out, model);
    status = ex->device->ops->alloc(ex, out->count * sizeof(float), "the gradients",
                                    (void **)&out->values);
  }
  if (status != DITMOE_OK) {
    dit_grads_free(ex, model, out);
    return status;
  }
  take_all(out, model);
  be_fill(ex, out->values, 0, out->count * sizeof(float));
  return ex->status;
}

void dit_grads_free(struct exec *ex, const struct dit *model, struct dit_grads *g) {
  if (g->values) ex->device->ops->release(ex, g->values);
  for (int layer = 0; g->blocks && layer < model->config.depth; layer++)
    mem_free(ex->ctx, g->blocks[layer].experts);
  mem_free(ex->ctx, g->blocks);
  *g = (struct dit_grads){0};
}

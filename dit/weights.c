#include "dit/weights.h"
#include "base/system.h"
#include "dit/embed.h"

#include <stdio.h>
#include <string.h>

static enum ditmoe_status bind_one(struct binder *b, struct linear **out, const char *name,
                                   int rows, int in) {
  return binder_linear(
      b, out,
      &(struct linear_names){.parts = 1, .bias = true, .in = in, .out = {rows}, .name = {name}});
}

static enum ditmoe_status bind_exact(struct binder *b, struct linear **out, const char *name,
                                     int rows, int in) {
  return binder_linear(
      b, out,
      &(struct linear_names){
          .parts = 1, .bias = true, .exact = true, .in = in, .out = {rows}, .name = {name}});
}

/* The patch embedding is a convolution [D, C, p, p] whose patches do not overlap: a matrix. */
static enum ditmoe_status bind_patch_embed(struct binder *b) {
  struct dit *model = b->model;
  const struct dit_config *c = &model->config;
  const int64_t shape[4] = {c->width, c->channels, c->patch, c->patch}, bias[1] = {c->width};
  const struct tensor *weight =
      binder_take(b, name_at(c->dialect->patch_embed, 0, ".weight"), 4, shape);
  struct linear_source source = {.parts = 1, .input = DT_F32};
  source.bias[0] = binder_take(b, name_at(c->dialect->patch_embed, 0, ".bias"), 1, bias);
  if (!b->create) return DITMOE_OK;
  struct tensor matrix = *weight;
  matrix.rank = 2;
  matrix.shape[1] = matrix.elements / c->width;
  source.weight[0] = &matrix;
  return binder_create(b, &model->patch_embed, &source);
}

static enum ditmoe_status bind_positions(struct binder *b) {
  struct dit *model = b->model;
  const struct dit_config *c = &model->config;
  struct exec *ex = b->ex;
  const int64_t shape[3] = {1, c->tokens, c->width};
  if (c->dialect->pos_embed)
    return binder_floats(b, &model->pos_embed, c->dialect->pos_embed, 3, shape);
  if (!b->create) return DITMOE_OK;
  size_t count = (size_t)c->tokens * (size_t)c->width;
  float *table = NULL;
  TRY(mem_zalloc(ex->ctx, count, sizeof *table, "positions", &table));
  sincos_positions(table, c->tokens, c->width);
  enum ditmoe_status status =
      ex->device->ops->alloc(ex, count * sizeof *table, "positions", (void **)&model->pos_embed);
  if (status == DITMOE_OK) be_upload(ex, model->pos_embed, table, count * sizeof *table);
  mem_free(ex->ctx, table);
  return status;
}

/* Plain, because those of blocks are compared. */
static enum ditmoe_status bind_time(struct binder *b, struct linear **out, const char *pattern,
                                    int layer, int in) {
  const int D = b->model->config.width;
  const char *name = name_at(pattern, layer, "");
  return binder_linear(b, out,
                       &(struct linear_names){.parts = 1,
                                              .bias = true,
                                              .exact = true,
                                              .in = in,
                                              .out = {D},
                                              .name = {name},
                                              .plain = true});
}

static enum ditmoe_status bind_embedder(struct binder *b, struct dit_embedder *embedder,
                                        int layer) {
  const struct dit_config *c = &b->model->config;
  const int64_t labels[2] = {c->label_rows, c->width};
  TRY(bind_time(b, &embedder->time_in, c->dialect->time_in, layer, TIME_FEATURES));
  TRY(bind_time(b, &embedder->time_out, c->dialect->time_out, layer, c->width));
  return binder_floats(b, &embedder->labels, name_at(c->dialect->labels, layer, ""), 2, labels);
}

static bool same_data(const struct ditmoe_checkpoint *checkpoint, const char *pattern, int layer,
                      const char *rest) {
  const struct tensor *first = tensor_at(checkpoint, pattern, 0, rest);
  const struct tensor *own = tensor_at(checkpoint, pattern, layer, rest);
  if (!first || !own || first->dtype != own->dtype || first->elements != own->elements)
    return false;
  size_t bytes = (size_t)own->elements * dtype_size(own->dtype);
  bool same = memcmp(first->data, own->data, bytes) == 0;
  checkpoint_drop(checkpoint, own);
  return same;
}

/* Diffusers stores an embedder in every block, as a rule all alike: then one is enough. */
static bool embedder_is_copy(const struct binder *b, int layer) {
  const struct dialect *d = b->model->config.dialect;
  return same_data(b->checkpoint, d->labels, layer, "") &&
         same_data(b->checkpoint, d->time_in, layer, ".weight") &&
         same_data(b->checkpoint, d->time_in, layer, ".bias") &&
         same_data(b->checkpoint, d->time_out, layer, ".weight") &&
         same_data(b->checkpoint, d->time_out, layer, ".bias");
}

static enum ditmoe_status bind_block_embedder(struct binder *b, int layer) {
  struct dit *model = b->model;
  if (!strstr(model->config.dialect->labels, "%d") || layer == 0) return DITMOE_OK;
  if (b->create && embedder_is_copy(b, layer)) return DITMOE_OK;
  struct dit_embedder unused = {0};
  if (!b->create) return bind_embedder(b, &unused, layer);
  if (!model->block_embedders)
    TRY(mem_zalloc(b->ex->ctx, (size_t)model->config.depth, sizeof *model->block_embedders,
                   "blocks", &model->block_embedders));
  model->blocks[layer].embedder = &model->block_embedders[layer];
  return bind_embedder(b, &model->block_embedders[layer], layer);
}

static enum ditmoe_status bind_qk_norm(struct binder *b, struct dit_block *block, int layer) {
  struct qk_norm *norm = &block->qk_norm;
  const struct dit_config *c = &b->model->config;
  const int64_t shape[1] = {c->head_dim};
  const struct dialect *d = c->dialect;
  if (!c->qk_norm) return DITMOE_OK;
  norm->eps = (float)c->record.qk_norm_eps;
  TRY(binder_floats(b, (float **)&norm->q_weight, name_at(d->q_norm, layer, ".weight"), 1, shape));
  TRY(binder_floats(b, (float **)&norm->q_bias, name_at(d->q_norm, layer, ".bias"), 1, shape));
  TRY(binder_floats(b, (float **)&norm->k_weight, name_at(d->k_norm, layer, ".weight"), 1, shape));
  return binder_floats(b, (float **)&norm->k_bias, name_at(d->k_norm, layer, ".bias"), 1, shape);
}

static enum ditmoe_status bind_attention(struct binder *b, struct dit_block *block, int layer) {
  const struct dit_config *c = &b->model->config;
  const int D = c->width;
  const struct dialect *d = c->dialect;
  struct linear_names qkv = {
      .parts = 1, .bias = true, .in = D, .out = {3 * D}, .name = {name_at(d->qkv[0], layer, "")}};
  if (d->qkv[1]) {
    qkv.parts = 3;
    for (int i = 0; i < 3; i++) qkv.out[i] = D, qkv.name[i] = name_at(d->qkv[i], layer, "");
  }
  TRY(binder_linear(b, &block->qkv, &qkv));
  TRY(bind_qk_norm(b, block, layer));
  return bind_one(b, &block->proj, name_at(d->proj, layer, ""), D, D);
}

static enum ditmoe_status bind_block(struct binder *b, int layer) {
  const struct dit_config *c = &b->model->config;
  struct dit_block *block = &b->model->blocks[layer];
  const struct expert_form *form = NULL;
  b->layer = layer;
  TRY(bind_block_embedder(b, layer));
  TRY(bind_exact(b, &block->modulation, name_at(c->dialect->modulation, layer, ""), 6 * c->width,
                 c->width));
  TRY(bind_attention(b, block, layer));
  if (c->experts[layer]) return bind_moe(b, layer);
  if (!block->mlp)
    TRY(mem_zalloc(b->ex->ctx, 1, sizeof *block->mlp, "feed-forward part", &block->mlp));
  return bind_expert(b, block->mlp, name_at(c->dialect->mlp, layer, ""), &form);
}

static enum ditmoe_status walk(struct binder *b) {
  struct dit *model = b->model;
  const struct dit_config *c = &model->config;
  b->layer = b->expert = -1;
  TRY(bind_patch_embed(b));
  TRY(bind_positions(b));
  TRY(bind_embedder(b, &model->embedder, 0));
  for (int layer = 0; layer < c->depth; layer++) TRY(bind_block(b, layer));
  b->layer = -1;
  TRY(bind_exact(b, &model->final_modulation, c->dialect->final_modulation, 2 * c->width,
                 c->width));
  return bind_one(b, &model->final_linear, c->dialect->final_linear,
                  c->patch * c->patch * c->out_channels, c->width);
}

/* Refuses a model that this machine cannot hold, before it tries. */
static enum ditmoe_status check_memory(const struct binder *b) {
  double available = (double)system_memory_available();
  if (b->bytes <= available) return DITMOE_OK;
  return fail(b->ex->ctx, DITMOE_NOMEM, "%s: the weights need %.1f GiB in %s, %.1f GiB are free",
              b->checkpoint->path, b->bytes / 0x1p30, b->ex->compute == DT_BF16 ? "bf16" : "f32",
              available / 0x1p30);
}

static enum ditmoe_status make_lists(struct binder *b) {
  struct ditmoe_ctx *ctx = b->ex->ctx;
  struct dit *model = b->model;
  size_t depth = (size_t)model->config.depth, stored = b->packed ? b->packed->file->count : 0;
  TRY(mem_zalloc(ctx, b->checkpoint->count, sizeof *b->taken, "list of tensors", &b->taken));
  TRY(mem_zalloc(ctx, stored, sizeof *b->adopted, "list of tensors", &b->adopted));
  TRY(mem_zalloc(ctx, 1, 1024, "load report", &b->report));
  TRY(mem_zalloc(ctx, depth, sizeof *model->blocks, "blocks", &model->blocks));
  return DITMOE_OK;
}

enum ditmoe_status weights_bind(struct binder *b) {
  enum ditmoe_status status;
  TRY_DONE(make_lists(b));
  TRY_DONE(walk(b));
  TRY_DONE(binder_finish(b));
  TRY_DONE(check_memory(b));
  if (b->sink) TRY_DONE(b->sink->begin(b->sink, b));
  b->create = true;
  TRY_DONE(walk(b));
done:
  mem_free(b->ex->ctx, b->taken);
  mem_free(b->ex->ctx, b->adopted);
  mem_free(b->ex->ctx, b->report);
  return status;
}

static void free_linear(struct exec *ex, struct linear *linear) {
  if (linear) ex->device->ops->linear_destroy(ex, linear);
}

static void free_floats(struct exec *ex, float *floats) {
  if (floats) ex->device->ops->release(ex, floats);
}

static void free_embedder(struct exec *ex, struct dit_embedder *embedder) {
  free_linear(ex, embedder->time_in);
  free_linear(ex, embedder->time_out);
  free_floats(ex, embedder->labels);
}

static void free_block(struct exec *ex, struct dit *model, int layer) {
  struct dit_block *block = &model->blocks[layer];
  if (block->embedder) free_embedder(ex, &model->block_embedders[layer]);
  free_linear(ex, block->modulation);
  free_linear(ex, block->qkv);
  free_linear(ex, block->proj);
  free_floats(ex, (float *)block->qk_norm.q_weight);
  free_floats(ex, (float *)block->qk_norm.q_bias);
  free_floats(ex, (float *)block->qk_norm.k_weight);
  free_floats(ex, (float *)block->qk_norm.k_bias);
  if (block->mlp) free_expert(ex, block->mlp);
  mem_free(ex->ctx, block->mlp);
  free_moe(ex, model, layer);
}

void weights_free(struct exec *ex, struct dit *model) {
  for (int layer = 0; model->blocks && layer < model->config.depth; layer++)
    free_block(ex, model, layer);
  free_embedder(ex, &model->embedder);
  free_linear(ex, model->patch_embed);
  free_floats(ex, model->pos_embed);
  free_linear(ex, model->final_modulation);
  free_linear(ex, model->final_linear);
  for (size_t i = 0; i < model->suspect_count; i++) mem_free(ex->ctx, model->suspects[i].name);
  mem_free(ex->ctx, model->suspects);
  mem_free(ex->ctx, model->block_embedders);
  mem_free(ex->ctx, model->blocks);
}

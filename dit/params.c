/* Walks over a model and lists its parameters. */
#include "dit/params.h"
#include "dit/embed.h"
#include "dit/families.h"

#include <stdio.h>
#include <string.h>

/* A convolution [out, in, p, p] whose patches do not overlap: a matrix. */
static void list_patch_layer(struct params *params, const struct linear **slot, int out, int in,
                             int p, bool bias, const char *name) {
  params_linear(params, slot,
                &(struct linear_form){.parts = 1,
                                      .in = in * p * p,
                                      .out = {out},
                                      .name = {name},
                                      .bias = bias,
                                      .flags = PARAM_EXACT | PARAM_PLAIN,
                                      .patch = p});
}

static void list_patches(struct dit *model) {
  const struct dit_config *c = &model->config;
  const struct dialect *d = c->dialect;
  struct params *params = &model->params;
  const int D = c->width;
  if (c->reduced)
    list_patch_layer(params, &model->patch_reduce, c->reduced, c->channels, c->patch, false,
                     d->patch_reduce);
  list_patch_layer(params, &model->patch_embed, D, c->reduced ? c->reduced : c->channels,
                   c->reduced ? 1 : c->patch, true, d->patch_embed);
  if (c->positions == POSITIONS_STORED)
    params_floats(params, &model->grid.pos_embed, 3, (int64_t[3]){1, c->tokens, D}, PARAM_FIXED,
                  d->pos_embed);
  if (c->prefix)
    params_floats(params, &model->prefix_positions, 3, (int64_t[3]){1, c->prefix, D}, 0,
                  d->prefix_positions);
  if (c->rope == ROPE_ADJACENT && d->rope_cos) { /* as they are made here */
    const int64_t table[2] = {c->tokens, c->head_dim};
    params_unused(params, 2, table, d->rope_cos);
    params_unused(params, 2, table, d->rope_sin);
  }
}

/* eps, and the weight [D] of an RMSNorm. */
static void list_norm(struct dit *model, struct row_norm *norm, const char *name, bool rms,
                      double eps) {
  struct params *params = &model->params;
  norm->eps = (float)eps;
  if (!rms) return;
  const size_t length = params_enter(params, "%s", name);
  params_floats(params, &norm->weight, 1, (int64_t[1]){model->config.width}, 0, ".weight");
  params_leave(params, length);
}

enum { EMBEDDER_GROUPS = 3 };

/* Plain, because those of blocks are compared. */
static void list_embedder(struct dit *model, struct dit_embedder *embedder) {
  const struct dit_config *c = &model->config;
  const uint32_t flags = PARAM_EXACT | PARAM_PLAIN;
  const int D = c->width;
  struct params *params = &model->params;
  params_matrix(params, &embedder->time_in, D, TIME_FEATURES, true, flags, c->dialect->time_in);
  params_matrix(params, &embedder->time_out, D, D, true, flags, c->dialect->time_out);
  params_floats(params, &embedder->labels, 2, (int64_t[2]){c->label_rows, D}, 0,
                c->dialect->labels);
}

/* Diffusers stores an embedder in every block, as a rule all alike: then the first, of groups
 * `first` and on, is enough. */
static void list_block_embedder(struct dit *model, int layer, int first) {
  struct params *params = &model->params;
  if (!model->block_embedders || layer == 0) return;
  list_embedder(model, &model->block_embedders[layer]);
  if (params->status != DITMOE_OK) return;
  for (int i = 0; i < EMBEDDER_GROUPS; i++)
    params->group[params->group_count - EMBEDDER_GROUPS + (size_t)i].original = first + i;
}

static void list_qk_norm(struct dit *model, struct qk_norm *norm) {
  const struct dit_config *c = &model->config;
  const float **slots[2][2] = {{&norm->q_weight, &norm->q_bias}, {&norm->k_weight, &norm->k_bias}};
  norm->eps = (float)c->record.qk_norm_eps;
  for (int k = 0; k < 2; k++) {
    const size_t length =
        params_enter(&model->params, "%s", k ? c->dialect->k_norm : c->dialect->q_norm);
    for (int bias = 0; bias <= c->qk_bias; bias++)
      params_floats(&model->params, slots[k][bias], 1, (int64_t[1]){c->head_dim}, 0,
                    bias ? ".bias" : ".weight");
    params_leave(&model->params, length);
  }
}

static void list_attention(struct dit *model, struct dit_block *block) {
  const struct dit_config *c = &model->config;
  const int D = c->width, inner = c->inner;
  const struct dialect *d = c->dialect;
  struct params *params = &model->params;
  struct linear_form qkv = {
      .parts = 1, .in = D, .out = {3 * inner, D, D}, .name = {d->qkv[0], d->qkv[1], d->qkv[2]}};
  if (d->qkv[1]) qkv.parts = 3, qkv.out[0] = D;
  qkv.bias = true;
  params_linear(params, &block->qkv, &qkv);
  if (c->qk_norm) list_qk_norm(model, &block->qk_norm);
  params_matrix(params, &block->proj, D, inner, true, 0, d->proj);
}

static void list_mlp(struct exec *ex, struct dit *model, struct dit_block *block) {
  struct params *params = &model->params;
  const struct mixture *mixture = model->config.record.kind;
  const struct expert_form *form = NULL;
  if (params->status == DITMOE_OK)
    params->status = mem_zalloc(ex->ctx, 1, sizeof *block->mlp, "feed-forward part", &block->mlp);
  if (params->status != DITMOE_OK) return;
  const size_t length = params_enter(params, "%s", model->config.dialect->mlp);
  list_expert(params, block->mlp, model->config.width, &form);
  if (block->mlp->kind == &expert_gelu && mixture->mlp) block->mlp->kind = mixture->mlp;
  params_leave(params, length);
}

static void list_block(struct exec *ex, struct dit *model, int layer, int first_embedder) {
  const struct dit_config *c = &model->config;
  struct dit_block *block = &model->blocks[layer];
  model->params.layer = layer;
  list_block_embedder(model, layer, first_embedder);
  params_matrix(&model->params, &block->modulation, 6 * c->width, c->width, true, PARAM_EXACT,
                c->dialect->modulation);
  list_norm(model, &block->norm1, c->dialect->norm1, c->rms_norm, c->record.norm_eps);
  list_attention(model, block);
  list_norm(model, &block->norm2, c->dialect->norm2, c->rms_norm, c->record.norm2_eps);
  if (c->experts[layer])
    list_moe(ex, model, layer);
  else
    list_mlp(ex, model, block);
}

/* Of training alone. */
static void list_ignored(struct dit *model, const struct ditmoe_checkpoint *checkpoint) {
  const struct family *family = model->config.family;
  if (!family || !family->ignored) return;
  for (size_t i = 0; i < checkpoint->count; i++) {
    const char *name = checkpoint->tensors[i].name;
    if (strncmp(name, family->ignored, strlen(family->ignored)) != 0) continue;
    params_unused(&model->params, -1, NULL, name);
    model->ignored++;
  }
}

static void walk(struct exec *ex, struct dit *model) {
  const struct dit_config *c = &model->config;
  struct params *params = &model->params;
  list_patches(model);
  const int first_embedder = (int)params->group_count;
  list_embedder(model, &model->embedder);
  for (int layer = 0; layer < c->depth; layer++) list_block(ex, model, layer, first_embedder);
  params->layer = -1;
  list_norm(model, &model->final_norm, c->dialect->final_norm, c->rms_final, c->record.norm_eps);
  params_matrix(params, &model->final_modulation, 2 * c->width, c->width, true, PARAM_EXACT,
                c->dialect->final_modulation);
  params_matrix(params, &model->final_linear, c->patch * c->patch * c->out_channels, c->width, true,
                0, c->dialect->final_linear);
}

enum ditmoe_status dit_params(struct exec *ex, struct dit *model,
                              const struct ditmoe_checkpoint *checkpoint,
                              const struct packed *packed, const char *record) {
  struct dit_config *c = &model->config;
  char network[96];
  TRY(config_infer(ex->ctx, c, checkpoint, record));
  model->grid.rows = model->grid.cols = c->size / c->patch;
  const size_t depth = (size_t)c->depth;
  TRY(mem_zalloc(ex->ctx, depth, sizeof *model->blocks, "blocks", &model->blocks));
  if (strstr(c->dialect->labels, "%d"))
    TRY(mem_zalloc(ex->ctx, depth, sizeof *model->block_embedders, "blocks",
                   &model->block_embedders));
  model->params = params_begin(ex->ctx, checkpoint);
  model->params.packed = packed;
  walk(ex, model);
  list_ignored(model, checkpoint);
  snprintf(network, sizeof network, "%s model of width %d, depth %d", c->record.kind->kind,
           c->width, c->depth);
  return params_match(&model->params, ex, &(struct params_what){network, true});
}

void dit_params_free(struct exec *ex, struct dit *model) {
  params_free(&model->params, ex);
  for (int layer = 0; model->blocks && layer < model->config.depth; layer++) {
    mem_free(ex->ctx, model->blocks[layer].mlp);
    moe_free(ex, model->blocks[layer].moe);
  }
  mem_free(ex->ctx, model->block_embedders);
  mem_free(ex->ctx, model->blocks);
}

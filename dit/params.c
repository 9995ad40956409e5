/* Walks over a model and lists its parameters. */
#include "dit/params.h"
#include "dit/embed.h"
#include "dit/families.h"

#include <stdio.h>
#include <string.h>

/* The patch embedding is a convolution [D, C, p, p] whose patches do not overlap: a matrix. */
static void list_patches(struct dit *model) {
  const struct dit_config *c = &model->config;
  const struct dialect *d = c->dialect;
  params_linear(&model->params, &model->patch_embed,
                &(struct linear_form){.parts = 1,
                                      .in = c->channels * c->patch * c->patch,
                                      .out = {c->width},
                                      .name = {d->patch_embed},
                                      .bias = true,
                                      .flags = PARAM_EXACT | PARAM_PLAIN,
                                      .patch = c->patch});
  if (d->pos_embed)
    params_floats(&model->params, &model->grid.pos_embed, 3, (int64_t[3]){1, c->tokens, c->width},
                  PARAM_FIXED, d->pos_embed);
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
    for (int bias = 0; bias < 2; bias++)
      params_floats(&model->params, slots[k][bias], 1, (int64_t[1]){c->head_dim}, 0,
                    bias ? ".bias" : ".weight");
    params_leave(&model->params, length);
  }
}

static void list_attention(struct dit *model, struct dit_block *block) {
  const struct dit_config *c = &model->config;
  const int D = c->width;
  const struct dialect *d = c->dialect;
  struct params *params = &model->params;
  struct linear_form qkv = {
      .parts = 1, .in = D, .out = {3 * D, D, D}, .name = {d->qkv[0], d->qkv[1], d->qkv[2]}};
  if (d->qkv[1]) qkv.parts = 3, qkv.out[0] = D;
  qkv.bias = true;
  params_linear(params, &block->qkv, &qkv);
  if (c->qk_norm) list_qk_norm(model, &block->qk_norm);
  params_matrix(params, &block->proj, D, D, true, 0, d->proj);
}

static void list_mlp(struct exec *ex, struct dit *model, struct dit_block *block) {
  struct params *params = &model->params;
  const struct expert_form *form = NULL;
  if (params->status == DITMOE_OK)
    params->status = mem_zalloc(ex->ctx, 1, sizeof *block->mlp, "feed-forward part", &block->mlp);
  if (params->status != DITMOE_OK) return;
  const size_t length = params_enter(params, "%s", model->config.dialect->mlp);
  list_expert(params, block->mlp, model->config.width, &form);
  params_leave(params, length);
}

static void list_block(struct exec *ex, struct dit *model, int layer, int first_embedder) {
  const struct dit_config *c = &model->config;
  struct dit_block *block = &model->blocks[layer];
  model->params.layer = layer;
  list_block_embedder(model, layer, first_embedder);
  params_matrix(&model->params, &block->modulation, 6 * c->width, c->width, true, PARAM_EXACT,
                c->dialect->modulation);
  list_attention(model, block);
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

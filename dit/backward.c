/* The backward pass: forward.c, embed.c, block.c and moe.c in the other direction. dX is the
 * gradient of the loss by X. */
#include "dit/grads.h"

#include "dit/embed.h"
#include "dit/positions.h"

/* y = x W^T + b: dW += dy^T x, db += the rows of dy, and dx [rows, in] = dy W of dy [rows, out]. */
static void linear_bwd(struct exec *ex, float *dx, const struct linear_grad *grad, const float *dy,
                       struct act x, const struct linear *w, int64_t rows) {
  be_linear_bwd_weight(ex, grad, dy, x, w, rows);
  be_linear_bwd_input(ex, dx, dy, w, rows);
}

/* y = h W_out^T + b_out, h = activation(u W_in^T + b_in): du [rows, D] of dy [rows, D], with the h
 * [rows, F] that ffn_forward left. */
static void ffn_bwd(struct exec *ex, float *du, const struct expert *expert,
                    const struct expert_grad *grad, const float *dy, struct act h, struct act u,
                    int64_t rows) {
  size_t mark = arena_mark(&ex->arena);
  float *dh = be_floats(ex, rows * expert->hidden);
  float *dsums = be_floats(ex, (rows * expert->hidden) << expert->in->paired);
  linear_bwd(ex, dh, &grad->out, dy, h, expert->out, rows);
  be_hidden_bwd(ex, dsums, dh, u, expert, rows);
  linear_bwd(ex, du, &grad->in, dsums, u, expert->in, rows);
  arena_reset(&ex->arena, mark);
}

/* y[t] = shared(u[t]) + sum over its rows r of weight[r] expert(u[t]), weight = router(u): du of
 * dy, both [B, T, D], is the sum of three ways:
 *
 *   experts  drows[r] = weight[r] dy[t], through both products, summed over the rows of a token
 *   shared   dy through an MLP
 *   router   dweight[r] = dy[t] . rows[r], through its scores; the choice itself is a constant */
static void moe_bwd(struct exec *ex, const struct dit *model, int layer,
                    const struct dit_block_acts *a, float *du, const float *dy,
                    const struct dit_block_grad *grad, const struct dit_input *in) {
  const struct dit_moe *moe = model->blocks[layer].moe;
  const struct router_input router_in = dit_router_input(model, layer, a, in);
  const struct dispatch *d = &a->plan;
  const int D = model->config.width;
  const int64_t n = (int64_t)d->tokens * D;
  struct moe_waves w = {0};
  if (!moe->router->router->bwd) {
    exec_fail(ex,
              fail(ex->ctx, DITMOE_FAILED, "router %s has no gradient", moe->router->router->name));
    return;
  }
  size_t mark = arena_mark(&ex->arena);
  float *drows = be_floats(ex, d->capacity * D), *dx = be_floats(ex, d->capacity * D);
  float *dweight = be_floats(ex, d->capacity), *part = be_floats(ex, n);
  be_combine_rows_bwd(ex, drows, dweight, dy, a->rows, d, D);
  while (moe_next_wave(ex, model, layer, d, &w))
    be_experts_bwd(ex, dx, grad->experts, drows, a->u2, a->h, d, &w.wave);
  be_dispatch_bwd(ex, du, dx, d, D);
  if (moe->adds_input) be_add(ex, du, du, dy, n);
  if (moe->shared) {
    ffn_bwd(ex, part, moe->shared, &grad->mlp, dy, a->shared_h, a->u2, d->tokens);
    be_add(ex, du, du, part, n);
  }
  moe->router->router->bwd(ex, moe->router, &router_in, d, &grad->router, part, dweight);
  be_add(ex, du, du, part, n);
  arena_reset(&ex->arena, mark);
}

/* attn = o W_proj^T + b, o = softmax(q k^T / sqrt(d)) v, qkv = norm(u1 W_qkv^T + b): du1 of dattn,
 * both [B, T, D]. */
static void attention_bwd(struct exec *ex, const struct dit *model, int layer,
                          const struct dit_block_acts *a, float *du1, const float *dattn,
                          const struct dit_block_grad *grad, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_block *block = &model->blocks[layer];
  const int B = in->B, T = dit_block_tokens(model, layer, in), H = c->heads, d = c->head_dim;
  const int64_t rows = (int64_t)B * T, inner = c->inner;
  size_t mark = arena_mark(&ex->arena);
  float *d_o = be_floats(ex, rows * inner), *dqkv = be_floats(ex, rows * 3 * inner), *draw = dqkv;
  linear_bwd(ex, d_o, &grad->proj, dattn, a->o, block->proj, rows);
  be_attention_bwd(ex, dqkv, d_o, a->qkv, a->o, a->lse, B, T, H, d);
  positions_turn(ex, model, layer, dqkv, -1, in);
  if (c->qk_norm) {
    draw = be_floats(ex, rows * 3 * inner);
    be_qk_norm_bwd(ex, draw, &grad->qk_norm, dqkv, a->qkv_raw, &block->qk_norm, rows, H, d);
  }
  linear_bwd(ex, du1, &grad->qkv, draw, a->u1, block->qkv, rows);
  arena_reset(&ex->arena, mark);
}

/* dx is that of x_out, then of x_mid, then of x_in: both halves add to the residual stream, so its
 * gradient passes each unchanged,
 *
 *   dx_mid = dx_out + (gate' dx_out back through ffn and LN)
 *   dx_in  = dx_mid + (gate dx_mid back through attention and LN)
 *
 * and what reaches the rows shift, scale and gate goes on to silu(c) through their layer. */
void dit_block_bwd(struct exec *ex, const struct dit *model, int layer,
                   const struct dit_block_acts *a, float *dx, float *dsilu_c,
                   const struct dit_block_grad *grad, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_block *block = &model->blocks[layer];
  const int B = in->B, T = dit_block_tokens(model, layer, in), D = c->width, stride = 6 * D;
  const int64_t n = (int64_t)B * T * D;
  const float *scale_1 = a->mod + D, *gate_1 = a->mod + 2 * D;
  const float *scale_2 = a->mod + 4 * D, *gate_2 = a->mod + 5 * D;
  size_t mark = arena_mark(&ex->arena);
  float *dmod = be_floats(ex, (int64_t)B * stride), *dc = be_floats(ex, (int64_t)B * D);
  float *dy = be_floats(ex, n), *du = be_floats(ex, n); /* of a half's result and its input */

  be_gated_add_bwd(ex, dmod + 5 * D, dy, dx, gate_2, stride, a->ffn, B, T, D);
  if (block->moe)
    moe_bwd(ex, model, layer, a, du, dy, grad, in);
  else
    ffn_bwd(ex, du, block->mlp, &grad->mlp, dy, a->h, a->u2, (int64_t)B * T);
  const struct modulation_grad half_2 = {dmod + 3 * D, dmod + 4 * D, grad->norm2};
  be_norm_modulate_bwd(ex, dy, &half_2, du, a->x_mid, scale_2, stride, B, T, D, &block->norm2);
  be_add(ex, dx, dx, dy, n);

  be_gated_add_bwd(ex, dmod + 2 * D, dy, dx, gate_1, stride, a->attn, B, T, D);
  attention_bwd(ex, model, layer, a, du, dy, grad, in);
  const struct modulation_grad half_1 = {dmod, dmod + D, grad->norm1};
  be_norm_modulate_bwd(ex, dy, &half_1, du, a->x_in, scale_1, stride, B, T, D, &block->norm1);
  be_add(ex, dx, dx, dy, n);

  linear_bwd(ex, dc, &grad->modulation, dmod, act_f32(a->silu_c), block->modulation, B);
  be_add(ex, dsilu_c, dsilu_c, dc, (int64_t)B * D);
  arena_reset(&ex->arena, mark);
}

static void condition_bwd(struct exec *ex, const struct dit *model,
                          const struct dit_embedder *embedder, const struct dit_condition_acts *a,
                          const struct dit_embedder_grad *grad, const float *dsilu_c,
                          const struct dit_input *in) {
  const int B = in->B, D = model->config.width;
  const int64_t n = (int64_t)B * D;
  size_t mark = arena_mark(&ex->arena);
  float *dcondition = be_floats(ex, n), *dhidden = be_floats(ex, n);
  be_silu_bwd(ex, dcondition, dsilu_c, a->condition, n);
  if (grad->labels) be_gather_rows_bwd(ex, grad->labels, dcondition, in->labels, B, D);
  linear_bwd(ex, dhidden, &grad->time_out, dcondition, act_f32(a->hidden), embedder->time_out, B);
  be_silu_bwd(ex, dhidden, dhidden, a->sums, n);
  be_linear_bwd_weight(ex, &grad->time_in, dhidden, act_f32(a->features), embedder->time_in, B);
  arena_reset(&ex->arena, mark);
}

/* dx [B, T, D], dsilu_c [B, D] of dout. */
static void final_layer_bwd(struct exec *ex, const struct dit *model, const struct dit_acts *acts,
                            float *dx, float *dsilu_c, const struct dit_grads *grads,
                            const float *dout, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_grid *grid = dit_grid_of(model, in);
  const int B = in->B, T = grid->rows * grid->cols, D = c->width, p = c->patch;
  size_t mark = arena_mark(&ex->arena);
  float *dpatches = be_floats(ex, (int64_t)B * T * p * p * c->out_channels);
  float *du = be_floats(ex, (int64_t)B * T * D), *dmod = be_floats(ex, (int64_t)B * 2 * D);
  be_unpatchify_bwd(ex, dpatches, dout, B, c->out_channels, grid->rows * p, grid->cols * p, p);
  linear_bwd(ex, du, &grads->final_linear, dpatches, acts->u, model->final_linear, (int64_t)B * T);
  const struct modulation_grad final = {dmod, dmod + D, grads->final_norm};
  be_norm_modulate_bwd(ex, dx, &final, du, acts->x, acts->mod + D, 2 * D, B, T, D,
                       &model->final_norm);
  linear_bwd(ex, dsilu_c, &grads->final_modulation, dmod, act_f32(acts->condition.silu_c),
             model->final_modulation, B);
  arena_reset(&ex->arena, mark);
}

/* dx of dtokens [B, T, D], which is overwritten. */
static void embed_patches_bwd(struct exec *ex, const struct dit *model, const struct dit_acts *acts,
                              float *dx, float *dtokens, const struct dit_grads *grads,
                              const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_grid *grid = dit_grid_of(model, in);
  const int B = dit_images(in), T = grid->rows * grid->cols, p = c->patch;
  const int64_t rows = (int64_t)B * T, image = (int64_t)T * c->width;
  const struct linear *last = model->patch_embed;
  const float *dlast = dtokens;
  size_t mark = arena_mark(&ex->arena);
  for (int b = B; b < in->B; b += B) be_add(ex, dtokens, dtokens, dtokens + b * image, B * image);
  if (grads->pos_embed && grid->pos_embed == model->grid.pos_embed)
    be_add_rows_bwd(ex, grads->pos_embed, dtokens, B, image);
  be_linear_bwd_weight(ex, &grads->patch_embed, dtokens, act_f32(acts->reduced), model->patch_embed,
                       rows);
  if (model->patch_reduce) {
    float *dreduced = be_floats(ex, rows * c->reduced);
    be_linear_bwd_input(ex, dreduced, dtokens, model->patch_embed, rows);
    be_linear_bwd_weight(ex, &grads->patch_reduce, dreduced, act_f32(acts->patches),
                         model->patch_reduce, rows);
    last = model->patch_reduce, dlast = dreduced;
  }
  if (dx) {
    float *dpatches = be_floats(ex, rows * c->channels * p * p);
    be_linear_bwd_input(ex, dpatches, dlast, last, rows);
    be_patchify_bwd(ex, dx, dpatches, B, c->channels, grid->rows * p, grid->cols * p, p);
  }
  arena_reset(&ex->arena, mark);
}

/* Block `layer`, whose own embedder, if it has one, ends here. */
static void run_block_bwd(struct exec *ex, const struct dit *model, struct dit_acts *acts,
                          int layer, float *dx, float *dsilu_c, const struct dit_grads *grads,
                          const struct dit_input *in) {
  const struct dit_embedder *own = model->blocks[layer].embedder;
  struct dit_block_acts *a = &acts->blocks[layer];
  const int64_t n = (int64_t)in->B * model->config.width;
  size_t mark = arena_mark(&ex->arena);
  float *dc = own ? be_floats(ex, n) : dsilu_c;
  if (own) be_fill(ex, dc, 0, (size_t)n * sizeof *dc);
  if (acts->keep == KEEP_INPUTS) {
    struct dit_input again = *in;
    again.tap = NULL;
    dit_block_carve(ex, model, layer, a, in, true);
    dit_block(ex, model, layer, a, &again);
  }
  dit_block_bwd(ex, model, layer, a, dx, dc, &grads->blocks[layer], in);
  if (own)
    condition_bwd(ex, model, own, &acts->embedders[layer], &grads->blocks[layer].embedder, dc, in);
  arena_reset(&ex->arena, mark);
}

void dit_backward(struct exec *ex, const struct dit *model, struct dit_acts *acts, float *dx,
                  const struct dit_grads *grads, const float *dout, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = in->B;
  if (c->prefix) {
    exec_fail(ex, fail(ex->ctx, DITMOE_FAILED, "in-context tokens have no gradient"));
    return;
  }
  size_t mark = arena_mark(&ex->arena);
  float *dtokens = be_floats(ex, (int64_t)B * dit_tokens(model, in) * c->width);
  float *dsilu_c = be_floats(ex, (int64_t)B * c->width);
  final_layer_bwd(ex, model, acts, dtokens, dsilu_c, grads, dout, in);
  for (int layer = c->depth - 1; layer >= 0; layer--)
    run_block_bwd(ex, model, acts, layer, dtokens, dsilu_c, grads, in);
  condition_bwd(ex, model, &model->embedder, &acts->condition, &grads->embedder, dsilu_c, in);
  embed_patches_bwd(ex, model, acts, dx, dtokens, grads, in);
  arena_reset(&ex->arena, mark);
}

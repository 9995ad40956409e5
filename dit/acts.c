/* The memory of activations. */
#include "dit/acts.h"

#include "dit/embed.h"

enum ditmoe_status dit_acts_init(struct ditmoe_ctx *ctx, const struct dit *model,
                                 enum dit_keep keep, struct dit_acts *out) {
  const size_t depth = (size_t)model->config.depth;
  *out = (struct dit_acts){.keep = keep};
  enum ditmoe_status status =
      mem_zalloc(ctx, depth, sizeof *out->blocks, "activations of blocks", &out->blocks);
  if (status == DITMOE_OK && model->block_embedders)
    status =
        mem_zalloc(ctx, depth, sizeof *out->embedders, "activations of embedders", &out->embedders);
  if (status != DITMOE_OK) dit_acts_fini(ctx, out);
  return status;
}

void dit_acts_fini(struct ditmoe_ctx *ctx, struct dit_acts *acts) {
  mem_free(ctx, acts->embedders);
  mem_free(ctx, acts->blocks);
  *acts = (struct dit_acts){0};
}

struct router_input dit_router_input(const struct dit *model, int layer,
                                     const struct dit_block_acts *acts,
                                     const struct dit_input *in) {
  return (struct router_input){.u = acts->u2_exact,
                               .labels = in->labels,
                               .B = in->B,
                               .T = dit_block_tokens(model, layer, in),
                               .D = model->config.width,
                               .routing = in->routing,
                               .logits = acts->logits};
}

void dit_condition_carve(struct exec *ex, const struct dit *model, struct dit_condition_acts *acts,
                         int B, bool keep) {
  const int64_t n = (int64_t)B * model->config.width;
  acts->features = be_floats(ex, (int64_t)B * TIME_FEATURES);
  acts->hidden = be_floats(ex, n);
  acts->sums = keep ? be_floats(ex, n) : acts->hidden;
  acts->time = be_floats(ex, n);
  acts->condition = be_floats(ex, n);
}

/* What lies above `end`, the largest extent of arrays that share memory, is free. */
static void skip_to(struct exec *ex, size_t end) {
  if (arena_mark(&ex->arena) < end) arena_reset(&ex->arena, end);
}

/* qkv [B, T, 3, H, d], its raw form if q and k are normalised, lse [B, H, T], o [B, T, H, d]. */
static void carve_attention(struct exec *ex, const struct dit *model, int layer,
                            struct dit_block_acts *a, int64_t rows, bool keep) {
  const struct dit_config *c = &model->config;
  const int64_t inner = c->inner;
  a->qkv = be_floats(ex, rows * 3 * inner);
  a->qkv_raw = keep && c->qk_norm ? be_floats(ex, rows * 3 * inner) : a->qkv;
  a->lse = keep ? be_floats(ex, rows * c->heads) : NULL;
  a->o = be_acts(ex, model->blocks[layer].proj->input, rows * inner);
}

/* Tokens of the second half: those of the first are no longer used if nothing is kept. */
static struct act carve_u2(struct exec *ex, const struct dit_block_acts *a, enum dtype type,
                           int64_t n, bool keep) {
  return keep || a->u1.type != type ? be_acts(ex, type, n) : a->u1;
}

/* u2 in f32 and as the experts want it [B, T, D], the plan, hidden activations of the shared expert
 * [B T, F] and of the routed ones [R, F], rows [R, D]; R = the plan's capacity. The first of these
 * two is used up before the second is written. */
static void carve_moe(struct exec *ex, const struct dit *model, int layer, struct dit_block_acts *a,
                      const struct dit_input *in, bool keep) {
  const struct dit_moe *moe = model->blocks[layer].moe;
  const struct expert_bank *bank = &moe->bank;
  const int64_t rows = (int64_t)in->B * dit_block_tokens(model, layer, in), D = model->config.width;
  struct act exact = carve_u2(ex, a, DT_F32, rows * D, keep);
  const struct router_input router_in = dit_router_input(model, layer, a, in);
  a->u2_exact = exact.data;
  a->u2 = bank->input == DT_F32 ? exact : carve_u2(ex, a, bank->input, rows * D, keep);
  be_dispatch_alloc(ex, &a->plan, bank->count, (int)rows,
                    moe->router->router->assignments(moe->router, &router_in));
  const size_t mark = arena_mark(&ex->arena);
  size_t end = mark;
  if (moe->shared) {
    a->shared = be_floats(ex, rows * D);
    const size_t hidden = arena_mark(&ex->arena);
    a->shared_h = be_acts(ex, moe->shared->out->input, rows * moe->shared->hidden);
    end = arena_mark(&ex->arena);
    if (!keep) arena_reset(&ex->arena, hidden);
  }
  a->h = be_acts(ex, bank->input, a->plan.capacity * bank->hidden);
  a->rows = be_floats(ex, a->plan.capacity * D);
  skip_to(ex, end);
}

/* Without keeping, attention's arrays and those of the second half lie in the same memory. */
void dit_block_carve(struct exec *ex, const struct dit *model, int layer, struct dit_block_acts *a,
                     const struct dit_input *in, bool keep) {
  const struct dit_block *block = &model->blocks[layer];
  const int B = in->B, D = model->config.width;
  const int64_t rows = (int64_t)B * dit_block_tokens(model, layer, in);
  a->mod = be_floats(ex, (int64_t)B * 6 * D);
  a->ffn = be_floats(ex, rows * D);
  a->attn = keep ? be_floats(ex, rows * D) : a->ffn;
  a->x_mid = keep ? be_floats(ex, rows * D) : a->x_out;
  a->u1 = be_acts(ex, block->qkv->input, rows * D);
  const size_t mark = arena_mark(&ex->arena);
  carve_attention(ex, model, layer, a, rows, keep);
  const size_t end = arena_mark(&ex->arena);
  if (!keep) arena_reset(&ex->arena, mark);
  if (block->moe) {
    carve_moe(ex, model, layer, a, in, keep);
  } else {
    a->u2 = carve_u2(ex, a, block->mlp->in->input, rows * D, keep);
    a->h = be_acts(ex, block->mlp->out->input, rows * block->mlp->hidden);
  }
  skip_to(ex, end);
}

/* The mixture of experts: the router makes a plan, the executor runs it, the shared expert is
 * added. */
#include "dit/dit.h"

/* Steps 2 and 3 for all experts, in as many waves as the store takes; without a store all of them
 * are in memory. */
static void run_experts(struct exec *ex, const struct dit *model, int layer, float *rows,
                        struct act h, struct act u, const struct dispatch *d) {
  const struct expert_bank *bank = &model->blocks[layer].moe->bank;
  struct expert_store *store = model->store;
  struct expert_wave wave = {.bank = bank, .count = bank->count};
  int32_t counts[DIT_MAX_EXPERTS];
  if (store && store->wants_rows) be_dispatch_rows(ex, counts, d);
  for (int n = 0; be_active(ex); n++) {
    if (store ? !store->wave(store, ex, layer, n, store->wants_rows ? counts : NULL, &wave) : n > 0)
      return;
    be_experts_in(ex, h, u, d, &wave);
    be_experts_out(ex, rows, h, u, d, &wave);
  }
}

/* The executor, in five steps that a parallel version can spread over machines: order the plan,
 * dispatch rows to experts, run the experts, combine with the weights, un-order into tokens. On one
 * machine the second happens inside the first product and the last two are one. add [tokens, D] or
 * NULL joins the result. */
static void run_plan(struct exec *ex, const struct dit *model, int layer, float *y, struct act u,
                     struct dispatch *d, const float *add, const struct dit_input *in) {
  const struct expert_bank *bank = &model->blocks[layer].moe->bank;
  const int D = bank->width;
  size_t mark = arena_mark(&ex->arena);
  struct act h = be_acts(ex, bank->input, d->capacity * bank->hidden); /* [R, F] */
  float *rows = be_floats(ex, d->capacity * D);                        /* [R, D] */

  be_dispatch_order(ex, d);
  run_experts(ex, model, layer, rows, h, u, d);
  const struct dit_tap_data seen = {
      TAP_EXPERT_ROWS, layer, in->B, model->config.tokens, D, rows, d, NULL};
  dit_look(ex, in, &seen);
  be_combine_rows(ex, y, rows, d, add, D);
  arena_reset(&ex->arena, mark);
}

void moe_forward(struct exec *ex, const struct dit *model, int layer, float *y, const float *tokens,
                 const struct dit_input *in) {
  const struct dit_moe *moe = model->blocks[layer].moe;
  const int B = in->B, T = model->config.tokens, D = model->config.width;
  const int64_t rows = (int64_t)B * T;
  const struct router_input router_in = {tokens, in->labels, B, T, D, in->routing};
  struct dispatch d;
  struct router_trace trace = {0};
  float *shared = NULL; /* [B, T, D] */
  size_t mark = arena_mark(&ex->arena);
  struct act u = be_narrowed(ex, moe->bank.input, tokens, rows * D); /* [B, T, D] */
  be_dispatch_alloc(ex, &d, moe->bank.count, B * T,
                    moe->router->router->assignments(moe->router, &router_in));
  if (in->replay)
    in->replay->fill(in->replay->user, ex, layer, &d);
  else
    moe->router->router->route(ex, moe->router, &router_in, &d, &trace);
  if (moe->shared) {
    shared = be_floats(ex, rows * D);
    ffn_forward(ex, moe->shared, shared, u, rows);
  }
  run_plan(ex, model, layer, y, u, &d, shared, in);
  dit_look(ex, in,
           &(struct dit_tap_data){TAP_ROUTER, layer, B, T, moe->router->experts, NULL, &d, &trace});
  arena_reset(&ex->arena, mark);
}

void ffn_forward(struct exec *ex, const struct expert *expert, float *y, struct act u,
                 int64_t rows) {
  size_t mark = arena_mark(&ex->arena);
  struct act h = be_acts(ex, expert->out->input, rows * expert->hidden); /* [rows, F] */
  be_hidden(ex, h, u, expert, rows);
  be_linear(ex, y, h, expert->out, rows);
  arena_reset(&ex->arena, mark);
}

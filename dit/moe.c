/* The mixture of experts: the router makes a plan, the executor runs it, the shared expert is
 * added. */
#include "dit/acts.h"

bool moe_next_wave(struct exec *ex, const struct dit *model, int layer, const struct dispatch *d,
                   struct moe_waves *w) {
  const struct expert_bank *bank = &model->blocks[layer].moe->bank;
  struct expert_store *store = model->store;
  const int n = w->number++;
  if (n == 0) w->wave = (struct expert_wave){.bank = bank, .count = bank->count};
  if (n == 0 && store && store->wants_rows) be_dispatch_rows(ex, w->rows, d);
  if (!be_active(ex)) return false;
  if (!store) return n == 0;
  return store->wave(store, ex, layer, n, store->wants_rows ? w->rows : NULL, &w->wave);
}

/* The executor, in five steps that a parallel version can spread over machines: order the plan,
 * dispatch rows to experts, run the experts, combine with the weights, un-order into tokens. On one
 * machine the second happens inside the first product and the last two are one. The shared expert's
 * output, or where the model says so the input, joins the result. */
static void run_plan(struct exec *ex, const struct dit *model, int layer, struct dit_block_acts *a,
                     const struct dit_input *in) {
  const int T = dit_block_tokens(model, layer, in), D = model->config.width;
  struct moe_waves w = {0};
  be_dispatch_order(ex, &a->plan);
  while (moe_next_wave(ex, model, layer, &a->plan, &w)) {
    be_experts_in(ex, a->h, a->u2, &a->plan, &w.wave);
    be_experts_out(ex, a->rows, a->h, a->u2, &a->plan, &w.wave);
  }
  dit_look(ex, in,
           &(struct dit_tap_data){TAP_EXPERT_ROWS, layer, in->B, T, D, a->rows, &a->plan, NULL});
  be_combine_rows(ex, a->ffn, a->rows, &a->plan,
                  model->blocks[layer].moe->adds_input ? a->u2_exact : a->shared, D);
}

/* ffn[t] = shared(u2[t]) + sum over k of gate[t, k] expert[t, k](u2[t]), [B, T, D], where the
 * router chose expert and gate from u2 in f32 and the experts see it in their own type. */
void moe_forward(struct exec *ex, const struct dit *model, int layer, struct dit_block_acts *a,
                 const struct dit_input *in) {
  const struct dit_moe *moe = model->blocks[layer].moe;
  const int B = in->B, T = dit_block_tokens(model, layer, in), D = model->config.width;
  const int64_t rows = (int64_t)B * T;
  const struct router_input router_in = dit_router_input(model, layer, a, in);
  struct router_trace trace = {0};
  size_t mark = arena_mark(&ex->arena);
  if (a->u2.type != DT_F32) be_narrow(ex, a->u2, a->u2_exact, rows * D);
  if (in->replay)
    in->replay->fill(in->replay->user, ex, layer, &a->plan);
  else
    moe->router->router->route(ex, moe->router, &router_in, &a->plan, &trace);
  if (moe->shared) ffn_forward(ex, moe->shared, a->shared, a->shared_h, a->u2, rows);
  run_plan(ex, model, layer, a, in);
  dit_look(ex, in,
           &(struct dit_tap_data){TAP_ROUTER, layer, B, T, moe->router->experts, NULL, &a->plan,
                                  &trace});
  arena_reset(&ex->arena, mark);
}

/* y = activation(u W_in^T + b_in) W_out^T + b_out, [rows, D] to [rows, F] to [rows, D] */
void ffn_forward(struct exec *ex, const struct expert *expert, float *y, struct act h, struct act u,
                 int64_t rows) {
  be_hidden(ex, h, u, expert, rows);
  be_linear(ex, y, h, expert->out, rows);
}

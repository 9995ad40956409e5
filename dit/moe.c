/* The mixture of experts: the router makes a plan, the executor runs it, the shared expert is
 * added. */
#include "dit/dit.h"

/* The executor, in five steps that a parallel version can spread over machines: order the plan,
 * dispatch rows to experts, run the experts, combine with the weights, un-order into tokens. */
static void run_plan(struct backend *be, const struct dit *model, int layer, float *y,
                     const float *u, struct dispatch *d, const struct dit_input *in) {
  const struct dit_moe *moe = model->blocks[layer].moe;
  const int D = model->config.width;
  const struct expert *experts[DIT_MAX_EXPERTS];
  struct expert_store *store = model->store;
  size_t mark = arena_mark(&be->arena);
  float *rows = be_floats(be, d->capacity * D);        /* [R, D] */
  float *h = be_floats(be, d->capacity * moe->hidden); /* [R, F] */
  float *out = be_floats(be, d->capacity * D);         /* [R, D] */

  be_dispatch_order(be, d);
  be_dispatch_rows(be, rows, u, d, D);
  int acquired = 0;
  for (; acquired < moe->experts && be_active(be); acquired++)
    experts[acquired] = store->acquire(store, be, layer, acquired);
  be_experts_in(be, h, rows, d, experts, D, moe->hidden);
  be_experts_out(be, out, h, rows, d, experts, D, moe->hidden);
  for (int e = 0; e < acquired; e++) store->release(store, be, layer, e);
  dit_look(
      be, in,
      &(struct dit_tap_data){TAP_EXPERT_ROWS, layer, in->B, model->config.tokens, D, out, d, NULL});
  be_combine_rows(be, out, d, D);
  be_unorder_rows(be, y, out, d, D);
  arena_reset(&be->arena, mark);
}

void moe_forward(struct backend *be, const struct dit *model, int layer, float *y, const float *u,
                 const struct dit_input *in) {
  const struct dit_moe *moe = model->blocks[layer].moe;
  const int B = in->B, T = model->config.tokens, D = model->config.width;
  const struct router_input router_in = {u, in->labels, B, T, D, in->routing};
  struct dispatch d;
  struct router_trace trace = {0};
  size_t mark = arena_mark(&be->arena);
  be_dispatch_alloc(be, &d, moe->experts, B * T,
                    moe->router.router->assignments(&moe->router, &router_in));
  moe->router.router->route(be, &moe->router, &router_in, &d, &trace);
  run_plan(be, model, layer, y, u, &d, in);
  dit_look(be, in,
           &(struct dit_tap_data){TAP_ROUTER, layer, B, T, moe->router.experts, NULL, &d, &trace});
  if (moe->shared) {
    float *shared = be_floats(be, (int64_t)B * T * D);
    ffn_forward(be, moe->shared, shared, u, (int64_t)B * T);
    be_add(be, y, y, shared, (int64_t)B * T * D);
  }
  arena_reset(&be->arena, mark);
}

void ffn_forward(struct backend *be, const struct expert *expert, float *y, const float *u,
                 int64_t rows) {
  size_t mark = arena_mark(&be->arena);
  float *h = be_floats(be, rows * expert->hidden); /* [rows, F] */
  be_linear(be, h, u, expert->in, rows);
  if (expert->kind == EXPERT_GELU) be_gelu(be, h, h, rows * expert->hidden);
  be_linear(be, y, h, expert->out, rows);
  arena_reset(&be->arena, mark);
}

/* One adaLN-Zero block. */
#include "dit/dit.h"

/* y [B, T, D] = attention over u [B, T, D] */
static void attention(struct exec *ex, const struct dit_config *c, const struct dit_block *block,
                      float *y, struct act u, int B) {
  const int T = c->tokens, D = c->width, H = c->heads, d = c->head_dim;
  const int64_t rows = (int64_t)B * T;
  size_t mark = arena_mark(&ex->arena);
  float *qkv = be_floats(ex, rows * 3 * D);                 /* [B, T, 3, H, d] */
  struct act o = be_acts(ex, block->proj->input, rows * D); /* [B, T, H, d] */
  be_linear(ex, qkv, u, block->qkv, rows);
  if (c->qk_norm) be_qk_norm(ex, qkv, qkv, &block->qk_norm, rows, H, d);
  if (c->record.qk_half) be_qk_round_f16(ex, qkv, rows, D);
  be_attention(ex, o, qkv, B, T, H, d);
  be_linear(ex, y, o, block->proj, rows);
  arena_reset(&ex->arena, mark);
}

void dit_block(struct exec *ex, const struct dit *model, int layer, float *x, const float *silu_c,
               const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_block *block = &model->blocks[layer];
  const int B = in->B, T = c->tokens, D = c->width, stride = 6 * D;
  size_t mark = arena_mark(&ex->arena);
  float *mod = be_floats(ex, (int64_t)B * stride); /* [B, 6, D] */
  float *y = be_floats(ex, (int64_t)B * T * D);
  struct act u = be_acts(ex, block->qkv->input, (int64_t)B * T * D); /* modulated tokens */
  const float *shift_1 = mod, *scale_1 = mod + D, *gate_1 = mod + 2 * D;
  const float *shift_2 = mod + 3 * D, *scale_2 = mod + 4 * D, *gate_2 = mod + 5 * D;

  be_linear(ex, mod, act_f32(silu_c), block->modulation, B);

  be_norm_modulate(ex, u, x, shift_1, scale_1, stride, B, T, D, (float)c->record.norm_eps);
  attention(ex, c, block, y, u, B);
  dit_look(ex, in, &(struct dit_tap_data){TAP_ATTENTION, layer, B, T, D, y, NULL, NULL});
  be_gated_add(ex, x, x, gate_1, stride, y, B, T, D);

  if (block->moe) { /* routers see the tokens in f32 */
    struct act exact = be_acts(ex, DT_F32, (int64_t)B * T * D);
    be_norm_modulate(ex, exact, x, shift_2, scale_2, stride, B, T, D, (float)c->record.norm2_eps);
    moe_forward(ex, model, layer, y, exact.data, in);
  } else {
    be_norm_modulate(ex, u, x, shift_2, scale_2, stride, B, T, D, (float)c->record.norm2_eps);
    ffn_forward(ex, block->mlp, y, u, (int64_t)B * T);
  }
  dit_look(ex, in, &(struct dit_tap_data){TAP_FFN, layer, B, T, D, y, NULL, NULL});
  be_gated_add(ex, x, x, gate_2, stride, y, B, T, D);

  dit_look(ex, in, &(struct dit_tap_data){TAP_BLOCK, layer, B, T, D, x, NULL, NULL});
  arena_reset(&ex->arena, mark);
}

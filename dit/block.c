/* One adaLN-Zero block. */
#include "dit/dit.h"

/* y [B, T, D] = attention over u [B, T, D] */
static void attention(struct backend *be, const struct dit_config *c, const struct dit_block *block,
                      float *y, const struct act *u, int B) {
  const int T = c->tokens, D = c->width, H = c->heads, d = c->head_dim;
  const int64_t rows = (int64_t)B * T;
  size_t mark = arena_mark(&be->arena);
  float *qkv = be_floats(be, rows * 3 * D); /* [B, T, 3, H, d] */
  struct act *o = be_acts(be, rows * D);    /* [B, T, H, d]    */
  be_linear(be, qkv, u, block->qkv, rows);
  if (c->qk_norm)
    be_qk_norm(be, qkv, block->q_norm_weight, block->q_norm_bias, block->k_norm_weight,
               block->k_norm_bias, rows, H, d, (float)c->record.qk_norm_eps);
  if (c->record.qk_half) be_qk_round_f16(be, qkv, rows, D);
  be_attention(be, o, qkv, B, T, H, d);
  be_linear(be, y, o, block->proj, rows);
  arena_reset(&be->arena, mark);
}

void dit_block(struct backend *be, const struct dit *model, int layer, float *x,
               const float *silu_c, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_block *block = &model->blocks[layer];
  const int B = in->B, T = c->tokens, D = c->width, stride = 6 * D;
  size_t mark = arena_mark(&be->arena);
  float *mod = be_floats(be, (int64_t)B * stride); /* [B, 6, D] */
  float *y = be_floats(be, (int64_t)B * T * D);
  struct act *u = be_acts(be, (int64_t)B * T * D); /* modulated tokens */
  const float *shift_1 = mod, *scale_1 = mod + D, *gate_1 = mod + 2 * D;
  const float *shift_2 = mod + 3 * D, *scale_2 = mod + 4 * D, *gate_2 = mod + 5 * D;

  be_linear_exact(be, mod, silu_c, block->modulation, B);

  be_norm_modulate(be, u, x, shift_1, scale_1, stride, B, T, D, (float)c->record.norm_eps);
  attention(be, c, block, y, u, B);
  dit_look(be, in, &(struct dit_tap_data){TAP_ATTENTION, layer, B, T, D, y, NULL, NULL});
  be_gated_add(be, x, gate_1, stride, y, B, T, D);

  if (block->moe) { /* routers see the tokens in f32 */
    float *exact = be_floats(be, (int64_t)B * T * D);
    be_norm_modulate_exact(be, exact, x, shift_2, scale_2, stride, B, T, D,
                           (float)c->record.norm2_eps);
    moe_forward(be, model, layer, y, exact, in);
  } else {
    be_norm_modulate(be, u, x, shift_2, scale_2, stride, B, T, D, (float)c->record.norm2_eps);
    ffn_forward(be, block->mlp, y, u, (int64_t)B * T);
  }
  dit_look(be, in, &(struct dit_tap_data){TAP_FFN, layer, B, T, D, y, NULL, NULL});
  be_gated_add(be, x, gate_2, stride, y, B, T, D);

  dit_look(be, in, &(struct dit_tap_data){TAP_BLOCK, layer, B, T, D, x, NULL, NULL});
  arena_reset(&be->arena, mark);
}

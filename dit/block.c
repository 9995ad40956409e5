/* One adaLN-Zero block (Peebles & Xie 2023), with six rows [D] for each image from its condition:
 *
 *   shift, scale, gate, shift', scale', gate' = silu(c) W^T + b
 *   x_mid = x_in  + gate  * attention(LN(x_in) (1 + scale) + shift)
 *   x_out = x_mid + gate' * ffn(LN(x_mid) (1 + scale') + shift')
 *
 * ffn is an MLP or a mixture of experts. */
#include "dit/acts.h"
#include "dit/positions.h"

/* attn [B, T, D] = (softmax(q k^T / sqrt(d)) v) W_proj^T + b, [q, k, v] = u1 W_qkv^T + b, heads of
 * q and k normalised where the model has it, and turned by their positions. */
static void attention(struct exec *ex, const struct dit *model, int layer,
                      const struct dit_block_acts *a, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_block *block = &model->blocks[layer];
  const int B = in->B, T = dit_block_tokens(model, layer, in), H = c->heads, d = c->head_dim;
  const int64_t rows = (int64_t)B * T;
  be_linear(ex, a->qkv_raw, a->u1, block->qkv, rows);
  if (c->qk_norm) be_qk_norm(ex, a->qkv, a->qkv_raw, &block->qk_norm, rows, H, d);
  positions_turn(ex, model, layer, a->qkv, 1, in);
  if (c->record.qk_half) be_qk_round_f16(ex, a->qkv, rows, c->inner);
  be_attention(ex, a->o, a->lse, a->qkv, B, T, H, d);
  be_linear(ex, a->attn, a->o, block->proj, rows);
}

void dit_block(struct exec *ex, const struct dit *model, int layer, struct dit_block_acts *a,
               const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_block *block = &model->blocks[layer];
  const int B = in->B, T = dit_block_tokens(model, layer, in), D = c->width, stride = 6 * D;
  const float *shift_1 = a->mod, *scale_1 = a->mod + D, *gate_1 = a->mod + 2 * D;
  const float *shift_2 = a->mod + 3 * D, *scale_2 = a->mod + 4 * D, *gate_2 = a->mod + 5 * D;

  be_linear(ex, a->mod, act_f32(a->silu_c), block->modulation, B);

  be_norm_modulate(ex, a->u1, a->x_in, shift_1, scale_1, stride, B, T, D, &block->norm1);
  attention(ex, model, layer, a, in);
  dit_look(ex, in, &(struct dit_tap_data){TAP_ATTENTION, layer, B, T, D, a->attn, NULL, NULL});
  be_gated_add(ex, a->x_mid, a->x_in, gate_1, stride, a->attn, B, T, D);

  struct act u2 = block->moe ? act_f32(a->u2_exact) : a->u2; /* routers see the tokens in f32 */
  be_norm_modulate(ex, u2, a->x_mid, shift_2, scale_2, stride, B, T, D, &block->norm2);
  if (block->moe)
    moe_forward(ex, model, layer, a, in);
  else
    ffn_forward(ex, block->mlp, a->ffn, a->h, a->u2, (int64_t)B * T);
  dit_look(ex, in, &(struct dit_tap_data){TAP_FFN, layer, B, T, D, a->ffn, NULL, NULL});
  be_gated_add(ex, a->x_out, a->x_mid, gate_2, stride, a->ffn, B, T, D);

  dit_look(ex, in, &(struct dit_tap_data){TAP_BLOCK, layer, B, T, D, a->x_out, NULL, NULL});
}

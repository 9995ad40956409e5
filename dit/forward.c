/* The forward pass, from latents to prediction. */
#include "dit/dit.h"
#include "dit/embed.h"

/* x [B, T, D] = patches of the latents, embedded, + position; images that stand in the batch more
 * than once are embedded once. */
static void embed_patches(struct backend *be, const struct dit *model, float *x,
                          const float *latents, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = dit_images(in);
  const int64_t image = (int64_t)c->tokens * c->width;
  size_t mark = arena_mark(&be->arena);
  float *patches = be_floats(be, (int64_t)B * c->tokens * c->channels * c->patch * c->patch);
  be_patchify(be, patches, latents, B, c->channels, c->size, c->patch);
  be_linear_exact(be, x, patches, model->patch_embed, (int64_t)B * c->tokens);
  be_add_rows(be, x, model->pos_embed, B, image);
  int32_t *zero = be_ints(be, 1);
  be_upload(be, zero, &(int32_t){0}, sizeof *zero);
  for (int b = B; b < in->B; b++)
    be_gather_rows(be, x + b * image, x + b % B * image, zero, 1, (int)image);
  arena_reset(&be->arena, mark);
}

/* out [B, Cout, S, S] = unpatchify(Linear(mod(LN(x)))) */
static void final_layer(struct backend *be, const struct dit *model, float *out, const float *x,
                        const float *silu_c, int B) {
  const struct dit_config *c = &model->config;
  int T = c->tokens, D = c->width;
  size_t mark = arena_mark(&be->arena);
  float *mod = be_floats(be, (int64_t)B * 2 * D); /* [B, 2D] shift, scale */
  struct act *u = be_acts(be, (int64_t)B * T * D);
  float *patches = be_floats(be, (int64_t)B * T * c->patch * c->patch * c->out_channels);
  be_linear_exact(be, mod, silu_c, model->final_modulation, B);
  be_norm_modulate(be, u, x, mod, mod + D, 2 * D, B, T, D, (float)c->record.norm_eps);
  be_linear(be, patches, u, model->final_linear, (int64_t)B * T);
  be_unpatchify(be, out, patches, B, c->out_channels, c->size, c->patch);
  arena_reset(&be->arena, mark);
}

void dit_forward(struct backend *be, const struct dit *model, float *out, const float *latents,
                 const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = in->B, T = c->tokens, D = c->width;
  float *x = be_floats(be, (int64_t)B * T * D);  /* [B, T, D] residual stream         */
  float *silu_c = be_floats(be, (int64_t)B * D); /* [B, D] silu(time + class embedding) */

  embed_patches(be, model, x, latents, in);
  dit_look(be, in, &(struct dit_tap_data){TAP_EMBEDDED, -1, B, T, D, x, NULL, NULL});
  dit_embed_condition(be, model, &model->embedder, silu_c, in);
  for (int layer = 0; layer < c->depth; layer++) {
    const struct dit_embedder *own = model->blocks[layer].embedder;
    if (own) dit_embed_condition(be, model, own, silu_c, in);
    dit_block(be, model, layer, x, silu_c, in);
  }
  if (model->block_embedders) dit_embed_condition(be, model, &model->embedder, silu_c, in);
  final_layer(be, model, out, x, silu_c, B);
}

enum ditmoe_status dit_predict(struct backend *be, const struct dit *model, float *out,
                               const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const size_t plane = (size_t)c->size * (size_t)c->size, B = (size_t)in->B;
  const size_t images = (size_t)dit_images(in);
  size_t mark = arena_mark(&be->arena);
  float *x = be_floats(be, (int64_t)(B * (size_t)c->channels * plane));
  float *y = be_floats(be, (int64_t)(B * (size_t)c->out_channels * plane));
  be_upload(be, x, in->x, images * (size_t)c->channels * plane * sizeof *x);
  dit_forward(be, model, y, x, in);
  be_download(be, out, y, B * (size_t)c->out_channels * plane * sizeof *y);
  arena_reset(&be->arena, mark);
  return be->status;
}

size_t dit_predict_bytes(const struct backend *be, const struct dit *model, int B) {
  struct backend probe = *be;
  probe.arena = (struct arena){0}; /* not ours to release */
  backend_measure(&probe, be->arena.keep);
  struct dit_input in = {.B = B};
  (void)dit_predict(&probe, model, NULL, &in);
  return probe.arena.peak;
}

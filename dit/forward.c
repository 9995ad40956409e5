/* The forward pass, from latents to prediction. */
#include "dit/dit.h"
#include "dit/embed.h"

/* x [B, T, D] = patches of the latents, embedded, + position; images that stand in the batch more
 * than once are embedded once. */
static void embed_patches(struct exec *ex, const struct dit *model, float *x,
                          const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = dit_images(in);
  const int64_t image = (int64_t)c->tokens * c->width;
  size_t mark = arena_mark(&ex->arena);
  float *patches = be_floats(ex, (int64_t)B * c->tokens * c->channels * c->patch * c->patch);
  be_patchify(ex, patches, in->x, B, c->channels, c->size, c->patch);
  be_linear(ex, x, act_f32(patches), model->patch_embed, (int64_t)B * c->tokens);
  be_add_rows(ex, x, model->pos_embed, B, image);
  for (int b = B; b < in->B; b += B) be_copy(ex, x + b * image, x, (size_t)(B * image) * sizeof *x);
  arena_reset(&ex->arena, mark);
}

/* out [B, Cout, S, S] = unpatchify(Linear(mod(LN(x)))) */
static void final_layer(struct exec *ex, const struct dit *model, float *out, const float *x,
                        const float *silu_c, int B) {
  const struct dit_config *c = &model->config;
  int T = c->tokens, D = c->width;
  size_t mark = arena_mark(&ex->arena);
  float *mod = be_floats(ex, (int64_t)B * 2 * D); /* [B, 2D] shift, scale */
  struct act u = be_acts(ex, model->final_linear->input, (int64_t)B * T * D);
  float *patches = be_floats(ex, (int64_t)B * T * c->patch * c->patch * c->out_channels);
  be_linear(ex, mod, act_f32(silu_c), model->final_modulation, B);
  be_norm_modulate(ex, u, x, mod, mod + D, 2 * D, B, T, D, (float)c->record.norm_eps);
  be_linear(ex, patches, u, model->final_linear, (int64_t)B * T);
  be_unpatchify(ex, out, patches, B, c->out_channels, c->size, c->patch);
  arena_reset(&ex->arena, mark);
}

void dit_forward(struct exec *ex, const struct dit *model, float *out, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = in->B, T = c->tokens, D = c->width;
  float *x = be_floats(ex, (int64_t)B * T * D);  /* [B, T, D] residual stream         */
  float *silu_c = be_floats(ex, (int64_t)B * D); /* [B, D] silu(time + class embedding) */

  embed_patches(ex, model, x, in);
  dit_look(ex, in, &(struct dit_tap_data){TAP_EMBEDDED, -1, B, T, D, x, NULL, NULL});
  dit_embed_condition(ex, model, &model->embedder, silu_c, in);
  for (int layer = 0; layer < c->depth; layer++) {
    const struct dit_embedder *own = model->blocks[layer].embedder;
    if (own) dit_embed_condition(ex, model, own, silu_c, in);
    dit_block(ex, model, layer, x, silu_c, in);
  }
  if (model->block_embedders) dit_embed_condition(ex, model, &model->embedder, silu_c, in);
  final_layer(ex, model, out, x, silu_c, B);
}

enum ditmoe_status dit_predict(struct exec *ex, const struct dit *model, float *out,
                               const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const size_t plane = (size_t)c->size * (size_t)c->size, B = (size_t)in->B;
  const size_t latents = (size_t)dit_images(in) * (size_t)c->channels * plane;
  const size_t outputs = B * (size_t)c->out_channels * plane;
  size_t mark = arena_mark(&ex->arena);
  float *x = be_floats(ex, (int64_t)latents), *y = be_floats(ex, (int64_t)outputs);
  float *time = be_floats(ex, in->B);
  int32_t *labels = be_ints(ex, in->B);
  struct dit_input device = *in;
  device.x = x, device.time = time, device.labels = labels;
  be_upload(ex, x, in->x, latents * sizeof *x);
  be_upload(ex, time, in->time, B * sizeof *time);
  be_upload(ex, labels, in->labels, B * sizeof *labels);
  dit_forward(ex, model, y, &device);
  be_download(ex, out, y, outputs * sizeof *y);
  arena_reset(&ex->arena, mark);
  return ex->status;
}

/* A prediction for its memory. */
struct pass {
  const struct dit *model;
  int B;
};

static void predict_dry(struct exec *ex, void *user) {
  const struct pass *pass = user;
  (void)dit_predict(ex, pass->model, NULL, &(struct dit_input){.B = pass->B});
}

size_t dit_predict_bytes(const struct exec *ex, const struct dit *model, int B) {
  return exec_measure(ex, predict_dry, &(struct pass){model, B});
}

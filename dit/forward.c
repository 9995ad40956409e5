/* The forward pass, from latents to prediction. */
#include "dit/acts.h"
#include "dit/embed.h"

/* x [B, T, D] = patches of the latents, embedded, + position; images that stand in the batch more
 * than once are embedded once. */
static void embed_patches(struct exec *ex, const struct dit *model, struct dit_acts *acts, float *x,
                          const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = dit_images(in);
  const struct dit_grid *grid = dit_grid_of(model, in);
  const int T = grid->rows * grid->cols, p = c->patch;
  const int64_t image = (int64_t)T * c->width;
  size_t mark = arena_mark(&ex->arena);
  acts->patches = be_floats(ex, (int64_t)B * T * c->channels * p * p);
  be_patchify(ex, acts->patches, in->x, B, c->channels, grid->rows * p, grid->cols * p, p);
  be_linear(ex, x, act_f32(acts->patches), model->patch_embed, (int64_t)B * T);
  be_add_rows(ex, x, grid->pos_embed, B, image);
  for (int b = B; b < in->B; b += B) be_copy(ex, x + b * image, x, (size_t)(B * image) * sizeof *x);
  if (!acts->keep) arena_reset(&ex->arena, mark);
}

/* A condition by way of arrays that are carved here. */
static void embed_condition(struct exec *ex, const struct dit *model, const struct dit_acts *acts,
                            const struct dit_embedder *embedder, struct dit_condition_acts *a,
                            const struct dit_input *in) {
  size_t mark = arena_mark(&ex->arena);
  dit_condition_carve(ex, model, a, in->B, acts->keep);
  dit_embed_condition(ex, model, embedder, a, in);
  if (!acts->keep) arena_reset(&ex->arena, mark);
}

/* out [B, Cout, H, W] = unpatchify(Linear(mod(LN(x)))) */
static void final_layer(struct exec *ex, const struct dit *model, struct dit_acts *acts, float *out,
                        const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const struct dit_grid *grid = dit_grid_of(model, in);
  const int B = in->B, T = grid->rows * grid->cols, D = c->width, p = c->patch;
  size_t mark = arena_mark(&ex->arena);
  acts->mod = be_floats(ex, (int64_t)B * 2 * D);
  acts->u = be_acts(ex, model->final_linear->input, (int64_t)B * T * D);
  float *patches = be_floats(ex, (int64_t)B * T * p * p * c->out_channels);
  be_linear(ex, acts->mod, act_f32(acts->condition.silu_c), model->final_modulation, B);
  be_norm_modulate(ex, acts->u, acts->x, acts->mod, acts->mod + D, 2 * D, B, T, D,
                   (float)c->record.norm_eps);
  be_linear(ex, patches, acts->u, model->final_linear, (int64_t)B * T);
  be_unpatchify(ex, out, patches, B, c->out_channels, grid->rows * p, grid->cols * p, p);
  if (!acts->keep) arena_reset(&ex->arena, mark);
}

/* Block `layer` on acts->x, which becomes its output. */
static void run_block(struct exec *ex, const struct dit *model, struct dit_acts *acts, int layer,
                      const struct dit_input *in) {
  const struct dit_embedder *own = model->blocks[layer].embedder;
  const int64_t n = (int64_t)in->B * dit_tokens(model, in) * model->config.width;
  struct dit_block_acts one, *a = acts->keep ? &acts->blocks[layer] : &one;
  *a = (struct dit_block_acts){
      .silu_c = acts->condition.silu_c, .x_in = acts->x, .logits = acts->logits};
  if (own) { /* without keeping, it takes the place of the model's */
    struct dit_condition_acts *c = acts->keep ? &acts->embedders[layer] : &acts->condition;
    if (acts->keep) c->silu_c = be_floats(ex, (int64_t)in->B * model->config.width);
    embed_condition(ex, model, acts, own, c, in);
    a->silu_c = c->silu_c;
  }
  a->x_out = acts->keep ? be_floats(ex, n) : acts->x;
  size_t mark = arena_mark(&ex->arena);
  dit_block_carve(ex, model, layer, a, in, acts->keep == KEEP_ALL);
  dit_block(ex, model, layer, a, in);
  acts->x = a->x_out;
  if (acts->keep != KEEP_ALL) arena_reset(&ex->arena, mark);
}

/* Logits that flow from router to router begin as 0. */
static void begin_logits(struct exec *ex, const struct dit *model, struct dit_acts *acts,
                         const struct dit_input *in) {
  int64_t n = 0;
  for (int layer = 0; layer < model->config.depth; layer++) {
    const struct dit_moe *moe = model->blocks[layer].moe;
    if (moe && moe->router->router->flows)
      n = (int64_t)in->B * dit_tokens(model, in) * moe->router->experts;
  }
  if (n == 0) return;
  acts->logits = be_floats(ex, n);
  be_fill(ex, acts->logits, 0, (size_t)n * sizeof(float));
}

void dit_forward_keep(struct exec *ex, const struct dit *model, struct dit_acts *acts, float *out,
                      const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const int B = in->B, T = dit_tokens(model, in), D = c->width;
  acts->x = be_floats(ex, (int64_t)B * T * D);
  acts->condition.silu_c = be_floats(ex, (int64_t)B * D);

  begin_logits(ex, model, acts, in);
  embed_patches(ex, model, acts, acts->x, in);
  dit_look(ex, in, &(struct dit_tap_data){TAP_EMBEDDED, -1, B, T, D, acts->x, NULL, NULL});
  embed_condition(ex, model, acts, &model->embedder, &acts->condition, in);
  for (int layer = 0; layer < c->depth; layer++) run_block(ex, model, acts, layer, in);
  if (model->block_embedders && !acts->keep) /* the last block has left its own */
    embed_condition(ex, model, acts, &model->embedder, &acts->condition, in);
  final_layer(ex, model, acts, out, in);
}

void dit_forward(struct exec *ex, const struct dit *model, float *out, const struct dit_input *in) {
  dit_forward_keep(ex, model, &(struct dit_acts){.keep = KEEP_NOTHING}, out, in);
}

enum ditmoe_status dit_predict(struct exec *ex, const struct dit *model, float *out,
                               const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  const size_t plane = (size_t)dit_plane(model, in), B = (size_t)in->B;
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

size_t dit_predict_bytes(const struct exec *ex, const struct dit *model,
                         const struct dit_grid *grid, int B) {
  struct exec dry = exec_dry(ex);
  (void)dit_predict(&dry, model, NULL, &(struct dit_input){.B = B, .grid = grid});
  return dry.arena.peak;
}

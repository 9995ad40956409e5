/* The places of tokens: the table of positions that is added to them.
 *
 * A stored table is used as it is for the size a model was trained at. For other sizes the table is
 * made anew, which is right only where the model has learned with a table of this kind: the one of
 * sines and cosines. Where the table is not stored (diffusers), the program it is published for
 * stretches the numbers of rows and columns over the trained size; the original programs number
 * them one by one. */
#include "dit/dit.h"
#include "dit/names.h"
#include "dit/positions.h"

#include <math.h>

/* table [rows cols, D] (host), to be given back with mem_free. */
static enum ditmoe_status make_table(struct exec *ex, const struct dit *model, int rows, int cols,
                                     float **table) {
  const struct dit_config *c = &model->config;
  const size_t tokens = (size_t)rows * (size_t)cols;
  TRY(mem_zalloc(ex->ctx, tokens * (size_t)c->width, sizeof **table, "positions", table));
  sincos_positions(*table, rows, cols, c->dialect->pos_embed ? 0 : model->grid.rows, c->width);
  return DITMOE_OK;
}

/* n floats of the host as device memory. */
static enum ditmoe_status to_device(struct exec *ex, const float *values, size_t n,
                                    const float **out) {
  void *device = NULL;
  TRY(ex->device->ops->alloc(ex, n * sizeof *values, "positions", &device));
  *out = device;
  be_upload(ex, device, values, n * sizeof *values);
  return ex->status;
}

static enum ditmoe_status make_positions(struct exec *ex, const struct dit *model,
                                         struct dit_grid *grid) {
  const size_t n = (size_t)grid->rows * (size_t)grid->cols * (size_t)model->config.width;
  float *table = NULL;
  TRY(make_table(ex, model, grid->rows, grid->cols, &table));
  enum ditmoe_status status = to_device(ex, table, n, &grid->pos_embed);
  mem_free(ex->ctx, table);
  return status;
}

/* The angles by which q and k turn, where they do. */
static enum ditmoe_status make_rope(struct exec *ex, const struct dit *model,
                                    struct dit_grid *grid) {
  const struct dit_config *c = &model->config;
  const size_t pairs = (size_t)c->head_dim / 2, prefix = (size_t)c->prefix * pairs;
  const size_t n = prefix + (size_t)grid->rows * (size_t)grid->cols * pairs;
  float *table = NULL;
  if (c->rope == ROPE_NONE) return DITMOE_OK;
  TRY(mem_zalloc(ex->ctx, 2 * n, sizeof *table, "positions", &table));
  for (size_t i = 0; i < prefix; i++) table[i] = 1;
  rope_table(table + prefix, table + n + prefix, grid->rows, grid->cols, (int)pairs);
  enum ditmoe_status status = to_device(ex, table, 2 * n, &grid->rope);
  mem_free(ex->ctx, table);
  return status;
}

/* Whether the stored table is the formula's, as far as the coarsest type of files tells (bfloat16).
 */
static bool is_sincos(const struct tensor *stored, const float *made) {
  enum { CHUNK = 256 };
  float chunk[CHUNK];
  for (int64_t at = 0; at < stored->elements; at += CHUNK) {
    const int64_t left = stored->elements - at, n = left < CHUNK ? left : CHUNK;
    tensor_read_f32(chunk, stored, at, n);
    for (int64_t i = 0; i < n; i++)
      if (!(fabsf(chunk[i] - made[at + i]) <= 0x1p-8F)) return false;
  }
  return true;
}

enum ditmoe_status dit_grid_own(struct exec *ex, struct dit *model,
                                const struct ditmoe_checkpoint *checkpoint) {
  const struct dit_config *c = &model->config;
  float *made = NULL;
  model->sincos = true;
  if (c->positions == POSITIONS_MADE) TRY(make_positions(ex, model, &model->grid));
  if (c->positions == POSITIONS_STORED) {
    TRY(make_table(ex, model, model->grid.rows, model->grid.cols, &made));
    model->sincos = is_sincos(checkpoint_find(checkpoint, c->dialect->pos_embed), made);
    mem_free(ex->ctx, made);
  }
  return make_rope(ex, model, &model->grid);
}

enum ditmoe_status dit_grid_make(struct exec *ex, const struct dit *model, int height, int width,
                                 struct dit_grid *out) {
  const struct dit_config *c = &model->config;
  struct dit_grid grid = {.rows = height / c->patch, .cols = width / c->patch};
  if (height < 1 || width < 1 || height % c->patch || width % c->patch ||
      (int64_t)grid.rows * grid.cols > DIT_MAX_TOKENS)
    return fail(ex->ctx, DITMOE_USAGE,
                "latents of %dx%d: the sides must be multiples of the patch, %d, and hold at most "
                "%d patches",
                width, height, c->patch, DIT_MAX_TOKENS);
  if (grid.rows == model->grid.rows && grid.cols == model->grid.cols) {
    *out = model->grid;
    return DITMOE_OK;
  }
  if (!model->sincos)
    return fail(ex->ctx, DITMOE_MISMATCH,
                "the positions of this model (%s) are a stored table for latents of %dx%d that "
                "follows no formula: no other size can be made",
                c->dialect->pos_embed, c->size, c->size);
  enum ditmoe_status status =
      c->positions == POSITIONS_NONE ? DITMOE_OK : make_positions(ex, model, &grid);
  if (status == DITMOE_OK) status = make_rope(ex, model, &grid);
  if (status == DITMOE_OK)
    *out = grid;
  else
    dit_grid_free(ex, model, &grid);
  return status;
}

void dit_grid_free(struct exec *ex, const struct dit *model, struct dit_grid *grid) {
  const struct backend_ops *ops = ex->device->ops;
  if (grid->pos_embed != model->grid.pos_embed)
    ops->release(ex, (float *)(uintptr_t)grid->pos_embed);
  if (grid->rope != model->grid.rope) ops->release(ex, (float *)(uintptr_t)grid->rope);
  *grid = (struct dit_grid){0};
}

/* The places of tokens: the table of positions that is added to them.
 *
 * A stored table is used as it is for the size a model was trained at. For other sizes the table is
 * made anew, which is right only where the model has learned with a table of this kind: the one of
 * sines and cosines. Where the table is not stored (diffusers), the program it is published for
 * stretches the numbers of rows and columns over the trained size; the original programs number
 * them one by one. */
#include "dit/dit.h"
#include "dit/embed.h"
#include "dit/names.h"

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

static enum ditmoe_status make_positions(struct exec *ex, const struct dit *model,
                                         struct dit_grid *grid) {
  const size_t bytes =
      (size_t)grid->rows * (size_t)grid->cols * (size_t)model->config.width * sizeof(float);
  float *table = NULL;
  void *device = NULL;
  TRY(make_table(ex, model, grid->rows, grid->cols, &table));
  enum ditmoe_status status = ex->device->ops->alloc(ex, bytes, "positions", &device);
  if (status == DITMOE_OK) be_upload(ex, device, table, bytes);
  grid->pos_embed = device;
  mem_free(ex->ctx, table);
  return status == DITMOE_OK ? ex->status : status;
}

/* Whether the stored table is the formula's, as far as the coarsest type of files tells (bfloat16).
 */
static bool is_sincos(const float *stored, const float *made, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabsf(stored[i] - made[i]) <= 0x1p-8F)) return false;
  return true;
}

static enum ditmoe_status check_formula(struct exec *ex, const struct dit *model) {
  const struct dit_config *c = &model->config;
  const int64_t n = (int64_t)c->tokens * c->width;
  float *made = NULL, *stored = NULL;
  enum ditmoe_status status = make_table(ex, model, model->grid.rows, model->grid.cols, &made);
  if (status == DITMOE_OK)
    status = mem_alloc(ex->ctx, (size_t)n, sizeof *stored, "positions", &stored);
  if (status == DITMOE_OK) {
    be_download(ex, stored, model->grid.pos_embed, (size_t)n * sizeof *stored);
    status = ex->status;
  }
  if (status == DITMOE_OK && !is_sincos(stored, made, n))
    status = fail(ex->ctx, DITMOE_MISMATCH,
                  "the positions of this model (%s) are a stored table for latents of %dx%d that "
                  "follows no formula: no other size can be made",
                  c->dialect->pos_embed, c->size, c->size);
  mem_free(ex->ctx, stored);
  mem_free(ex->ctx, made);
  return status;
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
  if (c->dialect->pos_embed) TRY(check_formula(ex, model));
  enum ditmoe_status status = make_positions(ex, model, &grid);
  if (status == DITMOE_OK)
    *out = grid;
  else
    dit_grid_free(ex, model, &grid);
  return status;
}

void dit_grid_free(struct exec *ex, const struct dit *model, struct dit_grid *grid) {
  if (grid->pos_embed != model->grid.pos_embed)
    ex->device->ops->release(ex, (float *)(uintptr_t)grid->pos_embed);
  *grid = (struct dit_grid){0};
}

enum ditmoe_status dit_grid_own(struct exec *ex, struct dit *model) {
  return model->config.dialect->pos_embed ? DITMOE_OK : make_positions(ex, model, &model->grid);
}

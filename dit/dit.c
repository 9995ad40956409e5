/* Opening and closing a model. */
#include "dit/dit.h"
#include "backend/packed.h"
#include "dit/params.h"

#include <string.h>

/* Packed layers are used as they are, so they must be those that this backend makes. */
static enum ditmoe_status check_layout(const struct exec *ex, const struct packed *packed) {
  char own[LAYOUT_SIZE] = "it has no layout";
  const struct packed_ops *ops = ex->device->ops->packed;
  if (ops) ops->layout(ex, own);
  if (ops && strcmp(own, packed->layout) == 0) return DITMOE_OK;
  const char *dtype = packed_dtype(packed->file);
  return fail(
      ex->ctx, DITMOE_MISMATCH,
      "%s: packed for tier %.50s (%.100s), this run is of backend %s, tier %s (%s); pack it "
      "again with ditmoe-convert --pack from the original file, or use --tier %.50s%s%s",
      packed->file->path, packed->tier, packed->layout, ex->device->ops->name, ex->device->tier,
      own, packed->tier, dtype ? " --dtype " : "", dtype ? dtype : "");
}

/* Blocks whose embedder turned out to be that of the model need none. */
static void find_embedders(struct exec *ex, struct dit *model) {
  const struct dit_embedder *first = &model->embedder;
  bool any = false;
  for (int layer = 1; model->block_embedders && layer < model->config.depth; layer++) {
    const struct dit_embedder *own = &model->block_embedders[layer];
    if (own->time_in == first->time_in && own->time_out == first->time_out &&
        own->labels == first->labels)
      continue;
    model->blocks[layer].embedder = own;
    any = true;
  }
  if (any) return;
  mem_free(ex->ctx, model->block_embedders);
  model->block_embedders = NULL;
}

static enum ditmoe_status load(struct exec *ex, struct dit *model,
                               const struct ditmoe_checkpoint *checkpoint,
                               const struct packed *packed, const char *record) {
  TRY(dit_params(ex, model, checkpoint, packed, record));
  TRY(params_make(&model->params, ex));
  TRY(dit_grid_own(ex, model, checkpoint));
  find_embedders(ex, model);
  return DITMOE_OK;
}

static enum ditmoe_status load_packed(struct exec *ex, struct dit *model,
                                      const struct ditmoe_checkpoint *file, const char *record) {
  struct packed packed;
  TRY(packed_open(ex->ctx, file, &packed));
  enum ditmoe_status status = check_layout(ex, &packed);
  if (status == DITMOE_OK) status = load(ex, model, packed.tensors, &packed, record);
  packed_close(ex->ctx, &packed);
  return status;
}

/* Weights by name (params.c), or packed: mapped as they are (backend/packed.h). */
enum ditmoe_status dit_open(struct exec *ex, const struct ditmoe_checkpoint *checkpoint,
                            const char *record, struct dit **out) {
  struct dit *model = NULL;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *model, "model", &model));
  enum ditmoe_status status = packed_layout(checkpoint) ? load_packed(ex, model, checkpoint, record)
                                                        : load(ex, model, checkpoint, NULL, record);
  if (status == DITMOE_OK)
    *out = model;
  else
    dit_close(ex, model);
  return status;
}

void dit_close(struct exec *ex, struct dit *model) {
  if (!model) return;
  const struct backend_ops *ops = ex->device->ops;
  if (model->config.positions == POSITIONS_MADE)
    ops->release(ex, (float *)(uintptr_t)model->grid.pos_embed);
  ops->release(ex, (float *)(uintptr_t)model->grid.rope);
  dit_params_free(ex, model);
  config_free(ex->ctx, &model->config);
  mem_free(ex->ctx, model);
}

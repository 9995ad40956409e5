/* Opening and closing a model. */
#include "dit/dit.h"
#include "backend/packed.h"
#include "dit/config.h"
#include "dit/weights.h"

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

static enum ditmoe_status bind_packed(struct binder *b, const struct ditmoe_checkpoint *file,
                                      const char *record) {
  struct ditmoe_ctx *ctx = b->ex->ctx;
  struct packed packed;
  TRY(packed_open(ctx, file, &packed));
  b->checkpoint = packed.tensors;
  b->packed = &packed;
  enum ditmoe_status status = check_layout(b->ex, &packed);
  if (status == DITMOE_OK) status = config_infer(ctx, &b->model->config, b->checkpoint, record);
  if (status == DITMOE_OK) status = weights_bind(b);
  packed_close(ctx, &packed);
  return status;
}

enum ditmoe_status dit_open(struct exec *ex, const struct ditmoe_checkpoint *checkpoint,
                            const char *record, struct dit **out) {
  struct dit *model = NULL;
  enum ditmoe_status status;
  TRY(mem_zalloc(ex->ctx, 1, sizeof *model, "model", &model));
  struct binder b = {.ex = ex, .checkpoint = checkpoint, .model = model};
  if (packed_layout(checkpoint)) {
    TRY_DONE(bind_packed(&b, checkpoint, record));
  } else {
    TRY_DONE(config_infer(ex->ctx, &model->config, checkpoint, record));
    TRY_DONE(weights_bind(&b));
  }
  *out = model;
  return DITMOE_OK;
done:
  dit_close(ex, model);
  return status;
}

void dit_close(struct exec *ex, struct dit *model) {
  if (!model) return;
  weights_free(ex, model);
  config_free(ex->ctx, &model->config);
  mem_free(ex->ctx, model);
}

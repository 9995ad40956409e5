/* Opening and closing a model. */
#include "dit/dit.h"
#include "dit/config.h"
#include "dit/weights.h"

enum ditmoe_status dit_open(struct backend *be, const struct ditmoe_checkpoint *checkpoint,
                            const char *record, struct dit **out) {
  struct dit *model = NULL;
  TRY(mem_zalloc(be->ctx, 1, sizeof *model, "model", &model));
  enum ditmoe_status status = config_infer(be->ctx, &model->config, checkpoint, record);
  if (status == DITMOE_OK) status = weights_bind(be, model, checkpoint);
  if (status != DITMOE_OK) {
    dit_close(be, model);
    return status;
  }
  *out = model;
  return DITMOE_OK;
}

void dit_close(struct backend *be, struct dit *model) {
  if (!model) return;
  weights_free(be, model);
  config_free(be->ctx, &model->config);
  mem_free(be->ctx, model);
}

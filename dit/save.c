/* Saving: the table of parameters, with values, as a checkpoint. */
#include "dit/config.h"

static enum ditmoe_status list_tensors(struct ditmoe_ctx *ctx, const struct params *params,
                                       const struct ditmoe_checkpoint *values,
                                       struct tensor *tensors, size_t *count) {
  for (size_t i = 0; i < params->count; i++) {
    const struct param *row = &params->row[i];
    const struct tensor *found = checkpoint_find(values, row->name);
    if (!found && row->flags & PARAM_UNUSED) continue;
    if (!found || !found->data)
      return fail(ctx, DITMOE_MISMATCH, "%s: holds no values of %s", values->path, row->name);
    tensors[(*count)++] = *found;
  }
  return DITMOE_OK;
}

enum ditmoe_status dit_save(struct ditmoe_ctx *ctx, const struct dit *model,
                            const struct ditmoe_checkpoint *values, const char *path) {
  char key[] = CHECKPOINT_RECORD, *record = NULL;
  struct tensor *tensors = NULL;
  size_t count = 0;
  enum ditmoe_status status;
  TRY_DONE(mem_alloc(ctx, model->params.count, sizeof *tensors, "the list of tensors", &tensors));
  TRY_DONE(list_tensors(ctx, &model->params, values, tensors, &count));
  TRY_DONE(record_write_json(ctx, &model->config.record, &record));
  const struct checkpoint_entry entry = {key, record};
  status = safetensors_write(ctx, path, tensors, count, DT_COUNT, &entry, 1);
done:
  mem_free(ctx, record);
  mem_free(ctx, tensors);
  return status;
}

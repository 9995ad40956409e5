/* Means and deviations of latents, as files of them have them. */
#include "base/memory.h"
#include "io/checkpoint.h"
#include "io/json.h"

#include "ditmoe.h"

/* Adds the tensor's values to the object. */
static enum ditmoe_status add_list(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *file,
                                   const char *tensor, const char *member, cJSON *object) {
  const struct tensor *found = checkpoint_find(file, tensor);
  if (!found || !dtype_is_float(found->dtype) || found->elements < 1 || found->elements > 65536)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: no statistics of latents: tensor %s, a number for each channel, is missing",
                file->path, tensor);
  cJSON *list = cJSON_AddArrayToObject(object, member);
  for (int64_t i = 0; list && i < found->elements; i++) {
    float value;
    tensor_read_f32(&value, found, i, 1);
    if (!cJSON_AddItemToArray(list, cJSON_CreateNumber((double)value))) list = NULL;
  }
  return list ? DITMOE_OK : fail(ctx, DITMOE_NOMEM, "%s: no memory to read it", file->path);
}

enum ditmoe_status ditmoe_latent_statistics(struct ditmoe_ctx *ctx, const char *path,
                                            char **record) {
  struct ditmoe_checkpoint *file = NULL;
  TRY(ditmoe_checkpoint_open(ctx, path, NULL, &file));
  cJSON *object = cJSON_CreateObject();
  enum ditmoe_status status = add_list(ctx, file, "mean", "latent_mean", object);
  if (status == DITMOE_OK) status = add_list(ctx, file, "std", "latent_std", object);
  *record = status == DITMOE_OK ? cJSON_PrintUnformatted(object) : NULL;
  if (status == DITMOE_OK && !*record)
    status = fail(ctx, DITMOE_NOMEM, "%s: no memory to read it", path);
  cJSON_Delete(object);
  ditmoe_checkpoint_close(file);
  return status;
}

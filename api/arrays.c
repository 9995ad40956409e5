/* Arrays in files, for those who only look. */
#include "ditmoe_eval.h"
#include "io/npz.h"

struct ditmoe_arrays {
  struct ditmoe_ctx own;
  struct npz *file;
};

enum ditmoe_status ditmoe_arrays_open(struct ditmoe_ctx *ctx, const char *path,
                                      struct ditmoe_arrays **out) {
  struct ditmoe_arrays *arrays;
  TRY(mem_zalloc(ctx, 1, sizeof *arrays, "arrays", &arrays));
  arrays->own.hooks = ctx->hooks;
  enum ditmoe_status status = npz_open(ctx, path, &arrays->file);
  if (status == DITMOE_OK)
    *out = arrays;
  else
    mem_free(ctx, arrays);
  return status;
}

void ditmoe_arrays_close(struct ditmoe_arrays *arrays) {
  if (!arrays) return;
  struct ditmoe_ctx own = arrays->own;
  npz_close(arrays->file);
  mem_free(&own, arrays);
}

int ditmoe_arrays_count(const struct ditmoe_arrays *arrays) { return npz_count(arrays->file); }

void ditmoe_arrays_at(const struct ditmoe_arrays *arrays, int index,
                      struct ditmoe_array_info *out) {
  const struct npz_array *array = npz_at(arrays->file, index);
  *out = (struct ditmoe_array_info){array->name, array->type, array->rank, array->shape};
}

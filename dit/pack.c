/* Packing: the table of a model, with a file in the place of its layers. One layer is in memory at
 * a time; all else is copied from the checkpoint. */
#include "backend/packed.h"
#include "dit/params.h"

#include <stdio.h>
#include <string.h>

struct packer {
  struct exec *ex;
  struct params *params;
  struct tensor *layers; /* U8, in the order of the table; their names are owned */
  size_t count;
  bool *in_layers; /* [checkpoint->count] */
  struct packed_output out;
};

/* Names and sizes. */
static enum ditmoe_status list_layer(struct packer *p, const struct param_group *group) {
  struct ditmoe_ctx *ctx = p->ex->ctx;
  const struct linear shape = params_shape(p->params, group, p->ex);
  const size_t bytes = p->ex->device->ops->packed->bytes(p->ex, &shape);
  char name[PARAM_NAME], *copy;
  for (int i = 0; i < group->weights + group->biases; i++)
    p->in_layers[p->params->row[group->first + (size_t)i].source - p->params->file->tensors] = true;
  params_packed_name(p->params, group, name);
  if (!bytes) return fail(ctx, DITMOE_NOMEM, "%s: is too large", name);
  TRY(mem_room(ctx, p->count, sizeof *p->layers, "list of layers", &p->layers));
  TRY(mem_strdup(ctx, name, &copy));
  p->layers[p->count++] = (struct tensor){.name = copy,
                                          .dtype = DT_U8,
                                          .rank = 1,
                                          .shape = {(int64_t)bytes},
                                          .elements = (int64_t)bytes};
  return DITMOE_OK;
}

/* The layer is made, written and dropped. */
static enum ditmoe_status put_layer(struct packer *p, const struct param_group *group) {
  const struct linear_source source = params_source(p->params, group, p->ex);
  struct linear *made;
  TRY(p->ex->device->ops->linear_create(p->ex, &source, &made));
  packed_put(&p->out, made->data, made->bytes);
  params_inspect(p->params, group, made->finite);
  p->ex->device->ops->linear_destroy(p->ex, made);
  return DITMOE_OK;
}

static enum ditmoe_status for_layers(struct packer *p,
                                     enum ditmoe_status (*call)(struct packer *p,
                                                                const struct param_group *group)) {
  for (size_t i = 0; i < p->params->group_count; i++)
    if (param_group_packs(&p->params->group[i])) TRY(call(p, &p->params->group[i]));
  return DITMOE_OK;
}

/* Names of the tensors that are not finite, each followed by a newline; mem_free it. */
static enum ditmoe_status list_suspects(struct ditmoe_ctx *ctx,
                                        const struct ditmoe_checkpoint *checkpoint, char **out) {
  size_t used = 1;
  TRY(mem_zalloc(ctx, 1, used, "list of tensors", out));
  for (size_t i = 0; i < checkpoint->count; i++) {
    const struct tensor *tensor = &checkpoint->tensors[i];
    bool finite = !dtype_is_float(tensor->dtype) || tensor_all_finite(tensor);
    checkpoint_drop(checkpoint, tensor);
    if (finite) continue;
    size_t length = strlen(tensor->name) + 1;
    TRY(mem_grow(ctx, used, used + length, 1, "list of tensors", out));
    snprintf(*out + used - 1, length + 1, "%s\n", tensor->name);
    used += length;
  }
  return DITMOE_OK;
}

static enum ditmoe_status begin(struct packer *p, const struct dit_record *r, const char *path) {
  struct ditmoe_ctx *ctx = p->ex->ctx;
  const struct ditmoe_checkpoint *checkpoint = p->params->file;
  char layout[LAYOUT_SIZE], *record = NULL, *suspects = NULL;
  enum ditmoe_status status;
  p->ex->device->ops->packed->layout(p->ex, layout);
  TRY_DONE(record_write_json(ctx, r, &record));
  TRY_DONE(list_suspects(ctx, checkpoint, &suspects));
  const struct packed_texts texts = {record, layout, p->ex->device->tier, suspects};
  status = packed_begin(ctx, path, checkpoint, &texts, p->layers, p->count, p->in_layers, &p->out);
done:
  mem_free(ctx, record);
  mem_free(ctx, suspects);
  return status;
}

static enum ditmoe_status check(const struct exec *ex, const struct ditmoe_checkpoint *checkpoint) {
  const char *layout = packed_layout(checkpoint);
  if (layout)
    return fail(ex->ctx, DITMOE_USAGE, "%s: is packed (%s); pack the file that it was made from",
                checkpoint->path, layout);
  if (!ex->device->ops->packed)
    return fail(ex->ctx, DITMOE_USAGE, "backend %s: has no layout to pack for",
                ex->device->ops->name);
  return DITMOE_OK;
}

enum ditmoe_status dit_pack(struct exec *ex, const struct ditmoe_checkpoint *checkpoint,
                            const char *record, const char *path) {
  struct ditmoe_ctx *ctx = ex->ctx;
  struct packer p = {.ex = ex};
  struct dit *model = NULL;
  enum ditmoe_status status;
  TRY(check(ex, checkpoint));
  TRY(mem_zalloc(ctx, checkpoint->count, sizeof *p.in_layers, "list of tensors", &p.in_layers));
  TRY_DONE(mem_zalloc(ctx, 1, sizeof *model, "model", &model));
  TRY_DONE(dit_params(ex, model, checkpoint, NULL, record));
  p.params = &model->params;
  TRY_DONE(for_layers(&p, list_layer));
  TRY_DONE(begin(&p, &model->config.record, path));
  TRY_DONE(for_layers(&p, put_layer));
  status = packed_finish(ctx, &p.out);
done:
  packed_abandon(ctx, &p.out);
  dit_close(ex, model);
  for (size_t i = 0; i < p.count; i++) mem_free(ctx, (char *)(uintptr_t)p.layers[i].name);
  mem_free(ctx, p.layers);
  mem_free(ctx, p.in_layers);
  return status;
}

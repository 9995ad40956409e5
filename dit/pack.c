/* Packing: the walk that opens a model, with a file in the place of its layers. One layer is in
 * memory at a time; all else is copied from the checkpoint. */
#include "backend/packed.h"
#include "dit/weights.h"

#include <stdio.h>
#include <string.h>

struct packer {
  struct binder_sink sink;
  const char *path;
  struct tensor *layers; /* U8, in the order of the walk; their names are owned */
  size_t count;
  bool *in_layers; /* [checkpoint->count] */
  struct packed_output out;
};

static void mark(const struct packer *p, const struct binder *b, const struct tensor *tensor) {
  if (tensor) p->in_layers[tensor - b->checkpoint->tensors] = true;
}

/* The first walk: names and sizes. */
static enum ditmoe_status list_layer(struct packer *p, struct binder *b,
                                     const struct linear_names *names,
                                     const struct linear_source *source) {
  struct ditmoe_ctx *ctx = b->ex->ctx;
  const struct linear shape = binder_shape(names, source);
  const size_t bytes = b->ex->device->ops->packed->bytes(b->ex, &shape);
  char name[256], *copy;
  for (int i = 0; i < source->parts; i++) {
    mark(p, b, source->weight[i]);
    mark(p, b, source->bias[i]);
  }
  if (!bytes) return fail(ctx, DITMOE_NOMEM, "%s: is too large", names->name[0]);
  snprintf(name, sizeof name, "%s" PACKED_ENDING, names->name[0]);
  TRY(mem_room(ctx, p->count, sizeof *p->layers, "list of layers", &p->layers));
  TRY(mem_strdup(ctx, name, &copy));
  p->layers[p->count++] = (struct tensor){.name = copy,
                                          .dtype = DT_U8,
                                          .rank = 1,
                                          .shape = {(int64_t)bytes},
                                          .elements = (int64_t)bytes};
  return DITMOE_OK;
}

/* The second walk: the layer is made, written and dropped. */
static enum ditmoe_status put_layer(struct packer *p, struct binder *b,
                                    const struct linear_source *source) {
  struct linear *made;
  TRY(b->ex->device->ops->linear_create(b->ex, source, &made));
  packed_put(&p->out, made->data, made->bytes);
  enum ditmoe_status status = binder_inspect_all(b, source, made->finite);
  b->ex->device->ops->linear_destroy(b->ex, made);
  return status;
}

static enum ditmoe_status take_layer(struct binder_sink *sink, struct binder *b,
                                     const struct linear_names *names,
                                     const struct linear_source *source) {
  struct packer *p = (struct packer *)(void *)sink;
  return b->create ? put_layer(p, b, source) : list_layer(p, b, names, source);
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

/* Between the walks: the header. */
static enum ditmoe_status begin(struct binder_sink *sink, struct binder *b) {
  struct packer *p = (struct packer *)(void *)sink;
  struct ditmoe_ctx *ctx = b->ex->ctx;
  char layout[LAYOUT_SIZE], *record = NULL, *suspects = NULL;
  enum ditmoe_status status;
  b->ex->device->ops->packed->layout(b->ex, layout);
  TRY_DONE(record_write_json(ctx, &b->model->config.record, &record));
  TRY_DONE(list_suspects(ctx, b->checkpoint, &suspects));
  const struct packed_texts texts = {record, layout, b->ex->device->tier, suspects};
  status =
      packed_begin(ctx, p->path, b->checkpoint, &texts, p->layers, p->count, p->in_layers, &p->out);
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
  struct packer p = {.sink = {begin, take_layer}, .path = path};
  struct dit *model = NULL;
  enum ditmoe_status status;
  TRY(check(ex, checkpoint));
  TRY(mem_zalloc(ctx, checkpoint->count, sizeof *p.in_layers, "list of tensors", &p.in_layers));
  TRY_DONE(mem_zalloc(ctx, 1, sizeof *model, "model", &model));
  struct binder b = {.ex = ex, .checkpoint = checkpoint, .sink = &p.sink, .model = model};
  TRY_DONE(config_infer(ctx, &model->config, checkpoint, record));
  TRY_DONE(weights_bind(&b));
  status = packed_finish(ctx, &p.out);
done:
  packed_abandon(ctx, &p.out);
  dit_close(ex, model);
  for (size_t i = 0; i < p.count; i++) mem_free(ctx, (char *)(uintptr_t)p.layers[i].name);
  mem_free(ctx, p.layers);
  mem_free(ctx, p.in_layers);
  return status;
}

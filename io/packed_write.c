/* Writing packed files, one layer at a time. */
#include "io/formats.h"
#include "io/packed.h"

#include <stdlib.h>

/* Data of a layer are used where the file is mapped. */
enum { ALIGNMENT = 64 };

static enum ditmoe_status list_tensors(struct ditmoe_ctx *ctx,
                                       const struct ditmoe_checkpoint *checkpoint,
                                       const struct tensor *layers, const bool *in_layers,
                                       struct packed_output *out) {
  TRY(mem_alloc(ctx, out->layers + checkpoint->count, sizeof *out->tensors, "the tensor list",
                &out->tensors));
  for (size_t i = 0; i < out->layers; i++)
    out->tensors[out->count++] = (struct stored_tensor){&layers[i], layers[i].dtype};
  for (size_t i = 0; i < checkpoint->count; i++) {
    const struct tensor *tensor = &checkpoint->tensors[i];
    if (!in_layers[i]) out->tensors[out->count++] = (struct stored_tensor){tensor, tensor->dtype};
  }
  safetensors_sort(out->tensors + out->layers, out->count - out->layers);
  return DITMOE_OK;
}

static enum ditmoe_status put_header(struct ditmoe_ctx *ctx,
                                     const struct ditmoe_checkpoint *checkpoint,
                                     const struct packed_texts *texts, const char *list,
                                     struct packed_output *out) {
  const struct checkpoint_entry own[] = {
      metadata_entry(CHECKPOINT_RECORD, texts->record),
      metadata_entry(PACKED_LAYOUT, texts->layout), metadata_entry(PACKED_TIER, texts->tier),
      metadata_entry(PACKED_TENSORS, list), metadata_entry(PACKED_SUSPECTS, texts->suspects)};
  enum { OWN = sizeof own / sizeof *own };
  struct checkpoint_entry *metadata;
  TRY(mem_alloc(ctx, checkpoint->metadata_count + OWN, sizeof *metadata, "the metadata",
                &metadata));
  size_t count = metadata_merge(metadata, checkpoint, own, OWN);
  enum ditmoe_status status = safetensors_begin(ctx, out->path, out->tensors, out->count, metadata,
                                                count, ALIGNMENT, &out->file);
  mem_free(ctx, metadata);
  return status;
}

enum ditmoe_status packed_begin(struct ditmoe_ctx *ctx, const char *path,
                                const struct ditmoe_checkpoint *checkpoint,
                                const struct packed_texts *texts, const struct tensor *layers,
                                size_t layer_count, const bool *in_layers,
                                struct packed_output *out) {
  *out = (struct packed_output){.path = path, .layers = layer_count};
  char *list = safetensors_list(checkpoint->tensors, checkpoint->count);
  enum ditmoe_status status =
      list ? DITMOE_OK : fail(ctx, DITMOE_NOMEM, "not enough memory: the list of tensors");
  if (status == DITMOE_OK) status = list_tensors(ctx, checkpoint, layers, in_layers, out);
  if (status == DITMOE_OK) status = put_header(ctx, checkpoint, texts, list, out);
  if (status != DITMOE_OK) packed_abandon(ctx, out);
  free(list);
  return status;
}

void packed_put(struct packed_output *out, const void *bytes, size_t size) {
  (void)!fwrite(bytes, 1, size, out->file.stream); /* the commit reports the stream's error */
}

enum ditmoe_status packed_finish(struct ditmoe_ctx *ctx, struct packed_output *out) {
  enum ditmoe_status status = DITMOE_OK;
  for (size_t i = out->layers; i < out->count && status == DITMOE_OK; i++)
    status = safetensors_put(ctx, out->path, &out->tensors[i], &out->file);
  if (status == DITMOE_OK) status = file_output_commit(ctx, &out->file);
  packed_abandon(ctx, out);
  return status;
}

void packed_abandon(struct ditmoe_ctx *ctx, struct packed_output *out) {
  file_output_abandon(ctx, &out->file);
  mem_free(ctx, out->tensors);
  *out = (struct packed_output){0};
}

/* Reading the metadata of packed files. */
#include "io/packed.h"
#include "io/formats.h"

#include <string.h>

const char *packed_layout(const struct ditmoe_checkpoint *file) {
  return checkpoint_metadata(file, PACKED_LAYOUT);
}

const char *packed_dtype(const struct ditmoe_checkpoint *file) {
  const char *layout = packed_layout(file), *type = layout ? strchr(layout, ' ') : NULL;
  if (!type) return NULL;
  return strncmp(type, " f32 ", 5) == 0 ? "f32" : strncmp(type, " bf16 ", 6) == 0 ? "bf16" : NULL;
}

/* Gives the listed tensors the data that the file has of them. */
static enum ditmoe_status find_data(struct ditmoe_ctx *ctx, const struct packed *packed) {
  for (size_t i = 0; i < packed->tensors->count; i++) {
    struct tensor *listed = &packed->tensors->tensors[i];
    const struct tensor *stored = checkpoint_find(packed->file, listed->name);
    if (!stored) continue;
    if (stored->dtype != listed->dtype || stored->rank != listed->rank ||
        memcmp(stored->shape, listed->shape, (size_t)stored->rank * sizeof *stored->shape) != 0)
      return fail(ctx, DITMOE_FORMAT, "%s: tensor %s is not as %s describes it", packed->file->path,
                  listed->name, PACKED_TENSORS);
    listed->data = stored->data;
  }
  return DITMOE_OK;
}

static enum ditmoe_status find_suspects(struct ditmoe_ctx *ctx, const struct packed *packed) {
  const char *text = checkpoint_metadata(packed->file, PACKED_SUSPECTS);
  if (!text) return DITMOE_OK;
  struct span lines = span_of(text, strlen(text));
  struct text line;
  char name[512]; /* a longer one is not found */
  while (span_line(&lines, &line)) {
    int length = (int)(line.length < sizeof name ? line.length : sizeof name - 1);
    snprintf(name, sizeof name, "%.*s", length, (const char *)line.bytes);
    const struct tensor *tensor = checkpoint_find(packed->tensors, name);
    if (!tensor)
      return fail(ctx, DITMOE_FORMAT, "%s: %s names a tensor that is not there: %s",
                  packed->file->path, PACKED_SUSPECTS, name);
    packed->suspect[tensor - packed->tensors->tensors] = true;
  }
  if (span_left(&lines) == 0) return DITMOE_OK;
  return fail(ctx, DITMOE_FORMAT, "%s: %s does not end in a newline", packed->file->path,
              PACKED_SUSPECTS);
}

static enum ditmoe_status read_list(struct source *source, const struct ditmoe_checkpoint *file) {
  const char *list = checkpoint_metadata(file, PACKED_TENSORS);
  const char *record = checkpoint_metadata(file, CHECKPOINT_RECORD);
  if (!list || !checkpoint_metadata(file, PACKED_TIER))
    return fail(source->ctx, DITMOE_FORMAT, "%s: packed, but without %s in its metadata",
                file->path, list ? PACKED_TIER : PACKED_TENSORS);
  TRY(source_create(source, file->path));
  if (record) TRY(source_add_metadata(source, text_of(CHECKPOINT_RECORD), text_of(record)));
  TRY(source_read_list(source, list));
  return source_sort(source);
}

enum ditmoe_status packed_open(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *file,
                               struct packed *out) {
  struct source source = {.ctx = ctx, .path = file->path};
  struct packed packed = {
      .file = file, .layout = packed_layout(file), .tier = checkpoint_metadata(file, PACKED_TIER)};
  enum ditmoe_status status;
  TRY_DONE(read_list(&source, file));
  packed.tensors = source.checkpoint;
  TRY_DONE(mem_zalloc(ctx, packed.tensors->count, sizeof *packed.suspect, "list of tensors",
                      &packed.suspect));
  TRY_DONE(find_data(ctx, &packed));
  TRY_DONE(find_suspects(ctx, &packed));
  *out = packed;
  return DITMOE_OK;
done:
  packed.tensors = source.checkpoint;
  packed_close(ctx, &packed);
  return status;
}

void packed_close(struct ditmoe_ctx *ctx, struct packed *packed) {
  ditmoe_checkpoint_close(packed->tensors);
  mem_free(ctx, packed->suspect);
  *packed = (struct packed){0};
}

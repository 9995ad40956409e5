/* How readers put tensors, metadata and memory into a checkpoint. */
#include "io/formats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum ditmoe_status source_create(struct source *source, const char *path) {
  TRY(mem_zalloc(source->ctx, 1, sizeof *source->checkpoint, "a checkpoint", &source->checkpoint));
  source->checkpoint->ctx = source->ctx;
  return mem_strdup(source->ctx, path, &source->checkpoint->path);
}

bool tensor_measure(struct tensor *tensor, uint64_t *bytes) {
  uint64_t elements = 1;
  bool empty = false;
  for (int i = 0; i < tensor->rank; i++) {
    if (tensor->shape[i] < 0) return false;
    empty |= tensor->shape[i] == 0;
  }
  for (int i = 0; i < tensor->rank && !empty; i++)
    if (__builtin_mul_overflow(elements, (uint64_t)tensor->shape[i], &elements)) return false;
  if (empty) elements = 0;
  tensor->elements = (int64_t)elements;
  if (elements > INT64_MAX || __builtin_mul_overflow(elements, dtype_size(tensor->dtype), bytes))
    return false;
  *bytes = tensor_bytes(tensor);
  return true;
}

static enum ditmoe_status add_block(struct source *source, size_t size, const char *what,
                                    void *out) {
  struct ditmoe_checkpoint *checkpoint = source->checkpoint;
  void *block;
  TRY(mem_room(source->ctx, checkpoint->block_count, sizeof block, what, &checkpoint->blocks));
  TRY(mem_alloc(source->ctx, size, 1, what, &block));
  checkpoint->blocks[checkpoint->block_count++] = block;
  memcpy(out, &block, sizeof block);
  return DITMOE_OK;
}

enum ditmoe_status source_unpack(struct source *source, uint64_t bytes, struct text what,
                                 uint8_t **out) {
  enum { RATIO = 16, ALWAYS = 64 << 20 };
  uint64_t limit = ALWAYS + RATIO * (uint64_t)source->file.size;
  if (bytes > limit || source->unpacked > limit - bytes)
    return fail(source->ctx, DITMOE_FORMAT,
                "%s: %.*s would unpack to %llu bytes, out of proportion to the file (%zu bytes)",
                source->path, TEXT(what), (unsigned long long)bytes, source->file.size);
  source->unpacked += bytes;
  return add_block(source, (size_t)bytes, source->path, out);
}

enum ditmoe_status source_copy(struct source *source, struct text text, char **out) {
  TRY(add_block(source, text.length + 1, "the names", out));
  if (text.length) memcpy(*out, text.bytes, text.length);
  (*out)[text.length] = '\0';
  return DITMOE_OK;
}

enum ditmoe_status source_add(struct source *source, struct text name,
                              const struct tensor *tensor) {
  struct ditmoe_checkpoint *checkpoint = source->checkpoint;
  char *copy;
  if (!text_is_printable(name))
    return fail(source->ctx, DITMOE_FORMAT,
                "%s: tensor %.*s: its name holds control characters or is not UTF-8", source->path,
                TEXT(name));
  TRY(source_copy(source, name, &copy));
  TRY(mem_room(source->ctx, checkpoint->count, sizeof *tensor, "the tensor list",
               &checkpoint->tensors));
  checkpoint->tensors[checkpoint->count] = *tensor;
  checkpoint->tensors[checkpoint->count++].name = copy;
  return DITMOE_OK;
}

enum ditmoe_status source_add_metadata(struct source *source, struct text key, struct text value) {
  struct ditmoe_checkpoint *checkpoint = source->checkpoint;
  struct checkpoint_entry entry;
  TRY(source_copy(source, key, &entry.key));
  TRY(source_copy(source, value, &entry.value));
  TRY(mem_room(source->ctx, checkpoint->metadata_count, sizeof entry, "the metadata",
               &checkpoint->metadata));
  checkpoint->metadata[checkpoint->metadata_count++] = entry;
  return DITMOE_OK;
}

enum ditmoe_status source_leave(struct source *source, const char *what) {
  char **left = &source->checkpoint->left, *old = *left, *joined;
  const size_t size = strlen(what) + (old ? strlen(old) + 2 : 0) + 1;
  TRY(mem_alloc(source->ctx, size, 1, "a list of names", &joined));
  snprintf(joined, size, "%s%s%s", old ? old : "", old ? ", " : "", what);
  mem_free(source->ctx, old);
  *left = joined;
  return DITMOE_OK;
}

static int compare_keys(const void *a, const void *b) {
  return strcmp(((const struct checkpoint_entry *)a)->key,
                ((const struct checkpoint_entry *)b)->key);
}

enum ditmoe_status source_check_metadata(struct source *source, size_t first) {
  struct checkpoint_entry *entries = source->checkpoint->metadata;
  size_t count = source->checkpoint->metadata_count;
  if (count > first) qsort(entries + first, count - first, sizeof *entries, compare_keys);
  for (size_t i = first + 1; i < count; i++)
    if (compare_keys(&entries[i - 1], &entries[i]) == 0)
      return fail(source->ctx, DITMOE_FORMAT, "%s: key %s of __metadata__ occurs twice",
                  source->path, entries[i].key);
  return DITMOE_OK;
}

enum ditmoe_status source_map(struct source *source, const char *path) {
  struct ditmoe_checkpoint *checkpoint = source->checkpoint;
  struct mapping mapping;
  TRY(mem_room(source->ctx, checkpoint->mapping_count, sizeof mapping, "the files",
               &checkpoint->mappings));
  TRY(file_map(source->ctx, path, &mapping));
  checkpoint->mappings[checkpoint->mapping_count++] = mapping;
  source->path = path;
  source->file = span_of(mapping.data, mapping.size);
  return DITMOE_OK;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

enum ditmoe_status source_sort(struct source *source) {
  struct tensor *tensors = source->checkpoint->tensors;
  size_t count = source->checkpoint->count;
  if (count) qsort(tensors, count, sizeof *tensors, compare_names);
  for (size_t i = 1; i < count; i++)
    if (compare_names(&tensors[i - 1], &tensors[i]) == 0)
      return fail(source->ctx, DITMOE_FORMAT, "%s: tensor %s occurs twice", source->path,
                  tensors[i].name);
  return DITMOE_OK;
}

/* What people hand over by mistake. The words are compared without regard to case. */
static const struct {
  const char *start, *meaning;
} strangers[] = {
    {"version https://git-lfs", "a git-lfs pointer, not the file itself; run `git lfs pull`"},
    {"<!doctype", "an HTML page, not a checkpoint; the download went wrong"},
    {"<html", "an HTML page, not a checkpoint; the download went wrong"},
    {"gguf", "a GGUF file, which is not supported"},
    {"\x93numpy", "a NumPy array, not a checkpoint"},
    {"\x89png", "a PNG image, not a checkpoint"},
    {"\x89hdf", "an HDF5 file, which is not supported"},
    {"\x1f\x8b", "compressed by gzip; decompress it first"},
};

static bool starts_with(struct span file, const char *word) {
  size_t length = strlen(word);
  return file.size >= length && strncasecmp((const char *)file.data, word, length) == 0;
}

enum ditmoe_status source_sniff(struct source *source, const struct format **out) {
  /* JSON text comes before safetensors: read as a header length its first bytes are absurd. */
  static const struct format *const formats[] = {&torch_zip_format, &torch_legacy_format,
                                                 &sharded_format, &safetensors_format};
  struct span file = source->file;
  if (!file.size) return fail(source->ctx, DITMOE_FORMAT, "%s: is empty", source->path);
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    *out = formats[i];
    if (formats[i]->match(file)) return DITMOE_OK;
  }
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
    if (starts_with(file, strangers[i].start))
      return fail(source->ctx, DITMOE_FORMAT, "%s: is %s (%zu bytes)", source->path,
                  strangers[i].meaning, file.size);
  return fail(source->ctx, DITMOE_FORMAT,
              "%s: neither a PyTorch nor a safetensors file (%zu bytes); it may be damaged or "
              "truncated",
              source->path, file.size);
}

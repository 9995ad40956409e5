/* Checkpoints of any format: opening, look-ups, and conversion to safetensors. */
#include "io/checkpoint.h"
#include "base/edit_distance.h"
#include "base/pages.h"
#include "io/formats.h"
#include "io/packed.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Folders. */

/* out = folder/name; false if that is too long. */
static bool join(char out[PATH_MAX], const char *folder, const char *name) {
  return snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

static bool is_kind(const char *path, mode_t kind) {
  struct stat info;
  return stat(path, &info) == 0 && (info.st_mode & S_IFMT) == kind;
}

/* The only index of shards in a folder whose names are none of the usual ones. */
static bool find_index(const char *folder, char out[PATH_MAX]) {
  static const char ending[] = ".index.json";
  DIR *listing = opendir(folder);
  int found = 0;
  for (struct dirent *item; listing && (item = readdir(listing));) {
    size_t length = strlen(item->d_name);
    if (length <= strlen(ending) || strcmp(item->d_name + length - strlen(ending), ending) != 0)
      continue;
    found += join(out, folder, item->d_name) ? 1 : 2;
  }
  if (listing) closedir(listing);
  return found == 1;
}

/* out = the first file folder/NAME of this variant, in the order of forms, then of names. */
static bool find_form(const char *folder, const char *const *names, int count, const char *variant,
                      char out[PATH_MAX]) {
  /* What stands before the variant and behind it. */
  static const char *const forms[][2] = {{"", ".safetensors"},
                                         {".safetensors.index", ".json"},
                                         {".safetensors", ".index.json"},
                                         {"", ".bin"},
                                         {".bin.index", ".json"},
                                         {".bin", ".index.json"},
                                         {"", ".pt"},
                                         {"", ".pth"}};
  char name[100];
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    for (int j = 0; j < count; j++) {
      snprintf(name, sizeof name, "%s%s%s%s", names[j], forms[i][0], variant, forms[i][1]);
      if (join(out, folder, name) && is_kind(out, S_IFREG)) return true;
    }
  return false;
}

/* out = the weights file of a folder: averaged weights first, those of no variant before variants;
 * *other = another one that is there, or "". */
static bool find_weights(const char *folder, char out[PATH_MAX], char other[PATH_MAX]) {
  static const char *const names[] = {
      "diffusion_pytorch_model", "model", "pytorch_model", "ema_model", "model_ema", "ema"};
  static const char *const variants[] = {".ema", "", ".fp32", ".bf16", ".fp16", ".non_ema"};
  bool found = find_form(folder, names + 3, 3, "", out);
  *other = '\0';
  for (size_t i = 0; i < sizeof variants / sizeof *variants && !*other; i++)
    if (find_form(folder, names, 3, variants[i], found ? other : out))
      found = true;
    else
      *other = '\0';
  return found || find_index(folder, out);
}

/* out = the file to open for `path`: itself, or the weights in a folder or one of those in it that
 * pipelines have. */
static enum ditmoe_status resolve(struct source *source, const char *path, char out[PATH_MAX]) {
  static const char *const folders[] = {"transformer_ema", "unet_ema", "ema", ".",
                                        "transformer",     "unet"};
  bool found = false;
  if (strlen(path) >= PATH_MAX)
    return fail(source->ctx, DITMOE_FORMAT, "%.200s...: the path is too long", path);
  if (!is_kind(path, S_IFDIR)) {
    strcpy(out, path);
    return DITMOE_OK;
  }
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    char inner[PATH_MAX], file[PATH_MAX], other[PATH_MAX];
    const bool own = strcmp(folders[i], ".") == 0;
    if (!own && !join(inner, path, folders[i])) continue;
    if (!find_weights(own ? path : inner, file, other)) continue;
    if (found) TRY(source_leave(source, own ? strrchr(file, '/') + 1 : folders[i]));
    if (found) continue;
    if (*other) TRY(source_leave(source, strrchr(other, '/') + 1));
    strcpy(out, file);
    found = true;
  }
  if (found) return DITMOE_OK;
  return fail(source->ctx, DITMOE_FORMAT,
              "%s: a folder without diffusion_pytorch_model.safetensors, model.safetensors, an "
              "index.json or diffusion_pytorch_model.bin; name the weights file",
              path);
}

/* Opening. */

static enum ditmoe_status read_source(struct source *source) {
  struct ditmoe_checkpoint *checkpoint = source->checkpoint;
  const struct format *format;
  TRY(source_sniff(source, &format));
  checkpoint->format = format->name;
  TRY(format->read(source));
  TRY(source_sort(source));
  TRY(source_unwrap(source));
  if (checkpoint->count) return DITMOE_OK;
  const char *key = checkpoint->key, *left = checkpoint->left;
  return fail(source->ctx, DITMOE_MISMATCH, "%s: holds no tensors%s%s%s%s", source->path,
              key ? " under key " : "", key ? key : "",
              left ? "; --key takes those of one of these: " : "", left ? left : "");
}

enum ditmoe_status ditmoe_checkpoint_open(struct ditmoe_ctx *ctx, const char *path, const char *key,
                                          struct ditmoe_checkpoint **out) {
  struct source source = {.ctx = ctx, .key = key};
  char file[PATH_MAX];
  enum ditmoe_status status;
  TRY_DONE(source_create(&source, path));
  TRY_DONE(resolve(&source, path, file));
  TRY_DONE(source_map(&source, file));
  TRY_DONE(read_source(&source));
  *out = source.checkpoint;
  return DITMOE_OK;
done:
  ditmoe_checkpoint_close(source.checkpoint);
  return status;
}

enum ditmoe_status checkpoint_open_bytes(struct ditmoe_ctx *ctx, const char *path,
                                         const void *bytes, size_t size, const char *key,
                                         struct ditmoe_checkpoint **out) {
  struct source source = {.ctx = ctx, .key = key, .path = path, .file = span_of(bytes, size)};
  enum ditmoe_status status;
  TRY_DONE(source_create(&source, path));
  TRY_DONE(read_source(&source));
  *out = source.checkpoint;
  return DITMOE_OK;
done:
  ditmoe_checkpoint_close(source.checkpoint);
  return status;
}

void ditmoe_checkpoint_close(struct ditmoe_checkpoint *checkpoint) {
  if (!checkpoint) return;
  struct ditmoe_ctx *ctx = checkpoint->ctx;
  for (size_t i = 0; i < checkpoint->mapping_count; i++) file_unmap(&checkpoint->mappings[i]);
  for (size_t i = 0; i < checkpoint->block_count; i++) mem_free(ctx, checkpoint->blocks[i]);
  mem_free(ctx, checkpoint->mappings);
  mem_free(ctx, checkpoint->blocks);
  mem_free(ctx, checkpoint->tensors);
  mem_free(ctx, checkpoint->metadata);
  mem_free(ctx, checkpoint->key);
  mem_free(ctx, checkpoint->left);
  mem_free(ctx, checkpoint->path);
  mem_free(ctx, checkpoint);
}

/* Look-ups. */

static int compare_name(const void *name, const void *tensor) {
  return strcmp(name, ((const struct tensor *)tensor)->name);
}

const struct tensor *checkpoint_find(const struct ditmoe_checkpoint *checkpoint, const char *name) {
  if (!checkpoint->count) return NULL;
  return bsearch(name, checkpoint->tensors, checkpoint->count, sizeof *checkpoint->tensors,
                 compare_name);
}

const char *checkpoint_nearest(const struct ditmoe_checkpoint *checkpoint, const char *name) {
  int limit = (int)(strlen(name) / 4) + 2;
  const char *nearest = NULL;
  if (strlen(name) > EDIT_LONGEST) return NULL;
  for (size_t i = 0; i < checkpoint->count; i++) {
    const char *candidate = checkpoint->tensors[i].name;
    int distance = edit_distance(name, candidate);
    if (distance >= limit) continue;
    limit = distance;
    nearest = candidate;
  }
  return nearest;
}

const char *checkpoint_metadata(const struct ditmoe_checkpoint *checkpoint, const char *key) {
  for (size_t i = 0; i < checkpoint->metadata_count; i++)
    if (strcmp(checkpoint->metadata[i].key, key) == 0) return checkpoint->metadata[i].value;
  return NULL;
}

const char *ditmoe_checkpoint_metadata(const struct ditmoe_checkpoint *checkpoint,
                                       const char *key) {
  return checkpoint_metadata(checkpoint, key);
}

const char *ditmoe_checkpoint_format(const struct ditmoe_checkpoint *checkpoint) {
  return checkpoint->format;
}

const char *ditmoe_checkpoint_key(const struct ditmoe_checkpoint *checkpoint) {
  return checkpoint->key;
}

const char *ditmoe_checkpoint_left(const struct ditmoe_checkpoint *checkpoint) {
  return checkpoint->left;
}

size_t ditmoe_checkpoint_count(const struct ditmoe_checkpoint *checkpoint) {
  return checkpoint->count;
}

void ditmoe_checkpoint_tensor(const struct ditmoe_checkpoint *checkpoint, size_t index,
                              struct ditmoe_tensor_info *out) {
  const struct tensor *tensor = &checkpoint->tensors[index];
  *out = (struct ditmoe_tensor_info){
      .name = tensor->name,
      .dtype = dtype_name(tensor->dtype),
      .rank = tensor->rank,
      .shape = tensor->shape,
      .bytes = tensor_bytes(tensor),
  };
}

void checkpoint_drop(const struct ditmoe_checkpoint *checkpoint, const struct tensor *tensor) {
  const uint8_t *data = tensor->data;
  for (size_t i = 0; i < checkpoint->mapping_count; i++) {
    const struct mapping *mapping = &checkpoint->mappings[i];
    if (data >= mapping->data && data < mapping->data + mapping->size)
      pages_drop(data, tensor_bytes(tensor));
  }
}

/* Conversion. */

struct checkpoint_entry metadata_entry(const char *key, const char *value) {
  return (struct checkpoint_entry){(char *)(uintptr_t)key, (char *)(uintptr_t)value};
}

size_t metadata_merge(struct checkpoint_entry *out, const struct ditmoe_checkpoint *checkpoint,
                      const struct checkpoint_entry *own, size_t count) {
  size_t kept = 0;
  for (size_t i = 0; i < checkpoint->metadata_count; i++) {
    bool replaced = false;
    for (size_t j = 0; j < count; j++)
      replaced |= strcmp(checkpoint->metadata[i].key, own[j].key) == 0;
    if (!replaced) out[kept++] = checkpoint->metadata[i];
  }
  for (size_t j = 0; j < count; j++) out[kept++] = own[j];
  return kept;
}

enum ditmoe_status ditmoe_checkpoint_write(struct ditmoe_ctx *ctx,
                                           const struct ditmoe_checkpoint *checkpoint,
                                           const char *path, const char *dtype,
                                           const char *record) {
  static const struct {
    const char *name;
    enum dtype dtype;
  } choices[] = {{"f32", DT_F32}, {"bf16", DT_BF16}, {"f16", DT_F16}};
  enum dtype target = DT_COUNT;
  for (size_t i = 0; dtype && i < sizeof choices / sizeof *choices; i++)
    if (strcmp(dtype, choices[i].name) == 0) target = choices[i].dtype;
  if (dtype && target == DT_COUNT)
    return fail(ctx, DITMOE_USAGE, "element type \"%s\" is not one of f32, bf16, f16", dtype);
  const char *layout = packed_layout(checkpoint);
  if (layout)
    return fail(ctx, DITMOE_USAGE, "%s: is packed (%s); convert the file that it was made from",
                checkpoint->path, layout);
  struct checkpoint_entry *metadata, own[2];
  size_t count = 0;
  if (record) own[count++] = metadata_entry(CHECKPOINT_RECORD, record);
  /* Other readers of safetensors look for this one. */
  if (!checkpoint_metadata(checkpoint, "format")) own[count++] = metadata_entry("format", "pt");
  TRY(mem_alloc(ctx, checkpoint->metadata_count + 2, sizeof *metadata, "the metadata", &metadata));
  count = metadata_merge(metadata, checkpoint, own, count);
  enum ditmoe_status status =
      safetensors_write(ctx, path, checkpoint->tensors, checkpoint->count, target, metadata, count);
  mem_free(ctx, metadata);
  return status;
}

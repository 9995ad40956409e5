/* SHA-256 of files, and of folders that hold a checkpoint. */
#include "base/pages.h"
#include "io/file.h"
#include "io/hash.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FOLDER_DEPTH = 2, PIECE = 16 << 20 };

/* Piece by piece, so that a large file does not stay in memory. */
static void hash_mapping(struct hash *sum, const struct mapping *file) {
  for (size_t at = 0; at < file->size; at += PIECE) {
    size_t size = file->size - at < PIECE ? file->size - at : PIECE;
    hash_add(sum, file->data + at, size);
    pages_drop(file->data + at, size);
  }
}

static enum ditmoe_status hash_file(struct ditmoe_ctx *ctx, const char *path, char digest[65]) {
  struct mapping file;
  struct hash *sum = NULL;
  TRY(file_map(ctx, path, &file));
  enum ditmoe_status status = hash_create(ctx, &sum);
  if (status == DITMOE_OK) {
    hash_mapping(sum, &file);
    status = hash_read(ctx, sum, digest);
  }
  hash_free(ctx, sum);
  file_unmap(&file);
  return status;
}

static bool ends_with(const char *name, const char *ending) {
  size_t length = strlen(name), size = strlen(ending);
  return length >= size && strcmp(name + length - size, ending) == 0;
}

/* The files that make a checkpoint; pictures and notes beside them do not change its identity. */
static bool is_checkpoint_file(const char *name) {
  static const char *const endings[] = {
      ".safetensors", ".bin", ".pt", ".pth", ".index.json", "model_index.json", "config.json"};
  for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
    if (ends_with(name, endings[i])) return true;
  return false;
}

static enum ditmoe_status hash_folder(struct ditmoe_ctx *ctx, const char *root,
                                      const char *relative, int depth, struct hash *sum);

/* Adds "<digest>  <relative path>\n", the line that sha256sum prints. */
static enum ditmoe_status hash_entry(struct ditmoe_ctx *ctx, const char *root, const char *relative,
                                     const char *name, int depth, struct hash *sum) {
  char inner[4096], path[8192], digest[65];
  struct stat info;
  if (snprintf(inner, sizeof inner, "%s%s%s", relative, *relative ? "/" : "", name) >=
      (int)sizeof inner)
    return fail(ctx, DITMOE_FORMAT, "%s: a path inside is too long", root);
  snprintf(path, sizeof path, "%s/%s", root, inner);
  if (stat(path, &info) != 0) return fail(ctx, DITMOE_FORMAT, "%s: %s", path, strerror(errno));
  if (S_ISDIR(info.st_mode))
    return depth > 1 ? hash_folder(ctx, root, inner, depth - 1, sum) : DITMOE_OK;
  if (!is_checkpoint_file(name)) return DITMOE_OK;
  TRY(hash_file(ctx, path, digest));
  hash_add(sum, digest, strlen(digest));
  hash_add(sum, "  ", 2);
  hash_add(sum, inner, strlen(inner));
  hash_add(sum, "\n", 1);
  return DITMOE_OK;
}

static int entry_is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* By bytes: alphasort would follow the locale. */
static int entry_order(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

static enum ditmoe_status hash_folder(struct ditmoe_ctx *ctx, const char *root,
                                      const char *relative, int depth, struct hash *sum) {
  char path[8192];
  struct dirent **entries = NULL;
  enum ditmoe_status status = DITMOE_OK;
  snprintf(path, sizeof path, "%s/%s", root, relative);
  int count = scandir(path, &entries, entry_is_visible, entry_order);
  if (count < 0) return fail(ctx, DITMOE_FORMAT, "%s: %s", path, strerror(errno));
  for (int i = 0; i < count; i++) {
    if (status == DITMOE_OK)
      status = hash_entry(ctx, root, relative, entries[i]->d_name, depth, sum);
    free(entries[i]);
  }
  free(entries);
  return status;
}

static enum ditmoe_status hash_tree(struct ditmoe_ctx *ctx, const char *path, char digest[65]) {
  struct hash *sum;
  TRY(hash_create(ctx, &sum));
  enum ditmoe_status status = hash_folder(ctx, path, "", FOLDER_DEPTH, sum);
  if (status == DITMOE_OK) status = hash_read(ctx, sum, digest);
  hash_free(ctx, sum);
  return status;
}

/* An index of shards says little about them, so its folder counts. */
enum ditmoe_status ditmoe_file_sha256(struct ditmoe_ctx *ctx, const char *path, char digest[65]) {
  struct stat info;
  const char *slash = strrchr(path, '/');
  if (ends_with(path, ".index.json")) {
    char *folder;
    TRY(mem_strdup(ctx, slash ? path : ".", &folder));
    if (slash) folder[slash - path + 1] = 0;
    enum ditmoe_status status = hash_tree(ctx, folder, digest);
    mem_free(ctx, folder);
    return status;
  }
  bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
  return folder ? hash_tree(ctx, path, digest) : hash_file(ctx, path, digest);
}

/* The image files of a folder. Folders wait in a list, so that no depth costs stack or open
 * files. */
#include "io/folder.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char *const image_endings[] = {".png", ".jpg", ".jpeg", NULL};
static const char *const foreign_endings[] = {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif",
                                              ".jp2",  ".jpe", ".jxl", ".pbm",  ".pgm",  ".pnm",
                                              ".ppm",  ".tga", ".tif", ".tiff", ".webp", NULL};

enum { NO_PARENT = -1 };

struct folder {
  char *path;
  int64_t parent; /* index of the folder it was found in */
  dev_t device;
  ino_t inode;
};

struct walk {
  struct ditmoe_ctx *ctx;
  struct path_list images;
  struct folder *folders;
  int64_t folder_count;
  char *foreign; /* of the images in other formats the first by name */
  bool recursive, nested;
};

static bool ends_in(const char *name, const char *const *endings) {
  const char *ending = strrchr(name, '.');
  for (; ending && *endings; endings++)
    if (strcasecmp(ending, *endings) == 0) return true;
  return false;
}

static enum ditmoe_status join(struct ditmoe_ctx *ctx, const char *folder, const char *name,
                               char **out) {
  size_t length = strlen(folder), size = length + strlen(name) + 2;
  bool slash = length > 0 && folder[length - 1] == '/';
  TRY(mem_alloc(ctx, size, 1, "a file name", out));
  snprintf(*out, size, "%s%s%s", folder, slash ? "" : "/", name);
  return DITMOE_OK;
}

/* These take the path over if they succeed. */

static enum ditmoe_status add_image(struct walk *walk, char *path) {
  TRY(mem_room(walk->ctx, walk->images.count, sizeof *walk->images.paths, "the names of images",
               &walk->images.paths));
  walk->images.paths[walk->images.count++] = path;
  return DITMOE_OK;
}

static enum ditmoe_status add_folder(struct walk *walk, char *path, int64_t parent) {
  TRY(mem_room(walk->ctx, (size_t)walk->folder_count, sizeof *walk->folders, "the folders",
               &walk->folders));
  walk->folders[walk->folder_count++] = (struct folder){.path = path, .parent = parent};
  return DITMOE_OK;
}

static void add_foreign(struct walk *walk, char *path) {
  bool first = !walk->foreign || strcmp(path, walk->foreign) < 0;
  mem_free(walk->ctx, first ? walk->foreign : path);
  if (first) walk->foreign = path;
}

/* A link counts as what it leads to. */
static bool is_folder(const struct dirent *entry, const char *path) {
  struct stat info;
  if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK) return entry->d_type == DT_DIR;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static enum ditmoe_status take_entry(struct walk *walk, int64_t parent,
                                     const struct dirent *entry) {
  enum ditmoe_status status = DITMOE_OK;
  char *path;
  TRY(join(walk->ctx, walk->folders[parent].path, entry->d_name, &path));
  bool folder = is_folder(entry, path);
  walk->nested |= folder;
  if (folder && walk->recursive)
    status = add_folder(walk, path, parent);
  else if (!folder && ends_in(entry->d_name, image_endings))
    status = add_image(walk, path);
  else if (!folder && ends_in(entry->d_name, foreign_endings))
    add_foreign(walk, path);
  else
    mem_free(walk->ctx, path);
  if (status != DITMOE_OK) mem_free(walk->ctx, path);
  return status;
}

static enum ditmoe_status not_readable(struct ditmoe_ctx *ctx, const char *path) {
  return fail(ctx, DITMOE_FORMAT, "%s: cannot be read: %s", path, strerror(errno));
}

/* Links may lead back to a folder that is being walked. */
static enum ditmoe_status check_loop(struct walk *walk, int64_t index, DIR *listing) {
  struct stat info;
  struct folder *self = &walk->folders[index];
  if (fstat(dirfd(listing), &info) != 0) return not_readable(walk->ctx, self->path);
  self->device = info.st_dev;
  self->inode = info.st_ino;
  for (int64_t i = self->parent; i != NO_PARENT; i = walk->folders[i].parent)
    if (walk->folders[i].device == info.st_dev && walk->folders[i].inode == info.st_ino)
      return fail(walk->ctx, DITMOE_FORMAT, "%s: is the folder %s again: a loop of links",
                  self->path, walk->folders[i].path);
  return DITMOE_OK;
}

static enum ditmoe_status list_folder(struct walk *walk, int64_t index) {
  const char *path = walk->folders[index].path;
  DIR *listing = opendir(path);
  if (!listing) return not_readable(walk->ctx, path);
  enum ditmoe_status status = check_loop(walk, index, listing);
  while (status == DITMOE_OK) {
    errno = 0;
    const struct dirent *entry = readdir(listing);
    if (!entry && errno) status = not_readable(walk->ctx, path);
    if (!entry) break;
    if (entry->d_name[0] != '.') status = take_entry(walk, index, entry);
  }
  closedir(listing);
  return status;
}

static enum ditmoe_status walk_all(struct walk *walk, const char *folder) {
  char *path;
  TRY(mem_strdup(walk->ctx, folder, &path));
  enum ditmoe_status status = add_folder(walk, path, NO_PARENT);
  if (status != DITMOE_OK) mem_free(walk->ctx, path);
  for (int64_t i = 0; status == DITMOE_OK && i < walk->folder_count; i++)
    status = list_folder(walk, i);
  return status;
}

static enum ditmoe_status check_found(const struct walk *walk, const char *folder) {
  if (walk->foreign)
    return fail(walk->ctx, DITMOE_FORMAT,
                "%s: an image that is neither .png nor .jpg; convert it or take it away",
                walk->foreign);
  if (walk->images.count == 0)
    return fail(walk->ctx, DITMOE_FORMAT, "%s: no .png or .jpg in this folder%s", folder,
                walk->nested && !walk->recursive ? "; those inside it were not asked for" : "");
  return DITMOE_OK;
}

static int compare_paths(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

enum ditmoe_status folder_images(struct ditmoe_ctx *ctx, const char *folder, bool recursive,
                                 struct path_list *out) {
  struct walk walk = {.ctx = ctx, .recursive = recursive};
  enum ditmoe_status status = walk_all(&walk, folder);
  if (status == DITMOE_OK) status = check_found(&walk, folder);
  for (int64_t i = 0; i < walk.folder_count; i++) mem_free(ctx, walk.folders[i].path);
  mem_free(ctx, walk.folders);
  mem_free(ctx, walk.foreign);
  if (status != DITMOE_OK) {
    path_list_free(ctx, &walk.images);
    return status;
  }
  qsort(walk.images.paths, walk.images.count, sizeof *walk.images.paths, compare_paths);
  *out = walk.images;
  return DITMOE_OK;
}

void path_list_free(struct ditmoe_ctx *ctx, struct path_list *list) {
  for (size_t i = 0; i < list->count; i++) mem_free(ctx, list->paths[i]);
  mem_free(ctx, list->paths);
  *list = (struct path_list){0};
}

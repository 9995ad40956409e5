/* Images in a folder or in an .npz, one at a time. */
#include "ditmoe_eval.h"

#include "io/folder.h"
#include "io/image.h"
#include "io/npz.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

enum { NONE = -1 };

struct ditmoe_images {
  struct ditmoe_ctx *ctx; /* that opened it */
  char *path;
  struct path_list files;        /* of a folder           */
  struct npz *npz;               /* else                  */
  const struct npz_array *array; /* arr_0 [N, H, W, 3]    */
  int64_t next;                  /* image that npz is at  */
  int64_t held;                  /* index of image, or NONE */
  struct image image;
  struct ditmoe_images_info info;
};

static int64_t limited(int64_t count, int64_t limit) {
  return limit > 0 && limit < count ? limit : count;
}

/* Folders. */

/* A file that is no image is found now and not after an hour's work. */
static enum ditmoe_status count_jpeg(struct ditmoe_ctx *ctx, struct ditmoe_images *images) {
  for (int64_t i = 0; i < images->info.count; i++) {
    const char *path = images->files.paths[i];
    struct mapping file;
    TRY(file_map(ctx, path, &file));
    struct span bytes = span_of(file.data, file.size);
    enum image_kind kind = image_kind(bytes);
    enum ditmoe_status status = kind == IMAGE_UNKNOWN ? image_refuse(ctx, path, bytes) : DITMOE_OK;
    file_unmap(&file);
    TRY(status);
    images->info.jpeg += kind == IMAGE_JPEG;
  }
  return DITMOE_OK;
}

static enum ditmoe_status open_image(struct ditmoe_ctx *ctx, struct ditmoe_images *images) {
  images->info.kind = "image";
  TRY(mem_room(ctx, 0, sizeof *images->files.paths, "the name of an image", &images->files.paths));
  TRY(mem_strdup(ctx, images->path, &images->files.paths[0]));
  images->files.count = 1;
  images->info.count = 1;
  return count_jpeg(ctx, images);
}

static enum ditmoe_status open_folder(struct ditmoe_ctx *ctx, struct ditmoe_images *images,
                                      const struct ditmoe_images_options *options) {
  images->info.kind = "folder";
  TRY(folder_images(ctx, images->path, options->recursive, &images->files));
  images->info.count = limited((int64_t)images->files.count, options->count);
  return count_jpeg(ctx, images);
}

/* Archives. */

static enum ditmoe_status check_array(struct ditmoe_ctx *ctx, const char *path,
                                      const struct npz *npz, const struct npz_array *array) {
  char shape[NPZ_SHAPE_TEXT];
  if (!array)
    return fail(ctx, DITMOE_FORMAT, "%s: no arr_0%s; images are uint8 [N, H, W, 3] of that name",
                path, npz_find(npz, "mu") ? " but mu: statistics, not images" : "");
  npz_shape_text(shape, array);
  if (array->dtype != DT_U8 || array->rank != 4 || array->shape[3] != 3)
    return fail(ctx, DITMOE_FORMAT, "%s: arr_0 is %s %s; images are |u1 (uint8) [N, H, W, 3]", path,
                array->type, shape);
  if (array->shape[0] < 1)
    return fail(ctx, DITMOE_FORMAT, "%s: arr_0 is %s: no images", path, shape);
  return DITMOE_OK;
}

static enum ditmoe_status open_npz(struct ditmoe_ctx *ctx, struct ditmoe_images *images,
                                   const struct ditmoe_images_options *options) {
  images->info.kind = "npz";
  TRY(npz_open(ctx, images->path, &images->npz));
  images->array = npz_find(images->npz, "arr_0");
  TRY(check_array(ctx, images->path, images->npz, images->array));
  images->info.count = limited(images->array->shape[0], options->count);
  images->info.labelled = npz_find(images->npz, "arr_1") != NULL;
  return DITMOE_OK;
}

/* The array is a stream: back to an earlier image means from the beginning again. */
static enum ditmoe_status read_array(struct ditmoe_ctx *ctx, struct ditmoe_images *images,
                                     int64_t index) {
  const int64_t *shape = images->array->shape;
  TRY(image_reserve(ctx, images->path, shape[2], shape[1], &images->image));
  size_t bytes = (size_t)(shape[1] * shape[2]) * 3;
  if (index < images->next) {
    npz_rewind(images->npz);
    images->next = 0;
  }
  while (images->next <= index) {
    enum ditmoe_status status =
        npz_stream_u8(ctx, images->npz, images->array, images->image.pixels, bytes);
    if (status != DITMOE_OK) {
      npz_rewind(images->npz);
      images->next = 0;
      return status;
    }
    images->next++;
  }
  return DITMOE_OK;
}

/* Both. */

/* What a file is that holds no images; NULL for an archive. */
static const char *stranger(struct span file) {
  if (file.size == 0) return "is empty";
  if (file.size >= 6 && memcmp(file.data, "\x93NUMPY", 6) == 0) return "is a single NumPy array";
  if (file.size >= 2 && memcmp(file.data, "PK", 2) == 0) return NULL;
  return "is of an unknown format";
}

static enum ditmoe_status check_file(struct ditmoe_ctx *ctx, const char *path) {
  struct mapping file;
  TRY(file_map(ctx, path, &file));
  const char *what = stranger(span_of(file.data, file.size));
  size_t size = file.size;
  file_unmap(&file);
  if (!what) return DITMOE_OK;
  return fail(ctx, DITMOE_FORMAT, "%s: %s (%zu bytes); images are read from a folder or an .npz",
              path, what, size);
}

static enum ditmoe_status open_any(struct ditmoe_ctx *ctx, struct ditmoe_images *images,
                                   const char *path, const struct ditmoe_images_options *options) {
  struct stat info;
  const uint8_t *pixels;
  TRY(mem_strdup(ctx, path, &images->path));
  if (stat(path, &info) != 0)
    return fail(ctx, DITMOE_FORMAT, "%s: cannot be read: %s", path, strerror(errno));
  if (S_ISDIR(info.st_mode)) {
    TRY(open_folder(ctx, images, options));
  } else if (image_is_file(path)) {
    TRY(open_image(ctx, images));
  } else {
    TRY(check_file(ctx, path));
    TRY(open_npz(ctx, images, options));
  }
  return ditmoe_images_read(ctx, images, 0, &pixels, &images->info.width, &images->info.height);
}

enum ditmoe_status ditmoe_images_open(struct ditmoe_ctx *ctx, const char *path,
                                      const struct ditmoe_images_options *options,
                                      struct ditmoe_images **out) {
  static const struct ditmoe_images_options defaults;
  struct ditmoe_images *images;
  if (!options) options = &defaults;
  if (options->count < 0)
    return fail(ctx, DITMOE_USAGE, "%s: %" PRId64 " images asked for", path, options->count);
  TRY(mem_zalloc(ctx, 1, sizeof *images, "a set of images", &images));
  images->ctx = ctx;
  images->held = NONE;
  enum ditmoe_status status = open_any(ctx, images, path, options);
  if (status == DITMOE_OK)
    *out = images;
  else
    ditmoe_images_close(images);
  return status;
}

void ditmoe_images_close(struct ditmoe_images *images) {
  if (!images) return;
  image_free(&images->image);
  path_list_free(images->ctx, &images->files);
  if (images->npz) npz_close(images->npz);
  mem_free(images->ctx, images->path);
  mem_free(images->ctx, images);
}

void ditmoe_images_info(const struct ditmoe_images *images, struct ditmoe_images_info *out) {
  *out = images->info;
}

enum ditmoe_status ditmoe_images_read(struct ditmoe_ctx *ctx, struct ditmoe_images *images,
                                      int64_t index, const uint8_t **pixels, int *width,
                                      int *height) {
  if (index < 0 || index >= images->info.count)
    return fail(ctx, DITMOE_USAGE, "%s: no image %" PRId64 "; there are %" PRId64, images->path,
                index, images->info.count);
  if (images->held != index) {
    images->held = NONE;
    TRY(images->npz ? read_array(ctx, images, index)
                    : image_read(ctx, images->files.paths[index], &images->image));
    images->held = index;
  }
  *pixels = images->image.pixels;
  *width = images->image.width;
  *height = images->image.height;
  return DITMOE_OK;
}

const char *ditmoe_images_name(const struct ditmoe_images *images, int64_t index) {
  return images->npz ? images->path : images->files.paths[index];
}

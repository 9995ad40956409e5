/* Images from files: PNG or JPEG, told apart by content. */
#include "io/image.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum image_kind image_kind(struct span file) {
  static const char png[] = "\x89PNG\r\n\x1a\n", jpeg[] = "\xff\xd8\xff";
  if (file.size >= sizeof png - 1 && memcmp(file.data, png, sizeof png - 1) == 0) return IMAGE_PNG;
  if (file.size >= sizeof jpeg - 1 && memcmp(file.data, jpeg, sizeof jpeg - 1) == 0)
    return IMAGE_JPEG;
  return IMAGE_UNKNOWN;
}

bool image_is_file(const char *path) {
  enum { LONGEST = 8 }; /* of the first bytes that count */
  uint8_t first[LONGEST];
  struct stat info;
  FILE *file = stat(path, &info) == 0 && S_ISREG(info.st_mode) ? fopen(path, "rbe") : NULL;
  const size_t size = file ? fread(first, 1, LONGEST, file) : 0;
  if (file) fclose(file);
  return image_kind(span_of(first, size)) != IMAGE_UNKNOWN;
}

enum ditmoe_status image_reserve(struct ditmoe_ctx *ctx, const char *path, int64_t width,
                                 int64_t height, struct image *image) {
  if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE ||
      width * height > IMAGE_MAX_PIXELS)
    return fail(ctx, DITMOE_FORMAT,
                "%s: an image of %lld x %lld pixels; a side may be 1 to %d, all pixels %d", path,
                (long long)width, (long long)height, IMAGE_MAX_SIDE, IMAGE_MAX_PIXELS);
  size_t bytes = (size_t)(width * height) * 3;
  if (bytes > image->capacity) {
    image_free(image);
    TRY(mem_alloc(ctx, bytes, 1, path, &image->pixels));
    image->ctx = ctx;
    image->capacity = bytes;
  }
  image->width = (int)width;
  image->height = (int)height;
  return DITMOE_OK;
}

void image_free(struct image *image) {
  mem_free(image->ctx, image->pixels);
  *image = (struct image){0};
}

enum ditmoe_status image_refuse(struct ditmoe_ctx *ctx, const char *path, struct span file) {
  return fail(ctx, DITMOE_FORMAT, "%s: %s (%zu bytes)", path,
              file.size ? "is neither PNG nor JPEG" : "is empty", file.size);
}

enum ditmoe_status image_read_bytes(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                    struct image *image) {
  switch (image_kind(file)) {
  case IMAGE_PNG:
    return image_png_read(ctx, path, file, image);
  case IMAGE_JPEG:
    return image_jpeg_read(ctx, path, file, image);
  default:
    return image_refuse(ctx, path, file);
  }
}

enum ditmoe_status image_read(struct ditmoe_ctx *ctx, const char *path, struct image *image) {
  struct mapping file;
  TRY(file_map(ctx, path, &file));
  enum ditmoe_status status = image_read_bytes(ctx, path, span_of(file.data, file.size), image);
  file_unmap(&file);
  return status;
}

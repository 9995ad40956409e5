/* Decoded images, and what the files of io/image* share. */
#ifndef IO_IMAGE_H
#define IO_IMAGE_H

#include "base/span.h"
#include "io/file.h"

enum {
  IMAGE_MAX_SIDE = 65535,
  IMAGE_MAX_PIXELS = 1 << 25 /* that are read: 96 MiB as RGB */
};

/* RGB bytes [height, width, 3]. The block is used again by the next image; it belongs to the
 * context that made it. Starts as zeros. */
struct image {
  struct ditmoe_ctx *ctx;
  uint8_t *pixels;
  size_t capacity;
  int width, height;
};

enum image_kind { IMAGE_UNKNOWN, IMAGE_PNG, IMAGE_JPEG };

/* By the first bytes, whatever the name says. */
enum image_kind image_kind(struct span file);
/* Whether a regular file begins as one of them. */
bool image_is_file(const char *path);
/* The error for a file that is neither. */
enum ditmoe_status image_refuse(struct ditmoe_ctx *ctx, const char *path, struct span file);
/* Decodes a whole PNG or JPEG; `path` is for messages. What is cut short or damaged is
 * DITMOE_FORMAT, never an image with a part missing. */
enum ditmoe_status image_read_bytes(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                    struct image *image);
enum ditmoe_status image_read(struct ditmoe_ctx *ctx, const char *path, struct image *image);
void image_free(struct image *image);

/* Makes room for the pixels of an image of this size, or refuses it. */
enum ditmoe_status image_reserve(struct ditmoe_ctx *ctx, const char *path, int64_t width,
                                 int64_t height, struct image *image);
enum ditmoe_status image_png_read(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                  struct image *image);
enum ditmoe_status image_jpeg_read(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                   struct image *image);

/* Writes pixels [height, width, 3] as PNG to the open output. */
enum ditmoe_status image_png_write(struct ditmoe_ctx *ctx, struct file_output *output,
                                   const uint8_t *pixels, int width, int height,
                                   const struct ditmoe_text *text);

#endif

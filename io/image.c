/* Writing of images: the format follows the ending of the name, the file appears complete or not at
 * all. PNG is in io/image_png.c; JPEG, BMP and TGA come from stb_image_write, which only this file
 * includes. */
#include "io/image.h"

#include <string.h>
#include <strings.h>

/* Its JPEG writer shifts signed numbers beyond their range, which is to wrap. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((no_sanitize("shift"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC optimize("wrapv")
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wshadow"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

enum { JPEG_QUALITY = 95 };

/* A short write sets the stream's error flag, which file_output_commit sees. */
static void stb_sink(void *stream, void *bytes, int size) {
  fwrite(bytes, 1, (size_t)size, (FILE *)stream);
}

static enum ditmoe_status stb_status(struct ditmoe_ctx *ctx, const char *path, int written) {
  return written ? DITMOE_OK : fail(ctx, DITMOE_OUTPUT, "%s: the image cannot be encoded", path);
}

static enum ditmoe_status jpeg_write(struct ditmoe_ctx *ctx, struct file_output *output,
                                     const uint8_t *pixels, int width, int height,
                                     const struct ditmoe_text *text) {
  (void)text;
  int written =
      stbi_write_jpg_to_func(stb_sink, output->stream, width, height, 3, pixels, JPEG_QUALITY);
  return stb_status(ctx, output->path, written);
}

static enum ditmoe_status bmp_write(struct ditmoe_ctx *ctx, struct file_output *output,
                                    const uint8_t *pixels, int width, int height,
                                    const struct ditmoe_text *text) {
  (void)text;
  int written = stbi_write_bmp_to_func(stb_sink, output->stream, width, height, 3, pixels);
  return stb_status(ctx, output->path, written);
}

static enum ditmoe_status tga_write(struct ditmoe_ctx *ctx, struct file_output *output,
                                    const uint8_t *pixels, int width, int height,
                                    const struct ditmoe_text *text) {
  (void)text;
  int written = stbi_write_tga_to_func(stb_sink, output->stream, width, height, 3, pixels);
  return stb_status(ctx, output->path, written);
}

struct image_format {
  const char *ending;
  enum ditmoe_status (*write)(struct ditmoe_ctx *ctx, struct file_output *output,
                              const uint8_t *pixels, int width, int height,
                              const struct ditmoe_text *text);
};

static const struct image_format image_formats[] = {
    {".png", image_png_write}, {".jpg", jpeg_write}, {".jpeg", jpeg_write},
    {".bmp", bmp_write},       {".tga", tga_write},
};

static const struct image_format *format_of(const char *path) {
  const char *name = strrchr(path, '/');
  const char *ending = strrchr(name ? name : path, '.');
  for (size_t i = 0; ending && i < sizeof image_formats / sizeof image_formats[0]; i++)
    if (strcasecmp(ending, image_formats[i].ending) == 0) return &image_formats[i];
  return NULL;
}

enum ditmoe_status ditmoe_image_write(struct ditmoe_ctx *ctx, const char *path,
                                      const uint8_t *pixels, int width, int height,
                                      const struct ditmoe_text *text) {
  const struct image_format *format = format_of(path);
  if (!format)
    return fail(ctx, DITMOE_USAGE,
                "%s: not an image format that can be written: .png .jpg .bmp .tga", path);
  if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE)
    return fail(ctx, DITMOE_USAGE, "%s: an image of %d x %d pixels; a side may be 1 to %d", path,
                width, height, IMAGE_MAX_SIDE);
  struct file_output output;
  TRY(file_output_open(ctx, path, &output));
  enum ditmoe_status status = format->write(ctx, &output, pixels, width, height, text);
  if (status == DITMOE_OK) return file_output_commit(ctx, &output);
  file_output_abandon(ctx, &output);
  return status;
}

/* PNG through libpng's row interface: reading of pixels and of text entries. */
#include "io/image_png.h"

#include <setjmp.h>
#include <string.h>

enum {
  MAX_CHUNK_BYTES = 8 << 20, /* bytes that one chunk of a file may ask for */
  MAX_CHUNKS = 256,          /* ancillary chunks that are kept             */
  MAX_MEMORY = 64 << 20,     /* bytes of all that libpng allocates         */
  MAX_DEFLATE = 1032         /* bytes that a byte of deflate can stand for */
};

static void read_bytes(png_structp png, png_bytep out, size_t size) {
  struct png_job *job = png_get_io_ptr(png);
  const uint8_t *bytes;
  if (!span_take(&job->file, size, &bytes)) png_error(png, "the file is truncated");
  memcpy(out, bytes, size);
}

/* To libpng a chunk beyond the limit is worth a warning and its memory all the same: job->room is
 * what holds. */
static struct png_job reading(struct ditmoe_ctx *ctx, const char *path, struct span file) {
  return (struct png_job){
      .ctx = ctx, .path = path, .code = DITMOE_FORMAT, .file = file, .room = MAX_MEMORY};
}

/* A libpng object for job->file, which is to be a PNG; NULL with job->status set. */
static png_structp reader_create(struct png_job *job, png_infop *info) {
  png_structp png = NULL;
  *info = NULL;
  if (image_kind(job->file) != IMAGE_PNG) {
    job->status = fail(job->ctx, DITMOE_FORMAT, "%s: not a PNG file", job->path);
    return NULL;
  }
  png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, job, png_job_error, png_job_warning, job,
                                 png_job_alloc, png_job_free);
  if (png) *info = png_create_info_struct(png);
  if (*info) return png;
  if (job->status == DITMOE_OK)
    job->status = fail(job->ctx, DITMOE_FAILED, "%s: libpng cannot be started", job->path);
  png_destroy_read_struct(&png, NULL, NULL);
  return NULL;
}

/* Chunks up to the image data; the limits hold before anything is allocated. A chunk whose CRC is
 * wrong is an error even where libpng could do without it. */
static void read_header(png_structp png, png_infop info, struct png_job *job, bool texts) {
  if (setjmp(png_jmpbuf(png))) return;
  png_set_user_limits(png, IMAGE_MAX_SIDE, IMAGE_MAX_SIDE);
  png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
  png_set_chunk_cache_max(png, MAX_CHUNKS);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  /* Passed over: all that is not needed for pixels. */
  if (!texts) png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
  png_set_read_fn(png, job, read_bytes);
  png_read_info(png, info);
}

/* Refuses a size that is too large or that no file of these bytes could fill. */
static enum ditmoe_status reserve_pixels(struct png_job *job, png_structp png, png_infop info,
                                         struct image *image) {
  png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  uint64_t bits =
      (uint64_t)width * height * png_get_channels(png, info) * png_get_bit_depth(png, info);
  if (bits / 8 / MAX_DEFLATE > job->file.size)
    return fail(job->ctx, DITMOE_FORMAT,
                "%s: PNG: its header says %u x %u pixels, which its %zu bytes cannot hold",
                job->path, (unsigned)width, (unsigned)height, job->file.size);
  return image_reserve(job->ctx, job->path, width, height, image);
}

/* All forms become 8-bit RGB. No gamma and no blending, and of 16 bits the upper 8: what PIL's
 * convert("RGB") does, but for 16-bit grey, of which that makes white wherever a value is above
 * 255. Texts behind the image data go to `info` if they are wanted. */
static void read_rows(png_structp png, png_infop info, const struct image *image) {
  if (setjmp(png_jmpbuf(png))) return;
  png_set_palette_to_rgb(png);
  png_set_expand_gray_1_2_4_to_8(png);
  png_set_gray_to_rgb(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  size_t row = (size_t)image->width * 3;
  if (png_get_rowbytes(png, info) != row) png_error(png, "its pixels cannot become RGB");
  for (int pass = 0; pass < passes; pass++)
    for (int y = 0; y < image->height; y++)
      png_read_row(png, image->pixels + (size_t)y * row, NULL);
  png_read_end(png, info);
}

enum ditmoe_status image_png_read(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                  struct image *image) {
  struct png_job job = reading(ctx, path, file);
  png_infop info;
  png_structp png = reader_create(&job, &info);
  if (!png) return job.status;
  read_header(png, info, &job, false);
  if (job.status == DITMOE_OK) job.status = reserve_pixels(&job, png, info, image);
  if (job.status == DITMOE_OK) read_rows(png, info, image);
  png_destroy_read_struct(&png, &info, NULL);
  return job.status;
}

/* Copies a text as UTF-8, as much of it as fits; tEXt and zTXt are Latin-1. */
static void copy_utf8(char *out, size_t capacity, const png_text *text) {
  bool latin = text->compression <= PNG_TEXT_COMPRESSION_zTXt;
  size_t used = 0;
  for (const unsigned char *c = (const unsigned char *)text->text; c && *c; c++) {
    bool two = latin && *c >= 0x80;
    if (used + two + 1 >= capacity) break;
    if (two) out[used++] = (char)(0xc0 | *c >> 6);
    out[used++] = (char)(two ? 0x80 | (*c & 0x3f) : *c);
  }
  out[used] = 0;
}

static const png_text *find_text(png_structp png, png_infop info, const char *key) {
  png_textp texts = NULL;
  int count = 0;
  png_get_text(png, info, &texts, &count);
  for (int i = 0; i < count; i++)
    if (strcmp(texts[i].key, key) == 0) return &texts[i];
  return NULL;
}

/* Texts usually stand before the image data, but may follow it. */
static enum ditmoe_status copy_text(struct png_job *job, png_structp png, png_infop info,
                                    const char *key, char *buffer, size_t capacity) {
  const png_text *text = find_text(png, info, key);
  if (!text) {
    struct image image = {0};
    job->status = reserve_pixels(job, png, info, &image);
    if (job->status == DITMOE_OK) read_rows(png, info, &image);
    image_free(&image);
    TRY(job->status);
    text = find_text(png, info, key);
  }
  if (!text)
    return fail(job->ctx, DITMOE_FORMAT,
                "%s: no text entry \"%s\"; was it written without metadata?", job->path, key);
  copy_utf8(buffer, capacity, text);
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_image_text(struct ditmoe_ctx *ctx, const char *path, const char *key,
                                     char *buffer, size_t capacity) {
  if (capacity == 0) return fail(ctx, DITMOE_USAGE, "%s: no room for the text", path);
  struct mapping file;
  png_infop info;
  TRY(file_map(ctx, path, &file));
  struct png_job job = reading(ctx, path, span_of(file.data, file.size));
  png_structp png = reader_create(&job, &info);
  if (png) {
    read_header(png, info, &job, true);
    if (job.status == DITMOE_OK) job.status = copy_text(&job, png, info, key, buffer, capacity);
    png_destroy_read_struct(&png, &info, NULL);
  }
  file_unmap(&file);
  return job.status;
}

/* PNG through libpng's row interface: writing with text entries, and reading of text entries. */
#include "io/image.h"

#include <png.h>
#include <setjmp.h>
#include <string.h>

enum {
  MAX_SIDE = 65535,
  MAX_CHUNK_BYTES = 8 << 20, /* bytes that one chunk of a file may ask for */
  MAX_CHUNKS = 256,          /* ancillary chunks that are kept             */
  MAX_TEXTS = 8
};

/* One libpng object at work; `status` is the failure that its callbacks met. */
struct image_job {
  struct ditmoe_ctx *ctx;
  const char *path;
  enum ditmoe_status status, code; /* code: what an error of libpng itself means */
  struct mapping file;
  size_t position;
};

static void on_error(png_structp png, png_const_charp message) {
  struct image_job *job = png_get_error_ptr(png);
  if (job->status == DITMOE_OK)
    job->status = fail(job->ctx, job->code, "%s: PNG: %s", job->path, message);
  png_longjmp(png, 1);
}

/* libpng warns about harmless oddities of other programs' files. */
static void on_warning(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

static png_voidp take_memory(png_structp png, png_alloc_size_t size) {
  struct image_job *job = png_get_mem_ptr(png);
  void *block = NULL;
  enum ditmoe_status status = mem_alloc(job->ctx, size, 1, "PNG", &block);
  if (status != DITMOE_OK) job->status = status;
  return block;
}

static void give_memory(png_structp png, png_voidp block) {
  struct image_job *job = png_get_mem_ptr(png);
  mem_free(job->ctx, block);
}

/* tEXt is Latin-1. Converts UTF-8 into `latin`, of strlen(text) + 1 bytes; false if a character
 * has no place there or the text is not UTF-8. */
static bool latin1_from_utf8(char *latin, const char *text) {
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c < 0x80) {
      *latin++ = (char)*c;
    } else if ((*c == 0xc2 || *c == 0xc3) && (c[1] & 0xc0) == 0x80) {
      *latin++ = (char)((*c & 3) << 6 | (c[1] & 0x3f));
      c++;
    } else {
      return false;
    }
  }
  *latin = 0;
  return true;
}

/* JSON is UTF-8 by definition and goes into iTXt; other text into tEXt, which more programs read,
 * as long as Latin-1 can hold it. `latin` receives blocks for png_free_texts. */
static enum ditmoe_status make_texts(struct ditmoe_ctx *ctx, png_text *out, char **latin,
                                     const struct ditmoe_text *text, int count) {
  for (int i = 0; i < count; i++) {
    const char *value = text[i].value;
    TRY(mem_strdup(ctx, value, &latin[i]));
    bool plain = value[0] != '{' && latin1_from_utf8(latin[i], value);
    out[i] =
        (png_text){.compression = plain ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
                   .key = (png_charp)text[i].key,
                   .text = plain ? latin[i] : (png_charp)value,
                   .lang = (png_charp) "",
                   .lang_key = (png_charp) ""};
  }
  return DITMOE_OK;
}

/* The calls that may longjmp back; nothing here needs clean-up. */
static void write_rows(png_structp png, png_infop info, FILE *stream, const uint8_t *pixels,
                       png_uint_32 width, png_uint_32 height, png_text *texts, int count) {
  if (setjmp(png_jmpbuf(png))) return;
  png_init_io(png, stream);
  png_set_IHDR(png, info, width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (count > 0) png_set_text(png, info, texts, count);
  png_write_info(png, info);
  for (png_uint_32 y = 0; y < height; y++) png_write_row(png, pixels + (size_t)y * width * 3);
  png_write_end(png, NULL);
}

enum ditmoe_status image_png_write(struct ditmoe_ctx *ctx, struct file_output *output,
                                   const uint8_t *pixels, int width, int height,
                                   const struct ditmoe_text *text) {
  struct image_job job = {.ctx = ctx, .path = output->path, .code = DITMOE_OUTPUT};
  png_text texts[MAX_TEXTS];
  char *latin[MAX_TEXTS] = {NULL};
  png_structp png = NULL;
  png_infop info = NULL;
  int count = 0;
  enum ditmoe_status status = DITMOE_OK;
  while (text && text[count].key) count++;
  if (count > MAX_TEXTS)
    return fail(ctx, DITMOE_USAGE, "%s: %d text entries; a PNG gets at most %d", output->path,
                count, MAX_TEXTS);
  TRY_DONE(make_texts(ctx, texts, latin, text, count));
  png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, &job,
                                  take_memory, give_memory);
  if (png) info = png_create_info_struct(png);
  if (info)
    write_rows(png, info, output->stream, pixels, (png_uint_32)width, (png_uint_32)height, texts,
               count);
  else if (job.status == DITMOE_OK)
    job.status = fail(ctx, DITMOE_FAILED, "%s: libpng cannot be started", output->path);
  status = job.status;
done:
  if (png) png_destroy_write_struct(&png, &info);
  for (int i = 0; i < count; i++) mem_free(ctx, latin[i]);
  return status;
}

static void read_bytes(png_structp png, png_bytep out, size_t size) {
  struct image_job *job = png_get_io_ptr(png);
  if (size > job->file.size - job->position) png_error(png, "the file is truncated");
  memcpy(out, job->file.data + job->position, size);
  job->position += size;
}

/* Chunks up to the image data; the limits hold before anything is allocated. */
static void read_header(png_structp png, png_infop info, struct image_job *job) {
  if (setjmp(png_jmpbuf(png))) return;
  png_set_user_limits(png, MAX_SIDE, MAX_SIDE);
  png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
  png_set_chunk_cache_max(png, MAX_CHUNKS);
  png_set_read_fn(png, job, read_bytes);
  png_read_info(png, info);
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

static enum ditmoe_status copy_text(struct image_job *job, png_structp png, png_infop info,
                                    const char *key, char *buffer, size_t capacity) {
  png_textp texts = NULL;
  int count = 0;
  png_get_text(png, info, &texts, &count);
  for (int i = 0; i < count; i++)
    if (strcmp(texts[i].key, key) == 0) {
      copy_utf8(buffer, capacity, &texts[i]);
      return DITMOE_OK;
    }
  return fail(job->ctx, DITMOE_FORMAT, "%s: no text entry \"%s\"; was it written without metadata?",
              job->path, key);
}

enum ditmoe_status ditmoe_image_text(struct ditmoe_ctx *ctx, const char *path, const char *key,
                                     char *buffer, size_t capacity) {
  if (capacity == 0) return fail(ctx, DITMOE_USAGE, "%s: no room for the text", path);
  struct image_job job = {.ctx = ctx, .path = path, .code = DITMOE_FORMAT};
  png_structp png = NULL;
  png_infop info = NULL;
  TRY(file_map(ctx, path, &job.file));
  if (job.file.size < 8 || png_sig_cmp(job.file.data, 0, 8) != 0) {
    job.status = fail(ctx, DITMOE_FORMAT, "%s: not a PNG file", path);
    goto done;
  }
  png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, &job,
                                 take_memory, give_memory);
  if (png) info = png_create_info_struct(png);
  if (info)
    read_header(png, info, &job);
  else if (job.status == DITMOE_OK)
    job.status = fail(ctx, DITMOE_FAILED, "%s: libpng cannot be started", path);
  if (job.status == DITMOE_OK) job.status = copy_text(&job, png, info, key, buffer, capacity);
done:
  if (png) png_destroy_read_struct(&png, &info, NULL);
  file_unmap(&job.file);
  return job.status;
}

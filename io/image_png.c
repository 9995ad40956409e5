/* PNG through libpng's row interface: writing, with text entries. io/image_png_read.c reads. */
#include "io/image_png.h"

#include <setjmp.h>

enum { MAX_TEXTS = 8 };

void png_job_error(png_structp png, png_const_charp message) {
  struct png_job *job = png_get_error_ptr(png);
  if (job->status == DITMOE_OK)
    job->status = fail(job->ctx, job->code, "%s: PNG: %s", job->path, message);
  png_longjmp(png, 1);
}

/* libpng warns about harmless oddities of other programs' files. */
void png_job_warning(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

png_voidp png_job_alloc(png_structp png, png_alloc_size_t size) {
  struct png_job *job = png_get_mem_ptr(png);
  void *block = NULL;
  enum ditmoe_status status;
  if (size > job->room)
    status = fail(job->ctx, job->code, "%s: PNG: its chunks ask for too much memory", job->path);
  else
    status = mem_alloc(job->ctx, size, 1, "PNG", &block);
  if (status == DITMOE_OK)
    job->room -= size;
  else
    job->status = status;
  return block;
}

void png_job_free(png_structp png, png_voidp block) {
  struct png_job *job = png_get_mem_ptr(png);
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
  struct png_job job = {.ctx = ctx, .path = output->path, .code = DITMOE_OUTPUT, .room = SIZE_MAX};
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
  png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &job, png_job_error, png_job_warning, &job,
                                  png_job_alloc, png_job_free);
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

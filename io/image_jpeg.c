/* Reading of JPEG through libjpeg-turbo, by its default methods: the exact integer inverse DCT and
 * smooth upsampling, so that pixels are those that PIL decodes. libjpeg takes its working memory
 * from the system, within MAX_MEMORY. */
#include "io/image.h"

#include <stdio.h>
/* jpeglib.h wants stdio.h before it, jerror.h wants jpeglib.h */
#include <jpeglib.h>

#include <jerror.h>
#include <setjmp.h>

enum {
  MAX_MEMORY = 1 << 29, /* bytes; the coefficients of a progressive image are 6 bytes per pixel */
  MAX_SCANS = 256       /* each takes the time of the whole image, however few its bytes        */
};

struct jpeg_job {
  struct ditmoe_ctx *ctx;
  const char *path;
  enum ditmoe_status status;
  bool stray; /* bytes between segments */
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  jmp_buf back;
};

_Noreturn static void on_error(j_common_ptr jpeg) {
  struct jpeg_job *job = jpeg->client_data;
  char message[JMSG_LENGTH_MAX];
  int code = jpeg->err->msg_code;
  bool memory = code == JERR_OUT_OF_MEMORY || code == JERR_NO_BACKING_STORE;
  jpeg->err->format_message(jpeg, message);
  job->status =
      fail(job->ctx, memory ? DITMOE_NOMEM : DITMOE_FORMAT, "%s: JPEG: %s", job->path, message);
  longjmp(job->back, 1);
}

/* A warning (level -1) says that data were missing or made no sense and that pixels were invented.
 * Those about numbers in headers are harmless, and bytes that belong to no segment change none. */
static void on_message(j_common_ptr jpeg, int level) {
  struct jpeg_job *job = jpeg->client_data;
  int code = jpeg->err->msg_code;
  if (level < 0 && code == JWRN_EXTRANEOUS_DATA)
    job->stray = true;
  else if (level < 0 && code != JWRN_JFIF_MAJOR && code != JWRN_ADOBE_XFORM)
    on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg) {
  struct jpeg_job *job = jpeg->client_data;
  if (((j_decompress_ptr)jpeg)->input_scan_number <= MAX_SCANS) return;
  job->status = fail(job->ctx, DITMOE_FORMAT, "%s: JPEG: more than %d scans", job->path, MAX_SCANS);
  longjmp(job->back, 1);
}

static enum ditmoe_status
check_header(struct jpeg_job *job, const struct jpeg_decompress_struct *jpeg, struct image *image) {
  if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
    return fail(job->ctx, DITMOE_FORMAT,
                "%s: JPEG: %d colour components; only grey, RGB and CMYK are read", job->path,
                jpeg->num_components);
  return image_reserve(job->ctx, job->path, jpeg->image_width, jpeg->image_height, image);
}

/* The product of two shares of 255, as PIL rounds it. */
static int share_of(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

/* As PIL's convert("RGB"). It takes the four inks for those of Adobe, who stores what they leave.
 */
static void rgb_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, int width) {
  for (int x = 0; x < width; x++) {
    const int white = cmyk[4 * x + 3];
    for (int c = 0; c < 3; c++)
      rgb[3 * x + c] = (uint8_t)(white - share_of(255 - cmyk[4 * x + c], white));
  }
}

/* The calls that may longjmp back; the caller cleans up. */
static void decode(struct jpeg_job *job, struct jpeg_decompress_struct *jpeg, struct span file,
                   struct image *image) {
  if (setjmp(job->back)) return;
  jpeg_create_decompress(jpeg);
  jpeg->progress = &job->progress;
  jpeg->mem->max_memory_to_use = MAX_MEMORY;
  jpeg_mem_src(jpeg, file.data, file.size);
  jpeg_read_header(jpeg, TRUE);
  job->status = check_header(job, jpeg, image);
  if (job->status != DITMOE_OK) return;
  const bool inks = jpeg->num_components == 4;
  jpeg->out_color_space = inks ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(jpeg);
  JSAMPARRAY line = NULL;
  if (inks)
    line = jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE, 4 * jpeg->output_width, 1);
  while (jpeg->output_scanline < jpeg->output_height) {
    JSAMPROW row = image->pixels + (size_t)jpeg->output_scanline * (size_t)image->width * 3;
    jpeg_read_scanlines(jpeg, inks ? line : &row, 1);
    if (inks) rgb_from_cmyk(row, line[0], image->width);
  }
  jpeg_finish_decompress(jpeg); /* wants the end marker */
}

enum ditmoe_status image_jpeg_read(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                   struct image *image) {
  struct jpeg_job job = {.ctx = ctx, .path = path, .progress.progress_monitor = on_progress};
  struct jpeg_decompress_struct jpeg = {.err = jpeg_std_error(&job.errors), .client_data = &job};
  job.errors.error_exit = on_error;
  job.errors.emit_message = on_message;
  decode(&job, &jpeg, file, image);
  jpeg_destroy_decompress(&jpeg);
  if (job.status == DITMOE_OK && job.stray)
    warn(ctx, "%s: JPEG: bytes that belong to nothing are passed over", path);
  return job.status;
}

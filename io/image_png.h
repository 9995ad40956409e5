/* What reading and writing of PNG share: libpng's errors and memory are the context's. */
#ifndef IO_IMAGE_PNG_H
#define IO_IMAGE_PNG_H

#include "io/image.h"

#include <png.h>

/* One libpng object at work; `status` is the failure that its callbacks met. */
struct png_job {
  struct ditmoe_ctx *ctx;
  const char *path;
  enum ditmoe_status status, code; /* code: what an error of libpng itself means */
  struct span file;                /* to read from                               */
  size_t room;                     /* bytes that libpng may still ask for        */
};

/* Callbacks, with the job as their pointer. */
void png_job_error(png_structp png, png_const_charp message);
void png_job_warning(png_structp png, png_const_charp message);
png_voidp png_job_alloc(png_structp png, png_alloc_size_t size);
void png_job_free(png_structp png, png_voidp block);

#endif

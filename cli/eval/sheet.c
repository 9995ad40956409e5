/* The contact sheet: the first samples side by side, each in a cell of equal size. */
#include "cli/eval/eval.h"
#include "cli/text.h"
#include "plot/plot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHEET_IMAGES = 100, SHEET_COLUMNS = 10, CELL_MAX = 128, GAP = 2 };

struct sheet {
  int cell, columns;
  struct canvas canvas;
};

static enum ditmoe_status sheet_create(struct sheet *sheet, int64_t count, int width, int height) {
  const int side = width > height ? width : height, images = (int)count;
  sheet->cell = side < CELL_MAX ? side : CELL_MAX;
  sheet->columns = images < SHEET_COLUMNS ? images : SHEET_COLUMNS;
  const int rows = (images + sheet->columns - 1) / sheet->columns, step = sheet->cell + GAP;
  return canvas_create(&sheet->canvas, sheet->columns * step - GAP, rows * step - GAP);
}

/* Shrunk into its cell where it is larger; never enlarged. */
static void sheet_place(struct sheet *sheet, int index, const uint8_t *pixels, int width,
                        int height) {
  const int side = width > height ? width : height, cell = sheet->cell;
  const int64_t share = side <= cell ? side : cell; /* of `side` */
  const struct area area = {.x = index % sheet->columns * (cell + GAP),
                            .y = index / sheet->columns * (cell + GAP),
                            .width = (int)(width * share / side),
                            .height = (int)(height * share / side)};
  canvas_image(&sheet->canvas, area, pixels, width, height);
}

static enum ditmoe_status sheet_fill(const struct eval *eval, struct ditmoe_images *images,
                                     struct sheet *sheet) {
  struct ditmoe_images_info info;
  ditmoe_images_info(images, &info);
  for (int64_t i = 0; i < info.count; i++) {
    const uint8_t *pixels;
    int width, height;
    TRY(report_call(eval->ctx, ditmoe_images_read(eval->ctx, images, i, &pixels, &width, &height)));
    if (i == 0) TRY(sheet_create(sheet, info.count, width, height));
    sheet_place(sheet, (int)i, pixels, width, height);
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_back(const char *path, char **bytes, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) return report_error(DITMOE_OUTPUT, "%s: %s", path, strerror(errno));
  const long length = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
  rewind(file);
  *bytes = memory_get(length > 0 ? (size_t)length : 1, 1);
  *size = fread(*bytes, 1, length > 0 ? (size_t)length : 0, file);
  fclose(file);
  if (length > 0 && *size == (size_t)length) return DITMOE_OK;
  free(*bytes);
  *bytes = NULL;
  return report_error(DITMOE_OUTPUT, "%s: cannot be read again", path);
}

/* The library writes PNG to files alone: through a folder of our own. */
static enum ditmoe_status encode(const struct eval *eval, const struct sheet *sheet, char **bytes,
                                 size_t *size) {
  const char *parent = getenv("TMPDIR");
  char *folder = text_format("%s/ditmoe-eval-XXXXXX", parent && *parent ? parent : "/tmp");
  if (!mkdtemp(folder)) {
    enum ditmoe_status status =
        report_error(DITMOE_OUTPUT, "%s: a temporary folder: %s", folder, strerror(errno));
    free(folder);
    return status;
  }
  char *path = text_format("%s/sheet.png", folder);
  enum ditmoe_status status =
      report_call(eval->ctx, ditmoe_image_write(eval->ctx, path, sheet->canvas.pixels,
                                                sheet->canvas.width, sheet->canvas.height, NULL));
  if (status == DITMOE_OK) status = read_back(path, bytes, size);
  unlink(path);
  rmdir(folder);
  free(path);
  free(folder);
  return status;
}

enum ditmoe_status eval_sheet(const struct eval *eval, char **bytes, size_t *size, int64_t *count) {
  const struct eval_settings *s = &eval->settings;
  struct ditmoe_images_options options = {.recursive = s->recursive, .count = SHEET_IMAGES};
  struct ditmoe_images *images = NULL;
  struct sheet sheet = {0};
  *bytes = NULL;
  *count = 0;
  if (!eval->samples.images) return DITMOE_OK;
  if (s->num && s->num < SHEET_IMAGES) options.count = s->num;
  TRY(report_call(eval->ctx, ditmoe_images_open(eval->ctx, eval->samples.path, &options, &images)));
  struct ditmoe_images_info info;
  ditmoe_images_info(images, &info);
  *count = info.count;
  enum ditmoe_status status = sheet_fill(eval, images, &sheet);
  ditmoe_images_close(images);
  if (status == DITMOE_OK) status = encode(eval, &sheet, bytes, size);
  canvas_free(&sheet.canvas);
  return status;
}

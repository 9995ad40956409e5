/* The first images of a run side by side. Those that this process has made are kept; the others are
 * read from the run's files. */
#include "cli/sample/work.h"
#include "cli/text.h"

#include "ditmoe_eval.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_SAMPLES = 100, GAP = 2, MAX_SIDE = 65535 };

/* Whole units, so that the grid's settings make the same images again. */
int64_t sample_grid_count(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  int64_t count = s->grid_samples ? s->grid_samples : DEFAULT_SAMPLES;
  if (!s->grid) return 0;
  count = (count + run->unit - 1) / run->unit * run->unit;
  return count < run->labels.count ? count : run->labels.count;
}

static int columns_of(const struct sample *run) {
  int64_t count = run->grid.count, columns = 1;
  if (run->settings.grid_columns)
    return (int)(run->settings.grid_columns < count ? run->settings.grid_columns : count);
  while (columns * columns < count) columns++;
  return (int)columns;
}

static enum ditmoe_status check_size(const struct sample *run) {
  int64_t columns = columns_of(run), rows = (run->grid.count + columns - 1) / columns;
  if (columns * (run->width + GAP) <= MAX_SIDE && rows * (run->height + GAP) <= MAX_SIDE)
    return DITMOE_OK;
  return report_error(DITMOE_USAGE,
                      "--grid: %lld images are too many for one; a side has at most %d pixels",
                      (long long)run->grid.count, MAX_SIDE);
}

/* Images that this process did not make are read again, so nothing may be lost in their files. */
static enum ditmoe_status check_source(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  bool exact = run->names.npz || sample_is_png(run->names.after);
  if (!s->grid || exact || (!s->resume && s->ranks == 1)) return DITMOE_OK;
  return report_error(DITMOE_USAGE, "--grid with --resume or --ranks needs PNG files or an .npz");
}

enum ditmoe_status sample_grid_create(struct sample *run) {
  struct sample_grid *grid = &run->grid;
  grid->count = sample_grid_count(run);
  if (grid->count == 0) return DITMOE_OK;
  TRY(check_size(run));
  TRY(check_source(run));
  if (run->settings.rank > 0) return DITMOE_OK;
  grid->pixels = memory_get((size_t)grid->count, sample_image_bytes(run));
  grid->have = memory_get((size_t)grid->count, sizeof *grid->have);
  return DITMOE_OK;
}

void sample_grid_add(struct sample *run, int64_t index, const uint8_t *pixels) {
  struct sample_grid *grid = &run->grid;
  int64_t at = index - run->labels.first;
  if (!grid->have || at < 0 || at >= grid->count) return;
  memcpy(grid->pixels + (size_t)at * sample_image_bytes(run), pixels, sample_image_bytes(run));
  grid->have[at] = true;
}

/* Reading. */

static enum ditmoe_status read_image(struct sample *run, struct ditmoe_images *images,
                                     int64_t position, int64_t index) {
  const uint8_t *pixels;
  int width, height;
  TRY(report_call(run->ctx,
                  ditmoe_images_read(run->ctx, images, position, &pixels, &width, &height)));
  if (width == run->width && height == run->height) sample_grid_add(run, index, pixels);
  return DITMOE_OK;
}

/* Where an image of the opened ones belongs in the grid; those of a folder are known by their
 * names, and may be others. */
static int64_t place_of(const struct sample *run, const struct ditmoe_images *images, int64_t i) {
  const struct sample_names *names = &run->names;
  if (names->npz) return i;
  char *path = text_format("%s%s", names->folder, path_name(ditmoe_images_name(images, i)));
  int64_t index = sample_file_index(names, path);
  free(path);
  return index - run->labels.first;
}

static enum ditmoe_status read_images(struct sample *run, struct ditmoe_images *images) {
  const struct sample_grid *grid = &run->grid;
  struct ditmoe_images_info info;
  ditmoe_images_info(images, &info);
  for (int64_t i = 0; i < info.count; i++) {
    int64_t at = place_of(run, images, i);
    if (at >= 0 && at < grid->count && !grid->have[at])
      TRY(read_image(run, images, i, run->labels.first + at));
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_missing(struct sample *run) {
  const struct sample_names *names = &run->names;
  const struct ditmoe_images_options options = {0};
  struct ditmoe_images *images = NULL;
  const char *path = names->npz ? names->npz : *names->folder ? names->folder : "./";
  if (!memchr(run->grid.have, false, (size_t)run->grid.count)) return DITMOE_OK;
  TRY(report_call(run->ctx, ditmoe_images_open(run->ctx, path, &options, &images)));
  enum ditmoe_status status = read_images(run, images);
  ditmoe_images_close(images);
  if (status == DITMOE_OK && memchr(run->grid.have, false, (size_t)run->grid.count))
    status = report_error(DITMOE_INCOMPLETE, "%s: an image of the grid is not there", path);
  return status;
}

/* Rows of images on white. */
enum ditmoe_status sample_write_grid(struct sample *run) {
  TRY(read_missing(run));
  const size_t w = (size_t)run->width, h = (size_t)run->height, columns = (size_t)columns_of(run);
  size_t count = (size_t)run->grid.count, rows = (count + columns - 1) / columns;
  size_t width = columns * (w + GAP) - GAP, height = rows * (h + GAP) - GAP;
  uint8_t *grid = memory_get(width * height, 3);
  memset(grid, 255, width * height * 3);
  for (size_t i = 0; i < count; i++)
    for (size_t y = 0; y < h; y++)
      memcpy(grid + 3 * ((i / columns * (h + GAP) + y) * width + i % columns * (w + GAP)),
             run->grid.pixels + 3 * (i * h + y) * w, 3 * w);
  enum ditmoe_status status =
      sample_write_picture(run, run->settings.grid, -1, grid, (int)width, (int)height);
  run->wrote_grid = status == DITMOE_OK;
  free(grid);
  return status;
}

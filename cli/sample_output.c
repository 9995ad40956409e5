/* Images, grid and latents on their way to files and the terminal. */
#include "cli/sample.h"
#include "cli/show.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void draw(const struct sample *run, const uint8_t *pixels, int width, int height) {
  struct winsize window = {0};
  int columns =
      ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col ? window.ws_col : 80;
  int zoom = run->settings.zoom ? (int)run->settings.zoom : 1;
  show_image(pixels, width, height, zoom, columns, stderr);
}

static enum ditmoe_status write_image(struct sample *run, const char *path, int64_t index,
                                      const uint8_t *pixels, int width, int height) {
  double start = clock_seconds();
  char *parameters = NULL, *json = NULL;
  bool with_text = sample_is_png(path) && !run->settings.disable_image_metadata;
  if (with_text) sample_metadata(run, index, &parameters, &json);
  const struct ditmoe_text text[] = {{"parameters", parameters}, {"ditmoe", json}, {NULL, NULL}};
  enum ditmoe_status status = report_call(
      run->ctx, ditmoe_image_write(run->ctx, path, pixels, width, height, with_text ? text : NULL));
  free(parameters);
  cJSON_free(json);
  run->seconds_write += clock_seconds() - start;
  return status;
}

enum ditmoe_status sample_write_image(struct sample *run, int64_t at, const uint8_t *pixels) {
  int64_t index = run->labels.first + at;
  char *path = sample_file_name(&run->names, index);
  enum ditmoe_status status = write_image(run, path, index, pixels, run->side, run->side);
  if (status != DITMOE_OK) {
    free(path);
    return status;
  }
  run->images = memory_resize(run->images, run->image_count + 1, sizeof *run->images);
  run->images[run->image_count++] = (struct sample_image){path, index, run->labels.labels[at]};
  if (!run->settings.common.json) report_file(path);
  if (run->settings.show && !run->settings.grid) draw(run, pixels, run->side, run->side);
  return DITMOE_OK;
}

/* Rows of images on white. */
enum ditmoe_status sample_write_grid(struct sample *run, const uint8_t *pixels) {
  enum { GAP = SAMPLE_GRID_GAP };
  size_t side = (size_t)run->side, columns = (size_t)sample_grid_columns(run);
  size_t count = (size_t)run->labels.count, rows = (count + columns - 1) / columns;
  size_t width = columns * (side + GAP) - GAP, height = rows * (side + GAP) - GAP;
  uint8_t *grid = memory_get(width * height, 3);
  memset(grid, 255, width * height * 3);
  for (size_t i = 0; i < count; i++)
    for (size_t y = 0; y < side; y++)
      memcpy(grid + 3 * ((i / columns * (side + GAP) + y) * width + i % columns * (side + GAP)),
             pixels + 3 * (i * side + y) * side, 3 * side);
  const char *path = run->settings.grid;
  enum ditmoe_status status = write_image(run, path, -1, grid, (int)width, (int)height);
  run->wrote_grid = status == DITMOE_OK;
  if (run->wrote_grid && !run->settings.common.json) report_file(path);
  if (run->wrote_grid && run->settings.show) draw(run, grid, (int)width, (int)height);
  free(grid);
  return status;
}

/* A safetensors file: 8 bytes of header length, the header, "latents" f32 and "labels" i32. */
enum ditmoe_status sample_write_latents(struct sample *run, const float *latents) {
  const struct ditmoe_model_info *info = &run->info;
  size_t count = (size_t)run->labels.count;
  size_t floats = count * (size_t)info->channels * (size_t)info->size * (size_t)info->size;
  size_t split = floats * sizeof *latents, end = split + count * sizeof(int32_t);
  char *header = text_format(
      "{\"latents\":{\"dtype\":\"F32\",\"shape\":[%zu,%d,%d,%d],\"data_offsets\":[0,%zu]},"
      "\"labels\":{\"dtype\":\"I32\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}}",
      count, info->channels, info->size, info->size, split, count, split, end);
  size_t length = strlen(header), padded = (length + 7) / 8 * 8;
  char *bytes = memory_get(8 + padded + end, 1);
  for (int i = 0; i < 8; i++) bytes[i] = (char)(padded >> 8 * i);
  memset(bytes + 8, ' ', padded);
  memcpy(bytes + 8, header, length);
  memcpy(bytes + 8 + padded, latents, split);
  memcpy(bytes + 8 + padded + split, run->labels.labels, count * sizeof(int32_t));
  const char *path = run->settings.latents;
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_file_write(run->ctx, path, bytes, 8 + padded + end));
  run->wrote_latents = status == DITMOE_OK;
  if (run->wrote_latents && !run->settings.common.json) report_file(path);
  free(header);
  free(bytes);
  return status;
}

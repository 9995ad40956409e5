/* The files of a batch, and the journal's lines about them. */
#include "cli/sample/files.h"
#include "cli/sample/show.h"
#include "cli/sample/work.h"
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

enum ditmoe_status sample_write_picture(struct sample *run, const char *path, int64_t index,
                                        const uint8_t *pixels, int width, int height) {
  char *parameters = NULL, *json = NULL;
  bool with_text = sample_is_png(path) && !run->settings.disable_image_metadata;
  if (with_text) sample_metadata(run, index, &parameters, &json);
  const struct ditmoe_text text[] = {{"parameters", parameters}, {"ditmoe", json}, {NULL, NULL}};
  enum ditmoe_status status = report_call(
      run->ctx, ditmoe_image_write(run->ctx, path, pixels, width, height, with_text ? text : NULL));
  free(parameters);
  free(json);
  if (status != DITMOE_OK) return status;
  if (!run->settings.common.json) report_file(path);
  if (run->settings.show && (index < 0 || !run->settings.grid)) draw(run, pixels, width, height);
  return status;
}

/* Pieces. */

/* The file is read again, so that the line is about what the disk has. */
static enum ditmoe_status note_piece(struct sample *run, struct journal_piece piece) {
  int64_t bytes;
  uint32_t crc;
  char *path = sample_piece_name(run, &piece);
  bool read = file_checksum(path, &bytes, &crc);
  enum ditmoe_status status =
      read ? DITMOE_OK : report_error(DITMOE_OUTPUT, "%s: cannot be read again", path);
  free(path);
  if (read)
    journal_add(&run->state.journal, "%s %lld %lld %lld %08x", piece.shard ? "shard" : "image",
                piece.first, piece.count, (long long)bytes, (unsigned)crc);
  return status;
}

static enum ditmoe_status write_image(struct sample *run, int64_t index, const uint8_t *pixels) {
  char *path = sample_file_name(&run->names, index);
  enum ditmoe_status status =
      sample_write_picture(run, path, index, pixels, run->width, run->height);
  free(path);
  TRY(status);
  return note_piece(run, (struct journal_piece){.first = index, .count = 1});
}

/* Images that are there already were made again for the sake of others in their block. */
static bool is_missing(const struct sample *run, int64_t index) {
  return sample_selected(run, index) && !made_has(&run->state.made, index);
}

/* Ends before the first one that fails. */
static enum ditmoe_status write_images(struct sample *run, int64_t first, int64_t *end,
                                       const uint8_t *pixels) {
  size_t bytes = sample_image_bytes(run);
  for (int64_t index = first; index < *end; index++) {
    const uint8_t *image = pixels + (size_t)(index - first) * bytes;
    enum ditmoe_status status = is_missing(run, index) ? write_image(run, index, image) : DITMOE_OK;
    if (status == DITMOE_OK) continue;
    *end = index;
    return status;
  }
  return DITMOE_OK;
}

static enum ditmoe_status write_shard(struct sample *run, int64_t first, int64_t *end,
                                      const uint8_t *pixels) {
  int64_t count = *end - first;
  enum ditmoe_status status = sample_write_shard(run, first, count, pixels);
  if (status == DITMOE_OK)
    status = note_piece(run, (struct journal_piece){.shard = true, .first = first, .count = count});
  if (status != DITMOE_OK) *end = first;
  return status;
}

/* The pieces of [first, end) are in files and in the journal. */
static void add_pieces(struct sample *run, int64_t first, int64_t end) {
  struct sample_state *state = &run->state;
  int64_t piece = run->names.npz ? end - first : 1, before;
  before = made_count(&state->made, first, end);
  for (int64_t index = first; index < end; index += piece)
    if (is_missing(run, index)) made_add(&state->made, index, piece);
  state->new_images += made_count(&state->made, first, end) - before;
}

enum ditmoe_status sample_write_batch(struct sample *run, int64_t first, int64_t count,
                                      const uint8_t *pixels) {
  struct journal *journal = &run->state.journal;
  double start = clock_seconds();
  int64_t end = first + count;
  enum ditmoe_status status = run->names.npz ? write_shard(run, first, &end, pixels)
                                             : write_images(run, first, &end, pixels);
  int cause = journal_commit(journal);
  if (cause && status == DITMOE_OK)
    status = report_error(DITMOE_OUTPUT, "%s: %s", journal->path, strerror(cause));
  if (!cause) add_pieces(run, first, end);
  run->seconds_write += clock_seconds() - start;
  return status;
}

/* Latents. */

/* A safetensors file: 8 bytes of header length, the header, "latents" f32 and "labels" i32. */
enum ditmoe_status sample_write_latents(struct sample *run) {
  const struct ditmoe_model_info *info = &run->info;
  size_t count = (size_t)run->labels.count;
  size_t split = count * (size_t)sample_latent_bytes(run), end = split + count * sizeof(int32_t);
  char *header = text_format(
      "{\"latents\":{\"dtype\":\"F32\",\"shape\":[%zu,%d,%d,%d],\"data_offsets\":[0,%zu]},"
      "\"labels\":{\"dtype\":\"I32\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}}",
      count, info->channels, run->latent_height, run->latent_width, split, count, split, end);
  size_t length = strlen(header), padded = (length + 7) / 8 * 8;
  char *bytes = memory_get(8 + padded + end, 1);
  int32_t *labels = sample_label_list(run, run->labels.first, run->labels.count);
  for (int i = 0; i < 8; i++) bytes[i] = (char)(padded >> 8 * i);
  memset(bytes + 8, ' ', padded);
  memcpy(bytes + 8, header, length);
  memcpy(bytes + 8 + padded, run->batches.latents, split);
  memcpy(bytes + 8 + padded + split, labels, count * sizeof *labels);
  const char *path = run->settings.latents;
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_file_write(run->ctx, path, bytes, 8 + padded + end));
  run->wrote_latents = status == DITMOE_OK;
  if (run->wrote_latents && !run->settings.common.json) report_file(path);
  free(header);
  free(labels);
  free(bytes);
  return status;
}

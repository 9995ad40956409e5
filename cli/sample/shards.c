/* An .npz is made of shards: each batch becomes a file of raw pixels with a CRC-32 behind them, and
 * at the end all are streamed into the .npz. Until then they can be resumed like images. */
#include "cli/sample/files.h"
#include "cli/sample/work.h"
#include "cli/stop.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { CRC_BYTES = 4, PIECE = 1 << 20, LABELS = 4096 };

/* zlib counts in 32 bits. */
static uLong crc_of(uLong crc, const uint8_t *bytes, size_t size) {
  for (; size > PIECE; bytes += PIECE, size -= PIECE) crc = crc32(crc, bytes, PIECE);
  return crc32(crc, bytes, (uInt)size);
}

enum ditmoe_status sample_write_shard(struct sample *run, int64_t first, int64_t count,
                                      const uint8_t *pixels) {
  const struct journal_piece piece = {.shard = true, .first = first, .count = count};
  size_t size = (size_t)count * sample_image_bytes(run);
  uint8_t *bytes = memory_get(size + CRC_BYTES, 1);
  memcpy(bytes, pixels, size);
  uLong crc = crc_of(crc32(0, NULL, 0), pixels, size);
  for (int i = 0; i < CRC_BYTES; i++) bytes[size + (size_t)i] = (uint8_t)(crc >> 8 * i);
  char *path = sample_piece_name(run, &piece);
  enum ditmoe_status status =
      report_call(run->ctx, ditmoe_file_write(run->ctx, path, bytes, size + CRC_BYTES));
  free(path);
  free(bytes);
  return status;
}

/* Packing. */

/* The last bytes of a shard are the CRC of the others. */
static bool has_crc(FILE *file, uLong crc) {
  uint8_t bytes[CRC_BYTES];
  uLong found = 0;
  if (fread(bytes, 1, CRC_BYTES, file) != CRC_BYTES || getc(file) != EOF) return false;
  for (int i = 0; i < CRC_BYTES; i++) found |= (uLong)bytes[i] << 8 * i;
  return found == crc;
}

static enum ditmoe_status copy_pixels(struct sample *run, struct ditmoe_npz *npz, const char *path,
                                      size_t size, uint8_t *buffer) {
  FILE *file = fopen(path, "re");
  uLong crc = crc32(0, NULL, 0);
  enum ditmoe_status status = DITMOE_OK;
  bool good = file != NULL;
  while (good && size > 0 && status == DITMOE_OK) {
    size_t part = size < PIECE ? size : PIECE;
    good = fread(buffer, 1, part, file) == part;
    crc = crc32(crc, buffer, (uInt)part);
    size -= part;
    if (good) status = report_call(run->ctx, ditmoe_npz_write(run->ctx, npz, buffer, part));
  }
  if (status == DITMOE_OK && !(good && has_crc(file, crc)))
    status =
        report_error(DITMOE_INCOMPLETE,
                     "%s: has been damaged since it was written; --resume makes it again", path);
  if (file) fclose(file);
  return status;
}

static enum ditmoe_status add_images(struct sample *run, struct ditmoe_npz *npz) {
  const struct sample_labels *labels = &run->labels;
  int64_t last = labels->first + labels->count, end;
  uint8_t *buffer = memory_get(PIECE, 1);
  enum ditmoe_status status = DITMOE_OK;
  for (int64_t first = labels->first; first < last && status == DITMOE_OK; first = end) {
    end = made_piece_end(&run->state.made, first);
    struct journal_piece piece = {.shard = true, .first = first, .count = end - first};
    char *path = sample_piece_name(run, &piece);
    size_t size = (size_t)piece.count * sample_image_bytes(run);
    status = stop_asked() ? DITMOE_CANCELLED : copy_pixels(run, npz, path, size, buffer);
    free(path);
  }
  free(buffer);
  return status;
}

static enum ditmoe_status add_labels(struct sample *run, struct ditmoe_npz *npz) {
  const struct sample_labels *labels = &run->labels;
  int64_t piece[LABELS], last = labels->first + labels->count;
  for (int64_t first = labels->first; first < last;) {
    size_t count = 0;
    while (count < LABELS && first < last) piece[count++] = sample_label(run, first++);
    TRY(report_call(run->ctx, ditmoe_npz_write(run->ctx, npz, piece, count * sizeof *piece)));
  }
  return DITMOE_OK;
}

static enum ditmoe_status add_arrays(struct sample *run, struct ditmoe_npz *npz) {
  struct ditmoe_ctx *ctx = run->ctx;
  const int64_t shape[] = {run->labels.count, run->height, run->width, 3};
  TRY(report_call(ctx, ditmoe_npz_array(ctx, npz, "arr_0", "u1", 4, shape)));
  TRY(add_images(run, npz));
  TRY(report_call(ctx, ditmoe_npz_array(ctx, npz, "arr_1", "i8", 1, shape)));
  return add_labels(run, npz);
}

enum ditmoe_status sample_pack(struct sample *run) {
  struct sample_state *state = &run->state;
  const char *path = run->names.npz;
  struct ditmoe_npz *npz = NULL;
  TRY(report_call(run->ctx, ditmoe_npz_create(run->ctx, path, &npz)));
  enum ditmoe_status status = add_arrays(run, npz);
  if (status == DITMOE_OK)
    status = report_call(run->ctx, ditmoe_npz_commit(run->ctx, npz));
  else
    ditmoe_npz_abandon(run->ctx, npz);
  TRY(status);
  if (!file_checksum(path, &state->npz_bytes, &state->npz_crc))
    return report_error(DITMOE_OUTPUT, "%s: cannot be read again", path);
  if (!run->settings.common.json) report_file(path);
  return DITMOE_OK;
}

/* Shards stay until the .npz is complete. Each rank counts its own shards, rank 0 the .npz too. */
enum ditmoe_status sample_check_room(const struct sample *run) {
  const struct sample_state *state = &run->state;
  if (!run->names.npz || state->complete) return DITMOE_OK;
  int64_t share = state->share_end - state->share_first;
  int64_t images = share - made_count(&state->made, state->share_first, state->share_end);
  if (run->settings.rank == 0) images += run->labels.count;
  return folder_has_room(run->names.folder, (uint64_t)images * sample_image_bytes(run),
                         run->names.npz);
}

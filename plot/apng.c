/* Animated PNG: IHDR, acTL, then a frame at a time: fcTL and IDAT, later ones fcTL and fdAT. Each
 * frame is the rectangle in which it differs from the one before. */
#include "cli/report.h"
#include "cli/text.h"
#include "plot/plot.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { FILTER_UP = 2 };

struct writer {
  uint8_t *bytes;
  size_t size, room;
  uint32_t sequence; /* of fcTL and fdAT chunks */
};

static void put_bytes(struct writer *writer, const void *bytes, size_t size) {
  if (size > writer->room - writer->size) {
    writer->room = 2 * (writer->size + size);
    writer->bytes = memory_resize(writer->bytes, writer->room, 1);
  }
  memcpy(writer->bytes + writer->size, bytes, size);
  writer->size += size;
}

static void set_number(uint8_t *at, size_t size, uint32_t value) {
  for (size_t i = 0; i < size; i++) at[i] = (uint8_t)(value >> 8 * (size - 1 - i));
}

static void put_number(struct writer *writer, size_t size, uint32_t value) {
  uint8_t bytes[4];
  set_number(bytes, size, value);
  put_bytes(writer, bytes, size);
}

/* Returns where the chunk begins, for chunk_end. */
static size_t chunk_begin(struct writer *writer, const char type[4]) {
  const size_t begin = writer->size;
  put_number(writer, 4, 0);
  put_bytes(writer, type, 4);
  return begin;
}

static void chunk_end(struct writer *writer, size_t begin) {
  const size_t size = writer->size - begin - 4; /* type and data, which the CRC covers */
  set_number(writer->bytes + begin, 4, (uint32_t)(size - 4));
  put_number(writer, 4, (uint32_t)crc32(0, writer->bytes + begin + 4, (uInt)size));
}

static void put_head(struct writer *writer, const struct apng *apng, const struct canvas *frame) {
  static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  static const uint8_t kind[] = {8, 2, 0, 0, 0}; /* 8 bits, RGB, not interlaced */
  put_bytes(writer, signature, sizeof signature);
  size_t begin = chunk_begin(writer, "IHDR");
  put_number(writer, 4, (uint32_t)frame->width);
  put_number(writer, 4, (uint32_t)frame->height);
  put_bytes(writer, kind, sizeof kind);
  chunk_end(writer, begin);
  begin = chunk_begin(writer, "acTL");
  put_number(writer, 4, (uint32_t)apng->count);
  put_number(writer, 4, (uint32_t)apng->loops);
  chunk_end(writer, begin);
}

static void put_control(struct writer *writer, const struct apng *apng, const struct area *area) {
  const size_t begin = chunk_begin(writer, "fcTL");
  put_number(writer, 4, writer->sequence++);
  put_number(writer, 4, (uint32_t)area->width);
  put_number(writer, 4, (uint32_t)area->height);
  put_number(writer, 4, (uint32_t)area->x);
  put_number(writer, 4, (uint32_t)area->y);
  put_number(writer, 2, (uint32_t)apng->delay_ms);
  put_number(writer, 2, 1000);
  put_number(writer, 2, 0); /* stays until the next one, which replaces what it covers */
  chunk_end(writer, begin);
}

static const uint8_t *row_of(const struct canvas *frame, int x, int y) {
  return frame->pixels + 3 * ((size_t)y * (size_t)frame->width + (size_t)x);
}

/* [height, 1 + 3 * width]: rows as differences to the row above, which are mostly zero. */
static uint8_t *filter(const struct canvas *frame, const struct area *area, size_t *size) {
  const size_t row = 3 * (size_t)area->width;
  *size = (row + 1) * (size_t)area->height;
  uint8_t *bytes = memory_get(*size, 1), *out = bytes;
  for (int y = 0; y < area->height; y++) {
    const uint8_t *now = row_of(frame, area->x, area->y + y);
    *out++ = FILTER_UP;
    memcpy(out, now, row);
    if (y > 0)
      for (size_t i = 0; i < row; i++) out[i] -= now[i - 3 * (size_t)frame->width];
    out += row;
  }
  return bytes;
}

static enum ditmoe_status put_pixels(struct writer *writer, const struct canvas *frame,
                                     const struct area *area, bool first) {
  size_t size;
  uint8_t *rows = filter(frame, area, &size);
  uLongf packed = compressBound(size);
  uint8_t *data = memory_get(packed, 1);
  const int code = compress2(data, &packed, rows, size, Z_DEFAULT_COMPRESSION);
  if (code == Z_OK) {
    const size_t begin = chunk_begin(writer, first ? "IDAT" : "fdAT");
    if (!first) put_number(writer, 4, writer->sequence++);
    put_bytes(writer, data, packed);
    chunk_end(writer, begin);
  }
  free(data);
  free(rows);
  return code == Z_OK ? DITMOE_OK : report_error(DITMOE_NOMEM, "zlib: %s", zError(code));
}

static bool same_pixels(const struct canvas *a, const struct canvas *b, int x, int y, int count) {
  return memcmp(row_of(a, x, y), row_of(b, x, y), 3 * (size_t)count) == 0;
}

/* Where two frames differ; one pixel if they do not. */
static struct area changed(const struct canvas *a, const struct canvas *b) {
  int top = 0, bottom = a->height, left = a->width, right = 0;
  while (top < bottom && same_pixels(a, b, 0, top, a->width)) top++;
  while (bottom > top && same_pixels(a, b, 0, bottom - 1, a->width)) bottom--;
  if (top == bottom) return (struct area){0, 0, 1, 1};
  for (int y = top; y < bottom; y++) {
    for (int x = 0; x < left; x++)
      if (!same_pixels(a, b, x, y, 1)) left = x;
    for (int x = a->width; x > right; x--)
      if (!same_pixels(a, b, x - 1, y, 1)) right = x;
  }
  return (struct area){left, top, right - left, bottom - top};
}

static enum ditmoe_status put_frame(struct writer *writer, const struct apng *apng, int index,
                                    const struct canvas *frame, const struct canvas *before) {
  struct area area = {0, 0, frame->width, frame->height};
  if (index == 0)
    put_head(writer, apng, frame);
  else if (frame->width != before->width || frame->height != before->height)
    return report_error(DITMOE_FAILED, "frame %d has %d x %d pixels, the one before %d x %d", index,
                        frame->width, frame->height, before->width, before->height);
  else
    area = changed(frame, before);
  put_control(writer, apng, &area);
  return put_pixels(writer, frame, &area, index == 0);
}

static enum ditmoe_status put_frames(struct writer *writer, const struct apng *apng) {
  struct canvas frames[2] = {{0}};
  enum ditmoe_status status = DITMOE_OK;
  for (int i = 0; i < apng->count && status == DITMOE_OK; i++) {
    struct canvas *frame = &frames[i % 2];
    canvas_free(frame);
    status = apng->draw(apng->user, i, frame);
    if (status == DITMOE_OK) status = put_frame(writer, apng, i, frame, &frames[(i + 1) % 2]);
  }
  canvas_free(&frames[0]);
  canvas_free(&frames[1]);
  return status;
}

enum ditmoe_status apng_write(struct ditmoe_ctx *ctx, const char *path, const struct apng *apng) {
  struct writer writer = {0};
  enum ditmoe_status status = put_frames(&writer, apng);
  if (status == DITMOE_OK) {
    chunk_end(&writer, chunk_begin(&writer, "IEND"));
    status = report_call(ctx, ditmoe_file_write(ctx, path, writer.bytes, writer.size));
  }
  free(writer.bytes);
  return status;
}

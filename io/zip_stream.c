/* The content of a ZIP entry in pieces: copied if stored, inflated if deflated. */
#define ZLIB_CONST
#include "io/zip.h"

#include <string.h>
#include <zlib.h>

struct zip_stream {
  const struct zip *zip;
  const struct zip_entry *entry;
  const uint8_t *packed;         /* the next byte of the file     */
  uint64_t packed_left, content; /* bytes of content not read yet */
  uint32_t crc;                  /* of what was read              */
  z_stream inflater;
  int result; /* of the last call of zlib */
};

static void *zlib_alloc(void *ctx, unsigned count, unsigned size) {
  void *block = NULL;
  return mem_alloc(ctx, count, size, "inflating", &block) == DITMOE_OK ? block : NULL;
}

static void zlib_free(void *ctx, void *block) { mem_free(ctx, block); }

static enum ditmoe_status no_memory(const struct zip *zip) {
  return fail(zip->source->ctx, DITMOE_NOMEM, "%s: not enough memory to inflate",
              zip->source->path);
}

enum ditmoe_status zip_stream_open(const struct zip *zip, const struct zip_entry *entry,
                                   struct zip_stream **out) {
  struct ditmoe_ctx *ctx = zip->source->ctx;
  const uint8_t *packed = NULL;
  struct zip_stream *stream;
  TRY(zip_locate(zip, entry, &packed));
  TRY(mem_zalloc(ctx, 1, sizeof *stream, "reading a zip entry", &stream));
  stream->zip = zip;
  stream->entry = entry;
  stream->packed = packed;
  stream->packed_left = entry->packed;
  stream->content = entry->size;
  stream->inflater = (z_stream){.zalloc = zlib_alloc, .zfree = zlib_free, .opaque = ctx};
  if (entry->method == ZIP_DEFLATED && inflateInit2(&stream->inflater, -MAX_WBITS) != Z_OK) {
    mem_free(ctx, stream);
    return no_memory(zip);
  }
  *out = stream;
  return DITMOE_OK;
}

void zip_stream_close(struct zip_stream *stream) {
  if (!stream) return;
  if (stream->entry->method == ZIP_DEFLATED) inflateEnd(&stream->inflater);
  mem_free(stream->zip->source->ctx, stream);
}

const uint8_t *zip_stream_place(const struct zip_stream *stream) { return stream->packed; }

static unsigned chunk_of(uint64_t left) { return left < 1u << 30 ? (unsigned)left : 1u << 30; }

/* After the last byte of content zlib must find the end of its data, and that is the end of the
 * entry. */
static enum ditmoe_status inflate_piece(struct zip_stream *stream, uint8_t *out, size_t size) {
  z_stream *inflater = &stream->inflater;
  bool last = size == stream->content;
  size_t left = size;
  inflater->next_in = stream->packed;
  inflater->next_out = out;
  while (stream->result == Z_OK && (left || last)) {
    unsigned in = inflater->avail_in = chunk_of(stream->packed_left);
    unsigned room = inflater->avail_out = chunk_of(left);
    stream->result = inflate(inflater, Z_NO_FLUSH);
    stream->packed_left -= in - inflater->avail_in;
    left -= room - inflater->avail_out;
  }
  stream->packed = inflater->next_in;
  if (stream->result == Z_MEM_ERROR) return no_memory(stream->zip);
  if (left || (last && (stream->result != Z_STREAM_END || stream->packed_left)))
    return zip_bad_entry(stream->zip, stream->entry, "damaged deflate data");
  return DITMOE_OK;
}

enum ditmoe_status zip_stream_read(struct zip_stream *stream, void *out, size_t size) {
  if (size > stream->content)
    return zip_bad_entry(stream->zip, stream->entry, "it ends before its content does");
  if (stream->entry->method == ZIP_DEFLATED) {
    TRY(inflate_piece(stream, out, size));
  } else {
    if (size) memcpy(out, stream->packed, size);
    stream->packed += size;
  }
  stream->content -= size;
  if (size) stream->crc = (uint32_t)crc32_z(stream->crc, out, size);
  if (stream->content == 0 && stream->crc != stream->entry->crc)
    return zip_bad_entry(stream->zip, stream->entry, ZIP_BAD_CRC);
  return DITMOE_OK;
}

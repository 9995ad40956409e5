/* Reading ZIP archives: end records, central directory, entries. */
#include "io/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
  LOCAL_SIGNATURE = 0x04034b50,
  CENTRAL_SIGNATURE = 0x02014b50,
  END_SIGNATURE = 0x06054b50,
  END64_SIGNATURE = 0x06064b50,
  LOCATOR64_SIGNATURE = 0x07064b50,
  LOCAL_SIZE = 30,
  CENTRAL_SIZE = 46,
  END_SIZE = 22,
  END64_SIZE = 56,
  LOCATOR64_SIZE = 20,
  MAX_ENTRIES = 1 << 20,
  ZIP64_EXTRA = 1,
  FLAG_DESCRIPTOR = 0x0008, /* sizes and CRC follow the data; the local header may hold zeros */
  FLAGS_ALLOWED = 0x080e    /* descriptor, deflate effort, UTF-8 names; not: encryption, patches */
};

static enum ditmoe_status bad_zip(const struct zip *zip, const char *what) {
  return fail(zip->source->ctx, DITMOE_FORMAT,
              "%s: damaged or truncated zip archive: %s; fetch the file again", zip->source->path,
              what);
}

enum ditmoe_status zip_bad_entry(const struct zip *zip, const struct zip_entry *entry,
                                 const char *what) {
  return fail(zip->source->ctx, DITMOE_FORMAT, "%s: zip entry %.*s: %s", zip->source->path,
              TEXT(entry->name), what);
}

/* End records. */

struct end_record {
  uint64_t count, size, offset; /* of the central directory */
};

/* *at = offset of the end record: the last one whose comment ends with the file. */
static bool find_end(struct span file, size_t *at) {
  for (size_t comment = 0; comment <= 0xffff && comment + END_SIZE <= file.size; comment++) {
    *at = file.size - END_SIZE - comment;
    const uint8_t *end = file.data + *at;
    if (le_number(end, 4) == END_SIGNATURE && le_number(end + 20, 2) == comment) return true;
  }
  return false;
}

/* Both end records: disk, disk of the directory, entries here, entries, size, offset. */
static bool read_end(const uint8_t *end, bool wide, struct end_record *out) {
  unsigned disk = wide ? 4 : 2, count = wide ? 8 : 2, size = wide ? 8 : 4;
  const uint8_t *here = end + (wide ? 16 : 4) + 2 * disk;
  out->count = le_number(here + count, count);
  out->size = le_number(here + 2 * count, size);
  out->offset = le_number(here + 2 * count + size, size);
  return le_number(here - 2 * disk, 2 * disk) == 0 && le_number(here, count) == out->count;
}

static bool same_or_escaped(uint64_t narrow, uint64_t wide, uint64_t escape) {
  return narrow == wide || narrow == escape;
}

/* Where the central directory is. *limit = start of the end records, which it must not reach
 * into. */
static enum ditmoe_status locate_directory(struct zip *zip, struct end_record *out,
                                           uint64_t *limit) {
  struct span file = zip->source->file;
  size_t at;
  if (!find_end(file, &at)) return bad_zip(zip, "no end of central directory");
  if (!read_end(file.data + at, false, out)) return bad_zip(zip, "part of a multi-volume archive");
  *limit = at;
  if (at < LOCATOR64_SIZE + END64_SIZE) return DITMOE_OK;
  const uint8_t *locator = file.data + at - LOCATOR64_SIZE;
  if (le_number(locator, 4) != LOCATOR64_SIGNATURE) return DITMOE_OK;
  *limit = le_number(locator + 8, 8);
  struct end_record wide;
  if (*limit > at - LOCATOR64_SIZE - END64_SIZE ||
      le_number(file.data + *limit, 4) != END64_SIGNATURE ||
      !read_end(file.data + *limit, true, &wide))
    return bad_zip(zip, "the zip64 end record is not where its locator says");
  if (!same_or_escaped(out->count, wide.count, 0xffff) ||
      !same_or_escaped(out->size, wide.size, 0xffffffff) ||
      !same_or_escaped(out->offset, wide.offset, 0xffffffff))
    return bad_zip(zip, "the two end records disagree");
  *out = wide;
  return DITMOE_OK;
}

/* Replaces each of the `count` fields that is escaped by its zip64 value, in order. */
static bool read_zip64_extra(struct span extra, uint64_t *const fields[], int count) {
  bool escaped = false;
  for (int i = 0; i < count; i++) escaped |= *fields[i] == 0xffffffff;
  while (escaped && span_left(&extra)) {
    uint64_t id, size;
    const uint8_t *bytes;
    if (!span_number(&extra, 2, &id) || !span_number(&extra, 2, &size) ||
        !span_take(&extra, size, &bytes))
      return false;
    if (id != ZIP64_EXTRA) continue;
    struct span values = span_of(bytes, size);
    for (int i = 0; i < count; i++)
      if (*fields[i] == 0xffffffff && !span_number(&values, 8, fields[i])) return false;
    return true;
  }
  return !escaped;
}

/* Flags, method, CRC and sizes lie in this order in both headers. */
static void read_common(const uint8_t *fields, struct zip_entry *entry) {
  entry->flags = (uint16_t)le_number(fields, 2);
  entry->method = (uint16_t)le_number(fields + 2, 2);
  entry->crc = (uint32_t)le_number(fields + 8, 4);
  entry->packed = le_number(fields + 12, 4);
  entry->size = le_number(fields + 16, 4);
  entry->name.length = (size_t)le_number(fields + 20, 2);
}

static bool read_central(struct span *directory, struct zip_entry *entry) {
  const uint8_t *header, *extra, *comment;
  if (!span_take(directory, CENTRAL_SIZE, &header) || le_number(header, 4) != CENTRAL_SIGNATURE)
    return false;
  read_common(header + 8, entry);
  entry->local = le_number(header + 42, 4);
  size_t extra_size = (size_t)le_number(header + 30, 2);
  if (!span_take(directory, entry->name.length, &entry->name.bytes) ||
      !span_take(directory, extra_size, &extra) ||
      !span_take(directory, le_number(header + 32, 2), &comment))
    return false;
  uint64_t *const fields[] = {&entry->size, &entry->packed, &entry->local};
  return le_number(header + 34, 2) == 0 && read_zip64_extra(span_of(extra, extra_size), fields, 3);
}

static int compare_entries(const void *a, const void *b) {
  return text_compare(((const struct zip_entry *)a)->name, ((const struct zip_entry *)b)->name);
}

static enum ditmoe_status read_entries(struct zip *zip, struct span directory) {
  for (size_t i = 0; i < zip->count; i++) {
    struct zip_entry *entry = &zip->entries[i];
    if (!read_central(&directory, entry)) return bad_zip(zip, "a bad central directory entry");
    /* Exact bounds are checked with the local header; this stops absurd sizes at once. */
    if (entry->local > zip->directory || entry->packed > zip->directory - entry->local)
      return zip_bad_entry(zip, entry, "it reaches beyond the archive");
  }
  if (span_left(&directory)) return bad_zip(zip, "the central directory has the wrong size");
  if (zip->count) qsort(zip->entries, zip->count, sizeof *zip->entries, compare_entries);
  for (size_t i = 1; i < zip->count; i++)
    if (compare_entries(&zip->entries[i - 1], &zip->entries[i]) == 0)
      return zip_bad_entry(zip, &zip->entries[i], "the name occurs twice");
  return DITMOE_OK;
}

enum ditmoe_status zip_open(struct zip *zip, struct source *source) {
  *zip = (struct zip){.source = source};
  struct end_record end = {0};
  uint64_t limit = 0;
  TRY(locate_directory(zip, &end, &limit));
  if (end.offset > limit || end.size > limit - end.offset)
    return bad_zip(zip, "the central directory lies outside the file");
  if (end.count > end.size / CENTRAL_SIZE || end.count > MAX_ENTRIES)
    return bad_zip(zip, "more entries than the central directory can hold");
  zip->directory = end.offset;
  TRY(mem_zalloc(source->ctx, end.count, sizeof *zip->entries, "the zip directory", &zip->entries));
  zip->count = end.count;
  return read_entries(zip, span_of(source->file.data + end.offset, end.size));
}

void zip_close(struct zip *zip) { mem_free(zip->source->ctx, zip->entries); }

struct zip_entry *zip_find(const struct zip *zip, struct text name) {
  struct zip_entry key = {.name = name};
  if (!zip->count) return NULL;
  return bsearch(&key, zip->entries, zip->count, sizeof key, compare_entries);
}

/* Entries. */

/* *data = the packed bytes, behind a local header that agrees with the central directory. */
static bool read_local(const struct zip *zip, const struct zip_entry *entry, const uint8_t **data) {
  struct span file = span_of(zip->source->file.data, zip->directory);
  struct zip_entry local;
  const uint8_t *header, *extra;
  if (!span_seek(&file, entry->local) || !span_take(&file, LOCAL_SIZE, &header) ||
      le_number(header, 4) != LOCAL_SIGNATURE)
    return false;
  read_common(header + 6, &local);
  size_t extra_size = (size_t)le_number(header + 28, 2);
  if (!span_take(&file, local.name.length, &local.name.bytes) ||
      !span_take(&file, extra_size, &extra) || !span_take(&file, entry->packed, data))
    return false;
  uint64_t *const fields[] = {&local.size, &local.packed};
  if (!read_zip64_extra(span_of(extra, extra_size), fields, 2) ||
      text_compare(local.name, entry->name) != 0 || local.flags != entry->flags ||
      local.method != entry->method)
    return false;
  bool later = local.flags & FLAG_DESCRIPTOR && !local.packed && !local.size && !local.crc;
  return later ||
         (local.packed == entry->packed && local.size == entry->size && local.crc == entry->crc);
}

enum ditmoe_status zip_locate(const struct zip *zip, const struct zip_entry *entry,
                              const uint8_t **packed) {
  if (entry->flags & ~FLAGS_ALLOWED)
    return zip_bad_entry(zip, entry, "encrypted or with unknown flags");
  if (!read_local(zip, entry, packed))
    return zip_bad_entry(zip, entry, "its local header disagrees with the central directory");
  if (entry->method != ZIP_STORED && entry->method != ZIP_DEFLATED)
    return zip_bad_entry(zip, entry, "its compression method is not supported");
  if (entry->method == ZIP_STORED && entry->packed != entry->size)
    return zip_bad_entry(zip, entry, "it is stored, but its two sizes differ");
  return DITMOE_OK;
}

static enum ditmoe_status inflate_entry(struct zip *zip, const struct zip_entry *entry,
                                        const uint8_t **content) {
  struct zip_stream *stream;
  uint8_t *block;
  TRY(source_unpack(zip->source, entry->size, entry->name, &block));
  TRY(zip_stream_open(zip, entry, &stream));
  enum ditmoe_status status = zip_stream_read(stream, block, entry->size);
  zip_stream_close(stream);
  *content = block;
  return status;
}

enum ditmoe_status zip_read(struct zip *zip, struct zip_entry *entry, struct span *out) {
  if (!entry->data) {
    const uint8_t *content = NULL;
    TRY(zip_locate(zip, entry, &content));
    /* Only overlapping entries add up to more than the file; reading them could take for ever. */
    zip->read += entry->packed;
    if (zip->read > zip->source->file.size) return zip_bad_entry(zip, entry, "it overlaps another");
    if (entry->method == ZIP_DEFLATED)
      TRY(inflate_entry(zip, entry, &content));
    else if (crc32_z(0, content, entry->size) != entry->crc)
      return zip_bad_entry(zip, entry, ZIP_BAD_CRC);
    entry->data = content;
  }
  *out = span_of(entry->data, entry->size);
  return DITMOE_OK;
}

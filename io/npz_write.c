/* Writing .npz (a zip archive of stored arrays, APPNOTE 6.3) and .npy, in order. Equal arrays give
 * equal bytes. */
#include "io/npz_write.h"

#include "base/span.h"
#include "io/npz.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

struct record {
  char *name; /* with .npy */
  uint64_t local, size;
  uint32_t crc;
};

struct ditmoe_npz {
  struct file_output output;
  struct record *records; /* the last one is being written while bytes are left */
  size_t count;
  uint64_t at, left; /* offset in the file; bytes that the array lacks */
  bool failed;       /* a write failed: the file is worthless          */
};

enum {
  LOCAL_SIZE = 30,
  LOCAL_CRC = 14, /* where in the local header it is */
  CENTRAL_SIZE = 46,
  EXTRA_MAX = 28,
  END_MAX = 98,
  NAME_MAX_BYTES = 65000,
  VERSION = 20,
  VERSION_ZIP64 = 45,
  FLAG_UTF8 = 0x0800,
  DATE_1980 = 0x21, /* January 1st: a file says nothing about when it was made */
  UNIX = 3 << 8,
  MANY = 0xffff
};
#define BIG 0xffffffffu /* the value of a field that stands in the zip64 extra field */
static const uint32_t regular_file = 0100644u << 16;

static enum ditmoe_status not_written(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz) {
  npz->failed = true;
  return fail(ctx, DITMOE_OUTPUT, "%s: cannot be written: %s", npz->output.path, strerror(errno));
}

static enum ditmoe_status put(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz, const void *bytes,
                              size_t size) {
  if (size && fwrite(bytes, 1, size, npz->output.stream) != size) return not_written(ctx, npz);
  npz->at += size;
  return DITMOE_OK;
}

static uint8_t *number(uint8_t *to, uint64_t value, int width) {
  for (; width; width--, value >>= 8) *to++ = (uint8_t)value;
  return to;
}

static uint64_t narrow(uint64_t value) { return value < BIG ? value : BIG; }

/* Records of the archive. */

/* The zip64 field: those of the values that do not fit their own fields, in this order. */
static uint8_t *extra_field(uint8_t *to, const uint64_t *values, int count) {
  uint8_t *start = to;
  for (int i = 0; i < count; i++)
    if (values[i] >= BIG) to = number(to == start ? to + 4 : to, values[i], 8);
  if (to != start) number(number(start, 1, 2), (uint64_t)(to - start - 4), 2);
  return to;
}

/* From the version needed up to the length of the extra field, the same in both headers. */
static uint8_t *common_fields(uint8_t *to, const struct record *record, size_t extra) {
  uint16_t flags = 0;
  for (const char *c = record->name; *c; c++)
    if (*c & 0x80) flags = FLAG_UTF8;
  to = number(to, extra ? VERSION_ZIP64 : VERSION, 2);
  to = number(to, flags, 2);
  to = number(to, 0, 2); /* stored */
  to = number(to, 0, 2); /* midnight */
  to = number(to, DATE_1980, 2);
  to = number(to, record->crc, 4);
  to = number(to, narrow(record->size), 4);
  to = number(to, narrow(record->size), 4);
  to = number(to, strlen(record->name), 2);
  return number(to, extra, 2);
}

/* The CRC is known, and written again, when the array is complete. */
static enum ditmoe_status put_local(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                    const struct record *record) {
  uint8_t header[LOCAL_SIZE], extra[EXTRA_MAX];
  const uint64_t values[] = {record->size, record->size};
  size_t extra_size = (size_t)(extra_field(extra, values, 2) - extra);
  common_fields(number(header, 0x04034b50, 4), record, extra_size);
  TRY(put(ctx, npz, header, LOCAL_SIZE));
  TRY(put(ctx, npz, record->name, strlen(record->name)));
  return put(ctx, npz, extra, extra_size);
}

static enum ditmoe_status put_central(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                      const struct record *record) {
  uint8_t header[CENTRAL_SIZE], extra[EXTRA_MAX];
  const uint64_t values[] = {record->size, record->size, record->local};
  size_t extra_size = (size_t)(extra_field(extra, values, 3) - extra);
  uint8_t *to = number(header, 0x02014b50, 4);
  to = number(to, UNIX | (extra_size ? VERSION_ZIP64 : VERSION), 2);
  to = common_fields(to, record, extra_size);
  to = number(to, 0, 6); /* comment, disk, internal attributes */
  to = number(to, regular_file, 4);
  number(to, narrow(record->local), 4);
  TRY(put(ctx, npz, header, CENTRAL_SIZE));
  TRY(put(ctx, npz, record->name, strlen(record->name)));
  return put(ctx, npz, extra, extra_size);
}

static enum ditmoe_status put_end(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                  uint64_t directory) {
  uint8_t end[END_MAX], *to = end;
  uint64_t size = npz->at - directory, count = npz->count;
  if (count >= MANY || size >= BIG || directory >= BIG) {
    to = number(to, 0x06064b50, 4);
    to = number(to, 44, 8); /* the size of the rest of this record */
    to = number(to, UNIX | VERSION_ZIP64, 2);
    to = number(to, VERSION_ZIP64, 2);
    to = number(to, 0, 8); /* disks */
    to = number(number(to, count, 8), count, 8);
    to = number(number(to, size, 8), directory, 8);
    to = number(to, 0x07064b50, 4);
    to = number(to, 0, 4);
    to = number(to, npz->at, 8); /* where this record begins */
    to = number(to, 1, 4);
  }
  uint64_t few = count < MANY ? count : MANY;
  to = number(number(to, 0x06054b50, 4), 0, 4);
  to = number(number(to, few, 2), few, 2);
  to = number(number(to, narrow(size), 4), narrow(directory), 4);
  to = number(to, 0, 2);
  return put(ctx, npz, end, (size_t)(to - end));
}

/* Arrays. */

enum ditmoe_status ditmoe_npz_create(struct ditmoe_ctx *ctx, const char *path,
                                     struct ditmoe_npz **out) {
  struct ditmoe_npz *npz;
  TRY(mem_zalloc(ctx, 1, sizeof *npz, "writing arrays", &npz));
  enum ditmoe_status status = file_output_open(ctx, path, &npz->output);
  if (status != DITMOE_OK) {
    mem_free(ctx, npz);
    return status;
  }
  *out = npz;
  return DITMOE_OK;
}

static enum ditmoe_status add_record(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                     const char *name, uint64_t size) {
  size_t length = strlen(name);
  char *copy;
  TRY(mem_room(ctx, npz->count, sizeof *npz->records, "the arrays", &npz->records));
  TRY(mem_alloc(ctx, length + sizeof ".npy", 1, "the name of an array", &copy));
  memcpy(copy, name, length);
  memcpy(copy + length, ".npy", sizeof ".npy");
  npz->records[npz->count++] = (struct record){.name = copy, .local = npz->at, .size = size};
  return DITMOE_OK;
}

static bool is_taken(const struct ditmoe_npz *npz, const char *name) {
  size_t length = strlen(name);
  for (size_t i = 0; i < npz->count; i++)
    if (strncmp(npz->records[i].name, name, length) == 0 &&
        strcmp(npz->records[i].name + length, ".npy") == 0)
      return true;
  return false;
}

static enum ditmoe_status check_complete(struct ditmoe_ctx *ctx, const struct ditmoe_npz *npz) {
  if (npz->failed)
    return fail(ctx, DITMOE_OUTPUT, "%s: cannot be written: an earlier write failed",
                npz->output.path);
  if (!npz->left) return DITMOE_OK;
  return fail(ctx, DITMOE_FAILED, "%s: array %s lacks %llu bytes", npz->output.path,
              npz->records[npz->count - 1].name, (unsigned long long)npz->left);
}

/* The CRC of the array that became complete goes back into its local header. */
static enum ditmoe_status finish_array(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz) {
  const struct record *record = &npz->records[npz->count - 1];
  FILE *stream = npz->output.stream;
  uint8_t crc[4];
  number(crc, record->crc, 4);
  if (fseeko(stream, (off_t)(record->local + LOCAL_CRC), SEEK_SET) != 0 ||
      fwrite(crc, 1, sizeof crc, stream) != sizeof crc ||
      fseeko(stream, (off_t)npz->at, SEEK_SET) != 0)
    return not_written(ctx, npz);
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_npz_array(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                    const char *name, const char *dtype, int rank,
                                    const int64_t *shape) {
  char header[NPY_HEADER_MAX];
  uint64_t bytes = 0;
  size_t length = strlen(name);
  struct text text = {(const uint8_t *)name, length};
  TRY(check_complete(ctx, npz));
  if (!length || length > NAME_MAX_BYTES || !text_is_printable(text) || is_taken(npz, name))
    return fail(ctx, DITMOE_USAGE, "%s: %.*s cannot be the name of an array", npz->output.path,
                TEXT(text));
  size_t size = npy_header(header, dtype, rank, shape, &bytes);
  if (!size)
    return fail(ctx, DITMOE_USAGE, "%s: array %.*s: type %s or its shape is not supported",
                npz->output.path, TEXT(text), dtype);
  TRY(add_record(ctx, npz, name, size + bytes));
  npz->left = size + bytes;
  TRY(put_local(ctx, npz, &npz->records[npz->count - 1]));
  return ditmoe_npz_write(ctx, npz, header, size);
}

/* Before `size` bytes are added to the array. */
static enum ditmoe_status check_room(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                     uint64_t size) {
  if (npz->failed) return check_complete(ctx, npz);
  if (size <= npz->left) return DITMOE_OK;
  return fail(ctx, DITMOE_FAILED, "%s: %llu bytes more than the array has", npz->output.path,
              (unsigned long long)(size - npz->left));
}

static enum ditmoe_status added(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz, uint64_t size) {
  npz->left -= size;
  return size && !npz->left ? finish_array(ctx, npz) : DITMOE_OK;
}

enum ditmoe_status ditmoe_npz_write(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                    const void *bytes, size_t size) {
  TRY(check_room(ctx, npz, size));
  if (!size) return DITMOE_OK;
  TRY(put(ctx, npz, bytes, size));
  uint32_t *crc = &npz->records[npz->count - 1].crc;
  *crc = (uint32_t)crc32_z(*crc, bytes, size);
  return added(ctx, npz, size);
}

/* By doubling: two runs of zeros make one of twice their length. */
static uint32_t crc_of_zeros(uint64_t size) {
  uLong crc = 0, run = crc32(0, (const uint8_t[1]){0}, 1);
  for (z_off_t length = 1; size; size >>= 1, length *= 2) {
    if (size & 1) crc = crc32_combine(crc, run, length);
    run = crc32_combine(run, run, length);
  }
  return (uint32_t)crc;
}

enum ditmoe_status npz_write_hole(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz, uint64_t size) {
  TRY(check_room(ctx, npz, size));
  if (!size) return DITMOE_OK;
  if (fseeko(npz->output.stream, (off_t)(npz->at + size), SEEK_SET) != 0)
    return not_written(ctx, npz);
  npz->at += size;
  uint32_t *crc = &npz->records[npz->count - 1].crc;
  *crc = (uint32_t)crc32_combine(*crc, crc_of_zeros(size), (z_off_t)size);
  return added(ctx, npz, size);
}

/* The end. */

static enum ditmoe_status put_directory(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz) {
  uint64_t directory = npz->at;
  TRY(check_complete(ctx, npz));
  for (size_t i = 0; i < npz->count; i++) TRY(put_central(ctx, npz, &npz->records[i]));
  return put_end(ctx, npz, directory);
}

static void free_all(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz) {
  for (size_t i = 0; i < npz->count; i++) mem_free(ctx, npz->records[i].name);
  mem_free(ctx, npz->records);
  mem_free(ctx, npz);
}

enum ditmoe_status ditmoe_npz_commit(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz) {
  enum ditmoe_status status = put_directory(ctx, npz);
  if (status == DITMOE_OK)
    status = file_output_commit(ctx, &npz->output);
  else
    file_output_abandon(ctx, &npz->output);
  free_all(ctx, npz);
  return status;
}

void ditmoe_npz_abandon(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz) {
  if (!npz) return;
  file_output_abandon(ctx, &npz->output);
  free_all(ctx, npz);
}

enum ditmoe_status npy_write(struct ditmoe_ctx *ctx, const char *path, const char *dtype, int rank,
                             const int64_t *shape, const void *bytes) {
  char header[NPY_HEADER_MAX];
  struct file_output output;
  uint64_t size = 0;
  size_t header_size = npy_header(header, dtype, rank, shape, &size);
  if (!header_size)
    return fail(ctx, DITMOE_USAGE, "%s: type %s or its shape is not supported", path, dtype);
  TRY(file_output_open(ctx, path, &output));
  (void)!fwrite(header, 1, header_size, output.stream); /* commit reports the stream's error */
  if (size) (void)!fwrite(bytes, 1, (size_t)size, output.stream);
  return file_output_commit(ctx, &output);
}

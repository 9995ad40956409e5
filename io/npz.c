/* Reading .npz and .npy: a zip archive of arrays, or one array. */
#include "io/npz.h"

#include "base/pages.h"
#include "io/npy.h"
#include "io/zip.h"

#include <stdio.h>
#include <string.h>

struct member {
  struct npz_array array; /* first: a pointer to it is one to the member */
  struct npy npy;
  const struct zip_entry *entry; /* NULL: the file is the array */
  char *name;
};

/* What is being read, if anything. */
struct reading {
  const struct member *member;
  struct zip_stream *stream; /* or, in a file that is the array, */
  struct span plain;
  const uint8_t *kept; /* pages of a mapped file before it are dropped    */
  uint8_t *whole;      /* elements in C order, of an array that is not     */
  uint64_t given;      /* elements given by npz_stream_u8                  */
};

struct npz {
  struct ditmoe_ctx *ctx;
  struct mapping mapping; /* size 0: the bytes are not ours */
  struct source source;
  struct zip zip;
  char *path;
  struct member *members;
  int count;
  struct reading reading;
};

enum { PIECE = 1 << 20, SMALL_PIECE = 1 << 12 };

__attribute__((format(printf, 3, 4))) static enum ditmoe_status
bad_array(const struct npz *npz, const struct member *member, const char *format, ...) {
  char what[300];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  if (!member->entry) return fail(npz->ctx, DITMOE_FORMAT, "%s: %s", npz->path, what);
  return fail(npz->ctx, DITMOE_FORMAT, "%s: array %s: %s", npz->path, member->name, what);
}

/* Bytes of an array: header and elements, in order. */

void npz_rewind(struct npz *npz) {
  zip_stream_close(npz->reading.stream);
  mem_free(npz->ctx, npz->reading.whole);
  npz->reading = (struct reading){0};
}

/* Pages that were read leave memory. Only a mapping's come back. A fault maps pages around its own,
 * so what is dropped begins a little before what was read last. */
static void drop_behind(struct npz *npz) {
  enum { AROUND = 1 << 16 };
  struct reading *reading = &npz->reading;
  const uint8_t *place =
      reading->stream ? zip_stream_place(reading->stream) : reading->plain.data + reading->plain.at;
  if (!npz->mapping.size || place - reading->kept < PIECE) return;
  pages_drop(reading->kept, (size_t)(place - reading->kept));
  reading->kept = place - AROUND;
}

static enum ditmoe_status pull(struct npz *npz, void *out, size_t size) {
  struct reading *reading = &npz->reading;
  for (uint8_t *to = out; size;) {
    size_t piece = size < PIECE ? size : PIECE;
    const uint8_t *bytes;
    if (reading->stream)
      TRY(zip_stream_read(reading->stream, to, piece));
    else if (span_take(&reading->plain, piece, &bytes))
      memcpy(to, bytes, piece);
    else
      return bad_array(npz, reading->member, "it is cut short");
    drop_behind(npz);
    to += piece;
    size -= piece;
  }
  return DITMOE_OK;
}

/* From the first byte of its header on. */
static enum ditmoe_status begin(struct npz *npz, const struct member *member) {
  struct reading *reading = &npz->reading;
  npz_rewind(npz);
  reading->member = member;
  reading->plain = npz->source.file;
  reading->kept = reading->plain.data;
  if (!member->entry) return DITMOE_OK;
  TRY(zip_stream_open(&npz->zip, member->entry, &reading->stream));
  reading->kept = zip_stream_place(reading->stream);
  return DITMOE_OK;
}

/* Headers. */

static enum ditmoe_status check_size(const struct npz *npz, const struct member *member) {
  uint64_t size = member->entry ? member->entry->size : npz->source.file.size;
  uint64_t has = size - member->npy.header;
  if (!member->npy.kind || has == member->npy.bytes) return DITMOE_OK;
  return bad_array(
      npz, member, "its shape needs %llu bytes of %s, but it has %llu; it may be cut short",
      (unsigned long long)member->npy.bytes, member->array.type, (unsigned long long)has);
}

static enum ditmoe_status read_header(struct npz *npz, struct member *member) {
  uint8_t prefix[NPY_PREFIX], text[NPY_TEXT_MAX];
  size_t rest, early;
  TRY(begin(npz, member));
  TRY(pull(npz, prefix, sizeof prefix));
  if (!npy_prefix(prefix, &rest, &early)) return bad_array(npz, member, "it is no NumPy array");
  if (rest < early || rest > NPY_TEXT_MAX)
    return bad_array(npz, member, "the length of its header is absurd");
  memcpy(text, prefix + NPY_PREFIX - early, early);
  TRY(pull(npz, text + early, rest - early));
  member->npy.header = NPY_PREFIX - early + rest;
  const char *wrong = npy_parse((struct text){text, rest}, &member->npy, &member->array);
  if (wrong) return bad_array(npz, member, "%s", wrong);
  member->array.type = member->npy.type;
  return check_size(npz, member);
}

/* Opening. */

static bool is_array(struct text name) {
  return name.length >= 4 && memcmp(name.bytes + name.length - 4, ".npy", 4) == 0;
}

static enum ditmoe_status add_member(struct npz *npz, const struct zip_entry *entry) {
  struct member *member = &npz->members[npz->count];
  size_t length = entry ? entry->name.length - 4 : 0;
  if (entry && !text_is_printable(entry->name))
    return zip_bad_entry(&npz->zip, entry, "its name holds control characters or is not UTF-8");
  TRY(mem_zalloc(npz->ctx, length + 1, 1, "the name of an array", &member->name));
  npz->count++;
  if (length) memcpy(member->name, entry->name.bytes, length);
  member->array.name = member->name;
  member->entry = entry;
  enum ditmoe_status status = read_header(npz, member);
  npz_rewind(npz);
  return status;
}

static enum ditmoe_status read_archive(struct npz *npz) {
  TRY(zip_open(&npz->zip, &npz->source));
  TRY(mem_zalloc(npz->ctx, npz->zip.count, sizeof *npz->members, "the arrays", &npz->members));
  for (size_t i = 0; i < npz->zip.count; i++)
    if (is_array(npz->zip.entries[i].name)) TRY(add_member(npz, &npz->zip.entries[i]));
  if (npz->count) return DITMOE_OK;
  return fail(npz->ctx, DITMOE_FORMAT, "%s: a zip archive without NumPy arrays", npz->path);
}

static bool starts_with(struct span file, const char *start) {
  size_t length = strlen(start);
  return file.size >= length && memcmp(file.data, start, length) == 0;
}

static enum ditmoe_status read_file(struct npz *npz) {
  struct span file = npz->source.file;
  if (!file.size) return fail(npz->ctx, DITMOE_FORMAT, "%s: is empty", npz->path);
  if (starts_with(file, "PK\3\4") || starts_with(file, "PK\5\6")) return read_archive(npz);
  if (!starts_with(file, "\x93NUMPY"))
    return fail(npz->ctx, DITMOE_FORMAT,
                "%s: neither a .npz nor a .npy file (%zu bytes); it may be damaged", npz->path,
                file.size);
  TRY(mem_zalloc(npz->ctx, 1, sizeof *npz->members, "an array", &npz->members));
  return add_member(npz, NULL);
}

/* Takes over the mapping, if there is one. */
static enum ditmoe_status open_file(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                    struct mapping *mapping, struct npz **out) {
  struct npz *npz;
  enum ditmoe_status status;
  TRY(mem_zalloc(ctx, 1, sizeof *npz, "a set of arrays", &npz));
  npz->ctx = ctx;
  npz->source = (struct source){.ctx = ctx, .file = file};
  npz->zip.source = &npz->source;
  TRY_DONE(mem_strdup(ctx, path, &npz->path));
  npz->source.path = npz->path;
  TRY_DONE(read_file(npz));
  if (mapping) npz->mapping = *mapping;
  *out = npz;
  return DITMOE_OK;
done:
  npz_close(npz);
  return status;
}

enum ditmoe_status npz_open_bytes(struct ditmoe_ctx *ctx, const char *path, const void *bytes,
                                  size_t size, struct npz **out) {
  return open_file(ctx, path, span_of(bytes, size), NULL, out);
}

enum ditmoe_status npz_open(struct ditmoe_ctx *ctx, const char *path, struct npz **out) {
  struct mapping mapping;
  TRY(file_map(ctx, path, &mapping));
  enum ditmoe_status status =
      open_file(ctx, path, span_of(mapping.data, mapping.size), &mapping, out);
  if (status != DITMOE_OK) file_unmap(&mapping);
  return status;
}

void npz_close(struct npz *npz) {
  if (!npz) return;
  struct ditmoe_ctx *ctx = npz->ctx;
  npz_rewind(npz);
  for (int i = 0; i < npz->count; i++) mem_free(ctx, npz->members[i].name);
  mem_free(ctx, npz->members);
  zip_close(&npz->zip);
  file_unmap(&npz->mapping);
  mem_free(ctx, npz->path);
  mem_free(ctx, npz);
}

int npz_count(const struct npz *npz) { return npz->count; }

const struct npz_array *npz_at(const struct npz *npz, int index) {
  return &npz->members[index].array;
}

const struct npz_array *npz_find(const struct npz *npz, const char *name) {
  for (int i = 0; i < npz->count; i++)
    if (strcmp(npz->members[i].name, name) == 0) return &npz->members[i].array;
  return NULL;
}

const char *npz_shape_text(char out[NPZ_SHAPE_TEXT], const struct npz_array *array) {
  size_t used = (size_t)snprintf(out, NPZ_SHAPE_TEXT, "[");
  for (int i = 0; i < array->rank; i++)
    used += (size_t)snprintf(out + used, NPZ_SHAPE_TEXT - used, "%s%lld", i ? ", " : "",
                             (long long)array->shape[i]);
  snprintf(out + used, NPZ_SHAPE_TEXT - used, "]");
  return out;
}

/* Elements. */

static const struct member *member_of(const struct npz_array *array) {
  return (const struct member *)array;
}

/* From the first element on. */
static enum ditmoe_status begin_elements(struct npz *npz, const struct member *member) {
  uint8_t header[NPY_PREFIX + NPY_TEXT_MAX];
  TRY(begin(npz, member));
  return pull(npz, header, member->npy.header);
}

static enum ditmoe_status check_readable(const struct npz *npz, const struct member *member) {
  if (member->npy.kind) return DITMOE_OK;
  const char *type = member->array.type;
  return bad_array(npz, member, "it (%s) %s", type, npy_why_not(type));
}

static enum ditmoe_status check_whole(const struct npz *npz, const struct member *member) {
  if (member->array.elements <= NPZ_MAX_ELEMENTS) return DITMOE_OK;
  return bad_array(npz, member, "it is too large to be read as a whole");
}

/* Places in C order of elements that come in Fortran order: the first index runs fastest. */
struct walk {
  const struct npz_array *array;
  int64_t index[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK], at;
};

static void walk_start(struct walk *walk, const struct npz_array *array) {
  *walk = (struct walk){.array = array};
  int64_t stride = 1;
  for (int i = array->rank - 1; i >= 0; i--) {
    walk->stride[i] = stride;
    stride *= array->shape[i];
  }
}

static int64_t walk_next(struct walk *walk) {
  int64_t at = walk->at;
  for (int i = 0; i < walk->array->rank; i++) {
    walk->at += walk->stride[i];
    if (++walk->index[i] < walk->array->shape[i]) break;
    walk->at -= walk->stride[i] * walk->index[i];
    walk->index[i] = 0;
  }
  return at;
}

static enum ditmoe_status read_f64(struct npz *npz, const struct member *member, double *out) {
  const struct npz_array *array = &member->array;
  const struct npy *npy = &member->npy;
  uint8_t bytes[SMALL_PIECE];
  double values[SMALL_PIECE];
  struct walk walk;
  walk_start(&walk, array);
  TRY(begin_elements(npz, member));
  for (int64_t done = 0, n; done < array->elements; done += n) {
    n = SMALL_PIECE / npy->width;
    if (n > array->elements - done) n = array->elements - done;
    TRY(pull(npz, bytes, (size_t)n * (size_t)npy->width));
    npy_widen(array->fortran ? values : out + done, bytes, n, npy->kind, npy->width,
              array->swapped);
    for (int64_t i = 0; array->fortran && i < n; i++) out[walk_next(&walk)] = values[i];
  }
  return DITMOE_OK;
}

enum ditmoe_status npz_read_f64(struct ditmoe_ctx *ctx, struct npz *npz,
                                const struct npz_array *array, double *out) {
  const struct member *member = member_of(array);
  npz->ctx = npz->source.ctx = ctx;
  TRY(check_readable(npz, member));
  TRY(check_whole(npz, member));
  enum ditmoe_status status = read_f64(npz, member, out);
  npz_rewind(npz);
  return status;
}

static enum ditmoe_status load_whole(struct npz *npz, const struct member *member) {
  uint8_t bytes[SMALL_PIECE];
  struct walk walk;
  uint8_t *whole;
  int64_t elements = member->array.elements;
  TRY(check_whole(npz, member));
  TRY(mem_alloc(npz->ctx, (size_t)elements, 1, "an array in Fortran order", &whole));
  npz->reading.whole = whole;
  walk_start(&walk, &member->array);
  for (int64_t done = 0, n; done < elements; done += n) {
    n = elements - done < SMALL_PIECE ? elements - done : SMALL_PIECE;
    TRY(pull(npz, bytes, (size_t)n));
    for (int64_t i = 0; i < n; i++) whole[walk_next(&walk)] = bytes[i];
  }
  return DITMOE_OK;
}

static enum ditmoe_status stream_u8(struct npz *npz, const struct member *member, uint8_t *out,
                                    size_t size) {
  struct reading *reading = &npz->reading;
  if (reading->member != member) {
    TRY(begin_elements(npz, member));
    if (member->array.fortran) TRY(load_whole(npz, member));
  }
  if (size > (uint64_t)member->array.elements - reading->given)
    return bad_array(npz, member, "more bytes are asked for than it has");
  if (!reading->whole)
    TRY(pull(npz, out, size));
  else if (size)
    memcpy(out, reading->whole + reading->given, size);
  reading->given += size;
  return DITMOE_OK;
}

enum ditmoe_status npz_stream_u8(struct ditmoe_ctx *ctx, struct npz *npz,
                                 const struct npz_array *array, uint8_t *out, size_t size) {
  const struct member *member = member_of(array);
  npz->ctx = npz->source.ctx = ctx;
  TRY(check_readable(npz, member));
  if (array->dtype != DT_U8)
    return bad_array(npz, member, "its type is %s instead of |u1", array->type);
  enum ditmoe_status status = stream_u8(npz, member, out, size);
  if (status != DITMOE_OK) npz_rewind(npz);
  return status;
}

/* Reading safetensors: 8 bytes header length, a JSON header of a fixed grammar, data. The header is
 * scanned here, without a tree:
 *
 *   { NAME: {"dtype": STRING, "shape": [UINT, ...], "data_offsets": [UINT, UINT]}, ...,
 *     "__metadata__": {STRING: STRING, ...} }
 *
 * Data must be covered exactly, without overlap, holes or a rest. */
#include "io/formats.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100 * 1000 * 1000 };

struct scanner {
  struct source *source;
  struct span in;   /* the header                              */
  struct span data; /* what follows it                         */
  uint8_t *scratch; /* strings without their escapes           */
  struct text name; /* of the tensor being read, for messages  */
  bool list;        /* without data, see source_read_list      */
};

static enum ditmoe_status bad_header(const struct scanner *s, const char *what) {
  const char *where = s->list ? "list of tensors" : "safetensors header";
  if (!s->name.bytes)
    return fail(s->source->ctx, DITMOE_FORMAT, "%s: bad %s: %s at byte %zu", s->source->path, where,
                what, s->in.at);
  return fail(s->source->ctx, DITMOE_FORMAT, "%s: tensor %.*s: bad %s: %s", s->source->path,
              TEXT(s->name), where, what);
}

/* Tokens. */

static int peek(struct scanner *s) {
  while (span_left(&s->in) && memchr(" \t\r\n", s->in.data[s->in.at], 4)) s->in.at++;
  return span_left(&s->in) ? s->in.data[s->in.at] : -1;
}

static bool accept(struct scanner *s, char token) {
  if (peek(s) != token) return false;
  s->in.at++;
  return true;
}

static enum ditmoe_status expect(struct scanner *s, char token, const char *otherwise) {
  return accept(s, token) ? DITMOE_OK : bad_header(s, otherwise);
}

/* Digits only: no sign, fraction or exponent. */
static enum ditmoe_status take_unsigned(struct scanner *s, uint64_t *out) {
  int digit = peek(s);
  if (digit < '0' || digit > '9') return bad_header(s, "not a plain non-negative integer");
  *out = 0;
  while (span_left(&s->in) && (digit = s->in.data[s->in.at]) >= '0' && digit <= '9') {
    if (__builtin_mul_overflow(*out, 10u, out) || __builtin_add_overflow(*out, digit - '0', out))
      return bad_header(s, "an integer beyond 64 bits");
    s->in.at++;
  }
  return DITMOE_OK;
}

static bool take_hex(struct span *in, uint32_t *out) {
  const uint8_t *digits;
  if (!span_take(in, 4, &digits)) return false;
  *out = 0;
  for (int i = 0; i < 4; i++) {
    static const char hex[] = "0123456789abcdef0123456789ABCDEF";
    const char *found = digits[i] ? strchr(hex, digits[i]) : NULL;
    if (!found) return false;
    *out = *out << 4 | (uint32_t)((found - hex) & 15);
  }
  return true;
}

/* \uXXXX, or a pair of them for a character above U+FFFF, to UTF-8; false if it is no character. */
static bool take_unicode(struct span *in, uint8_t **out) {
  uint32_t code, low;
  const uint8_t *prefix;
  if (!take_hex(in, &code) || code == 0 || (code >= 0xdc00 && code <= 0xdfff)) return false;
  if (code >= 0xd800 && code < 0xdc00) {
    if (!span_take(in, 2, &prefix) || memcmp(prefix, "\\u", 2) != 0 || !take_hex(in, &low) ||
        low < 0xdc00 || low > 0xdfff)
      return false;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
  *(*out)++ = (uint8_t)(lead[more] | code >> 6 * more);
  while (more--) *(*out)++ = (uint8_t)(0x80 | (code >> 6 * more & 0x3f));
  return true;
}

static bool take_escape(struct span *in, uint8_t **out) {
  static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
  const uint8_t *letter;
  if (!span_take(in, 1, &letter)) return false;
  if (*letter == 'u') return take_unicode(in, out);
  const char *found = *letter ? strchr(escapes, *letter) : NULL;
  if (found) *(*out)++ = (uint8_t)meanings[found - escapes];
  return found;
}

/* A string without its quotes and escapes, written to scratch at the position it has in the header,
 * where it always fits. */
static enum ditmoe_status take_string(struct scanner *s, struct text *out) {
  if (!accept(s, '"')) return bad_header(s, "a string is missing");
  uint8_t *start = s->scratch + s->in.at, *end = start;
  const uint8_t *byte;
  for (;;) {
    if (!span_take(&s->in, 1, &byte)) return bad_header(s, "a string without an end");
    if (*byte == '"') break;
    if (*byte < 0x20) return bad_header(s, "a control character in a string");
    if (*byte != '\\')
      *end++ = *byte;
    else if (!take_escape(&s->in, &end))
      return bad_header(s, "a bad escape in a string");
  }
  *out = (struct text){start, (size_t)(end - start)};
  if (!text_is_utf8(*out)) return bad_header(s, "a string that is not UTF-8");
  return DITMOE_OK;
}

/* Grammar. */

static enum ditmoe_status take_key(struct scanner *s, struct text *out) {
  TRY(take_string(s, out));
  return expect(s, ':', "a colon is missing");
}

/* After an item: *more = whether another follows. */
static enum ditmoe_status take_separator(struct scanner *s, char close, bool *more) {
  *more = accept(s, ',');
  return *more || accept(s, close) ? DITMOE_OK : bad_header(s, "a comma or bracket is missing");
}

/* [UINT, ...] of at most `capacity` numbers. */
static enum ditmoe_status take_array(struct scanner *s, uint64_t *numbers, int capacity,
                                     int *count) {
  *count = 0;
  TRY(expect(s, '[', "an array is missing"));
  bool more = !accept(s, ']');
  while (more) {
    if (*count == capacity)
      return bad_header(s, "an array that is too long (8 dimensions at most)");
    TRY(take_unsigned(s, &numbers[(*count)++]));
    TRY(take_separator(s, ']', &more));
  }
  return DITMOE_OK;
}

static enum ditmoe_status take_metadata(struct scanner *s) {
  struct text key, value;
  size_t first = s->source->checkpoint->metadata_count;
  TRY(expect(s, '{', "__metadata__ is not an object"));
  bool more = !accept(s, '}');
  while (more) {
    TRY(take_key(s, &key));
    TRY(take_string(s, &value));
    TRY(source_add_metadata(s->source, key, value));
    TRY(take_separator(s, '}', &more));
  }
  return source_check_metadata(s->source, first);
}

struct description { /* of one tensor; a count of -1: not given yet */
  struct text dtype;
  uint64_t shape[TENSOR_MAX_RANK], offsets[2];
  int rank, offset_count;
};

static enum ditmoe_status take_field(struct scanner *s, struct description *d) {
  struct text key;
  TRY(take_key(s, &key));
  if (text_is(key, "dtype") && !d->dtype.bytes) return take_string(s, &d->dtype);
  if (text_is(key, "shape") && d->rank < 0)
    return take_array(s, d->shape, TENSOR_MAX_RANK, &d->rank);
  if (text_is(key, "data_offsets") && d->offset_count < 0 && !s->list)
    return take_array(s, d->offsets, 2, &d->offset_count);
  return bad_header(s, "an unknown or repeated field");
}

/* Where the data lie. */
static enum ditmoe_status check_offsets(struct scanner *s, const struct description *d,
                                        uint64_t bytes) {
  if (d->offset_count != 2) return bad_header(s, "data_offsets is missing");
  if (d->offsets[0] > d->offsets[1]) return bad_header(s, "its data end before they begin");
  if (d->offsets[1] > s->data.size)
    return bad_header(s, "its data lie beyond the end of the file, which may be truncated");
  if (d->offsets[1] - d->offsets[0] != bytes)
    return bad_header(s, "shape and data_offsets differ in size");
  return DITMOE_OK;
}

static enum ditmoe_status check_description(struct scanner *s, const struct description *d,
                                            struct tensor *out) {
  if (!d->dtype.bytes || d->rank < 0) return bad_header(s, "dtype or shape is missing");
  *out = (struct tensor){.dtype = dtype_parse((const char *)d->dtype.bytes, d->dtype.length),
                         .rank = d->rank};
  if (out->dtype == DT_COUNT || !dtype_is_portable(out->dtype))
    return fail(s->source->ctx, DITMOE_FORMAT, "%s: tensor %.*s: dtype %.*s is not supported",
                s->source->path, TEXT(s->name), TEXT(d->dtype));
  for (int i = 0; i < d->rank; i++) {
    if (d->shape[i] > INT64_MAX) return bad_header(s, "a dimension beyond 63 bits");
    out->shape[i] = (int64_t)d->shape[i];
  }
  uint64_t bytes;
  if (!tensor_measure(out, &bytes)) return bad_header(s, "its shape overflows");
  if (s->list) return DITMOE_OK;
  TRY(check_offsets(s, d, bytes));
  out->data = s->data.data + d->offsets[0];
  return DITMOE_OK;
}

static enum ditmoe_status take_tensor(struct scanner *s, struct text name) {
  struct description d = {.rank = -1, .offset_count = -1};
  struct tensor tensor;
  bool more = true;
  s->name = name;
  TRY(expect(s, '{', "its description is not an object"));
  while (more) {
    TRY(take_field(s, &d));
    TRY(take_separator(s, '}', &more));
  }
  TRY(check_description(s, &d, &tensor));
  s->name = (struct text){0};
  return source_add(s->source, name, &tensor);
}

static enum ditmoe_status take_header(struct scanner *s) {
  bool metadata_seen = false;
  TRY(expect(s, '{', "it is not a JSON object"));
  bool more = !accept(s, '}');
  while (more) {
    struct text name;
    TRY(take_key(s, &name));
    if (s->list || !text_is(name, "__metadata__"))
      TRY(take_tensor(s, name));
    else if (metadata_seen)
      return bad_header(s, "__metadata__ occurs twice");
    else
      TRY(take_metadata(s));
    metadata_seen |= text_is(name, "__metadata__");
    TRY(take_separator(s, '}', &more));
  }
  return peek(s) < 0 ? DITMOE_OK : bad_header(s, "more text after the object");
}

/* Coverage of the data. */

static int compare_data(const void *a, const void *b) {
  const struct tensor *x = a, *y = b;
  const uint8_t *from = x->data, *other = y->data;
  if (from != other) return from < other ? -1 : 1;
  return (x->elements > 0) - (y->elements > 0);
}

/* Of the tensors from number `first` on. */
static enum ditmoe_status check_coverage(const struct scanner *s, size_t first) {
  size_t count = s->source->checkpoint->count - first;
  struct tensor *tensors = count ? s->source->checkpoint->tensors + first : NULL;
  const uint8_t *end = s->data.data;
  if (count) qsort(tensors, count, sizeof *tensors, compare_data);
  for (size_t i = 0; i < count; i++) {
    const uint8_t *from = tensors[i].data;
    if (from != end)
      return fail(s->source->ctx, DITMOE_FORMAT, "%s: tensor %s: its data %s those before it",
                  s->source->path, tensors[i].name, from < end ? "overlap" : "leave a hole after");
    end = from + tensor_bytes(&tensors[i]);
  }
  if (end != s->data.data + s->data.size)
    return fail(s->source->ctx, DITMOE_FORMAT, "%s: %zu bytes after the last tensor",
                s->source->path, (size_t)(s->data.data + s->data.size - end));
  return DITMOE_OK;
}

static enum ditmoe_status read_header(struct scanner *s, const void *header, size_t length) {
  s->in = span_of(header, length);
  TRY(mem_alloc(s->source->ctx, length, 1, "the safetensors header", &s->scratch));
  enum ditmoe_status status = take_header(s);
  mem_free(s->source->ctx, s->scratch);
  return status;
}

enum ditmoe_status source_read_list(struct source *source, const char *list) {
  struct scanner s = {.source = source, .list = true};
  return read_header(&s, list, strlen(list));
}

static enum ditmoe_status read_safetensors(struct source *source) {
  struct scanner s = {.source = source, .data = source->file};
  uint64_t length;
  const uint8_t *header;
  size_t first = source->checkpoint->count;
  if (!span_number(&s.data, 8, &length) || length > HEADER_MAX ||
      !span_take(&s.data, length, &header))
    return fail(source->ctx, DITMOE_FORMAT,
                "%s: truncated or not safetensors: its header does not fit (100 MB at most)",
                source->path);
  s.data = span_of(s.data.data + s.data.at, span_left(&s.data));
  TRY(read_header(&s, header, length));
  return check_coverage(&s, first);
}

static bool match_safetensors(struct span file) { return file.size >= 9 && file.data[8] == '{'; }

const struct format safetensors_format = {"safetensors", match_safetensors, read_safetensors};

/* Headers and elements of .npy files (NumPy Enhancement Proposal 1, versions 1 to 3). */
#include "io/npy.h"

#include "io/formats.h"

#include <stdio.h>
#include <string.h>

enum { MAGIC = 6, ALIGNMENT = 64 };
static const char magic[MAGIC + 1] = "\x93NUMPY";

bool npy_prefix(const uint8_t *prefix, size_t *rest, size_t *early) {
  unsigned major = prefix[MAGIC], minor = prefix[MAGIC + 1], width = major == 1 ? 2 : 4;
  if (memcmp(prefix, magic, MAGIC) != 0 || major < 1 || major > 3 || minor != 0) return false;
  *rest = (size_t)le_number(prefix + MAGIC + 2, width);
  *early = NPY_PREFIX - MAGIC - 2 - width;
  return true;
}

/* The dictionary. */

static void skip_blanks(struct span *text) {
  while (span_left(text) && text->data[text->at] && strchr(" \t\r\n", text->data[text->at]))
    text->at++;
}

static bool see(struct span *text, char c) {
  skip_blanks(text);
  return span_left(text) && text->data[text->at] == (uint8_t)c;
}

static bool accept(struct span *text, char c) {
  bool there = see(text, c);
  text->at += there;
  return there;
}

static bool accept_word(struct span *text, const char *word) {
  size_t length = strlen(word);
  skip_blanks(text);
  if (span_left(text) < length || memcmp(text->data + text->at, word, length) != 0) return false;
  text->at += length;
  return true;
}

/* A string between equal quotes, without escapes, which no type needs. */
static bool read_string(struct span *text, struct text *out) {
  char quote = see(text, '"') ? '"' : '\'';
  if (!accept(text, quote)) return false;
  const uint8_t *start = text->data + text->at;
  const uint8_t *end = span_left(text) ? memchr(start, quote, span_left(text)) : NULL;
  if (!end) return false;
  *out = (struct text){start, (size_t)(end - start)};
  text->at += out->length + 1;
  return !out->length || (!memchr(start, '\\', out->length) && !memchr(start, '\n', out->length));
}

/* A structure: lists, tuples, strings and numbers, passed over up to the closing bracket. */
static bool skip_structure(struct span *text) {
  int64_t depth = 0;
  do {
    struct text string;
    if (accept(text, '[') || accept(text, '(')) {
      depth++;
    } else if (accept(text, ']') || accept(text, ')')) {
      depth--;
    } else if (see(text, '\'') || see(text, '"')) {
      if (!read_string(text, &string)) return false;
    } else if (span_left(text) && memchr("0123456789,", text->data[text->at], 11)) {
      text->at++;
    } else {
      return false;
    }
  } while (depth > 0);
  return true;
}

static bool read_type(struct span *text, struct npy *npy) {
  skip_blanks(text);
  struct text type = {text->data + text->at, 0};
  bool structure = see(text, '[') || see(text, '(');
  if (structure && !skip_structure(text)) return false;
  if (structure)
    type.length = (size_t)(text->data + text->at - type.bytes);
  else if (!read_string(text, &type))
    return false;
  snprintf(npy->type, sizeof npy->type, "%.*s", TEXT(type));
  for (char *c = npy->type; *c; c++) /* names of fields may be anything, and it will be shown */
    if (*c < ' ' || *c > '~') *c = '?';
  return true;
}

static bool read_order(struct span *text, bool *fortran) {
  *fortran = accept_word(text, "True");
  return *fortran || accept_word(text, "False");
}

static const char *read_dimension(struct span *text, int64_t *out) {
  *out = 0;
  if (see(text, '-')) return "its shape is negative";
  size_t start = text->at;
  for (; span_left(text) && text->data[text->at] >= '0' && text->data[text->at] <= '9'; text->at++)
    if (__builtin_mul_overflow(*out, 10, out) ||
        __builtin_add_overflow(*out, text->data[text->at] - '0', out))
      return "its shape is too large";
  if (text->at == start) return "its shape is not a tuple of numbers";
  if (span_left(text) && text->data[text->at] == 'L') text->at++; /* NumPy under Python 2 */
  return NULL;
}

static const char *read_shape(struct span *text, struct npz_array *array) {
  if (!accept(text, '(')) return "its shape is not a tuple";
  bool comma = true;
  while (!accept(text, ')')) {
    if (array->rank == TENSOR_MAX_RANK) return "it has more than 8 dimensions";
    if (!comma) return "its shape is not a tuple of numbers";
    const char *wrong = read_dimension(text, &array->shape[array->rank]);
    if (wrong) return wrong;
    array->rank++;
    comma = accept(text, ',');
  }
  return array->rank == 1 && !comma ? "its shape is a number, not a tuple" : NULL;
}

/* Each of the three keys once, in any order. */
static const char *read_dictionary(struct span *text, struct npy *npy, struct npz_array *array) {
  static const char broken[] = "its header is not NumPy's dictionary of descr, fortran_order and "
                               "shape";
  static const char *const keys[] = {"descr", "fortran_order", "shape"};
  unsigned seen = 0;
  bool more = true;
  if (!accept(text, '{')) return broken;
  while (!accept(text, '}')) {
    struct text key;
    int which = 0;
    const char *wrong = NULL;
    if (!more || !read_string(text, &key) || !accept(text, ':')) return broken;
    while (which < 3 && !text_is(key, keys[which])) which++;
    if (which == 3 || seen & 1u << which) return broken;
    seen |= 1u << which;
    if (which == 2) wrong = read_shape(text, array);
    if (which == 1 && !read_order(text, &array->fortran)) wrong = broken;
    if (which == 0 && !read_type(text, npy)) wrong = broken;
    if (wrong) return wrong;
    more = accept(text, ',');
  }
  skip_blanks(text);
  return seen != 7 || span_left(text) ? broken : NULL;
}

/* Types. */

static const struct {
  char kind;
  int width;
  enum dtype dtype;
} types[] = {
    {'b', 1, DT_BOOL},  {'i', 1, DT_I8},  {'u', 1, DT_U8},    {'i', 2, DT_I16},
    {'u', 2, DT_COUNT}, {'f', 2, DT_F16}, {'i', 4, DT_I32},   {'u', 4, DT_COUNT},
    {'f', 4, DT_F32},   {'i', 8, DT_I64}, {'u', 8, DT_COUNT}, {'f', 8, DT_F64},
};

/* A byte order, '|' if there is none; kind; width. */
static void find_type(struct npy *npy, struct npz_array *array) {
  const char *type = npy->type;
  array->dtype = DT_COUNT;
  if (strlen(type) != 3 || !strchr("<>|", type[0])) return;
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (type[1] != types[i].kind || type[2] != '0' + types[i].width) continue;
    if (type[0] == '|' && types[i].width > 1) return;
    npy->kind = types[i].kind;
    npy->width = types[i].width;
    array->dtype = types[i].dtype;
    array->swapped = type[0] == '>' && types[i].width > 1;
  }
}

const char *npy_why_not(const char *type) {
  static const struct {
    const char *first, *meaning;
  } strangers[] = {
      {"O", "holds Python objects (a pickle), which could run code and are never read"},
      {"[(", "holds structures; save the field that is needed as an array of its own"},
      {"US", "holds texts, not numbers"},
      {"c", "holds complex numbers"},
      {"mM", "holds dates or times"},
      {"V", "holds raw bytes (void)"},
  };
  char first = type[0] && strchr("<>|=", type[0]) ? type[1] : type[0];
  for (size_t i = 0; first && i < sizeof strangers / sizeof *strangers; i++)
    if (strchr(strangers[i].first, first)) return strangers[i].meaning;
  return "has a type that is not supported";
}

static bool measure(const struct npz_array *array, int width, int64_t *elements, uint64_t *bytes) {
  struct tensor shape = {.dtype = DT_U8, .rank = array->rank};
  memcpy(shape.shape, array->shape, sizeof shape.shape);
  if (!tensor_measure(&shape, bytes)) return false;
  *elements = shape.elements;
  return !__builtin_mul_overflow(*bytes, (uint64_t)width, bytes) && *bytes <= INT64_MAX;
}

const char *npy_parse(struct text text, struct npy *npy, struct npz_array *array) {
  struct span rest = span_of(text.bytes, text.length);
  const char *wrong = read_dictionary(&rest, npy, array);
  if (wrong) return wrong;
  find_type(npy, array);
  if (!measure(array, npy->width, &array->elements, &npy->bytes)) return "its shape is too large";
  return NULL;
}

static double widen(uint64_t bits, char kind, int width) {
  float single;
  double value;
  uint32_t half = (uint32_t)bits;
  int unused = 64 - 8 * width;
  if (kind == 'b') return bits != 0;
  if (kind == 'u') return (double)bits;
  if (kind == 'i') return (double)((int64_t)(bits << unused) >> unused);
  if (width == 2) return (double)f32_from_f16((uint16_t)bits);
  memcpy(&single, &half, sizeof single);
  memcpy(&value, &bits, sizeof value);
  return width == 4 ? (double)single : value;
}

void npy_widen(double *out, const uint8_t *bytes, int64_t n, char kind, int width, bool swapped) {
  for (int64_t i = 0; i < n; i++, bytes += width) {
    uint64_t bits = le_number(bytes, (unsigned)width);
    if (swapped) bits = __builtin_bswap64(bits) >> (64 - 8 * width);
    out[i] = widen(bits, kind, width);
  }
}

/* The header that is written. */

static size_t put_shape(char *out, size_t size, int rank, const int64_t *shape) {
  size_t used = 0;
  for (int i = 0; i < rank; i++)
    used += (size_t)snprintf(out + used, size - used, i ? ", %lld" : "%lld", (long long)shape[i]);
  if (rank == 1) used += (size_t)snprintf(out + used, size - used, ",");
  return used;
}

/* NumPy leaves room for the first dimension to grow to this many digits, so that files can be
 * extended in place, and at least one blank before the newline. */
enum { GROWTH = 21 };

static bool is_written(const char *dtype) {
  static const char *const written[] = {"u1", "i4", "u4", "i8", "f4", "f8"};
  for (size_t i = 0; i < sizeof written / sizeof *written; i++)
    if (strcmp(dtype, written[i]) == 0) return true;
  return false;
}

size_t npy_header(char out[NPY_HEADER_MAX], const char *dtype, int rank, const int64_t *shape,
                  uint64_t *bytes) {
  struct npy npy = {.type = ""};
  struct npz_array array = {.rank = rank};
  char tuple[200] = "", first[24];
  if (!is_written(dtype) || rank < 0 || rank > TENSOR_MAX_RANK) return 0;
  for (int i = 0; i < rank; i++) {
    if (shape[i] < 0) return 0;
    array.shape[i] = shape[i];
  }
  snprintf(npy.type, sizeof npy.type, "%c%s", dtype[1] == '1' ? '|' : '<', dtype);
  find_type(&npy, &array);
  if (!measure(&array, npy.width, &array.elements, bytes)) return 0;
  put_shape(tuple, sizeof tuple, rank, shape);
  enum { START = MAGIC + 4 };
  int used = snprintf(out + START, NPY_HEADER_MAX - START,
                      "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", npy.type, tuple);
  int growth = rank ? GROWTH - snprintf(first, sizeof first, "%lld", (long long)shape[0]) : 0;
  size_t size = ((size_t)(START + used + growth) + 1) / ALIGNMENT * ALIGNMENT + ALIGNMENT;
  memcpy(out, magic, MAGIC);
  memcpy(out + MAGIC, "\1\0", 2);
  out[MAGIC + 2] = (char)((size - START) & 0xff);
  out[MAGIC + 3] = (char)((size - START) >> 8);
  memset(out + START + used, ' ', size - (size_t)(START + used) - 1);
  out[size - 1] = '\n';
  return size;
}

/* Configuration files. What cJSON would accept silently is refused before and after it parses: deep
 * nesting (it recurses), zero bytes in strings, bad UTF-8, duplicate keys and infinite numbers. */
#include "io/json.h"
#include "base/span.h"
#include "io/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_MAX_BYTES = 1 << 20, JSON_MAX_DEPTH = 64 };

static enum ditmoe_status bad_json(struct ditmoe_ctx *ctx, const char *origin, const char *text,
                                   size_t at, const char *what) {
  size_t line = 1;
  for (size_t i = 0; i < at; i++) line += text[i] == '\n';
  return fail(ctx, DITMOE_FORMAT, "%s: bad JSON in line %zu: %s", origin, line, what);
}

/* Depth, zero escapes and UTF-8, in one pass that knows strings from structure. */
static enum ditmoe_status scan(struct ditmoe_ctx *ctx, const char *origin, const char *text,
                               size_t size) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < size;) {
    size_t step = text[i] ? utf8_step((const uint8_t *)text + i, size - i) : 0;
    if (!step) return bad_json(ctx, origin, text, i, "a byte that is not UTF-8 text");
    if (text[i] == '"') in_string = !in_string;
    if (in_string && text[i] == '\\') {
      if (size - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
        return bad_json(ctx, origin, text, i, "a zero character in a string");
      step = size - i < 2 || (text[i + 1] & 0x80) ? 1 : 2;
    }
    if (!in_string && (text[i] == '{' || text[i] == '[') && ++depth > JSON_MAX_DEPTH)
      return bad_json(ctx, origin, text, i, "nested deeper than 64 levels");
    if (!in_string && (text[i] == '}' || text[i] == ']') && depth) depth--;
    i += step;
  }
  return DITMOE_OK;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* `keys` has room for the keys of any object of the text. */
static enum ditmoe_status check_object(struct ditmoe_ctx *ctx, const char *origin,
                                       const cJSON *object, const char **keys) {
  size_t count = 0;
  for (const cJSON *item = object->child; item; item = item->next) keys[count++] = item->string;
  if (count) qsort(keys, count, sizeof *keys, compare_names);
  for (size_t i = 1; i < count; i++)
    if (strcmp(keys[i - 1], keys[i]) == 0)
      return fail(ctx, DITMOE_FORMAT, "%s: bad JSON: key \"%.200s\" occurs twice", origin, keys[i]);
  return DITMOE_OK;
}

/* Recursion is bounded by JSON_MAX_DEPTH. */
static enum ditmoe_status check_tree(struct ditmoe_ctx *ctx, const char *origin, const cJSON *item,
                                     const char **keys, bool finite) {
  if (finite && cJSON_IsNumber(item) && !isfinite(item->valuedouble))
    return fail(ctx, DITMOE_FORMAT, "%s: bad JSON: a number beyond the range of doubles", origin);
  if (cJSON_IsObject(item)) TRY(check_object(ctx, origin, item, keys));
  for (const cJSON *child = item->child; child; child = child->next)
    TRY(check_tree(ctx, origin, child, keys, finite));
  return DITMOE_OK;
}

static bool only_space(const char *from, const char *end) {
  while (from < end && strchr(" \t\r\n", *from)) from++;
  return from == end;
}

static enum ditmoe_status parse(struct ditmoe_ctx *ctx, const char *origin, const char *text,
                                size_t size, bool finite, cJSON **out) {
  if (size > JSON_MAX_BYTES)
    return fail(ctx, DITMOE_FORMAT, "%s: %zu bytes, more than 1 MB of JSON", origin, size);
  if (size >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
    return bad_json(ctx, origin, text, 0, "UTF-16 text; save it as UTF-8");
  if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark says nothing */
    text += 3, size -= 3;
  if (only_space(text, text + size)) return fail(ctx, DITMOE_FORMAT, "%s: is empty", origin);
  TRY(scan(ctx, origin, text, size));
  const char *end = text, **keys;
  cJSON *tree = cJSON_ParseWithLengthOpts(text, size, &end, false);
  if (!tree || !only_space(end, text + size)) {
    cJSON_Delete(tree);
    return bad_json(ctx, origin, text, (size_t)(end - text), "a syntax error");
  }
  /* A key takes at least four bytes of text: quotes, colon, value. */
  enum ditmoe_status status = mem_alloc(ctx, size / 4 + 1, sizeof *keys, "JSON keys", &keys);
  if (status == DITMOE_OK) {
    status = check_tree(ctx, origin, tree, keys, finite);
    mem_free(ctx, keys);
  }
  if (status != DITMOE_OK) {
    cJSON_Delete(tree);
    return status;
  }
  *out = tree;
  return DITMOE_OK;
}

enum ditmoe_status json_parse(struct ditmoe_ctx *ctx, const char *origin, const char *text,
                              size_t size, cJSON **out) {
  return parse(ctx, origin, text, size, true, out);
}

/* Python's words for numbers that JSON does not have become others of the same length: a number
 * beyond the range of doubles, and a list, which is nowhere taken for a number. */
static void replace_python_numbers(char *text, size_t size) {
  static const char *const words[][2] = {{"Infinity", "1e999   "}, {"NaN", "[] "}};
  bool in_string = false;
  for (size_t i = 0; i < size; i++) {
    if (text[i] == '"') in_string = !in_string;
    if (in_string && text[i] == '\\') i++;
    for (size_t w = 0; !in_string && w < sizeof words / sizeof *words; w++) {
      const size_t length = strlen(words[w][0]);
      if (size - i >= length && memcmp(text + i, words[w][0], length) == 0)
        memcpy(text + i, words[w][1], length);
    }
  }
}

enum ditmoe_status json_parse_python(struct ditmoe_ctx *ctx, const char *origin, char *text,
                                     size_t size, cJSON **out) {
  replace_python_numbers(text, size);
  return parse(ctx, origin, text, size, false, out);
}

static enum ditmoe_status read_file(struct ditmoe_ctx *ctx, const char *path, bool python,
                                    cJSON **out) {
  char *text;
  size_t size;
  TRY(file_read(ctx, path, JSON_MAX_BYTES, &text, &size));
  enum ditmoe_status status = python ? json_parse_python(ctx, path, text, size, out)
                                     : json_parse(ctx, path, text, size, out);
  mem_free(ctx, text);
  return status;
}

enum ditmoe_status json_read(struct ditmoe_ctx *ctx, const char *path, cJSON **out) {
  return read_file(ctx, path, false, out);
}

enum ditmoe_status json_read_python(struct ditmoe_ctx *ctx, const char *path, cJSON **out) {
  return read_file(ctx, path, true, out);
}

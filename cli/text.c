/* Strings and memory of the programs. */
#include "cli/text.h"

#include "ditmoe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *block) {
  if (block) return block;
  fputs("not enough memory\n", stderr);
  exit(DITMOE_NOMEM);
}

void *memory_get(size_t count, size_t size) { return checked(calloc(count ? count : 1, size)); }

void *memory_resize(void *block, size_t count, size_t size) {
  return checked(reallocarray(block, count ? count : 1, size));
}

char *text_format_list(const char *format, va_list arguments) {
  char *text = NULL;
  return checked(vasprintf(&text, format, arguments) < 0 ? NULL : text);
}

char *text_format(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *text = text_format_list(format, arguments);
  va_end(arguments);
  return text;
}

char *text_copy(const char *text) { return checked(strdup(text)); }

char *text_copy_part(const char *text, size_t length) { return checked(strndup(text, length)); }

size_t text_character(const char *text, uint32_t *code) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char *c = (const unsigned char *)text;
  const size_t size = c[0] < 0x80 ? 1 : c[0] < 0xE0 ? 2 : c[0] < 0xF0 ? 3 : 4;
  if ((c[0] >= 0x80 && c[0] < 0xC0) || c[0] >= 0xF8) return 0;
  *code = size == 1 ? c[0] : c[0] & (0x7Fu >> size);
  for (size_t i = 1; i < size; i++) {
    if ((c[i] & 0xC0) != 0x80) return 0;
    *code = *code << 6 | (c[i] & 0x3Fu);
  }
  return *code < least[size] || *code > 0x10FFFF || *code >> 11 == 0x1B ? 0 : size;
}

char *text_utf8(const char *text) {
  static const char replacement[] = "\xEF\xBF\xBD";
  char *copy = memory_get(strlen(text) + 1, sizeof replacement), *out = copy;
  uint32_t code;
  for (size_t size; *text; text += size ? size : 1) {
    size = text_character(text, &code);
    out = mempcpy(out, size ? text : replacement, size ? size : sizeof replacement - 1);
  }
  return copy;
}

/* Blanks other than U+0020, marks without a width, and those that turn the direction of text. */
static bool is_invisible(uint32_t code) {
  static const uint32_t ranges[][2] = {{0xA0, 0xA0},     {0xAD, 0xAD},     {0x1680, 0x1680},
                                       {0x2000, 0x200F}, {0x2028, 0x202F}, {0x205F, 0x206F},
                                       {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
  return false;
}

void text_show(char *out, size_t size, const char *text) {
  uint32_t code;
  out[0] = 0;
  for (size_t step, length; *text; text += step ? step : 1, out += length, size -= length) {
    char shown[16];
    step = text_character(text, &code);
    if (!step)
      snprintf(shown, sizeof shown, "\\x%02x", (unsigned)(unsigned char)*text);
    else if (is_invisible(code))
      snprintf(shown, sizeof shown, "\\u%04x", (unsigned)code);
    else
      snprintf(shown, sizeof shown, "%.*s", (int)step, text);
    length = strlen(shown);
    if (length >= size) break;
    memcpy(out, shown, length + 1);
  }
}

char *text_sanitize(char *text) {
  for (unsigned char *c = (unsigned char *)text; *c; c++) {
    if (*c < 0x20 || *c == 0x7f) *c = '?';
    if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) c[0] = c[1] = '?'; /* C1 controls */
  }
  return text;
}

char *text_trim(char *text) {
  static const char blanks[] = " \t\r";
  text += strspn(text, blanks);
  size_t length = strlen(text);
  while (length > 0 && strchr(blanks, text[length - 1])) length--;
  text[length] = 0;
  return text;
}

char *text_number(double value) {
  char text[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  return text_copy(text);
}

const char *path_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

char *path_stem(const char *path) {
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  char *whole = text_copy_part(path, length);
  char *stem = text_copy(path_name(whole));
  char *dot = strrchr(stem, '.');
  if (dot && dot != stem) *dot = 0;
  free(whole);
  return stem;
}

char *path_folder(const char *path) {
  return text_copy_part(path, (size_t)(path_name(path) - path));
}

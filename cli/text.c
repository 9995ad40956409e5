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

char *text_sanitize(char *text) {
  for (unsigned char *c = (unsigned char *)text; *c; c++) {
    if (*c < 0x20 || *c == 0x7f) *c = '?';
    if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) c[0] = c[1] = '?'; /* C1 controls */
  }
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

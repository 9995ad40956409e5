/* Strings and memory of the programs. */
#include "cli/text.h"

#include "ditmoe.h"

#include <ctype.h>
#include <stdarg.h>
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

char *text_format(const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  return checked(length < 0 ? NULL : text);
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

static int least(int a, int b) { return a < b ? a : b; }

/* Damerau-Levenshtein distance, optimal string alignment; long strings count as far away. */
int text_distance(const char *a, const char *b) {
  enum { LONGEST = 63 };
  int rows[3][LONGEST + 1];
  int length_a = (int)strnlen(a, LONGEST + 1), length_b = (int)strnlen(b, LONGEST + 1);
  if (length_a > LONGEST || length_b > LONGEST) return LONGEST;
  int *two_back = rows[0], *last = rows[1], *now = rows[2];
  for (int j = 0; j <= length_b; j++) last[j] = j;
  for (int i = 1; i <= length_a; i++) {
    now[0] = i;
    for (int j = 1; j <= length_b; j++) {
      int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
      now[j] = least(last[j - 1] + (ca != cb), least(last[j], now[j - 1]) + 1);
      bool swapped = i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                     cb == tolower((unsigned char)a[i - 2]);
      if (swapped) now[j] = least(now[j], two_back[j - 2] + 1);
    }
    int *free_row = two_back;
    two_back = last;
    last = now;
    now = free_row;
  }
  return last[length_b];
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

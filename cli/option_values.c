/* The kinds of option values: text to value and back. */
#include "cli/option_values.h"

#include "cli/text.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* A decimal number and nothing else: no blanks, no hexadecimal, no "inf". */
static bool parse_number(const char *text, size_t length, double *out) {
  char copy[64], *end;
  if (length == 0 || length >= sizeof copy || strspn(text, "0123456789+-.eE") < length)
    return false;
  memcpy(copy, text, length);
  copy[length] = 0;
  *out = strtod(copy, &end);
  return *end == 0 && end != copy && isfinite(*out);
}

static bool parse_integer(const char *text, size_t length, int64_t *out) {
  char copy[32], *end;
  size_t digits = length > 0 && text[0] == '-' ? 1 : 0;
  if (length <= digits || length >= sizeof copy ||
      strspn(text + digits, "0123456789") < length - digits)
    return false;
  memcpy(copy, text, length);
  copy[length] = 0;
  errno = 0;
  *out = strtoll(copy, &end, 10);
  return *end == 0 && errno == 0;
}

static bool set_flag(const struct option *option, const char *text, void *field) {
  (void)option;
  if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) return false;
  *(bool *)field = text[0] == 't';
  return true;
}

static bool set_integer(const struct option *option, const char *text, void *field) {
  int64_t value;
  if (!parse_integer(text, strlen(text), &value)) return false;
  if ((double)value < option->low || (double)value > option->high) return false;
  *(int64_t *)field = value;
  return true;
}

static bool set_number(const struct option *option, const char *text, void *field) {
  double value;
  if (!parse_number(text, strlen(text), &value)) return false;
  if (value < option->low || value > option->high) return false;
  *(double *)field = value;
  return true;
}

/* A random seed has 32 bits, so that every reader of the metadata can hold it. */
static bool set_seed(const struct option *option, const char *text, void *field) {
  (void)option;
  char *end;
  if (strcmp(text, "-1") == 0) {
    uint32_t drawn;
    if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn) return false;
    *(uint64_t *)field = drawn;
    return true;
  }
  if (!isdigit((unsigned char)text[0]) || strspn(text, "0123456789") < strlen(text)) return false;
  errno = 0;
  *(uint64_t *)field = strtoull(text, &end, 10);
  return errno == 0;
}

static bool set_text(const struct option *option, const char *text, void *field) {
  *(const char **)field = text;
  return option->kind == OPTION_OPTIONAL || *text;
}

/* One word of a '|' list. */
static bool set_choice(const struct option *option, const char *text, void *field) {
  size_t length = strlen(text);
  if (length == 0 || strchr(text, '|')) return false;
  for (const char *word = option->argument; word;
       word = strchr(word, '|') ? strchr(word, '|') + 1 : NULL)
    if (strncmp(word, text, length) == 0 && (word[length] == '|' || word[length] == 0)) {
      *(const char **)field = text;
      return true;
    }
  return false;
}

static bool set_span(const struct option *option, const char *text, void *field) {
  struct span span;
  const char *colon = strchr(text, ':');
  if (!colon || !parse_integer(text, (size_t)(colon - text), &span.from) ||
      !parse_integer(colon + 1, strlen(colon + 1), &span.to))
    return false;
  if ((double)span.from < option->low || span.from >= span.to || (double)span.to > option->high)
    return false;
  *(struct span *)field = span;
  return true;
}

static bool set_interval(const struct option *option, const char *text, void *field) {
  struct interval interval;
  const char *colon = strchr(text, ':');
  if (!colon || !parse_number(text, (size_t)(colon - text), &interval.from) ||
      !parse_number(colon + 1, strlen(colon + 1), &interval.to))
    return false;
  if (interval.from < option->low || interval.from >= interval.to || interval.to > option->high)
    return false;
  *(struct interval *)field = interval;
  return true;
}

static char *show_flag(const void *field) {
  return text_copy(*(const bool *)field ? "true" : "false");
}
static char *show_integer(const void *field) {
  return text_format("%lld", (long long)*(const int64_t *)field);
}
static char *show_number(const void *field) { return text_number(*(const double *)field); }
static char *show_seed(const void *field) {
  return text_format("%llu", (unsigned long long)*(const uint64_t *)field);
}
static char *show_text(const void *field) { return text_copy(*(const char *const *)field); }
static char *show_span(const void *field) {
  const struct span *span = field;
  return text_format("%lld:%lld", (long long)span->from, (long long)span->to);
}
static char *show_interval(const void *field) {
  const struct interval *interval = field;
  char *from = text_number(interval->from), *to = text_number(interval->to);
  char *text = text_format("%s:%s", from, to);
  free(from);
  free(to);
  return text;
}

static const struct {
  bool (*set)(const struct option *option, const char *text, void *field);
  char *(*show)(const void *field);
  const char *expected; /* "%s" stands for the limits or the choices */
} kinds[] = {
    [OPTION_FLAG] = {set_flag, show_flag, "true or false"},
    [OPTION_INTEGER] = {set_integer, show_integer, "a whole number from %s"},
    [OPTION_NUMBER] = {set_number, show_number, "a number from %s"},
    [OPTION_SEED] = {set_seed, show_seed,
                     "a whole number from 0 to 18446744073709551615, or -1 for a random one"},
    [OPTION_TEXT] = {set_text, show_text, "a value that is not empty"},
    [OPTION_OPTIONAL] = {set_text, show_text, "text"},
    [OPTION_LIST] = {set_text, show_text, "a value that is not empty"},
    [OPTION_CHOICE] = {set_choice, show_text, "one of %s"},
    [OPTION_SPAN] = {set_span, show_span, "A:B, whole numbers A < B from %s"},
    [OPTION_INTERVAL] = {set_interval, show_interval, "A:B, numbers A < B from %s"},
};

bool value_parse(const struct option *option, const char *text, void *field) {
  return kinds[option->kind].set(option, text, field);
}

char *value_meaning(const struct option *option, const char *text) {
  size_t length = strlen(text);
  for (const char *s = option->synonyms; s; s = strchr(s, ' ') ? strchr(s, ' ') + 1 : NULL)
    if (strncmp(s, text, length) == 0 && s[length] == '=')
      return text_copy_part(s + length + 1, strcspn(s + length + 1, " "));
  return text_copy(text);
}

char *value_show(const struct option *option, const void *field) {
  return kinds[option->kind].show(field);
}

char *value_expected(const struct option *option) {
  bool whole = option->kind == OPTION_INTEGER || option->kind == OPTION_SPAN;
  char *low = whole ? text_format("%.0f", option->low) : text_number(option->low);
  char *high = whole ? text_format("%.0f", option->high) : text_number(option->high);
  char *limits = option->kind == OPTION_CHOICE ? text_copy(option->argument)
                                               : text_format("%s to %s", low, high);
  const char *form = kinds[option->kind].expected, *hole = strstr(form, "%s");
  char *text =
      hole ? text_format("%.*s%s%s", (int)(hole - form), form, limits, hole + 2) : text_copy(form);
  free(low);
  free(high);
  free(limits);
  return text;
}

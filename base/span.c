/* Bounds-checked reads, and UTF-8 (RFC 3629, table 3-7 of the Unicode standard). */
#include "base/span.h"

#include <string.h>

bool text_is(struct text text, const char *literal) {
  return text_compare(text, (struct text){(const uint8_t *)literal, strlen(literal)}) == 0;
}

int text_place(struct text word, const char *words) {
  size_t length;
  for (const char *at = words; at += strspn(at, " "), *at; at += length) {
    length = strcspn(at, " ");
    if (length == word.length && memcmp(at, word.bytes, length) == 0) return (int)(at - words);
  }
  return -1;
}

int text_compare(struct text a, struct text b) {
  size_t common = a.length < b.length ? a.length : b.length;
  int order = common ? memcmp(a.bytes, b.bytes, common) : 0;
  return order ? order : (a.length > b.length) - (a.length < b.length);
}

bool span_take(struct span *span, uint64_t count, const uint8_t **out) {
  if (count > span_left(span)) return false;
  *out = span->data + span->at;
  span->at += (size_t)count;
  return true;
}

bool span_seek(struct span *span, uint64_t at) {
  if (at > span->size) return false;
  span->at = (size_t)at;
  return true;
}

bool span_line(struct span *span, struct text *out) {
  const uint8_t *start = span->data + span->at;
  const uint8_t *end = span_left(span) ? memchr(start, '\n', span_left(span)) : NULL;
  if (!end) return false;
  *out = (struct text){.bytes = start, .length = (size_t)(end - start)};
  span->at += out->length + 1;
  return true;
}

bool span_number(struct span *span, unsigned width, uint64_t *out) {
  const uint8_t *bytes;
  if (!span_take(span, width, &bytes)) return false;
  *out = le_number(bytes, width);
  return true;
}

size_t utf8_step(const uint8_t *text, size_t size) {
  uint8_t lead = text[0];
  if (lead < 0x80) return 1;
  size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || length > size) return 0;
  /* The second byte excludes overlong forms, surrogates and what is above U+10FFFF. */
  uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (text[1] < low || text[1] > high) return 0;
  for (size_t i = 2; i < length; i++)
    if ((text[i] & 0xc0) != 0x80) return 0;
  return length;
}

size_t utf8_printable_step(const uint8_t *text, size_t size) {
  size_t step = utf8_step(text, size);
  bool control = text[0] < 0x20 || text[0] == 0x7f || (text[0] == 0xc2 && step && text[1] < 0xa0);
  return control ? 0 : step;
}

static bool walk(struct text text, size_t (*step_of)(const uint8_t *text, size_t size)) {
  for (size_t i = 0, step; i < text.length; i += step) {
    step = text.bytes[i] ? step_of(text.bytes + i, text.length - i) : 0;
    if (!step) return false;
  }
  return true;
}

bool text_is_utf8(struct text text) { return walk(text, utf8_step); }

bool text_is_printable(struct text text) { return walk(text, utf8_printable_step); }

/* A bounds-checked little-endian reader over bytes in memory: every parser of untrusted files reads
 * through it. A read that does not fit returns false and moves nothing. */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
  const uint8_t *data;
  size_t size, at; /* at <= size */
};

struct text { /* not terminated */
  const uint8_t *bytes;
  size_t length;
};

/* Arguments for "%.*s": at most 200 bytes, so that the rest of a message is seen. */
#define TEXT(text) (int)((text).length < 200 ? (text).length : 200), (const char *)(text).bytes

bool text_is(struct text text, const char *literal);
/* Where a word is in a list "of words", -1 if it is not. */
int text_place(struct text word, const char *words);
/* Order by bytes, as strcmp. */
int text_compare(struct text a, struct text b);

static inline struct span span_of(const void *data, size_t size) {
  return (struct span){.data = (const uint8_t *)data, .size = size};
}

static inline size_t span_left(const struct span *span) { return span->size - span->at; }

/* *out = the next count bytes, which are passed over. */
bool span_take(struct span *span, uint64_t count, const uint8_t **out);
bool span_seek(struct span *span, uint64_t at);
/* The line up to a newline, which is passed over and not counted. */
bool span_line(struct span *span, struct text *out);

/* The next `width` bytes, at most 8, as a number. */
bool span_number(struct span *span, unsigned width, uint64_t *out);

/* `width` bytes, at most 8, as a little-endian number. */
static inline uint64_t le_number(const uint8_t *bytes, unsigned width) {
  uint64_t number = 0;
  while (width--) number = number << 8 | bytes[width];
  return number;
}

/* Bytes of the UTF-8 character at text (1 to 4), 0 if it is malformed, overlong, a surrogate or
 * beyond U+10FFFF. size >= 1. */
size_t utf8_step(const uint8_t *text, size_t size);
/* The same, and 0 also for control characters (C0, DEL, C1). */
size_t utf8_printable_step(const uint8_t *text, size_t size);
/* Whether all of text is UTF-8 without zero bytes; and without any control characters. */
bool text_is_utf8(struct text text);
bool text_is_printable(struct text text);

#endif

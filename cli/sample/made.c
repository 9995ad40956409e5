/* Which images of a run are there. */
#include "cli/sample/made.h"

#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

static size_t bytes_of(const struct made *made) { return ((size_t)made->count + 7) / 8; }

void made_create(struct made *made, int64_t first, int64_t count) {
  *made = (struct made){.first = first, .count = count};
  made->images = memory_get(bytes_of(made), 1);
  made->starts = memory_get(bytes_of(made), 1);
}

void made_free(struct made *made) {
  free(made->images);
  free(made->starts);
  *made = (struct made){0};
}

void made_clear(struct made *made) {
  memset(made->images, 0, bytes_of(made));
  memset(made->starts, 0, bytes_of(made));
}

static bool get(const uint8_t *bits, int64_t at) { return bits[at / 8] >> at % 8 & 1; }

static void clear(uint8_t *bits, int64_t at) { bits[at / 8] &= (uint8_t) ~(1u << at % 8); }

static void set(uint8_t *bits, int64_t at) { bits[at / 8] |= (uint8_t)(1u << at % 8); }

bool made_has(const struct made *made, int64_t index) {
  return get(made->images, index - made->first);
}

int64_t made_find(const struct made *made, int64_t from, int64_t to, bool there) {
  while (from < to && made_has(made, from) != there) from++;
  return from;
}

int64_t made_count(const struct made *made, int64_t from, int64_t to) {
  int64_t count = 0;
  for (; from < to; from++) count += made_has(made, from);
  return count;
}

static bool is_range(const struct made *made, int64_t first, int64_t count) {
  const int64_t at = first - made->first;
  return at >= 0 && count >= 1 && count <= made->count && at <= made->count - count;
}

void made_add(struct made *made, int64_t first, int64_t count) {
  if (!is_range(made, first, count)) return;
  if (made_find(made, first, first + count, true) < first + count) return;
  set(made->starts, first - made->first);
  for (int64_t i = first; i < first + count; i++) set(made->images, i - made->first);
}

void made_replace(struct made *made, int64_t first, int64_t count) {
  if (!is_range(made, first, count)) return;
  for (int64_t i; (i = made_find(made, first, first + count, true)) < first + count;) {
    const int64_t end = made_piece_end(made, i);
    while (!get(made->starts, i - made->first)) i--;
    made_remove(made, i, end);
  }
  made_add(made, first, count);
}

void made_remove(struct made *made, int64_t first, int64_t end) {
  for (int64_t at = first - made->first; at < end - made->first; at++) {
    clear(made->images, at);
    clear(made->starts, at);
  }
}

int64_t made_piece_end(const struct made *made, int64_t first) {
  int64_t at = first - made->first + 1;
  while (at < made->count && get(made->images, at) && !get(made->starts, at)) at++;
  return made->first + at;
}

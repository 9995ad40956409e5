/* Sets of image indices. */
#include "trace/indices.h"

#include <string.h>

void indices_free(struct ditmoe_ctx *ctx, struct indices *set) {
  mem_free(ctx, set->ranges);
  *set = (struct indices){0};
}

/* Number of the first range that ends behind `index`. */
static size_t place(const struct indices *set, int64_t index) {
  size_t low = 0, high = set->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (set->ranges[middle].end > index)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

bool indices_has(const struct indices *set, int64_t index) {
  size_t at = place(set, index);
  return at < set->count && set->ranges[at].first <= index;
}

int64_t indices_total(const struct indices *set) {
  int64_t total = 0;
  for (size_t i = 0; i < set->count; i++) total += set->ranges[i].end - set->ranges[i].first;
  return total;
}

enum ditmoe_status indices_room(struct ditmoe_ctx *ctx, struct indices *set) {
  if (set->count < set->room) return DITMOE_OK;
  size_t room = set->room ? 2 * set->room : 8;
  TRY(mem_grow(ctx, set->count, room, sizeof *set->ranges, "indices of images", &set->ranges));
  set->room = room;
  return DITMOE_OK;
}

void indices_add(struct indices *set, int64_t index) {
  const size_t at = place(set, index);
  struct index_range *r = set->ranges + at;
  const bool after = at > 0 && r[-1].end == index;
  const bool before = at < set->count && r->first == index + 1;
  const size_t behind = (set->count - at) * sizeof *r;
  if (after && before) {
    r[-1].end = r->end;
    memmove(r, r + 1, behind - sizeof *r);
    set->count--;
  } else if (after) {
    r[-1].end++;
  } else if (before) {
    r->first--;
  } else {
    memmove(r + 1, r, behind);
    *r = (struct index_range){index, index + 1};
    set->count++;
  }
}

int64_t indices_shared(const struct indices *a, const struct indices *b) {
  for (size_t i = 0, j = 0; i < a->count && j < b->count;) {
    const struct index_range *x = &a->ranges[i], *y = &b->ranges[j];
    if (x->end <= y->first)
      i++;
    else if (y->end <= x->first)
      j++;
    else
      return x->first > y->first ? x->first : y->first;
  }
  return -1;
}

enum ditmoe_status indices_join(struct ditmoe_ctx *ctx, const struct indices *a,
                                const struct indices *b, struct indices *out) {
  struct indices joined = {.room = a->count + b->count};
  TRY(mem_alloc(ctx, joined.room, sizeof *joined.ranges, "indices of images", &joined.ranges));
  for (size_t i = 0, j = 0; i < a->count || j < b->count;) {
    const bool from_a = j == b->count || (i < a->count && a->ranges[i].first < b->ranges[j].first);
    const struct index_range next = from_a ? a->ranges[i++] : b->ranges[j++];
    if (joined.count && joined.ranges[joined.count - 1].end == next.first)
      joined.ranges[joined.count - 1].end = next.end;
    else
      joined.ranges[joined.count++] = next;
  }
  *out = joined;
  return DITMOE_OK;
}

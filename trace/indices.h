/* Sets of image indices, as ranges: runs count images in order, more or less. */
#ifndef TRACE_INDICES_H
#define TRACE_INDICES_H

#include "base/memory.h"

/* Indices are below this: files are read through float64. */
#define MOST_IMAGES (INT64_C(1) << 53)

struct index_range {
  int64_t first, end; /* first .. end - 1 */
};

struct indices {
  struct index_range *ranges; /* ascending, apart from each other */
  size_t count, room;
};

void indices_free(struct ditmoe_ctx *ctx, struct indices *set);
bool indices_has(const struct indices *set, int64_t index);
int64_t indices_total(const struct indices *set);
/* Room for one more range, which indices_add may need. */
enum ditmoe_status indices_room(struct ditmoe_ctx *ctx, struct indices *set);
/* Adds an index that the set lacks. */
void indices_add(struct indices *set, int64_t index);
/* The lowest index that both have, or -1. */
int64_t indices_shared(const struct indices *a, const struct indices *b);
/* All of two sets that share none. */
enum ditmoe_status indices_join(struct ditmoe_ctx *ctx, const struct indices *a,
                                const struct indices *b, struct indices *out);

#endif

/* One trace of several: an index of all records in memory, 24 bytes each, then the records in
 * order. */
#include "trace/trace.h"

#include <stdlib.h>

struct entry { /* of a record */
  int64_t image;
  uint64_t order; /* within the image */
  uint64_t part : 16, offset : 48;
};
enum { MOST_PARTS = 1 << 16 };
#define MOST_BYTES (UINT64_C(1) << 48)

struct join {
  const char *const *paths;
  struct ditmoe_trace **parts;
  size_t count;
  struct entry *entries;
  size_t total;
};

/* Batches that guide in one forward pass mix the halves layer by layer; others do not. This is the
 * order in time of the latter for both. */
static uint64_t order_of(const struct ditmoe_trace_record *r) {
  return (uint64_t)r->step << 33 | (uint64_t)r->evaluation << 17 | (uint64_t)r->half << 16 |
         (uint64_t)r->layer;
}

static int compare_entries(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  if (x->image != y->image) return x->image < y->image ? -1 : 1;
  if (x->order != y->order) return x->order < y->order ? -1 : 1;
  if (x->part != y->part) return x->part < y->part ? -1 : 1;
  return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Every record of a part, checked. */
static enum ditmoe_status index_part(struct ditmoe_ctx *ctx, struct join *join, size_t part) {
  struct ditmoe_trace *trace = join->parts[part];
  struct ditmoe_trace_record record;
  for (int end = 0;;) {
    const uint64_t offset = trace->file.at;
    TRY(ditmoe_trace_next(ctx, trace, &record, &end));
    if (end) break;
    TRY(mem_room(ctx, join->total, sizeof *join->entries, "the index of a trace", &join->entries));
    join->entries[join->total++] = (struct entry){.image = record.image,
                                                  .order = order_of(&record),
                                                  .part = part & (MOST_PARTS - 1),
                                                  .offset = offset & (MOST_BYTES - 1)};
  }
  trace_rest(trace);
  return DITMOE_OK;
}

static enum ditmoe_status open_part(struct ditmoe_ctx *ctx, struct join *join, size_t part) {
  TRY(ditmoe_trace_open(ctx, join->paths[part], &join->parts[part]));
  const struct trace_header *header = &join->parts[part]->header;
  const struct trace_header *first = &join->parts[0]->header;
  const char *difference = shape_difference(&first->shape, &header->shape);
  if (!difference && first->scores != header->scores) difference = "scores";
  if (difference)
    return fail(ctx, DITMOE_MISMATCH, "%s: cannot be joined with %s, which differs in its %s",
                join->paths[part], join->paths[0], difference);
  return join->parts[part]->file.size < MOST_BYTES
             ? DITMOE_OK
             : fail(ctx, DITMOE_FORMAT, "%s: is too large to be joined", join->paths[part]);
}

/* The index in order; no image is in two parts. */
static enum ditmoe_status sort_index(struct ditmoe_ctx *ctx, struct join *join) {
  struct entry *entries = join->entries;
  if (join->total) qsort(entries, join->total, sizeof *entries, compare_entries);
  for (size_t i = 1; i < join->total; i++) {
    const struct entry *a = &entries[i - 1], *b = &entries[i];
    if (a->image == b->image && a->part != b->part)
      return fail(ctx, DITMOE_MISMATCH, "%s: image %lld is also in %s",
                  join->paths[a->part > b->part ? a->part : b->part], (long long)a->image,
                  join->paths[a->part < b->part ? a->part : b->part]);
  }
  return DITMOE_OK;
}

static enum ditmoe_status copy_records(struct ditmoe_ctx *ctx, const struct join *join,
                                       struct trace_writer *writer) {
  for (size_t i = 0; i < join->total; i++) {
    const struct entry *entry = &join->entries[i];
    struct ditmoe_trace *trace = join->parts[entry->part];
    if (i && entry->part != entry[-1].part) trace_rest(join->parts[entry[-1].part]);
    TRY(trace_load(ctx, trace, entry->offset));
    TRY(trace_writer_copy(ctx, writer, trace->record, trace->size));
  }
  return DITMOE_OK;
}

static enum ditmoe_status write_joined(struct ditmoe_ctx *ctx, const struct join *join,
                                       const char *path) {
  const struct ditmoe_trace *first = join->parts[0];
  struct trace_writer *writer;
  TRY(trace_writer_open(ctx, path, &first->header.shape, first->header.scores, first->file.data,
                        first->start, &writer));
  enum ditmoe_status status = copy_records(ctx, join, writer);
  if (status == DITMOE_OK) return trace_writer_commit(ctx, writer);
  trace_writer_abandon(writer);
  return status;
}

static enum ditmoe_status join_parts(struct ditmoe_ctx *ctx, struct join *join, const char *path) {
  for (size_t part = 0; part < join->count; part++) {
    TRY(open_part(ctx, join, part));
    TRY(index_part(ctx, join, part));
  }
  TRY(sort_index(ctx, join));
  return write_joined(ctx, join, path);
}

enum ditmoe_status ditmoe_trace_join(struct ditmoe_ctx *ctx, const char *const *parts, size_t count,
                                     const char *path) {
  struct join join = {.paths = parts, .count = count};
  if (!count || count > MOST_PARTS)
    return fail(ctx, DITMOE_USAGE, "%s: %zu traces cannot be joined", path, count);
  TRY(mem_zalloc(ctx, count, sizeof *join.parts, "parts of a trace", &join.parts));
  enum ditmoe_status status = join_parts(ctx, &join, path);
  for (size_t part = 0; part < count; part++) ditmoe_trace_close(join.parts[part]);
  mem_free(ctx, join.parts);
  mem_free(ctx, join.entries);
  return status;
}

/* One trace of several. Parts whose images lie between each other's are joined together, through an
 * index of their records; in a run parts are batches, and each is alone. */
#include "trace/trace.h"

#include <stdlib.h>
#include <string.h>

struct entry { /* of a record */
  int64_t image;
  uint64_t order; /* within the image */
  uint64_t part : 16, offset : 48;
};
enum { MOST_PARTS = 1 << 16 };
#define MOST_BYTES (UINT64_C(1) << 48)

struct part {
  const char *path;
  struct ditmoe_trace *trace;
  int64_t first, last; /* its images lie in this range; INT64_MAX, -1: it has none */
};

struct join {
  struct part *parts;
  size_t count;
  struct entry *entries; /* of the parts that are joined now; room for the most so far */
  size_t total, room;
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

/* Checks every record of a part, and finds its images. */
static enum ditmoe_status survey_part(struct ditmoe_ctx *ctx, struct part *part) {
  struct ditmoe_trace *trace = part->trace;
  struct ditmoe_trace_record record;
  for (int end = 0;;) {
    TRY(ditmoe_trace_next(ctx, trace, &record, &end));
    if (end) break;
    if (record.image < part->first) part->first = record.image;
    if (record.image > part->last) part->last = record.image;
  }
  trace_rest(trace);
  return DITMOE_OK;
}

static enum ditmoe_status open_part(struct ditmoe_ctx *ctx, struct part *part,
                                    const struct part *like) {
  part->first = INT64_MAX;
  part->last = -1;
  TRY(ditmoe_trace_open(ctx, part->path, &part->trace));
  const struct trace_header *header = &part->trace->header, *first = &like->trace->header;
  const char *difference = shape_difference(&first->shape, &header->shape);
  if (!difference && first->scores != header->scores) difference = "scores";
  if (difference)
    return fail(ctx, DITMOE_MISMATCH, "%s: cannot be joined with %s, which differs in its %s",
                part->path, like->path, difference);
  return part->trace->file.size < MOST_BYTES
             ? DITMOE_OK
             : fail(ctx, DITMOE_FORMAT, "%s: is too large to be joined", part->path);
}

/* The records of a part, which have been checked. */
static enum ditmoe_status index_part(struct ditmoe_ctx *ctx, struct join *join, size_t part) {
  struct ditmoe_trace *trace = join->parts[part].trace;
  struct ditmoe_trace_record record;
  trace_rewind(trace);
  for (int end = 0;;) {
    const uint64_t offset = trace->file.at;
    TRY(ditmoe_trace_next(ctx, trace, &record, &end));
    if (end) break;
    if (join->total == join->room) {
      TRY(mem_room(ctx, join->room, sizeof *join->entries, "the index of a trace", &join->entries));
      join->room++;
    }
    join->entries[join->total++] = (struct entry){.image = record.image,
                                                  .order = order_of(&record),
                                                  .part = part & (MOST_PARTS - 1),
                                                  .offset = offset & (MOST_BYTES - 1)};
  }
  trace_rest(trace);
  return DITMOE_OK;
}

/* The index in order; no image is in two parts. */
static enum ditmoe_status sort_index(struct ditmoe_ctx *ctx, struct join *join) {
  struct entry *entries = join->entries;
  if (join->total) qsort(entries, join->total, sizeof *entries, compare_entries);
  for (size_t i = 1; i < join->total; i++) {
    const struct entry *a = &entries[i - 1], *b = &entries[i];
    if (a->image == b->image && a->part != b->part)
      return fail(ctx, DITMOE_MISMATCH, "%s: image %lld is also in %s", join->parts[b->part].path,
                  (long long)a->image, join->parts[a->part].path);
  }
  return DITMOE_OK;
}

static enum ditmoe_status copy_records(struct ditmoe_ctx *ctx, const struct join *join,
                                       struct trace_writer *writer) {
  for (size_t i = 0; i < join->total; i++) {
    const struct entry *entry = &join->entries[i];
    struct ditmoe_trace *trace = join->parts[entry->part].trace;
    if (i && entry->part != entry[-1].part) trace_rest(join->parts[entry[-1].part].trace);
    TRY(trace_load(ctx, trace, entry->offset));
    TRY(trace_writer_copy(ctx, writer, trace->record, trace->size));
  }
  return DITMOE_OK;
}

static int compare_parts(const void *a, const void *b) {
  const struct part *x = a, *y = b;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  return strcmp(x->path, y->path);
}

/* Sorted parts, group by group. */
static enum ditmoe_status copy_parts(struct ditmoe_ctx *ctx, struct join *join,
                                     struct trace_writer *writer) {
  for (size_t part = 0; part < join->count;) {
    int64_t last = join->parts[part].last;
    join->total = 0;
    do {
      if (join->parts[part].last > last) last = join->parts[part].last;
      TRY(index_part(ctx, join, part++));
    } while (part < join->count && join->parts[part].first <= last);
    TRY(sort_index(ctx, join));
    TRY(copy_records(ctx, join, writer));
    trace_rest(join->parts[part - 1].trace);
  }
  return DITMOE_OK;
}

static enum ditmoe_status join_parts(struct ditmoe_ctx *ctx, struct join *join, const char *path) {
  struct trace_writer *writer;
  for (size_t part = 0; part < join->count; part++) {
    TRY(open_part(ctx, &join->parts[part], &join->parts[0]));
    TRY(survey_part(ctx, &join->parts[part]));
  }
  const struct ditmoe_trace *header = join->parts[0].trace;
  TRY(trace_writer_open(ctx, path, &header->header.shape, header->header.scores, header->file.data,
                        header->start, &writer));
  qsort(join->parts, join->count, sizeof *join->parts, compare_parts);
  enum ditmoe_status status = copy_parts(ctx, join, writer);
  if (status == DITMOE_OK) return trace_writer_commit(ctx, writer);
  trace_writer_abandon(writer);
  return status;
}

enum ditmoe_status ditmoe_trace_join(struct ditmoe_ctx *ctx, const char *const *parts, size_t count,
                                     const char *path) {
  struct join join = {.count = count};
  if (!count || count > MOST_PARTS)
    return fail(ctx, DITMOE_USAGE, "%s: %zu traces cannot be joined", path, count);
  TRY(mem_zalloc(ctx, count, sizeof *join.parts, "parts of a trace", &join.parts));
  for (size_t part = 0; part < count; part++) join.parts[part].path = parts[part];
  enum ditmoe_status status = join_parts(ctx, &join, path);
  for (size_t part = 0; part < count; part++) ditmoe_trace_close(join.parts[part].trace);
  mem_free(ctx, join.parts);
  mem_free(ctx, join.entries);
  return status;
}

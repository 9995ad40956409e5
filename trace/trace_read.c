/* Reading traces: untrusted files, one record in memory at a time. */
#include "base/pages.h"
#include "trace/tables.h"
#include "trace/trace.h"

#include <string.h>

enum { REST = 1 << 20 }; /* mapped bytes to read before the pages are given back */

/* Opening. */

static enum ditmoe_status open_file(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                    struct mapping mapping, struct ditmoe_trace **out) {
  struct ditmoe_trace *trace;
  enum ditmoe_status status = mem_zalloc(ctx, 1, sizeof *trace, "reading a trace", &trace);
  if (status != DITMOE_OK) {
    file_unmap(&mapping);
    return status;
  }
  trace->own.hooks = ctx->hooks;
  trace->mapping = mapping;
  trace->file = file;
  TRY_DONE(mem_strdup(ctx, path, &trace->path));
  TRY_DONE(trace_header_read(ctx, path, file, &trace->header, &trace->start));
  TRY_DONE(mem_alloc(ctx, (size_t)trace->header.shape.tokens + 1, sizeof *trace->first,
                     "a record of a trace", &trace->first));
  trace->file.at = trace->start;
  *out = trace;
  return DITMOE_OK;
done:
  ditmoe_trace_close(trace);
  return status;
}

enum ditmoe_status trace_open_bytes(struct ditmoe_ctx *ctx, const char *path, const void *bytes,
                                    size_t size, struct ditmoe_trace **out) {
  return open_file(ctx, path, span_of(bytes, size), (struct mapping){0}, out);
}

enum ditmoe_status ditmoe_trace_open(struct ditmoe_ctx *ctx, const char *path,
                                     struct ditmoe_trace **out) {
  struct mapping mapping;
  TRY(file_map(ctx, path, &mapping));
  return open_file(ctx, path, span_of(mapping.data, mapping.size), mapping, out);
}

void ditmoe_trace_close(struct ditmoe_trace *trace) {
  if (!trace) return;
  struct ditmoe_ctx own = trace->own;
  trace_header_free(&own, &trace->header);
  file_unmap(&trace->mapping);
  mem_free(&own, trace->path);
  mem_free(&own, trace->record);
  mem_free(&own, trace->first);
  mem_free(&own, trace);
}

enum ditmoe_status ditmoe_trace_tables(struct ditmoe_ctx *ctx, const struct ditmoe_trace *trace,
                                       struct ditmoe_routing **out) {
  struct ditmoe_routing *routing;
  TRY(routing_create(ctx, &trace->header.shape, &routing));
  enum ditmoe_status status = ditmoe_routing_describe(ctx, routing, trace->header.meta);
  if (status == DITMOE_OK)
    *out = routing;
  else
    ditmoe_routing_destroy(routing);
  return status;
}

/* Records. */

static enum ditmoe_status bad_record(struct ditmoe_ctx *ctx, const struct ditmoe_trace *trace,
                                     const char *what) {
  return fail(ctx, DITMOE_FORMAT, "%s: record %llu at byte %llu: %s", trace->path,
              (unsigned long long)trace->number, (unsigned long long)trace->file.at, what);
}

void trace_rewind(struct ditmoe_trace *trace) {
  trace->file.at = trace->start;
  trace->number = 0;
  trace->ended = false;
}

void trace_rest(struct ditmoe_trace *trace) {
  if (trace->mapping.size) pages_drop(trace->mapping.data, trace->mapping.size);
  trace->touched = 0;
}

/* Copies the record at file.at, of `size` bytes with its CRC: what is checked must be what is used,
 * whatever becomes of the file. */
static enum ditmoe_status copy_record(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace,
                                      size_t size) {
  if (trace->capacity < size) {
    uint8_t *room;
    TRY(mem_alloc(ctx, size, 1, "a record of a trace", &room));
    mem_free(&trace->own, trace->record);
    trace->record = room;
    trace->capacity = size;
  }
  memcpy(trace->record, trace->file.data + trace->file.at, size);
  trace->size = size;
  trace->touched += size;
  if (trace->touched > REST) trace_rest(trace);
  if (trace_crc(trace->record, size - TRACE_CRC) ==
      le_number(trace->record + size - TRACE_CRC, TRACE_CRC))
    return DITMOE_OK;
  return bad_record(ctx, trace, "CRC mismatch: it is damaged");
}

/* Whether the end of the records is here, which fails unless it agrees with them. */
static enum ditmoe_status read_end(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace) {
  const uint8_t *end = trace->file.data + trace->file.at;
  const size_t left = span_left(&trace->file);
  if (left < TRACE_END) return bad_record(ctx, trace, "the file is cut off within its end");
  if (trace_crc(end, TRACE_END - TRACE_CRC) != le_number(end + TRACE_END - TRACE_CRC, TRACE_CRC))
    return bad_record(ctx, trace, "the end of the records is damaged");
  if (le_number(end + TRACE_LENGTH, 8) != trace->number)
    return bad_record(ctx, trace, "the end of the records counts others");
  if (left > TRACE_END) return bad_record(ctx, trace, "the file goes on after its end");
  trace->ended = true;
  return DITMOE_OK;
}

/* The record at file.at as it is, or the end. */
static enum ditmoe_status load(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace) {
  const size_t left = span_left(&trace->file);
  if (!left) return bad_record(ctx, trace, "the file is cut off before it");
  if (left < TRACE_LENGTH) return bad_record(ctx, trace, "the file is cut off within it");
  const size_t length = le_number(trace->file.data + trace->file.at, TRACE_LENGTH);
  if (!length) return read_end(ctx, trace);
  if (length < TRACE_FIXED - TRACE_LENGTH || length % 4)
    return bad_record(ctx, trace, "its length is damaged");
  if (length > left - TRACE_LENGTH || left - TRACE_LENGTH - length < TRACE_CRC)
    return bad_record(ctx, trace, "the file is cut off within it, or its length is damaged");
  return copy_record(ctx, trace, TRACE_LENGTH + length + TRACE_CRC);
}

enum ditmoe_status trace_load(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace, uint64_t offset) {
  trace->file.at = offset;
  trace->size = 0;
  TRY(load(ctx, trace));
  return trace->size ? DITMOE_OK : bad_record(ctx, trace, "the file has changed");
}

/* What the arrays of a record are to be. */
struct arrays {
  uint64_t choices, scores; /* entries */
  bool counts;
};

/* Everything before the arrays; the layer is checked because they depend on it. */
static const char *parse_fixed(const struct ditmoe_trace *trace, struct ditmoe_trace_record *out,
                               struct arrays *arrays) {
  const struct routing_shape *shape = &trace->header.shape;
  const uint8_t *r = trace->record, flags = r[33];
  *out = (struct ditmoe_trace_record){.image = (int64_t)le_number(r + 4, 8),
                                      .label = (int32_t)le_number(r + 12, 4),
                                      .step = (int32_t)le_number(r + 20, 4),
                                      .layer = (int)le_number(r + 28, 2),
                                      .evaluation = (int)le_number(r + 30, 2),
                                      .half = r[32]};
  out->other_label = (int32_t)le_number(r + 16, 4);
  if (flags & ~(TRACE_HAS_SCORES | TRACE_HAS_COUNTS) || r[34] || r[35])
    return "its flags are damaged";
  if (flags & TRACE_HAS_SCORES && !trace->header.scores)
    return "it has scores, which the header denies";
  if (out->layer >= shape->layers) return "a layer out of range";
  arrays->choices = le_number(r + 24, 4);
  arrays->counts = flags & TRACE_HAS_COUNTS;
  arrays->scores = 0;
  if (flags & TRACE_HAS_SCORES) {
    out->scored = trace_scored(shape, out->layer);
    arrays->scores = (uint64_t)shape->tokens * (uint64_t)out->scored;
  }
  return NULL;
}

/* first [T + 1] from the counts, or without them. */
static const char *fill_first(struct ditmoe_trace *trace, const uint8_t *counts, uint64_t choices) {
  const uint64_t T = (uint64_t)trace->header.shape.tokens;
  uint64_t sum = 0;
  if (!counts && choices % T != 0) return "its number of choices is damaged";
  for (uint64_t t = 0; t < T; t++) {
    trace->first[t] = (int32_t)sum;
    sum += counts ? le_number(counts + 2 * t, 2) : choices / T;
    if (sum > choices) return "its number of choices is damaged";
  }
  trace->first[T] = (int32_t)sum;
  return sum == choices ? NULL : "its number of choices is damaged";
}

/* The record that has been copied. Its length is compared with what its parts take; all of them are
 * below 2^32 entries, so that no sum overflows. */
static const char *parse(struct ditmoe_trace *trace, struct ditmoe_trace_record *out) {
  struct arrays arrays;
  const char *fault = parse_fixed(trace, out, &arrays);
  if (fault) return fault;
  const uint64_t counts = arrays.counts ? (uint64_t)trace->header.shape.tokens : 0;
  const uint64_t shorts = 2 * (counts + arrays.choices), padding = shorts % 4;
  const uint64_t need = TRACE_FIXED + 4 * (arrays.choices + arrays.scores) + shorts + padding;
  if (arrays.choices > INT32_MAX || need != trace->size - TRACE_CRC)
    return "its length is not that of its arrays";
  const uint8_t *at = trace->record + TRACE_FIXED;
  out->weight = (const float *)(const void *)at;
  at += 4 * arrays.choices;
  if (arrays.scores) out->scores = (const float *)(const void *)at;
  at += 4 * arrays.scores;
  fault = fill_first(trace, counts ? at : NULL, arrays.choices);
  if (fault) return fault;
  at += 2 * counts;
  out->expert = (const uint16_t *)(const void *)at;
  out->first = trace->first;
  at += 2 * arrays.choices;
  if (padding && (at[0] || at[1])) return "its padding is damaged";
  return trace_record_fault(&trace->header.shape, out);
}

enum ditmoe_status ditmoe_trace_next(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace,
                                     struct ditmoe_trace_record *out, int *end) {
  struct ditmoe_trace_record record;
  if (!trace->ended) TRY(load(ctx, trace));
  *end = trace->ended;
  if (trace->ended) return DITMOE_OK;
  const char *fault = parse(trace, &record);
  if (fault) return bad_record(ctx, trace, fault);
  trace->file.at += trace->size;
  trace->number++;
  *out = record;
  return DITMOE_OK;
}

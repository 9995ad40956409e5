/* Writing traces: records are put together in one large buffer. */
#include "trace/tables.h"
#include "trace/trace.h"

#include <errno.h>
#include <string.h>

enum { BUFFER = 1 << 20 };

struct trace_writer {
  struct ditmoe_ctx own; /* see api/handles.h */
  struct file_output output;
  const struct routing_shape *shape;
  bool scores, failed;
  uint8_t *buffer;
  size_t used, capacity;
  uint64_t records;
};

static enum ditmoe_status flush(struct ditmoe_ctx *ctx, struct trace_writer *writer) {
  const size_t size = writer->used;
  writer->used = 0;
  if (fwrite(writer->buffer, 1, size, writer->output.stream) == size) return DITMOE_OK;
  return fail(ctx, DITMOE_OUTPUT, "%s: cannot be written: %s", writer->output.path,
              strerror(errno));
}

/* A larger buffer in place of one that is empty. */
static enum ditmoe_status enlarge(struct ditmoe_ctx *ctx, struct trace_writer *writer,
                                  size_t size) {
  uint8_t *larger;
  TRY(mem_alloc(ctx, size, 1, "records of a trace", &larger));
  mem_free(&writer->own, writer->buffer);
  writer->buffer = larger;
  writer->capacity = size;
  return DITMOE_OK;
}

/* Room for `size` bytes more, which are then part of the file. */
static enum ditmoe_status reserve(struct ditmoe_ctx *ctx, struct trace_writer *writer, size_t size,
                                  uint8_t **out) {
  writer->failed = true; /* unless the rest comes to its end */
  if (size > writer->capacity - writer->used) TRY(flush(ctx, writer));
  if (size > writer->capacity) TRY(enlarge(ctx, writer, size));
  writer->failed = false;
  *out = writer->buffer + writer->used;
  writer->used += size;
  return DITMOE_OK;
}

static enum ditmoe_status put_bytes(struct ditmoe_ctx *ctx, struct trace_writer *writer,
                                    const void *bytes, size_t size) {
  uint8_t *to;
  TRY(reserve(ctx, writer, size, &to));
  memcpy(to, bytes, size);
  return DITMOE_OK;
}

enum ditmoe_status trace_writer_open(struct ditmoe_ctx *ctx, const char *path,
                                     const struct routing_shape *shape, bool scores,
                                     const void *header, size_t size, struct trace_writer **out) {
  struct trace_writer *writer;
  enum ditmoe_status status;
  TRY(mem_zalloc(ctx, 1, sizeof *writer, "writing a trace", &writer));
  writer->own.hooks = ctx->hooks;
  writer->shape = shape;
  writer->scores = scores;
  writer->capacity = BUFFER;
  TRY_DONE(mem_alloc(ctx, BUFFER, 1, "records of a trace", &writer->buffer));
  TRY_DONE(file_output_open(ctx, path, &writer->output));
  TRY_DONE(put_bytes(ctx, writer, header, size));
  *out = writer;
  return DITMOE_OK;
done:
  trace_writer_abandon(writer);
  return status;
}

bool trace_wants_scores(const struct trace_writer *writer) { return writer->scores; }

/* A write that failed took records with it: none may follow. */
static enum ditmoe_status check_whole(struct ditmoe_ctx *ctx, const struct trace_writer *writer) {
  if (!writer->failed) return DITMOE_OK;
  return fail(ctx, DITMOE_OUTPUT, "%s: cannot be written: an earlier record is missing",
              writer->output.path);
}

enum ditmoe_status trace_writer_copy(struct ditmoe_ctx *ctx, struct trace_writer *writer,
                                     const void *bytes, size_t size) {
  TRY(check_whole(ctx, writer));
  TRY(put_bytes(ctx, writer, bytes, size));
  writer->records++;
  return DITMOE_OK;
}

/* Records. */

static void *put(void *to, const void *from, size_t size) {
  memcpy(to, from, size);
  return (uint8_t *)to + size;
}

static void *put_u16(void *to, int value) {
  const uint16_t number = (uint16_t)value;
  return put(to, &number, sizeof number);
}

/* Whether tokens differ in their number of choices. */
static bool has_counts(const int32_t *first, int tokens) {
  for (int t = 1; t < tokens; t++)
    if (first[t + 1] - first[t] != first[1]) return true;
  return false;
}

/* The parts of a record that its arrays do not hold. */
static uint8_t *put_fixed(uint8_t *to, const struct ditmoe_trace_record *r, uint32_t length,
                          uint32_t choices, int flags) {
  const uint8_t bytes[4] = {(uint8_t)r->half, (uint8_t)flags, 0, 0};
  const int32_t step = r->step;
  to = put(to, &length, sizeof length);
  to = put(to, &r->image, sizeof r->image);
  to = put(to, &r->label, sizeof r->label);
  to = put(to, &r->other_label, sizeof r->other_label);
  to = put(to, &step, sizeof step);
  to = put(to, &choices, sizeof choices);
  to = put_u16(to, r->layer);
  to = put_u16(to, r->evaluation);
  return put(to, bytes, sizeof bytes);
}

static uint8_t *put_counts(uint8_t *to, const int32_t *first, int tokens) {
  for (int t = 0; t < tokens; t++) to = put_u16(to, first[t + 1] - first[t]);
  return to;
}

enum ditmoe_status trace_writer_add(struct ditmoe_ctx *ctx, struct trace_writer *writer,
                                    const struct ditmoe_trace_record *record) {
  TRY(check_whole(ctx, writer));
  const char *fault = trace_record_fault(writer->shape, record);
  if (fault) {
    writer->failed = true;
    return fail(ctx, DITMOE_FAILED, "%s: a record of image %lld: %s", writer->output.path,
                (long long)record->image, fault);
  }
  const int T = writer->shape->tokens;
  const bool scores = writer->scores && record->scores, counts = has_counts(record->first, T);
  const size_t N = (size_t)record->first[T];
  const size_t score_bytes = scores ? (size_t)T * (size_t)record->scored * sizeof(float) : 0;
  const size_t short_bytes = (N + (counts ? (size_t)T : 0)) * sizeof(uint16_t);
  const size_t padding = short_bytes % 4;
  const size_t size = TRACE_FIXED + N * sizeof(float) + score_bytes + short_bytes + padding;
  uint8_t *start, *to;
  TRY(reserve(ctx, writer, size + TRACE_CRC, &start));
  to = put_fixed(start, record, (uint32_t)(size - TRACE_LENGTH), (uint32_t)N,
                 (scores ? TRACE_HAS_SCORES : 0) | (counts ? TRACE_HAS_COUNTS : 0));
  to = put(to, record->weight, N * sizeof(float));
  if (scores) to = put(to, record->scores, score_bytes);
  if (counts) to = put_counts(to, record->first, T);
  to = put(to, record->expert, N * sizeof(uint16_t));
  memset(to, 0, padding);
  const uint32_t crc = trace_crc(start, size);
  put(start + size, &crc, sizeof crc);
  writer->records++;
  return DITMOE_OK;
}

/* The end. */

static void release(struct trace_writer *writer) {
  struct ditmoe_ctx own = writer->own;
  mem_free(&own, writer->buffer);
  mem_free(&own, writer);
}

static enum ditmoe_status put_end(struct ditmoe_ctx *ctx, struct trace_writer *writer) {
  uint8_t *start;
  const uint32_t nothing = 0;
  TRY(check_whole(ctx, writer));
  TRY(reserve(ctx, writer, TRACE_END, &start));
  uint8_t *to = put(put(start, &nothing, 4), &writer->records, 8);
  const uint32_t crc = trace_crc(start, TRACE_END - TRACE_CRC);
  put(to, &crc, sizeof crc);
  return flush(ctx, writer);
}

enum ditmoe_status trace_writer_commit(struct ditmoe_ctx *ctx, struct trace_writer *writer) {
  enum ditmoe_status status = put_end(ctx, writer);
  if (status == DITMOE_OK)
    status = file_output_commit(ctx, &writer->output);
  else
    file_output_abandon(ctx, &writer->output);
  release(writer);
  return status;
}

void trace_writer_abandon(struct trace_writer *writer) {
  if (!writer) return;
  file_output_abandon(&writer->own, &writer->output);
  release(writer);
}

/* The trace of tables. */

enum ditmoe_status ditmoe_routing_trace_begin(struct ditmoe_ctx *ctx,
                                              struct ditmoe_routing *routing, const char *path,
                                              unsigned what) {
  const bool scores = what & DITMOE_TRACE_SCORES;
  uint8_t *header;
  size_t size;
  if (routing->trace) return fail(ctx, DITMOE_USAGE, "%s: a trace is being written already", path);
  if (what & ~(unsigned)DITMOE_TRACE_SCORES)
    return fail(ctx, DITMOE_USAGE, "%s: what the trace should hold is unknown", path);
  TRY(trace_header_make(ctx, path, &routing->shape, routing->meta, scores, &header, &size));
  enum ditmoe_status status =
      trace_writer_open(ctx, path, &routing->shape, scores, header, size, &routing->trace);
  mem_free(ctx, header);
  return status;
}

enum ditmoe_status ditmoe_routing_trace_commit(struct ditmoe_ctx *ctx,
                                               struct ditmoe_routing *routing) {
  struct trace_writer *writer = routing->trace;
  if (!writer) return fail(ctx, DITMOE_USAGE, "no trace is being written");
  routing->trace = NULL;
  return trace_writer_commit(ctx, writer);
}

void ditmoe_routing_trace_abandon(struct ditmoe_routing *routing) {
  trace_writer_abandon(routing->trace);
  routing->trace = NULL;
}

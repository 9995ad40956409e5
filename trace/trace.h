/* Traces: every choice of a run, record by record. docs/ROUTING.md has the layout of the file. */
#ifndef TRACE_TRACE_H
#define TRACE_TRACE_H

#include "base/span.h"
#include "io/file.h"
#include "trace/shape.h"

enum {
  TRACE_TEXT = 20,  /* where the text of the header begins */
  TRACE_LENGTH = 4, /* bytes of a record's first number    */
  TRACE_FIXED = 36, /* bytes of a record before its arrays */
  TRACE_CRC = 4,
  TRACE_END = 16,
  TRACE_HAS_SCORES = 1, /* flags of a record */
  TRACE_HAS_COUNTS = 2
};

/* CRC-32 of some bytes. */
uint32_t trace_crc(const void *bytes, size_t size);

/* The header. */

struct trace_header {
  struct routing_shape shape;
  char *meta;
  bool scores;
};

/* All bytes of a file before its first record, to be freed. */
enum ditmoe_status trace_header_make(struct ditmoe_ctx *ctx, const char *path,
                                     const struct routing_shape *shape, const char *meta,
                                     bool scores, uint8_t **bytes, size_t *size);
/* The header of an untrusted file; *size: where the first record begins. Free what it gives. */
enum ditmoe_status trace_header_read(struct ditmoe_ctx *ctx, const char *path, struct span file,
                                     struct trace_header *out, size_t *size);
void trace_header_free(struct ditmoe_ctx *ctx, struct trace_header *header);

/* Records. */

/* Experts of a layer that a router compares. */
static inline int trace_scored(const struct routing_shape *shape, int layer) {
  return shape->layer_experts[layer] - (shape->uncond_expert >= 0);
}
/* Whether a record, of a file or of a caller, can be one of the shape: NULL, or what is wrong. */
const char *trace_record_fault(const struct routing_shape *shape,
                               const struct ditmoe_trace_record *record);

/* Writing. */

struct trace_writer;

/* header: from trace_header_make, or of another trace. The shape outlives the writer. */
enum ditmoe_status trace_writer_open(struct ditmoe_ctx *ctx, const char *path,
                                     const struct routing_shape *shape, bool scores,
                                     const void *header, size_t size, struct trace_writer **out);
bool trace_wants_scores(const struct trace_writer *writer);
/* Scores that are not wanted are left out. After a failure only trace_writer_abandon is of use. */
enum ditmoe_status trace_writer_add(struct ditmoe_ctx *ctx, struct trace_writer *writer,
                                    const struct ditmoe_trace_record *record);
/* A record as it is in a file, with its CRC. */
enum ditmoe_status trace_writer_copy(struct ditmoe_ctx *ctx, struct trace_writer *writer,
                                     const void *bytes, size_t size);
/* Both free the writer. */
enum ditmoe_status trace_writer_commit(struct ditmoe_ctx *ctx, struct trace_writer *writer);
void trace_writer_abandon(struct trace_writer *writer); /* may be NULL */

/* Reading. */

struct ditmoe_trace {
  struct ditmoe_ctx own; /* see api/handles.h */
  struct trace_header header;
  char *path;
  struct mapping mapping; /* behind `file`, or empty */
  struct span file;       /* at: the next record     */
  size_t start;           /* of the first record     */
  uint64_t number;        /* of the next record      */
  bool ended;
  size_t touched;  /* mapped bytes read since they were last given back */
  uint8_t *record; /* the last one, as it is in the file                */
  size_t size, capacity;
  int32_t *first; /* [T + 1] */
};

/* ditmoe_trace_open of bytes that outlive the trace. */
enum ditmoe_status trace_open_bytes(struct ditmoe_ctx *ctx, const char *path, const void *bytes,
                                    size_t size, struct ditmoe_trace **out);
/* The first record comes next. */
void trace_rewind(struct ditmoe_trace *trace);
/* Goes back to a record that has been read, without looking at what it says: trace->record,
 * trace->size bytes. */
enum ditmoe_status trace_load(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace, uint64_t offset);
/* Gives the memory behind the file back to the system. */
void trace_rest(struct ditmoe_trace *trace);

#endif

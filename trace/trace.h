/* Traces: every choice of a run, record by record.
 *
 * The file, version 1. All numbers are little-endian, f32 is that of IEEE 754; records begin at
 * multiples of 4 bytes. CRC-32 is that of zlib.
 *
 *   header   offset  size
 *                 0    12  "ditmoe-trace"
 *                12     4  version: 1
 *                16     4  h: bytes of text
 *                20     h  text, UTF-8: two JSON objects, each begins a line and has at most 1 MiB.
 *                          The first says what the records are about, see below; the second where
 *                          they come from. Spaces at the end make h a multiple of 4.
 *            20 + h     4  CRC-32 of all that precedes
 *
 *   record        0     4  n: bytes from here to the CRC, not counting these 4; >= 32
 *                 4     8  image: number in the run, >= 0
 *                12     4  label: class of the image, 0 .. C - 1, for both halves of guidance
 *                16     4  other_label: class of another image of the run, or -1
 *                20     4  step of the run, from 0
 *                24     4  N: choices of all tokens
 *                28     2  layer: place in the header's list
 *                30     2  evaluation: number of the forward pass within the step, from 0
 *                32     1  half: 0 conditional, 1 unconditional
 *                33     1  flags: 1 has scores, 2 tokens differ in their number of choices
 *                34     2  0
 *                36   4 N  weights of the gate, f32, finite; token by token, descending within one
 *                   4 T X  flag 1: scores, f32, token by token: what the router compared, of the
 *                          X experts of the layer; the unconditional expert, the last, has none
 *                     2 T  flag 2: choices of each token, u16; without it each has N / T
 *                     2 N  experts, u16, in the order of the weights
 *                     0/2  0, to a multiple of 4
 *             4 + n     4  CRC-32 of the record from its first byte on
 *
 *   end           0     4  0
 *                 4     8  number of records
 *                12     4  CRC-32 of these 12 bytes; the file ends here
 *
 * A file without its end has been cut off. Records stand in the order in which they happened. Those
 * of a joined trace are sorted by image, step, evaluation, half and layer.
 *
 * The first object of the header has "scores" (whether records may have some), "layers" (blocks of
 * the model, [L]), "layer_experts" ([L], the unconditional expert included), "bin_steps" ([S + 1]
 * first steps of the bins, and the end), "times" ([steps] as the sampler calls them), "tokens" (T),
 * "side" (side * side = T), "experts" (of the largest layer), "labels" (C), "top_k" (experts of
 * every token, 0: the router decides), "uncond_expert" (number or -1), "null_label", "halves" (2:
 * the unconditional one is there too) and "mass" (whether tables sum the weights). X is an entry of
 * layer_experts, less 1 if there is an unconditional expert.
 *
 * Versions: a reader takes exactly the versions it knows. Whatever an older reader would get wrong
 * makes a new version; members that it may pass over can be added to the header without. */
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

/* Tables of routing: how often which expert was chosen, by everything that a choice may depend on.
 *
 *   routing_create -> ditmoe_routing_count (count.c), for every image, layer and forward pass
 *                       -> slots.c: what the image chose at the step before
 *                  -> ditmoe_routing_merge -> ditmoe_routing_write (dump.c)
 *
 * All sums are of integers, so that they depend on no order. */
#ifndef TRACE_TABLES_H
#define TRACE_TABLES_H

#include "trace/indices.h"
#include "trace/shape.h"
#include "trace/slots.h"

struct trace_writer; /* trace/trace.h */

/* The tables of one half, in the order of their arrays in a file. */
enum table {
  TABLE_COUNTS,
  TABLE_CLASS_COUNTS,
  TABLE_EVALUATIONS,
  TABLE_LABEL_EVALUATIONS,
  TABLE_SHUFFLED_POSITIONS,
  TABLE_SHUFFLED_STEPS,
  TABLE_SHUFFLED_LABELS,
  TABLE_KEPT,
  TABLE_KEPT_LEADING,
  TABLE_PAIRS,
  TABLE_MASS,
  TABLE_CLASS_MASS,
  TABLES
};

enum cell { CELL_U32, CELL_U64, CELL_MASS };

struct table_kind {
  const char *name; /* as in struct ditmoe_routing_tables and in files */
  enum cell cell;
  const char *axes; /* "LSTE": letters of ditmoe_routing.h; N: steps, 2: a pair */
};

extern const struct table_kind table_kinds[TABLES];

/* Extents of a table; the result is their number. */
enum { TABLE_MAX_RANK = 4 };
int table_shape(const struct routing_shape *shape, enum table table, int64_t out[TABLE_MAX_RANK]);
int64_t table_cells(const struct routing_shape *shape, enum table table);
size_t table_cell_size(enum table table);
/* Those of weights are left out without them. */
static inline bool table_exists(const struct routing_shape *shape, enum table table) {
  return shape->mass || table_kinds[table].cell != CELL_MASS;
}

struct ditmoe_routing {
  struct ditmoe_ctx own; /* for its memory; errors go to the context of the caller */
  struct routing_shape shape;
  int32_t *bin_of; /* [steps] */
  void *table[DITMOE_HALVES][TABLES];
  struct indices images;   /* that have been counted     */
  struct indices excluded; /* that are not to be counted */
  struct slots slots;
  struct scratch {     /* of one record */
    uint64_t *chosen;  /* [T, words] */
    uint16_t *leading; /* [T] */
    uint32_t *load;    /* [E] */
    int64_t *mass;     /* [E] */
  } scratch;
  char *meta;
  struct trace_writer *trace; /* NULL: none */
  void *user;
  int32_t (*other_label)(void *user, int64_t image); /* NULL: none */
};

/* Empty tables; the shape is copied and must have no fault. */
enum ditmoe_status routing_create(struct ditmoe_ctx *ctx, const struct routing_shape *shape,
                                  struct ditmoe_routing **out);
/* Repeats a failure of the routing's own context in that of the caller. */
enum ditmoe_status routing_failed(struct ditmoe_ctx *ctx, const struct ditmoe_routing *routing,
                                  enum ditmoe_status status);

#endif

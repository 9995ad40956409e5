/* Made-up runs for the tests of traces: 2 layers, 3 steps of which the second has two evaluations,
 * two halves, up to 256 tokens. */
#ifndef TESTS_TRACE_CASES_H
#define TESTS_TRACE_CASES_H

#include "trace/tables.h"
#include "trace/trace.h"

enum { LAYERS = 2, STEPS = 3, MOST_T = 256, MOST_E = 5, MOST_CHOICES = MOST_T * MOST_E };
enum { PER_IMAGE = (STEPS + 1) * DITMOE_HALVES * LAYERS }; /* records */
enum router { TOKEN_CHOICE, THRESHOLD, UNCOND_EXPERT, ROUTERS };

/* Its arrays are static. Tokens of TOKEN_CHOICE have 2 experts, others 0 to 3; UNCOND_EXPERT has
 * one for all tokens of the unconditional half. */
struct routing_shape shape_of(enum router router, int side);

struct sample {
  struct ditmoe_trace_record record;
  int32_t first[MOST_T + 1];
  uint16_t expert[MOST_CHOICES];
  float weight[MOST_CHOICES], scores[MOST_CHOICES];
};

/* The record of an image and place, which are all of `where` that is used; a function of them. */
void make_record(struct sample *sample, const struct routing_shape *shape,
                 struct ditmoe_trace_record where);

/* Images first .. end - 1 in batches; both halves in one forward pass or one after the other. */
struct plan {
  int64_t first, end;
  int batch;
  bool batched;
};

/* What the tables and traces say they come from. */
extern const char trace_meta[];

/* Counts the runs of some plans while their trace is written; *out may be NULL. */
enum ditmoe_status trace_run(struct ditmoe_ctx *ctx, const struct routing_shape *shape,
                             const struct plan *plans, int count, unsigned what, const char *path,
                             struct ditmoe_routing **out);
/* Reads to the end; *records: how many. */
enum ditmoe_status read_trace(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace,
                              uint64_t *records);

#endif

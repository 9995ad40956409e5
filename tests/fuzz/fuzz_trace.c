/* A routing trace: all records, counted in tables if those are not large; as it is, and with CRCs
 * that fit. */
#include "repair_trace.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned touch(const struct ditmoe_trace_record *record, int tokens) {
  unsigned sum = 0;
  for (int32_t i = 0; i < record->first[tokens]; i++)
    sum += record->expert[i] + (record->weight[i] > 0);
  for (int i = 0; record->scores && i < tokens * record->scored; i++) sum += record->scores[i] > 0;
  return sum;
}

static void read_trace(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace) {
  enum { LIMIT = 1 << 16 };
  const struct routing_shape *shape = &trace->header.shape;
  const double cells = (double)(shape->experts + 1) * (shape->tokens + shape->labels) *
                       (shape->bins + shape->experts) * (shape->layers + 1);
  struct ditmoe_trace_record record;
  struct ditmoe_routing *routing = NULL;
  unsigned sum = 0;
  if (cells + shape->steps < LIMIT) (void)ditmoe_trace_tables(ctx, trace, &routing);
  for (int end = 0; ditmoe_trace_next(ctx, trace, &record, &end) == DITMOE_OK && !end;) {
    sum += touch(&record, shape->tokens);
    if (routing) (void)ditmoe_routing_count(ctx, routing, &record);
  }
  ditmoe_routing_destroy(routing);
  __asm__ volatile("" : : "r"(sum)); /* keeps the reads */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  uint8_t *copy = malloc(size + 1);
  if (size) memcpy(copy, data, size);
  for (int repaired = 0; repaired < 2; repaired++) {
    struct ditmoe_trace *trace;
    if (repaired) repair_trace(copy, size);
    if (trace_open_bytes(ctx, "fuzz", copy, size, &trace) != DITMOE_OK) continue;
    read_trace(ctx, trace);
    ditmoe_trace_close(trace);
  }
  free(copy);
  ditmoe_ctx_destroy(ctx);
  return 0;
}

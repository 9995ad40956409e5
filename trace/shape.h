/* What tables and traces are about: the model's layers, the steps of the run. */
#ifndef TRACE_SHAPE_H
#define TRACE_SHAPE_H

#include "base/memory.h"
#include "ditmoe_routing.h"

struct routing_shape { /* as in struct ditmoe_routing_info; arrays are in one block, which begins
                          with the times */
  int layers, bins, tokens, experts, labels;
  int steps, side, top_k, uncond_expert, null_label;
  int halves;
  bool mass;
  int32_t *layer, *layer_experts; /* [L]     */
  int32_t *bin_step;              /* [S + 1] */
  double *time;                   /* [steps] */
};

/* Room for the arrays of a shape whose numbers are set; cleared. */
enum ditmoe_status shape_alloc(struct ditmoe_ctx *ctx, struct routing_shape *shape);
enum ditmoe_status shape_copy(struct ditmoe_ctx *ctx, const struct routing_shape *from,
                              struct routing_shape *out);
void shape_free(struct ditmoe_ctx *ctx, struct routing_shape *shape);
/* Divides `steps` into `bins` of nearly equal size. */
void shape_divide_steps(struct routing_shape *shape);
/* Whether the numbers of an untrusted shape make sense together and stay within limits: NULL, or
 * what is wrong ("the steps of the bins do not ascend"). */
const char *shape_fault(const struct routing_shape *shape);
/* What differs, for messages ("layers", "the times of the steps"); NULL if nothing does. */
const char *shape_difference(const struct routing_shape *a, const struct routing_shape *b);

#endif

/* What a record may hold. */
#include "trace/trace.h"

#include <math.h>

static const char *number_fault(const struct routing_shape *s,
                                const struct ditmoe_trace_record *r) {
  if (r->image < 0) return "a negative image";
  if (r->label < 0 || r->label >= s->labels) return "a label out of range";
  if (r->other_label < -1 || r->other_label >= s->labels) return "the other label is out of range";
  if (r->step < 0 || r->step >= s->steps) return "a step out of range";
  if (r->layer < 0 || r->layer >= s->layers) return "a layer out of range";
  if (r->evaluation < 0 || r->evaluation > UINT16_MAX) return "an evaluation out of range";
  if ((int)r->half < 0 || (int)r->half >= s->halves) return "a half that is not counted";
  if (r->scores && r->scored != trace_scored(s, r->layer)) return "scores of other experts";
  return NULL;
}

const char *trace_record_fault(const struct routing_shape *shape,
                               const struct ditmoe_trace_record *record) {
  const char *fault = number_fault(shape, record);
  if (fault) return fault;
  const int experts = shape->layer_experts[record->layer];
  if (record->first[0] != 0) return "choices that do not begin at 0";
  for (int t = 0; t < shape->tokens; t++) {
    const int32_t from = record->first[t], to = record->first[t + 1];
    if (to < from || to - from > experts) return "a number of choices out of range";
    for (int32_t i = from; i < to; i++) {
      if (record->expert[i] >= experts) return "an expert out of range";
      if (!isfinite(record->weight[i])) return "a weight that is not finite";
      if (i > from && record->weight[i] > record->weight[i - 1]) return "weights that ascend";
    }
  }
  return NULL;
}

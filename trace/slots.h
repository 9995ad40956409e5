/* What images under way chose last: memory for as many images as are sampled at once, whatever the
 * order of their records. */
#ifndef TRACE_SLOTS_H
#define TRACE_SLOTS_H

#include "base/memory.h"
#include "trace/shape.h"

enum { NO_EXPERT = 0xffff }; /* leads a token that no expert took */

/* Records of an image and half come in this order. */
struct place {
  int step, evaluation, layer; /* step -1: before the first */
};

struct slot_half {
  int32_t *step;     /* [L] step of what follows, -1: none                       */
  uint64_t *chosen;  /* [L, T, words] a bit for each expert                      */
  uint16_t *leading; /* [L, T]                                                   */
  uint16_t *ahead;   /* [T] leading experts of the record that was counted last, */
  struct place last; /* which is this one                                        */
};

struct slot {
  int64_t image;
  bool done;                   /* the last step has been counted: another image may take the slot */
  int32_t label, other_label;  /* other_label: -1 without one */
  int turn_tokens, turn_steps; /* how far the positions and steps of the image are rotated */
  struct slot_half half[DITMOE_HALVES];
  void *block; /* the memory behind all arrays */
};

struct slots {
  struct slot *slots;
  size_t count, last; /* last: the one that was found last */
};

/* 64-bit words for a bit of each expert. */
static inline size_t slot_words(const struct routing_shape *shape) {
  return ((size_t)shape->experts + 63) / 64;
}
void slots_free(struct ditmoe_ctx *ctx, struct slots *slots);
/* NULL if the image is not under way. */
struct slot *slots_find(struct slots *slots, int64_t image);
/* A slot for a new image, empty; its labels and turns are the caller's. */
enum ditmoe_status slots_take(struct ditmoe_ctx *ctx, struct slots *slots,
                              const struct routing_shape *shape, struct slot **out);
/* No image is under way any more, whether or not it came to its end. */
void slots_end(struct slots *slots);

#endif

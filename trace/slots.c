/* Slots of images under way. */
#include "trace/slots.h"

#include <string.h>

void slots_free(struct ditmoe_ctx *ctx, struct slots *slots) {
  for (size_t i = 0; i < slots->count; i++) mem_free(ctx, slots->slots[i].block);
  mem_free(ctx, slots->slots);
  *slots = (struct slots){0};
}

/* Records come in the order of the images or stay with one, so the search begins where it ended. */
struct slot *slots_find(struct slots *slots, int64_t image) {
  for (size_t i = 0; i < slots->count; i++) {
    size_t at = (slots->last + i) % slots->count;
    if (slots->slots[at].image != image) continue;
    slots->last = at;
    return &slots->slots[at];
  }
  return NULL;
}

/* Takes the arrays of a slot from an arena, which may be measuring. */
static void carve(struct arena *arena, const struct routing_shape *shape, struct slot *slot) {
  const size_t L = (size_t)shape->layers, T = (size_t)shape->tokens, words = slot_words(shape);
  for (int h = 0; h < shape->halves; h++) {
    struct slot_half *half = &slot->half[h];
    half->step = arena_alloc(arena, L, sizeof *half->step);
    half->chosen = arena_alloc(arena, L * T * words, sizeof *half->chosen);
    half->leading = arena_alloc(arena, L * T, sizeof *half->leading);
    half->ahead = arena_alloc(arena, T, sizeof *half->ahead);
  }
}

static enum ditmoe_status grow(struct ditmoe_ctx *ctx, struct slots *slots,
                               const struct routing_shape *shape) {
  struct slot slot = {.image = -1, .done = true};
  struct arena arena;
  TRY(mem_room(ctx, slots->count, sizeof slot, "images under way", &slots->slots));
  arena_init_measuring(&arena);
  carve(&arena, shape, &slot);
  arena = (struct arena){.capacity = arena.peak};
  TRY(mem_alloc(ctx, arena.capacity, 1, "images under way", &arena.base));
  carve(&arena, shape, &slot);
  slot.block = arena.base;
  slots->slots[slots->count++] = slot;
  return DITMOE_OK;
}

enum ditmoe_status slots_take(struct ditmoe_ctx *ctx, struct slots *slots,
                              const struct routing_shape *shape, struct slot **out) {
  size_t at = 0;
  while (at < slots->count && !slots->slots[at].done) at++;
  if (at == slots->count) TRY(grow(ctx, slots, shape));
  struct slot *slot = &slots->slots[slots->last = at];
  slot->done = false;
  for (int h = 0; h < shape->halves; h++) {
    for (int l = 0; l < shape->layers; l++) slot->half[h].step[l] = -1;
    slot->half[h].last = (struct place){.step = -1};
  }
  *out = slot;
  return DITMOE_OK;
}

void slots_end(struct slots *slots) {
  for (size_t i = 0; i < slots->count; i++) slots->slots[i].done = true;
}

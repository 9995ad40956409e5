/* Memory through the context's hooks. All blocks are aligned to 64 bytes. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include "base/status.h"

/* count * size bytes, not cleared; *out is NULL only on failure (count * size = 0 gives a block of
 * its own). DITMOE_NOMEM names `what` and the size. */
enum ditmoe_status mem_alloc(struct ditmoe_ctx *ctx, size_t count, size_t size, const char *what,
                             void *out);
/* The same, cleared. */
enum ditmoe_status mem_zalloc(struct ditmoe_ctx *ctx, size_t count, size_t size, const char *what,
                              void *out);
/* A new block of new_count elements that starts with the old_count old ones; *block is replaced. */
enum ditmoe_status mem_grow(struct ditmoe_ctx *ctx, size_t old_count, size_t new_count, size_t size,
                            const char *what, void *block);
/* Room for element number `count` of a list that only ever grows, one by one: *block starts as
 * NULL, its capacity doubles. */
enum ditmoe_status mem_room(struct ditmoe_ctx *ctx, size_t count, size_t size, const char *what,
                            void *block);
enum ditmoe_status mem_strdup(struct ditmoe_ctx *ctx, const char *text, char **out);
/* block may be NULL. */
void mem_free(struct ditmoe_ctx *ctx, void *block);

/* A bump allocator over one block. Two modes: measuring, where nothing is behind the addresses and
 * only the peak counts; and real, over `capacity` bytes. */
struct arena {
  char *base;
  size_t used, peak, capacity;
  bool measuring;
};

void arena_init_measuring(struct arena *arena);
enum ditmoe_status arena_init(struct arena *arena, struct ditmoe_ctx *ctx, size_t capacity);
void arena_fini(struct arena *arena, struct ditmoe_ctx *ctx);
/* count elements of `size` bytes, aligned to 64; NULL if the arena is full. */
void *arena_alloc(struct arena *arena, size_t count, size_t size);
static inline size_t arena_mark(const struct arena *arena) { return arena->used; }
static inline void arena_reset(struct arena *arena, size_t mark) { arena->used = mark; }

/* Checked arithmetic: false on overflow. */
static inline bool mul_size(size_t a, size_t b, size_t *out) {
  return !__builtin_mul_overflow(a, b, out);
}
static inline bool add_size(size_t a, size_t b, size_t *out) {
  return !__builtin_add_overflow(a, b, out);
}

#endif

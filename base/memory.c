/* Memory through the context's hooks, and the bump allocator of activations. */
#include "base/memory.h"

#include <string.h>

enum ditmoe_status mem_alloc(struct ditmoe_ctx *ctx, size_t count, size_t size, const char *what,
                             void *out) {
  size_t bytes;
  void *block = NULL;
  memcpy(out, &block, sizeof block);
  if (!mul_size(count, size, &bytes))
    return fail(ctx, DITMOE_NOMEM, "not enough memory: %s needs %zu times %zu bytes", what, count,
                size);
  block = ctx->hooks.alloc(ctx->hooks.user, bytes ? bytes : 1);
  memcpy(out, &block, sizeof block);
  if (!block)
    return fail(ctx, DITMOE_NOMEM, "not enough memory: %s needs %zu bytes (%.1f MiB)", what, bytes,
                (double)bytes / 1048576.0);
  ctx->allocations++;
  return DITMOE_OK;
}

enum ditmoe_status mem_zalloc(struct ditmoe_ctx *ctx, size_t count, size_t size, const char *what,
                              void *out) {
  void *block;
  TRY(mem_alloc(ctx, count, size, what, out));
  memcpy(&block, out, sizeof block);
  memset(block, 0, count * size);
  return DITMOE_OK;
}

enum ditmoe_status mem_grow(struct ditmoe_ctx *ctx, size_t old_count, size_t new_count, size_t size,
                            const char *what, void *block) {
  void *old, *grown;
  memcpy(&old, block, sizeof old);
  TRY(mem_alloc(ctx, new_count, size, what, &grown));
  size_t kept = old_count < new_count ? old_count : new_count;
  if (kept) memcpy(grown, old, kept * size);
  mem_free(ctx, old);
  memcpy(block, &grown, sizeof grown);
  return DITMOE_OK;
}

enum ditmoe_status mem_room(struct ditmoe_ctx *ctx, size_t count, size_t size, const char *what,
                            void *block) {
  enum { FIRST = 16 };
  void *old;
  memcpy(&old, block, sizeof old);
  if (!old) return mem_alloc(ctx, FIRST, size, what, block);
  if (count < FIRST || (count & (count - 1)) != 0) return DITMOE_OK;
  return mem_grow(ctx, count, 2 * count, size, what, block);
}

enum ditmoe_status mem_strdup(struct ditmoe_ctx *ctx, const char *text, char **out) {
  size_t size = strlen(text) + 1;
  TRY(mem_alloc(ctx, size, 1, "a string", out));
  memcpy(*out, text, size);
  return DITMOE_OK;
}

void mem_free(struct ditmoe_ctx *ctx, void *block) {
  if (block) ctx->hooks.release(ctx->hooks.user, block);
}

enum { ARENA_ALIGN = 64 };

void arena_init_measuring(struct arena *arena) {
  *arena = (struct arena){.capacity = SIZE_MAX, .measuring = true};
}

enum ditmoe_status arena_init(struct arena *arena, struct ditmoe_ctx *ctx, size_t capacity) {
  *arena = (struct arena){.capacity = capacity};
  return mem_alloc(ctx, capacity, 1, "the activations", &arena->base);
}

void arena_fini(struct arena *arena, struct ditmoe_ctx *ctx) {
  mem_free(ctx, arena->base);
  *arena = (struct arena){0};
}

void *arena_alloc(struct arena *arena, size_t count, size_t size) {
  size_t bytes, end;
  if (!mul_size(count, size, &bytes) || !add_size(bytes, ARENA_ALIGN - 1, &bytes)) return NULL;
  bytes &= ~(size_t)(ARENA_ALIGN - 1);
  if (!add_size(arena->used, bytes, &end) || end > arena->capacity) return NULL;
  /* Measured addresses are never read or written; they only have to be distinct from NULL. */
  void *block = arena->measuring ? (void *)(uintptr_t)(arena->used + ARENA_ALIGN)
                                 : (void *)(arena->base + arena->used);
  arena->used = end;
  if (end > arena->peak) arena->peak = end;
  return block;
}

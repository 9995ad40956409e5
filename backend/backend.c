/* The registry of backends, and what is the same for all of them: the arena and the sticky
 * error. */
#include "backend/backend.h"

#include "backend/cpu/cpu.h"
#include "backend/ref/ref.h"

#include <sched.h>
#include <string.h>

/* The first is the default. */
static const struct backend_ops *const registry[] = {&backend_cpu, &backend_ref};
enum { REGISTERED = sizeof registry / sizeof *registry };

const char *backend_name(int index) {
  return index >= 0 && index < REGISTERED ? registry[index]->name : NULL;
}

/* Processors that this process may use. */
static int available_processors(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

enum ditmoe_status backend_init(struct backend *be, struct ditmoe_ctx *ctx, const char *name,
                                const char *tier, int threads) {
  const struct backend_ops *ops = name ? NULL : registry[0];
  *be = (struct backend){.ctx = ctx};
  if (threads < 0) return fail(ctx, DITMOE_USAGE, "threads: expected 0 or more, found %d", threads);
  for (int i = 0; i < REGISTERED && !ops; i++)
    if (strcmp(registry[i]->name, name) == 0) ops = registry[i];
  if (!ops)
    return fail(ctx, DITMOE_USAGE, "backend: expected \"cpu\" or \"ref\", found \"%s\"", name);
  be->threads = threads ? threads : available_processors();
  be->ops = ops;
  enum ditmoe_status status = ops->init(be, tier);
  if (status != DITMOE_OK) be->ops = NULL; /* backend_fini has nothing to do */
  return status;
}

static void release_arena(struct backend *be) {
  if (be->arena.base) be->ops->release(be, be->arena.base);
  be->arena = (struct arena){0};
}

void backend_fini(struct backend *be) {
  if (!be->ops) return;
  release_arena(be);
  be->ops->fini(be);
  *be = (struct backend){0};
}

enum ditmoe_status backend_arena(struct backend *be, size_t bytes, bool keep) {
  void *base;
  release_arena(be);
  TRY(be->ops->alloc(be, bytes, "the activations", &base));
  be->arena = (struct arena){.base = base, .capacity = bytes, .keep = keep};
  return DITMOE_OK;
}

void backend_measure(struct backend *be, bool keep) {
  release_arena(be);
  arena_init_measuring(&be->arena, keep);
}

void backend_clear(struct backend *be) { be->status = DITMOE_OK; }

void backend_fail(struct backend *be, enum ditmoe_status status) {
  if (be->status == DITMOE_OK) be->status = status;
}

enum ditmoe_status backend_compute(struct backend *be, const char *dtype) {
  be->dtype = DT_F32;
  if (!dtype)
    be->dtype = be->ops->best_dtype(be);
  else if (strcmp(dtype, "bf16") == 0)
    be->dtype = DT_BF16;
  else if (strcmp(dtype, "f32") != 0)
    return fail(be->ctx, DITMOE_USAGE, "dtype: expected f32 or bf16, found \"%s\"", dtype);
  return DITMOE_OK;
}

static void *take(struct backend *be, int64_t n, size_t size) {
  void *block = n < 0 ? NULL : arena_alloc(&be->arena, (size_t)n, size);
  if (!block && be->status == DITMOE_OK)
    backend_fail(be,
                 fail(be->ctx, DITMOE_FAILED,
                      "activation memory is too small: %lld elements of %zu bytes do not fit into "
                      "the %zu of %zu bytes that are left",
                      (long long)n, size, be->arena.capacity - be->arena.used, be->arena.capacity));
  return block;
}

float *be_floats(struct backend *be, int64_t n) { return take(be, n, sizeof(float)); }

struct act *be_acts(struct backend *be, int64_t n) {
  return take(be, n, dtype_size(be->dtype));
}

const struct act *be_narrowed(struct backend *be, const float *x, int64_t n) {
  if (be->dtype == DT_F32) return (const struct act *)(const void *)x;
  struct act *y = be_acts(be, n);
  be_narrow(be, y, x, n);
  return y;
}

int32_t *be_ints(struct backend *be, int64_t n) { return take(be, n, sizeof(int32_t)); }

void be_dispatch_alloc(struct backend *be, struct dispatch *d, int experts, int tokens,
                       int64_t capacity) {
  *d = (struct dispatch){.experts = experts, .tokens = tokens, .capacity = capacity};
  d->expert = be_ints(be, capacity);
  d->source = be_ints(be, capacity);
  d->gate = be_floats(be, capacity);
  d->offset = be_ints(be, (int64_t)experts + 1);
  d->token = be_ints(be, capacity);
  d->weight = be_floats(be, capacity);
  d->first = be_ints(be, (int64_t)tokens + 1);
  d->row = be_ints(be, capacity);
}

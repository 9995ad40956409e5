/* The registry of backends, and what is the same for all of them: the arena and the sticky
 * error. */
#include "backend/backend.h"

#include "backend/cpu/cpu.h"
#include "backend/ref/ref.h"

#include <dlfcn.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first is the default. A module is a library of its own, for what needs a driver. */
static const struct registered {
  const char *name;
  const struct backend_ops *ops; /* NULL: of a module */
} registry[] = {{"cpu", &backend_cpu}, {"ref", &backend_ref}, {"cuda", NULL}};
enum { REGISTERED = sizeof registry / sizeof *registry };

const char *backend_name(int index) {
  return index >= 0 && index < REGISTERED ? registry[index].name : NULL;
}

/* libditmoe_NAME.so beside the program, beside the installed library, or where the system has it.
 * It stays loaded: weights and executions may outlive any handle. */
static enum ditmoe_status load_module(struct ditmoe_ctx *ctx, const char *name,
                                      const struct backend_ops **out) {
  char program[PATH_MAX], file[PATH_MAX + 64], symbol[64];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  const char *const folders[] = {"/", "/../lib/", NULL};
  void *module = NULL;
  program[length > 0 ? length : 0] = 0;
  char *slash = strrchr(program, '/');
  if (slash) *slash = 0;
  for (int i = 0; i < 3 && !module; i++) {
    snprintf(file, sizeof file, "%s%slibditmoe_%s.so", folders[i] ? program : "",
             folders[i] ? folders[i] : "", name);
    module = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  }
  snprintf(symbol, sizeof symbol, "ditmoe_backend_%s", name);
  if (!module)
    return fail(ctx, DITMOE_DEVICE, "backend %s: its module cannot be loaded: %s", name, dlerror());
  *out = dlsym(module, symbol);
  if (*out) return DITMOE_OK;
  dlclose(module);
  return fail(ctx, DITMOE_DEVICE, "backend %s: %s is of another version of this library", name,
              file);
}

/* Processors that this process may use. */
static int available_processors(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static enum ditmoe_status find(struct ditmoe_ctx *ctx, const char *name,
                               const struct backend_ops **out) {
  for (int i = 0; i < REGISTERED; i++)
    if (!name || strcmp(registry[i].name, name) == 0) {
      *out = registry[i].ops;
      return *out ? DITMOE_OK : load_module(ctx, name, out);
    }
  return fail(ctx, DITMOE_USAGE, "backend: expected \"cpu\", \"ref\" or \"cuda\", found \"%s\"",
              name);
}

static void device_close(struct device *device, struct ditmoe_ctx *ctx) {
  if (!device) return;
  if (device->ops->fini) device->ops->fini(device, ctx);
  mem_free(ctx, device);
}

static enum ditmoe_status device_open(struct device **out, struct ditmoe_ctx *ctx, const char *name,
                                      const char *tier, int threads) {
  const struct backend_ops *ops;
  struct device *device;
  if (threads < 0) return fail(ctx, DITMOE_USAGE, "threads: expected 0 or more, found %d", threads);
  TRY(find(ctx, name, &ops));
  TRY(mem_zalloc(ctx, 1, sizeof *device, "the device", &device));
  device->ops = ops;
  device->threads = threads ? threads : available_processors();
  enum ditmoe_status status = ops->init(device, ctx, tier);
  if (status == DITMOE_OK)
    *out = device;
  else
    device_close(device, ctx);
  return status;
}

enum ditmoe_status exec_open(struct exec *ex, struct ditmoe_ctx *ctx, const struct device *device) {
  *ex = (struct exec){.device = device, .ctx = ctx};
  enum ditmoe_status status = device->ops->exec_init ? device->ops->exec_init(ex) : DITMOE_OK;
  if (status != DITMOE_OK) exec_close(ex);
  return status;
}

enum ditmoe_status backend_open(struct exec *ex, struct ditmoe_ctx *ctx, const char *name,
                                const char *tier, int threads) {
  struct device *device;
  *ex = (struct exec){0};
  TRY(device_open(&device, ctx, name, tier, threads));
  enum ditmoe_status status = exec_open(ex, ctx, device);
  if (status == DITMOE_OK)
    ex->own = device;
  else
    device_close(device, ctx);
  return status;
}

static void release_arena(struct exec *ex) {
  if (ex->arena.base) ex->device->ops->release(ex, ex->arena.base);
  ex->arena = (struct arena){0};
}

void exec_close(struct exec *ex) {
  if (!ex->device) return;
  release_arena(ex);
  if (ex->device->ops->exec_fini) ex->device->ops->exec_fini(ex);
  device_close(ex->own, ex->ctx);
  *ex = (struct exec){0};
}

enum ditmoe_status exec_reserve(struct exec *ex, size_t bytes) {
  void *base;
  release_arena(ex);
  TRY(ex->device->ops->alloc(ex, bytes, "the activations", &base));
  ex->arena = (struct arena){.base = base, .capacity = bytes};
  return DITMOE_OK;
}

struct exec exec_dry(const struct exec *ex) {
  struct exec dry = *ex;
  dry.dry = true;
  arena_init_measuring(&dry.arena);
  return dry;
}

void exec_clear(struct exec *ex) { ex->status = DITMOE_OK; }

void exec_fail(struct exec *ex, enum ditmoe_status status) {
  if (ex->status == DITMOE_OK) ex->status = status;
}

void exec_lacks(struct exec *ex, const char *operation) {
  exec_fail(ex, fail(ex->ctx, DITMOE_DEVICE, "backend %s: operation %s is unsupported",
                     ex->device->ops->name, operation));
}

enum ditmoe_status backend_compute(struct exec *ex, const char *dtype) {
  ex->compute = DT_F32;
  if (!dtype && ex->device->ops->best_dtype)
    ex->compute = ex->device->ops->best_dtype(ex->device);
  else if (dtype && strcmp(dtype, "bf16") == 0)
    ex->compute = DT_BF16;
  else if (dtype && strcmp(dtype, "f32") != 0)
    return fail(ex->ctx, DITMOE_USAGE, "dtype: expected f32 or bf16, found \"%s\"", dtype);
  return DITMOE_OK;
}

static void *take(struct exec *ex, int64_t n, size_t size) {
  void *block = n < 0 ? NULL : arena_alloc(&ex->arena, (size_t)n, size);
  if (!block && ex->status == DITMOE_OK)
    exec_fail(ex,
              fail(ex->ctx, DITMOE_FAILED,
                   "activation memory is too small: %lld elements of %zu bytes do not fit into "
                   "the %zu of %zu bytes that are left",
                   (long long)n, size, ex->arena.capacity - ex->arena.used, ex->arena.capacity));
  return block;
}

float *be_floats(struct exec *ex, int64_t n) { return take(ex, n, sizeof(float)); }

struct act be_acts(struct exec *ex, enum dtype type, int64_t n) {
  return (struct act){take(ex, n, dtype_size(type)), type};
}

struct act be_narrowed(struct exec *ex, enum dtype type, const float *x, int64_t n) {
  if (type == DT_F32) return act_f32(x);
  struct act y = be_acts(ex, type, n);
  be_narrow(ex, y, x, n);
  return y;
}

int32_t *be_ints(struct exec *ex, int64_t n) { return take(ex, n, sizeof(int32_t)); }

void be_dispatch_alloc(struct exec *ex, struct dispatch *d, int experts, int tokens,
                       int64_t capacity) {
  *d = (struct dispatch){.experts = experts, .tokens = tokens, .capacity = capacity};
  d->expert = be_ints(ex, capacity);
  d->source = be_ints(ex, capacity);
  d->gate = be_floats(ex, capacity);
  d->offset = be_ints(ex, (int64_t)experts + 1);
  d->token = be_ints(ex, capacity);
  d->weight = be_floats(ex, capacity);
  d->first = be_ints(ex, (int64_t)tokens + 1);
  d->row = be_ints(ex, capacity);
}

void be_dispatch_rows(struct exec *ex, int32_t *rows, const struct dispatch *d) {
  be_download(ex, rows, d->offset + 1, (size_t)d->experts * sizeof *rows);
  for (int e = d->experts - 1; be_active(ex) && e > 0; e--) rows[e] -= rows[e - 1];
}

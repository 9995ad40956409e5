/* The guarding backend: closed memory, and a wrapper for each operation. */
#include "tests/guard.h"
#include "tests/support.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Memory: one range of addresses, given out from its beginning and never twice, so that one call
 * opens or closes all of it; in units of large pages, or that call would take long. A block lies
 * behind its size. */

enum { ALIGN = 64, UNIT = 2 << 20 };
static const size_t range = (size_t)4 << 30;

/* Of all units in use from number `first` on. */
static void protect(const struct guard *guard, size_t first, int protection) {
  const size_t begin = first * UNIT, end = (guard->used + UNIT - 1) / UNIT * UNIT;
  if (mprotect(guard->memory + begin, end - begin, protection) != 0)
    fail_msg("the memory of a guarded device cannot be opened or closed");
}

static bool holds(const struct guard *guard, const void *address) {
  return (const char *)address >= guard->memory && (const char *)address < guard->memory + range;
}

/* The context's memory. What an operation allocates belongs to the device. */
static void *guard_alloc(void *user, size_t bytes) {
  struct guard *guard = user;
  const size_t size = (bytes + ALIGN - 1) / ALIGN * ALIGN, first = guard->used / UNIT;
  if (!guard->running) return aligned_alloc(ALIGN, size);
  if (size > range - guard->used - ALIGN) return NULL;
  char *block = guard->memory + guard->used + ALIGN;
  guard->used += ALIGN + size;
  protect(guard, first, PROT_READ | PROT_WRITE);
  memcpy(block - ALIGN, &size, sizeof size);
  return block;
}

static void guard_free(void *user, void *memory) {
  const struct guard *guard = user;
  if (!holds(guard, memory)) {
    free(memory);
    return;
  }
  size_t size, from = (size_t)((char *)memory - guard->memory);
  memcpy(&size, (char *)memory - ALIGN, sizeof size);
  const size_t begin = (from + UNIT - 1) / UNIT * UNIT, end = (from + size) / UNIT * UNIT;
  if (begin < end) madvise(guard->memory + begin, end - begin, MADV_DONTNEED);
}

/* Operations. */

/* One that is running. */
struct call {
  struct guard *guard;
  struct exec *ex;
  const char *operation;
};

static struct guard *guard_of(const struct exec *ex) {
  return (struct guard *)(void *)(uintptr_t)ex->device->ops;
}

static struct guard *open_memory(struct exec *ex) {
  struct guard *guard = guard_of(ex);
  if (guard->running++ == 0) protect(guard, 0, PROT_READ | PROT_WRITE);
  return guard;
}

static void close_memory(struct guard *guard) {
  if (--guard->running == 0) protect(guard, 0, PROT_NONE);
}

static struct call enter(struct exec *ex, const char *operation) {
  struct guard *guard = open_memory(ex);
  if (guard->record) fputs(operation, guard->record);
  return (struct call){guard, ex, operation};
}

static void leave(const struct call *call) {
  if (call->guard->record) fputc('\n', call->guard->record);
  close_memory(call->guard);
}

static void note_integer(const struct call *call, int64_t value) {
  if (call->guard->record) fprintf(call->guard->record, " %" PRId64, value);
}

static void note_size(const struct call *call, size_t value) { note_integer(call, (int64_t)value); }

static void note_real(const struct call *call, double value) {
  if (call->guard->record) fprintf(call->guard->record, " %a", value);
}

static void note_text(const struct call *call, const char *text) {
  if (call->guard->record) fprintf(call->guard->record, " %s", text);
}

static void note_host(const struct call *call, const void *address) {
  if (holds(call->guard, address))
    exec_fail(call->ex,
              fail(call->ex->ctx, DITMOE_FAILED,
                   "operation %s takes memory of the device for the host's", call->operation));
}

static void note_array(const struct call *call, const void *address) {
  const struct guard *guard = call->guard;
  const struct arena *arena = &call->ex->arena;
  const char *at = address;
  if (!at)
    note_text(call, "-");
  else if (!holds(guard, at))
    exec_fail(call->ex,
              fail(call->ex->ctx, DITMOE_FAILED,
                   "operation %s takes memory of the host for the device's", call->operation));
  else if (guard->record && at >= arena->base && at < arena->base + arena->capacity)
    fprintf(guard->record, " a+%td", at - arena->base);
  else if (guard->record)
    fprintf(guard->record, " m+%td", at - guard->memory);
}

static void note_act(const struct call *call, struct act x) {
  note_array(call, x.data);
  note_text(call, dtype_name(x.type));
}

static void note_linear(const struct call *call, const struct linear *w) {
  if (!w) return;
  note_array(call, w->data);
  note_integer(call, w->in);
  note_integer(call, w->out);
  note_integer(call, w->paired);
}

static void note_conv(const struct call *call, const struct conv *w) { note_array(call, w->data); }

static void note_expert(const struct call *call, const struct expert *expert) {
  note_text(call, expert->kind->name);
  note_linear(call, expert->in);
  note_linear(call, expert->out);
}

static void note_wave(const struct call *call, const struct expert_wave *wave) {
  note_integer(call, wave->count);
  for (int i = 0; i < wave->count; i++) {
    note_integer(call, wave_index(wave, i));
    note_expert(call, wave_expert(wave, i));
  }
}

static void note_plan(const struct call *call, const struct dispatch *d) {
  const void *const arrays[] = {d->expert, d->source, d->gate,  d->offset,
                                d->token,  d->weight, d->first, d->row};
  note_integer(call, d->experts);
  note_integer(call, d->tokens);
  note_integer(call, d->capacity);
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) note_array(call, arrays[i]);
}

static void note_qk_norm(const struct call *call, const struct qk_norm *norm) {
  note_array(call, norm->q_weight);
  note_array(call, norm->q_bias);
  note_array(call, norm->k_weight);
  note_array(call, norm->k_bias);
  note_real(call, (double)norm->eps);
}

static void note_row_norm(const struct call *call, const struct row_norm *norm) {
  note_array(call, norm->weight);
  note_real(call, (double)norm->eps);
}

static void note_rope(const struct call *call, const struct rope *rope) {
  note_array(call, rope->cos);
  note_array(call, rope->sin);
  note_integer(call, rope->adjacent);
}

static void note_choice(const struct call *call, const struct biased_choice *choice) {
  note_array(call, choice->bias);
  note_integer(call, choice->groups);
  note_integer(call, choice->kept);
  note_real(call, (double)choice->factor);
}

/* clang-format off */
#define NOTE(x)                                                                                    \
  _Generic((x), bool: note_integer, int: note_integer, int64_t: note_integer, size_t: note_size,   \
           float: note_real, struct act: note_act, const struct linear *: note_linear,             \
           const struct conv *: note_conv, const struct expert *: note_expert,                     \
           const struct expert_wave *: note_wave, struct dispatch *: note_plan,                    \
           const struct dispatch *: note_plan, const struct qk_norm *: note_qk_norm,               \
           const struct row_norm *: note_row_norm, const struct rope *: note_rope,                 \
           const struct biased_choice *: note_choice,                                              \
           default: note_array)(&call, x);
#define EACH_1(x) NOTE(x)
#define EACH_2(x, ...) NOTE(x) EACH_1(__VA_ARGS__)
#define EACH_3(x, ...) NOTE(x) EACH_2(__VA_ARGS__)
#define EACH_4(x, ...) NOTE(x) EACH_3(__VA_ARGS__)
#define EACH_5(x, ...) NOTE(x) EACH_4(__VA_ARGS__)
#define EACH_6(x, ...) NOTE(x) EACH_5(__VA_ARGS__)
#define EACH_7(x, ...) NOTE(x) EACH_6(__VA_ARGS__)
#define EACH_8(x, ...) NOTE(x) EACH_7(__VA_ARGS__)
#define EACH_9(x, ...) NOTE(x) EACH_8(__VA_ARGS__)
#define EACH_10(x, ...) NOTE(x) EACH_9(__VA_ARGS__)
#define PICK(a, b, c, d, e, f, g, h, i, j, each, ...) each
#define EACH(...)                                                                                  \
  PICK(__VA_ARGS__, EACH_10, EACH_9, EACH_8, EACH_7, EACH_6, EACH_5, EACH_4, EACH_3, EACH_2,       \
       EACH_1, )(__VA_ARGS__)

#define BE_OP(op, parameters, ...)                                                                 \
  static void wrap_##op(struct exec *ex, BE_UNPACK parameters) {                                   \
    const struct call call = enter(ex, #op);                                                       \
    EACH(__VA_ARGS__)                                                                              \
    if (be_active(ex)) call.guard->real->op(ex, __VA_ARGS__);                                      \
    leave(&call);                                                                                  \
  }
#include "backend/operations.h"
#undef BE_OP
/* clang-format on */

/* Operations with arguments in memory of the host. */

static void guard_upload(struct exec *ex, void *dst, const void *src, size_t bytes) {
  const struct call call = enter(ex, "upload");
  note_array(&call, dst);
  note_host(&call, src);
  note_size(&call, bytes);
  if (be_active(ex)) call.guard->real->upload(ex, dst, src, bytes);
  leave(&call);
}

static void guard_download(struct exec *ex, void *dst, const void *src, size_t bytes) {
  const struct call call = enter(ex, "download");
  note_host(&call, dst);
  note_array(&call, src);
  note_size(&call, bytes);
  if (be_active(ex)) call.guard->real->download(ex, dst, src, bytes);
  leave(&call);
}

static void guard_group_moments(struct exec *ex, double *moments, const float *x, int width,
                                const int window[4], int C, int groups, int64_t pixels) {
  const struct call call = enter(ex, "group_moments");
  EACH(moments, x, width, window[0], window[1], window[2], window[3], C, groups, pixels)
  if (be_active(ex))
    call.guard->real->group_moments(ex, moments, x, width, window, C, groups, pixels);
  leave(&call);
}

static void guard_conv2d_relu(struct exec *ex, const struct conv_branch *branches, int count,
                              struct act x, int B, int height, int width) {
  const struct call call = enter(ex, "conv2d_relu");
  for (int i = 0; i < count; i++) {
    const struct conv_branch *branch = &branches[i];
    EACH(branch->w, branch->y, branch->ldy, branch->at, branch->sum)
  }
  EACH(x, B, height, width)
  if (be_active(ex)) call.guard->real->conv2d_relu(ex, branches, count, x, B, height, width);
  leave(&call);
}

/* Not on record: memory of the device, and weights, of which the host has a copy that tells all but
 * the data. */

static void guard_sync(struct exec *ex) {
  struct guard *guard = open_memory(ex);
  guard->real->sync(ex);
  close_memory(guard);
}

static enum ditmoe_status guard_device_alloc(struct exec *ex, size_t bytes, const char *what,
                                             void **out) {
  struct guard *guard = open_memory(ex);
  enum ditmoe_status status = guard->real->alloc(ex, bytes, what, out);
  close_memory(guard);
  return status;
}

static void guard_release(struct exec *ex, void *memory) {
  struct guard *guard = open_memory(ex);
  guard->real->release(ex, memory);
  close_memory(guard);
}

struct guarded_linear {
  struct linear copy;
  struct linear *made;
};

static enum ditmoe_status guard_linear_create(struct exec *ex, const struct linear_source *source,
                                              struct linear **out) {
  struct guarded_linear *linear;
  TRY(mem_alloc(ex->ctx, 1, sizeof *linear, "a linear layer", &linear));
  struct guard *guard = open_memory(ex);
  enum ditmoe_status status = guard->real->linear_create(ex, source, &linear->made);
  if (status == DITMOE_OK) linear->copy = *linear->made, *out = &linear->copy;
  close_memory(guard);
  if (status != DITMOE_OK) mem_free(ex->ctx, linear);
  return status;
}

static void guard_linear_destroy(struct exec *ex, struct linear *linear) {
  struct guarded_linear *guarded = (struct guarded_linear *)(void *)linear;
  if (!linear) return;
  struct guard *guard = open_memory(ex);
  guard->real->linear_destroy(ex, guarded->made);
  close_memory(guard);
  mem_free(ex->ctx, guarded);
}

struct guarded_conv {
  struct conv copy;
  struct conv *made;
};

static enum ditmoe_status guard_conv_create(struct exec *ex, const struct tensor *weight,
                                            const struct tensor *bias,
                                            const struct conv_window *window, struct conv **out) {
  struct guarded_conv *conv;
  TRY(mem_alloc(ex->ctx, 1, sizeof *conv, "a convolution", &conv));
  struct guard *guard = open_memory(ex);
  enum ditmoe_status status = guard->real->conv_create(ex, weight, bias, window, &conv->made);
  if (status == DITMOE_OK) conv->copy = *conv->made, *out = &conv->copy;
  close_memory(guard);
  if (status != DITMOE_OK) mem_free(ex->ctx, conv);
  return status;
}

static void guard_conv_destroy(struct exec *ex, struct conv *conv) {
  struct guarded_conv *guarded = (struct guarded_conv *)(void *)conv;
  if (!conv) return;
  struct guard *guard = open_memory(ex);
  guard->real->conv_destroy(ex, guarded->made);
  close_memory(guard);
  mem_free(ex->ctx, guarded);
}

void guard_open(struct guard *guard, struct exec *ex, const char *backend, const char *dtype,
                int threads) {
  const struct ditmoe_hooks hooks = {.user = guard, .alloc = guard_alloc, .release = guard_free};
  *guard = (struct guard){
      .memory = mmap(NULL, range, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)};
  if (guard->memory == MAP_FAILED) fail_msg("no addresses for a guarded device");
  madvise(guard->memory, range, MADV_HUGEPAGE);
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(&hooks);
  assert_non_null(ctx);
  assert_ok(ctx, backend_open(ex, ctx, backend, NULL, threads));
  assert_ok(ctx, backend_compute(ex, dtype));
  const struct backend_ops *real = ex->device->ops;
  guard->real = real;
  guard->ops = (struct backend_ops){.name = real->name,
                                    .best_dtype = real->best_dtype,
                                    .init = real->init,
                                    .fini = real->fini,
                                    .exec_init = real->exec_init,
                                    .exec_fini = real->exec_fini,
                                    .alloc = guard_device_alloc,
                                    .release = guard_release,
                                    .memory_available = real->memory_available,
                                    .sync = real->sync ? guard_sync : NULL,
                                    .linear_create = guard_linear_create,
                                    .linear_destroy = guard_linear_destroy,
                                    .conv_create = guard_conv_create,
                                    .conv_destroy = guard_conv_destroy};
#define BE_OP(op, ...) guard->ops.op = real->op ? wrap_##op : NULL;
#include "backend/operations.h"
#undef BE_OP
  guard->ops.upload = guard_upload;
  guard->ops.download = guard_download;
  guard->ops.group_moments = guard_group_moments;
  guard->ops.conv2d_relu = guard_conv2d_relu;
  guard->ops.linear_update = NULL;
  guard->device = *ex->device;
  guard->device.ops = &guard->ops;
  ex->device = &guard->device;
}

void guard_close(struct guard *guard, struct exec *ex) {
  struct ditmoe_ctx *ctx = ex->ctx;
  exec_close(ex);
  ditmoe_ctx_destroy(ctx);
  munmap(guard->memory, range);
}

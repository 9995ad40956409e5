/* The table of the reference backend, its memory and its start. */
#include "backend/ref/ref_ops.h"

#include <string.h>

#define REF_ENTRY(op)  .op = ref_##op,
#define BE_OP(op, ...) REF_ENTRY(op)
const struct backend_ops backend_ref = {
    .name = "ref",
    REF_SLOTS(REF_ENTRY)
#include "backend/operations.h"
        .bwd =
        {
#include "backend/gradients.h"
        },
};
#undef BE_OP

enum ditmoe_status ref_init(struct device *device, struct ditmoe_ctx *ctx, const char *tier) {
  if (tier && strcmp(tier, "generic") != 0)
    return fail(ctx, DITMOE_DEVICE, "backend ref: the only tier is \"generic\", not \"%s\"", tier);
  device->tier = "generic";
  device->threads = 1;
  return DITMOE_OK;
}

enum ditmoe_status ref_alloc(struct exec *ex, size_t bytes, const char *what, void **out) {
  return mem_alloc(ex->ctx, bytes, 1, what, out);
}

void ref_release(struct exec *ex, void *memory) { mem_free(ex->ctx, memory); }

uint64_t ref_memory_available(const struct device *device) { return system_memory_available(); }

void ref_upload(struct exec *ex, void *dst, const void *src, size_t bytes) {
  memcpy(dst, src, bytes);
}

void ref_download(struct exec *ex, void *dst, const void *src, size_t bytes) {
  ref_upload(ex, dst, src, bytes);
}

void ref_copy(struct exec *ex, void *dst, const void *src, size_t bytes) {
  ref_upload(ex, dst, src, bytes);
}

void ref_fill(struct exec *ex, void *dst, int byte, size_t bytes) { memset(dst, byte, bytes); }

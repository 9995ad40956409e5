/* The table of the reference backend, its memory and its start. */
#include "backend/ref/ref_ops.h"

#include <string.h>

#define REF_ENTRY(op) .op = ref_##op,
const struct backend_ops backend_ref = {
    .name = "ref", .bwd = {REF_BWD_OPS(REF_ENTRY)}, REF_OPS(REF_ENTRY)};

enum dtype ref_best_dtype(const struct device *device) {
  (void)device;
  return DT_F32;
}

enum ditmoe_status ref_init(struct device *device, struct ditmoe_ctx *ctx, const char *tier) {
  if (tier && strcmp(tier, "generic") != 0)
    return fail(ctx, DITMOE_DEVICE, "backend ref: the only tier is \"generic\", not \"%s\"", tier);
  device->tier = "generic";
  device->threads = 1;
  return DITMOE_OK;
}

void ref_fini(struct device *device, struct ditmoe_ctx *ctx) {
  (void)device;
  (void)ctx;
}

enum ditmoe_status ref_exec_init(struct exec *ex) {
  (void)ex;
  return DITMOE_OK;
}

void ref_exec_fini(struct exec *ex) { (void)ex; }

enum ditmoe_status ref_alloc(struct exec *ex, size_t bytes, const char *what, void **out) {
  return mem_alloc(ex->ctx, bytes, 1, what, out);
}

void ref_release(struct exec *ex, void *memory) { mem_free(ex->ctx, memory); }

uint64_t ref_memory_available(const struct device *device) {
  (void)device;
  return system_memory_available();
}

void ref_upload(struct exec *ex, void *dst, const void *src, size_t bytes) {
  (void)ex;
  memcpy(dst, src, bytes);
}

void ref_download(struct exec *ex, void *dst, const void *src, size_t bytes) {
  ref_upload(ex, dst, src, bytes);
}

void ref_copy(struct exec *ex, void *dst, const void *src, size_t bytes) {
  ref_upload(ex, dst, src, bytes);
}

void ref_fill(struct exec *ex, void *dst, int byte, size_t bytes) {
  (void)ex;
  memset(dst, byte, bytes);
}

void ref_sync(struct exec *ex) { (void)ex; }

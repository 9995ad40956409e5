/* The table of the reference backend, its memory and its start. */
#include "backend/ref/ref_ops.h"

#include <string.h>

#define REF_ENTRY(op) .op = ref_##op,
const struct backend_ops backend_ref = {.name = "ref", REF_OPS(REF_ENTRY)};

enum dtype ref_best_dtype(const struct backend *be) {
  (void)be;
  return DT_F32;
}

enum ditmoe_status ref_init(struct backend *be, const char *tier) {
  if (tier && strcmp(tier, "generic") != 0)
    return fail(be->ctx, DITMOE_DEVICE, "backend ref: the only tier is \"generic\", not \"%s\"",
                tier);
  be->tier = "generic";
  be->threads = 1;
  return DITMOE_OK;
}

void ref_fini(struct backend *be) { (void)be; }

enum ditmoe_status ref_alloc(struct backend *be, size_t bytes, const char *what, void **out) {
  return mem_alloc(be->ctx, bytes, 1, what, out);
}

void ref_release(struct backend *be, void *memory) { mem_free(be->ctx, memory); }

void ref_upload(struct backend *be, void *dst, const void *src, size_t bytes) {
  (void)be;
  memcpy(dst, src, bytes);
}

void ref_download(struct backend *be, void *dst, const void *src, size_t bytes) {
  (void)be;
  memcpy(dst, src, bytes);
}

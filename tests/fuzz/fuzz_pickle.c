/* The pickle machine and the state dictionary behind it, without a container: the input is one
 * pickle, every storage it asks for is zeros. */
#include "io/torch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum ditmoe_status zeros(struct source *source, void *archive, struct text tensor,
                                struct text key, uint64_t bytes, struct span *content) {
  static const uint8_t nothing[4096];
  (void)archive, (void)tensor, (void)key;
  *content = span_of(nothing, (size_t)bytes);
  return bytes <= sizeof nothing ? DITMOE_OK : fail(source->ctx, DITMOE_FORMAT, "too large");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  struct source source = {.ctx = ctx, .path = "fuzz", .file = span_of(data, size)};
  struct pickle pickle;
  struct pickle_value root;
  struct span in = source.file;
  pickle_init(&pickle, ctx, "fuzz");
  if (mem_zalloc(ctx, 1, sizeof *source.checkpoint, "a checkpoint", &source.checkpoint) ==
      DITMOE_OK) {
    source.checkpoint->ctx = ctx;
    if (pickle_run(&pickle, &in, &root) == DITMOE_OK)
      if (torch_state_read(&source, &pickle, root, zeros, NULL) == DITMOE_OK &&
          source_sort(&source) == DITMOE_OK)
        (void)source_unwrap(&source);
  }
  pickle_fini(&pickle);
  ditmoe_checkpoint_close(source.checkpoint);
  ditmoe_ctx_destroy(ctx);
  return 0;
}

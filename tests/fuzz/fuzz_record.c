/* A checkpoint record: read as ours and as somebody else's configuration, written, read again. */
#include "dit/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_record(struct ditmoe_ctx *ctx, const cJSON *tree, bool strict) {
  struct dit_record record = {0};
  char *text = NULL;
  if (record_read_json(ctx, &record, "fuzz", tree, strict) == DITMOE_OK &&
      record_write_json(ctx, &record, &text) == DITMOE_OK)
    mem_free(ctx, text);
  record_free(ctx, &record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  cJSON *tree = NULL;
  if (json_parse(ctx, "fuzz", (const char *)data, size, &tree) == DITMOE_OK) {
    read_record(ctx, tree, true);
    read_record(ctx, tree, false);
    cJSON_Delete(tree);
  }
  ditmoe_ctx_destroy(ctx);
  return 0;
}

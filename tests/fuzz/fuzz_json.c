/* A configuration file. */
#include "io/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  cJSON *tree = NULL;
  if (json_parse(ctx, "fuzz", (const char *)data, size, &tree) == DITMOE_OK) cJSON_Delete(tree);
  ditmoe_ctx_destroy(ctx);
  return 0;
}

/* A configuration file, as it is and as Python may have written it. */
#include "io/json.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  cJSON *tree = NULL;
  if (json_parse(ctx, "fuzz", (const char *)data, size, &tree) == DITMOE_OK) cJSON_Delete(tree);
  char *text;
  tree = NULL;
  if (mem_alloc(ctx, size, 1, "fuzz", &text) == DITMOE_OK) {
    if (size) memcpy(text, data, size);
    if (json_parse_python(ctx, "fuzz", text, size, &tree) == DITMOE_OK) cJSON_Delete(tree);
    mem_free(ctx, text);
  }
  ditmoe_ctx_destroy(ctx);
  return 0;
}

/* A safetensors file, or an index of shards. */
#include "open_bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  open_bytes(data, size);
  return 0;
}

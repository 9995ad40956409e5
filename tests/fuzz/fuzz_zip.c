/* A PyTorch file, zip or legacy. */
#include "open_bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  open_bytes(data, size);
  return 0;
}

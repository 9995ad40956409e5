/* The pixels of a JPEG, or of whatever else the bytes say they are. */
#include "decode_bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  decode_bytes(data, size);
  return 0;
}

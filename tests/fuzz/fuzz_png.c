/* The pixels of a picture, and the text entries of one that is to be made again. */
#include "decode_bytes.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64], text[4096];
  int file = memfd_create("fuzz", MFD_CLOEXEC);
  decode_bytes(data, size);
  if (file < 0) return 0;
  if (write(file, data, size) == (ssize_t)size) {
    struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    (void)ditmoe_image_text(ctx, path, "ditmoe", text, sizeof text);
    ditmoe_ctx_destroy(ctx);
  }
  close(file);
  return 0;
}

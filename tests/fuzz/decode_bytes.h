/* Decodes an image in memory and reads all its pixels, so that a sanitizer sees one beyond them. */
#ifndef TESTS_FUZZ_DECODE_BYTES_H
#define TESTS_FUZZ_DECODE_BYTES_H

#include "io/image.h"

static inline void decode_bytes(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  struct image image = {0};
  int sum = 0;
  if (image_read_bytes(ctx, "fuzz", span_of(data, size), &image) == DITMOE_OK)
    for (size_t i = 0; i < (size_t)image.width * (size_t)image.height * 3; i++)
      sum ^= image.pixels[i];
  image_free(&image);
  ditmoe_ctx_destroy(ctx);
  __asm__ volatile("" : : "r"(sum)); /* keeps the reads */
}

#endif

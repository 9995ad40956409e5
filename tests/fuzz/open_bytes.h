/* Opens a checkpoint in memory, as a packed one too if it says so, and reads all its data, so that
 * a sanitizer sees a tensor that reaches beyond them. */
#ifndef TESTS_FUZZ_OPEN_BYTES_H
#define TESTS_FUZZ_OPEN_BYTES_H

#include "io/formats.h"
#include "io/packed.h"

static inline int read_data(const struct ditmoe_checkpoint *checkpoint) {
  int sum = 0;
  for (size_t i = 0; i < checkpoint->count; i++) {
    const struct tensor *tensor = &checkpoint->tensors[i];
    size_t bytes = tensor_bytes(tensor);
    for (size_t j = 0; tensor->data && j < bytes; j++) sum ^= ((const uint8_t *)tensor->data)[j];
  }
  return sum;
}

static inline void open_bytes(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  struct ditmoe_checkpoint *checkpoint = NULL;
  struct packed packed;
  int sum = 0;
  /* No shard lies in this folder. */
  (void)checkpoint_open_bytes(ctx, "/nonexistent/fuzz", data, size, NULL, &checkpoint);
  if (checkpoint) sum = read_data(checkpoint);
  if (checkpoint && packed_layout(checkpoint) &&
      packed_open(ctx, checkpoint, &packed) == DITMOE_OK) {
    sum ^= read_data(packed.tensors);
    packed_close(ctx, &packed);
  }
  ditmoe_checkpoint_close(checkpoint);
  ditmoe_ctx_destroy(ctx);
  __asm__ volatile("" : : "r"(sum)); /* keeps the reads */
}

#endif

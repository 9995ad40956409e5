/* Arrays of NumPy, .npz or .npy: all that are not large are read in both ways. */
#include "io/npz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_array(struct ditmoe_ctx *ctx, struct npz *npz, const struct npz_array *array) {
  enum { LIMIT = 1 << 16, PIECE = 1000 };
  uint8_t bytes[PIECE];
  if (array->elements > LIMIT) return;
  double *values = malloc(((size_t)array->elements + 1) * sizeof *values);
  (void)npz_read_f64(ctx, npz, array, values);
  free(values);
  for (int64_t left = array->elements, piece; left > 0; left -= piece) {
    piece = left < PIECE ? left : PIECE;
    if (npz_stream_u8(ctx, npz, array, bytes, (size_t)piece) != DITMOE_OK) return;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  struct npz *npz;
  if (npz_open_bytes(ctx, "fuzz", data, size, &npz) == DITMOE_OK) {
    for (int i = 0; i < npz_count(npz) && i < 100; i++) read_array(ctx, npz, npz_at(npz, i));
    npz_close(npz);
  }
  ditmoe_ctx_destroy(ctx);
  return 0;
}

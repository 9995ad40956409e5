/* Tables of routing in a file, and the numbers that they give; as it is, and with CRCs that fit. */
#include "base/span.h"
#include "ditmoe_routing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CENTRAL = 46, LOCAL = 30 };

/* The CRC of a stored entry, whose central record is `entry`, in both places. */
static void repair_entry(uint8_t *bytes, size_t size, uint8_t *entry) {
  const uint64_t length = le_number(entry + 20, 4), at = le_number(entry + 42, 4);
  if (at > size || size - at < LOCAL || le_number(entry + 10, 2) != 0) return;
  const uint64_t start = at + LOCAL + le_number(bytes + at + 26, 2) + le_number(bytes + at + 28, 2);
  if (start > size || length > size - start) return;
  const uint32_t crc = (uint32_t)crc32_z(0, bytes + start, length);
  memcpy(entry + 16, &crc, sizeof crc);
  memcpy(bytes + at + 14, &crc, sizeof crc);
}

static void repair_zip(uint8_t *bytes, size_t size) {
  for (size_t i = 0; size >= CENTRAL && i <= size - CENTRAL; i++)
    if (memcmp(bytes + i, "PK\1\2", 4) == 0) repair_entry(bytes, size, bytes + i);
}

static void use_tables(const struct ditmoe_routing *routing) {
  struct ditmoe_routing_info info;
  struct ditmoe_routing_load load;
  struct ditmoe_routing_dependence dependence;
  struct ditmoe_routing_memory memory;
  ditmoe_routing_info(routing, &info);
  for (int half = 0; half < info.halves; half++) {
    ditmoe_routing_load(routing, (enum ditmoe_half)half, 0, -1, &load, NULL);
    for (int axis = 0; axis < DITMOE_AXES; axis++)
      ditmoe_routing_dependence(routing, (enum ditmoe_half)half, -1, (enum ditmoe_routing_axis)axis,
                                &dependence);
    ditmoe_routing_memory(routing, (enum ditmoe_half)half, -1, &memory);
  }
}

static void read_dump(const uint8_t *data, size_t size) {
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
  struct ditmoe_routing *routing = NULL;
  char path[64];
  int file = memfd_create("fuzz", MFD_CLOEXEC);
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  if (file >= 0 && write(file, data, size) == (ssize_t)size &&
      ditmoe_routing_read(ctx, path, &routing) == DITMOE_OK)
    use_tables(routing);
  ditmoe_routing_destroy(routing);
  if (file >= 0) close(file);
  ditmoe_ctx_destroy(ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *copy = malloc(size + 1);
  if (size) memcpy(copy, data, size);
  read_dump(data, size);
  repair_zip(copy, size);
  read_dump(copy, size);
  free(copy);
  return 0;
}

/* Memory of the emulated device: a window of addresses that the host cannot touch but through the
 * runtime, allocations with gaps between them, and which block has touched what in a launch. */
#include "tests/cuda/block.h"

#include <cstdlib>
#include <sys/mman.h>

namespace emulate {

enum : size_t { WINDOW = (size_t)32 << 30, GAP = 512, TOTAL = (size_t)8 << 30 };

/* Blocks that touched 2 bytes last, by their serial numbers. */
struct cell {
  uint32_t writer, reader;
};

static unsigned char *window;
static cell *cells;
static size_t next, allocated;
static std::map<const unsigned char *, size_t> allocations;
static int opened, until_failure;
static unsigned generation = 1; /* of the allocations */

static bool prepare() {
  if (window) return true;
  void *memory =
      mmap(nullptr, WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  void *shadow = mmap(nullptr, WINDOW / 2 * sizeof(cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || shadow == MAP_FAILED) return false;
  window = static_cast<unsigned char *>(memory);
  cells = static_cast<cell *>(shadow);
  return true;
}

bool is_device_address(const void *at) {
  return window && static_cast<size_t>(static_cast<const unsigned char *>(at) - window) < WINDOW;
}

bool is_device(const void *at, size_t bytes) {
  static const unsigned char *begin[4], *end[4];
  static unsigned last;
  const unsigned char *first = static_cast<const unsigned char *>(at);
  static unsigned of_generation[4];
  for (int i = 0; i < 4; i++)
    if (first >= begin[i] && first + bytes <= end[i] && of_generation[i] == generation) return true;
  auto found = allocations.upper_bound(first);
  if (found == allocations.begin()) return false;
  --found;
  if (first + bytes > found->first + found->second) return false;
  last = (last + 1) % 4;
  begin[last] = found->first;
  end[last] = found->first + found->second;
  of_generation[last] = generation;
  return true;
}

void watch_device(const void *at, size_t bytes, bool write, bool atomic) {
  if (!is_device(at, bytes)) {
    const unsigned char *first = static_cast<const unsigned char *>(at);
    auto found = allocations.upper_bound(first);
    if (found == allocations.begin()) {
      report("%s %zu bytes at %p, before all allocations", write ? "writes" : "reads", bytes, at);
    } else {
      --found;
      report("%s %zu bytes at byte %zu of an allocation of %zu bytes", write ? "writes" : "reads",
             bytes, static_cast<size_t>(first - found->first), found->second);
    }
    return;
  }
  if (atomic) return;
  size_t place = static_cast<size_t>(static_cast<const unsigned char *>(at) - window);
  for (size_t i = place / 2; i <= (place + bytes - 1) / 2; i++) {
    cell &c = cells[i];
    bool written = c.writer >= now.first_serial && c.writer != now.serial;
    bool read = c.reader >= now.first_serial && c.reader != now.serial;
    if (written && !now.fenced)
      report("%s device memory at %p, which block %u writes in the same launch",
             write ? "writes" : "reads", at, c.writer - now.first_serial);
    if (read && write && !now.fenced)
      report("writes device memory at %p, which block %u reads in the same launch", at,
             c.reader - now.first_serial);
    if (write)
      c.writer = now.serial;
    else if (!read)
      c.reader = now.serial;
  }
}

cudaError_t device_malloc(void **memory, size_t bytes) {
  *memory = nullptr;
  if (until_failure && --until_failure == 0) return cudaErrorMemoryAllocation;
  if (!bytes) return cudaSuccess;
  if (allocations.empty()) next = 0;
  if (!prepare() || bytes > TOTAL - allocated || bytes > WINDOW - next - 2 * GAP)
    return cudaErrorMemoryAllocation;
  unsigned char *at = window + next;
  next += (bytes + 2 * GAP - 1) / GAP * GAP;
  allocated += bytes;
  allocations[at] = bytes;
  emulator_open();
  memset(at, 0xff, bytes);
  emulator_close();
  *memory = at;
  return cudaSuccess;
}

cudaError_t device_free(void *memory) {
  if (!memory) return cudaSuccess;
  auto found = allocations.find(static_cast<unsigned char *>(memory));
  if (found == allocations.end()) return cudaErrorInvalidValue;
  size_t page = 4096, begin = (static_cast<size_t>(found->first - window) + page - 1) / page * page;
  size_t end = (static_cast<size_t>(found->first - window) + found->second) / page * page;
  if (end > begin) madvise(window + begin, end - begin, MADV_DONTNEED);
  allocated -= found->second;
  allocations.erase(found);
  generation++;
  return cudaSuccess;
}

size_t device_total() { return TOTAL; }

} // namespace emulate

using namespace emulate;

void emulator_open(void) {
  if (opened++ == 0 && prepare()) mprotect(window, WINDOW, PROT_READ | PROT_WRITE);
}
void emulator_close(void) {
  if (--opened == 0 && window) mprotect(window, WINDOW, PROT_NONE);
}
void emulator_fail_malloc(int n) { until_failure = n; }
size_t emulator_allocated(void) { return allocated; }

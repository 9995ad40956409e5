#include "base/system.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* First number after `key` in a file, or UINT64_MAX. */
static uint64_t number_in(const char *path, const char *key) {
  char line[256];
  unsigned long long value;
  uint64_t found = UINT64_MAX;
  FILE *file = fopen(path, "r");
  if (!file) return found;
  while (found == UINT64_MAX && fgets(line, sizeof line, file))
    if (strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), "%llu", &value) == 1)
      found = value;
  fclose(file);
  return found;
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

uint64_t system_memory_available(void) {
  uint64_t kib = number_in("/proc/meminfo", "MemAvailable:");
  uint64_t available = kib == UINT64_MAX ? kib : kib * 1024;
  uint64_t limit = number_in("/sys/fs/cgroup/memory.max", "");
  uint64_t used = number_in("/sys/fs/cgroup/memory.current", "");
  uint64_t cache = number_in("/sys/fs/cgroup/memory.stat", "inactive_file ");
  if (limit != UINT64_MAX && used != UINT64_MAX) {
    if (cache != UINT64_MAX) used -= smaller(used, cache);
    available = smaller(available, limit - smaller(limit, used));
  }
  struct rlimit space;
  uint64_t pages = number_in("/proc/self/statm", "");
  if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY && pages != UINT64_MAX)
    available = smaller(available, space.rlim_cur - smaller(space.rlim_cur, pages * 4096));
  return available;
}

double system_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

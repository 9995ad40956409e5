#include "base/pages.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

static void advise(const void *memory, size_t bytes, int advice) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)memory;
  uintptr_t first = (begin + page - 1) / page * page, last = (begin + bytes) / page * page;
  int before = errno;
  if (first < last) (void)madvise((void *)first, last - first, advice);
  errno = before;
}

void pages_large(void *memory, size_t bytes) { advise(memory, bytes, MADV_HUGEPAGE); }

void pages_map(const void *mapped, size_t bytes) { advise(mapped, bytes, MADV_POPULATE_READ); }

void pages_drop(const void *mapped, size_t bytes) { advise(mapped, bytes, MADV_DONTNEED); }

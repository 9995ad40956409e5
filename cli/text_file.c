/* Small text files that a user names. */
#include "cli/text_file.h"

#include "cli/report.h"
#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ditmoe_status unreadable(const char *what, const char *path, const char *why) {
  return report_error(DITMOE_FORMAT, "%s %s: %s", what, path, why);
}

/* Bytes to the end, at most `limit` + 1; -1 with errno. A pipe has no size, and its writer may take
 * its time. */
static ssize_t read_to_end(int file, size_t limit, char **bytes) {
  enum { PIECE = 1 << 16 };
  size_t size = 0;
  ssize_t count = 1;
  *bytes = memory_get(1, 1);
  while (count != 0 && size <= limit) {
    const size_t room = limit + 1 - size < PIECE ? limit + 1 - size : PIECE;
    *bytes = memory_resize(*bytes, size + room + 1, 1);
    count = read(file, *bytes + size, room);
    if (count > 0) size += (size_t)count;
    if (count < 0 && errno == EAGAIN) (void)poll(&(struct pollfd){file, POLLIN, 0}, 1, -1);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return -1;
  }
  (*bytes)[size] = 0;
  return (ssize_t)size;
}

/* What the bytes are instead of UTF-8 without zeros, or NULL. */
static const char *fault_of(const char *bytes, size_t size, size_t limit) {
  static const char utf32[] = "\xff\xfe\0"; /* and the zero at its end */
  if (size > limit) return "too large";
  if (size >= 4 && memcmp(bytes, utf32, 4) == 0) return "is UTF-32 text; save it as UTF-8";
  if (size >= 2 && (memcmp(bytes, utf32, 2) == 0 || memcmp(bytes, "\xfe\xff", 2) == 0))
    return "is UTF-16 text; save it as UTF-8";
  return strlen(bytes) == size ? NULL : "not a text file";
}

/* O_NONBLOCK, so that a pipe without a writer does not hang. */
enum ditmoe_status text_file_read(const char *what, const char *path, size_t limit, char **text) {
  static const char mark[] = "\xef\xbb\xbf";
  struct stat info;
  char *bytes = NULL;
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return unreadable(what, path, strerror(errno));
  const ssize_t size = fstat(file, &info) == 0 ? read_to_end(file, limit, &bytes) : -1;
  const char *fault = size < 0 ? strerror(errno) : fault_of(bytes, (size_t)size, limit);
  close(file);
  if (!fault && size == 0 && S_ISFIFO(info.st_mode)) fault = "is a pipe that nothing came from";
  if (!fault && strncmp(bytes, mark, strlen(mark)) == 0)
    memmove(bytes, bytes + strlen(mark), (size_t)size + 1 - strlen(mark));
  if (!fault) {
    *text = bytes;
    return DITMOE_OK;
  }
  free(bytes);
  return unreadable(what, path, fault);
}

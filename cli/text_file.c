/* Small text files that a user names. */
#include "cli/text_file.h"

#include "cli/report.h"
#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ditmoe_status unreadable(const char *what, const char *path, const char *why) {
  return report_error(DITMOE_FORMAT, "%s %s: %s", what, path, why);
}

/* O_NONBLOCK, so that a pipe without a writer does not hang. */
enum ditmoe_status text_file_read(const char *what, const char *path, size_t limit, char **text) {
  struct stat info;
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return unreadable(what, path, strerror(errno));
  bool regular = fstat(file, &info) == 0 && S_ISREG(info.st_mode);
  bool small = regular && (size_t)info.st_size <= limit;
  char *buffer = small ? memory_get((size_t)info.st_size + 1, 1) : NULL;
  ssize_t size = small ? read(file, buffer, (size_t)info.st_size) : 0;
  close(file);
  if (!regular) return unreadable(what, path, "not a file");
  if (!small) return unreadable(what, path, "too large");
  if (small && size == info.st_size && strlen(buffer) == (size_t)size) {
    *text = buffer;
    return DITMOE_OK;
  }
  free(buffer);
  return unreadable(what, path, size != info.st_size ? "cannot be read" : "not a text file");
}

/* The journal of a run. */
#include "cli/sample/journal.h"

#include "cli/report.h"
#include "cli/sample/files.h"
#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { CRC_DIGITS = 8 };

static unsigned crc_of(const char *text, size_t length) {
  return (unsigned)crc32(0, (const Bytef *)text, (uInt)length);
}

/* Locks. They belong to the open file, not to the process: to close another one of the same path,
 * or to ask about the lock, takes nothing away. */

static struct flock whole_file(void) {
  return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

bool journal_is_locked(const char *path) {
  struct flock lock = whole_file();
  int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return false;
  bool locked = fcntl(file, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  close(file);
  return locked;
}

static void keep_process(void *user, const char *text) {
  long long pid;
  if (sscanf(text, "session %lld", &pid) == 1) *(int64_t *)user = pid;
}

int64_t journal_process(const char *path) {
  int64_t pid = 0;
  journal_read(path, NULL, keep_process, &pid);
  return pid;
}

static enum ditmoe_status is_active(const char *path) {
  return report_error(DITMOE_OUTPUT, "%s: this run is active, in process %lld", path,
                      (long long)journal_process(path));
}

/* Opens and locks a file that still has its name: one that was removed between the two is no use.
 * -1 and errno. */
static int open_locked(const char *path) {
  for (;;) {
    struct flock lock = whole_file();
    struct stat info;
    int file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0) return -1;
    bool locked = fcntl(file, F_OFD_SETLK, &lock) == 0;
    if (locked && fstat(file, &info) == 0 && info.st_nlink > 0) return file;
    int cause = errno;
    close(file);
    errno = cause;
    if (!locked) return -1;
  }
}

enum ditmoe_status journal_take(struct journal *journal, const char *path) {
  int file = open_locked(path);
  if (file < 0 && errno == EAGAIN && journal_is_locked(path)) return is_active(path);
  if (file < 0) return report_error(DITMOE_OUTPUT, "%s: %s", path, strerror(errno));
  *journal = (struct journal){.path = text_copy(path), .file = file};
  return DITMOE_OK;
}

void journal_close(struct journal *journal) {
  if (journal->file >= 0) close(journal->file);
  free(journal->path);
  free(journal->pending);
  *journal = (struct journal){.file = -1};
}

/* Writing. */

enum ditmoe_status journal_cut(struct journal *journal, int64_t size) {
  if (ftruncate(journal->file, size) == 0) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: %s", journal->path, strerror(errno));
}

void journal_add(struct journal *journal, const char *format, ...) {
  char text[JOURNAL_LINE - CRC_DIGITS - 2];
  va_list arguments;
  if (journal->file < 0) return;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  size_t length = strlen(text_sanitize(text)), size = journal->pending_size;
  journal->pending = memory_resize(journal->pending, size + JOURNAL_LINE, 1);
  journal->pending_size += (size_t)snprintf(journal->pending + size, JOURNAL_LINE, "%s %0*x\n",
                                            text, CRC_DIGITS, crc_of(text, length));
}

int journal_commit(struct journal *journal) {
  if (journal->file < 0 || journal->pending_size == 0) return 0;
  off_t before = lseek(journal->file, 0, SEEK_END);
  int cause = write_all(journal->file, journal->pending, journal->pending_size);
  if (!cause && fdatasync(journal->file) != 0) cause = errno;
  if (cause && ftruncate(journal->file, before) != 0) cause = errno; /* else a torn tail stays */
  journal->pending_size = 0;
  return cause;
}

/* Reading. */

/* Ends the text before its CRC if that is right. */
static bool check_line(char *line) {
  size_t length = strlen(line);
  char expected[CRC_DIGITS + 2];
  if (length < CRC_DIGITS + 2 || line[length - 1] != '\n') return false;
  char *crc = line + length - 1 - CRC_DIGITS;
  snprintf(expected, sizeof expected, "%0*x\n", CRC_DIGITS, crc_of(line, (size_t)(crc - 1 - line)));
  if (crc[-1] != ' ' || strcmp(crc, expected) != 0) return false;
  crc[-1] = 0;
  return true;
}

static bool is_head(const char *text, const char *id) {
  static const char head[] = "journal 1 ";
  return strncmp(text, head, strlen(head)) == 0 && (!id || strcmp(text + strlen(head), id) == 0);
}

struct journal_extent journal_read(const char *path, const char *id,
                                   void (*line)(void *user, const char *text), void *user) {
  struct journal_extent extent = {.size = -1};
  struct stat info;
  char text[JOURNAL_LINE];
  FILE *file = fopen(path, "re");
  if (!file) return extent;
  if (fstat(fileno(file), &info) == 0) extent.size = info.st_size;
  while (fgets(text, sizeof text, file) && check_line(text)) {
    if (extent.good == 0 && !(extent.ours = is_head(text, id))) break;
    if (extent.good > 0) line(user, text);
    extent.good = ftell(file);
  }
  fclose(file);
  return extent;
}

bool journal_parse(const char *text, struct journal_piece *out) {
  char kind[8];
  if (sscanf(text, "%7s %lld %lld %lld %x", kind, &out->first, &out->count, &out->bytes,
             &out->crc) != 5)
    return false;
  out->shard = strcmp(kind, "shard") == 0;
  return out->shard || strcmp(kind, "image") == 0;
}

/* The files of a run. */
#include "cli/sample/files.h"

#include "cli/report.h"
#include "cli/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

bool file_checksum(const char *path, int64_t *bytes, uint32_t *crc) {
  enum { PIECE = 1 << 16 };
  FILE *file = fopen(path, "re");
  if (!file) return false;
  Bytef *piece = memory_get(PIECE, 1);
  uLong sum = crc32(0, NULL, 0);
  size_t size;
  *bytes = 0;
  while ((size = fread(piece, 1, PIECE, file)) > 0) {
    sum = crc32(sum, piece, (uInt)size);
    *bytes += (int64_t)size;
  }
  bool good = !ferror(file);
  *crc = (uint32_t)sum;
  free(piece);
  fclose(file);
  return good;
}

bool file_exists(const char *path) {
  struct stat info;
  return lstat(path, &info) == 0;
}

bool folder_exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int write_all(int file, const char *bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t count = write(file, bytes + done, size - done);
    if (count < 0 && errno != EINTR) return errno;
    if (count > 0) done += (size_t)count;
  }
  return 0;
}

static int write_text(int file, const char *text) {
  int cause = write_all(file, text, strlen(text));
  return !cause && fsync(file) != 0 ? errno : cause;
}

/* A link, unlike a rename, replaces nothing. The name is that of the library's temporary files. */
int file_create(const char *path, const char *text) {
  char *folder = path_folder(path);
  char *temporary = text_format("%s.ditmoe-%lld-run.tmp", folder, (long long)getpid());
  int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  int cause = file < 0 ? errno : write_text(file, text);
  if (file >= 0) close(file);
  if (!cause && link(temporary, path) != 0) cause = errno;
  if (file >= 0) (void)unlink(temporary);
  free(temporary);
  free(folder);
  return cause;
}

static const char *openable(const char *folder) { return *folder ? folder : "."; }

enum ditmoe_status folder_scan(const char *folder,
                               enum ditmoe_status (*entry)(void *user, const char *name),
                               void *user) {
  enum ditmoe_status status = DITMOE_OK;
  struct dirent *found;
  DIR *open = opendir(openable(folder));
  if (!open) return report_error(DITMOE_OUTPUT, "%s: %s", openable(folder), strerror(errno));
  while (status == DITMOE_OK && (found = readdir(open))) status = entry(user, found->d_name);
  closedir(open);
  return status;
}

enum ditmoe_status folder_make(const char *folder, bool *made) {
  *made = mkdir(openable(folder), 0777) == 0;
  if (*made || (errno == EEXIST && folder_exists(openable(folder)))) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: %s", folder, strerror(errno));
}

static enum ditmoe_status remove_entry(void *user, const char *name) {
  char *path = text_format("%s%s", (const char *)user, name);
  if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) (void)unlink(path);
  free(path);
  return DITMOE_OK;
}

void folder_remove(const char *folder) {
  if (!file_exists(folder)) return;
  (void)folder_scan(folder, remove_entry, (void *)(uintptr_t)folder);
  (void)rmdir(folder);
}

int64_t temporary_process(const char *name) {
  long long pid;
  int end = 0;
  return sscanf(name, ".ditmoe-%lld-%*[a-z0-9].tmp%n", &pid, &end) == 1 && end && !name[end] ? pid
                                                                                             : 0;
}

enum ditmoe_status folder_has_room(const char *folder, uint64_t bytes, const char *what) {
  const double mib = 1048576;
  struct statvfs info;
  if (statvfs(openable(folder), &info) != 0) return DITMOE_OK; /* a write will tell */
  double room = (double)info.f_bavail * (double)info.f_frsize;
  if ((double)bytes <= room) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: %s needs %.1f MiB of disk, %.1f MiB are free",
                      openable(folder), what, (double)bytes / mib, room / mib);
}

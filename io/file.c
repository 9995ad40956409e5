/* Files: mappings, whole-file reads, and outputs that appear complete or not at all. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum ditmoe_status not_readable(struct ditmoe_ctx *ctx, const char *path) {
  return fail(ctx, DITMOE_FORMAT, "%s: cannot be read: %s", path, strerror(errno));
}

static const char *kind_of_file(mode_t mode) {
  return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a pipe" : "a device or socket";
}

/* Opens a regular file; O_NONBLOCK, so that a pipe without a writer does not hang. */
static enum ditmoe_status open_regular(struct ditmoe_ctx *ctx, const char *path, int *out,
                                       uint64_t *size) {
  struct stat info = {0};
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return not_readable(ctx, path);
  if (fstat(file, &info) == 0 && S_ISREG(info.st_mode)) {
    *out = file;
    *size = (uint64_t)info.st_size;
    return DITMOE_OK;
  }
  close(file);
  return fail(ctx, DITMOE_FORMAT, "%s: is %s, not a file", path, kind_of_file(info.st_mode));
}

/* The pages are those of the file: if another program cuts the file short while it is in use,
 * access beyond the new end raises SIGBUS. Files under use must be replaced by renaming, never
 * rewritten. */
enum ditmoe_status file_map(struct ditmoe_ctx *ctx, const char *path, struct mapping *out) {
  int file;
  uint64_t size;
  TRY(open_regular(ctx, path, &file, &size));
  static const uint8_t nothing;
  void *data = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0) : (void *)&nothing;
  int cause = errno;
  close(file);
  if (data == MAP_FAILED)
    return fail(ctx, cause == ENOMEM ? DITMOE_NOMEM : DITMOE_FORMAT,
                "%s: %llu bytes cannot be mapped: %s", path, (unsigned long long)size,
                strerror(cause));
  *out = (struct mapping){.data = data, .size = size};
  return DITMOE_OK;
}

void file_unmap(struct mapping *mapping) {
  if (mapping->size) munmap((void *)(uintptr_t)mapping->data, mapping->size);
  *mapping = (struct mapping){0};
}

static enum ditmoe_status read_all(struct ditmoe_ctx *ctx, const char *path, int file, char *bytes,
                                   size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t count = read(file, bytes + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return not_readable(ctx, path);
    if (count == 0) return fail(ctx, DITMOE_FORMAT, "%s: was cut short while it was read", path);
    done += (size_t)count;
  }
  return DITMOE_OK;
}

enum ditmoe_status file_read(struct ditmoe_ctx *ctx, const char *path, size_t limit, char **bytes,
                             size_t *size) {
  int file;
  uint64_t length;
  char *text = NULL;
  enum ditmoe_status status;
  TRY(open_regular(ctx, path, &file, &length));
  if (length > limit)
    status = fail(ctx, DITMOE_FORMAT, "%s: %llu bytes, more than the limit of %zu", path,
                  (unsigned long long)length, limit);
  else
    status = mem_alloc(ctx, length + 1, 1, path, &text);
  if (status == DITMOE_OK) status = read_all(ctx, path, file, text, length);
  close(file);
  if (status != DITMOE_OK) {
    mem_free(ctx, text);
    return status;
  }
  text[length] = '\0';
  *bytes = text;
  *size = length;
  return DITMOE_OK;
}

/* Outputs. */

static enum ditmoe_status not_writable(struct ditmoe_ctx *ctx, const char *path, int cause) {
  return fail(ctx, DITMOE_OUTPUT, "%s: cannot be written: %s", path,
              cause < 0 ? "a write failed; the disk may be full" : strerror(cause));
}

/* Length of the folder part of a path, with its slash. */
static size_t folder_length(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? (size_t)(slash - path) + 1 : 0;
}

/* A new file beside `path`, whose own name may be as long as the file system allows. */
static int open_temporary(const char *path, char *temporary, size_t capacity) {
  for (unsigned attempt = 0; attempt < 10000; attempt++) {
    snprintf(temporary, capacity, "%.*s.ditmoe-%ld-%u.tmp", (int)folder_length(path), path,
             (long)getpid(), attempt);
    int file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0 || errno != EEXIST) return file;
  }
  return -1;
}

enum ditmoe_status file_output_open(struct ditmoe_ctx *ctx, const char *path,
                                    struct file_output *out) {
  struct stat info;
  *out = (struct file_output){0};
  if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
    return fail(ctx, DITMOE_OUTPUT, "%s: cannot be written: it is %s", path,
                kind_of_file(info.st_mode));
  enum ditmoe_status status;
  size_t capacity = folder_length(path) + 64;
  TRY(mem_strdup(ctx, path, &out->path));
  TRY_DONE(mem_alloc(ctx, capacity, 1, "a file name", &out->temporary));
  int file = open_temporary(path, out->temporary, capacity);
  if (file >= 0) out->stream = fdopen(file, "wb");
  if (out->stream) return DITMOE_OK;
  status = not_writable(ctx, path, errno);
  if (file >= 0) {
    close(file);
    unlink(out->temporary);
  }
done:
  mem_free(ctx, out->path);
  mem_free(ctx, out->temporary);
  *out = (struct file_output){0};
  return status;
}

/* Makes the new name survive a crash; file systems that cannot do it are left alone. */
static void sync_folder(char *path) {
  size_t length = folder_length(path);
  path[length] = '\0';
  int folder = open(length ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  (void)fsync(folder);
  close(folder);
}

/* Writes what is buffered to the disk and closes. 0 or the cause of the first failure, -1 if it was
 * in an earlier write. */
static int finish(FILE *stream) {
  errno = 0;
  bool failed = fflush(stream) != 0;
  failed |= ferror(stream) || (!failed && fsync(fileno(stream)) != 0);
  int cause = errno ? errno : -1;
  if (fclose(stream) != 0 && !failed) return errno;
  return failed ? cause : 0;
}

enum ditmoe_status file_output_commit(struct ditmoe_ctx *ctx, struct file_output *out) {
  enum ditmoe_status status = DITMOE_OK;
  int cause = finish(out->stream);
  out->stream = NULL;
  if (!cause && rename(out->temporary, out->path) != 0) cause = errno;
  if (cause) {
    status = not_writable(ctx, out->path, cause);
    unlink(out->temporary);
  } else {
    sync_folder(out->path);
  }
  mem_free(ctx, out->path);
  mem_free(ctx, out->temporary);
  *out = (struct file_output){0};
  return status;
}

void file_output_abandon(struct ditmoe_ctx *ctx, struct file_output *out) {
  if (out->stream) fclose(out->stream);
  if (out->temporary) unlink(out->temporary);
  mem_free(ctx, out->path);
  mem_free(ctx, out->temporary);
  *out = (struct file_output){0};
}

enum ditmoe_status ditmoe_file_write(struct ditmoe_ctx *ctx, const char *path, const void *bytes,
                                     size_t size) {
  struct file_output output;
  TRY(file_output_open(ctx, path, &output));
  if (size) (void)!fwrite(bytes, 1, size, output.stream); /* commit reports the stream's error */
  return file_output_commit(ctx, &output);
}

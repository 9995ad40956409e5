/* Checks before the work is done. */
#include "cli/outputs.h"

#include "cli/report.h"
#include "cli/text.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where a path leads: the last part of it that is there, and the names behind that. */
struct place {
  dev_t device;
  ino_t inode;
  char *rest;
};

/* A link to what is not there yet counts as that. */
static char *follow_links(const char *path) {
  enum { MOST = 16 };
  char *at = text_copy(path), target[PATH_MAX];
  struct stat info;
  for (int i = 0; i < MOST && stat(at, &info) != 0; i++) {
    const ssize_t length = readlink(at, target, sizeof target - 1);
    if (length <= 0) break;
    target[length] = 0;
    char *folder = target[0] == '/' ? text_copy("") : path_folder(at);
    char *next = text_format("%s%s", folder, target);
    free(folder);
    free(at);
    at = next;
  }
  return at;
}

/* Without what does not count in names: doubled slashes, and dots alone. */
static char *plain_names(const char *path) {
  char *names = text_copy(path), *rest = names, *out = text_copy(""), *name;
  while ((name = strsep(&rest, "/"))) {
    if (!*name || strcmp(name, ".") == 0) continue;
    char *longer = text_format("%s%s%s", out, *out ? "/" : "", name);
    free(out);
    out = longer;
  }
  free(names);
  return out;
}

static struct place place_of(const char *path) {
  struct stat info = {0};
  char *whole = follow_links(path), *head = text_copy(whole);
  size_t length = strlen(head);
  while (length > 0 && stat(head, &info) != 0) {
    while (length > 0 && head[length - 1] == '/') length--;
    while (length > 0 && head[length - 1] != '/') length--;
    head[length] = 0;
  }
  if (length == 0) (void)stat(".", &info);
  struct place place = {info.st_dev, info.st_ino, plain_names(whole + length)};
  free(head);
  free(whole);
  return place;
}

bool same_file(const char *a, const char *b) {
  if (!a || !b) return false;
  struct place p = place_of(a), q = place_of(b);
  const bool same = p.device == q.device && p.inode == q.inode && strcmp(p.rest, q.rest) == 0;
  free(p.rest);
  free(q.rest);
  return same;
}

char *path_target(const char *path) {
  char *at = follow_links(path), *real = realpath(at, NULL);
  if (!real) return at;
  free(at);
  return real;
}

/* A file of a kind that is read out of folders: of weights, their record, or an image. */
static bool is_read(const char *path) {
  static const char *const endings[] = {".safetensors", ".bin", ".pt",  ".pth",
                                        ".json",        ".png", ".jpg", ".jpeg"};
  const char *dot = strrchr(path_name(path), '.');
  for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
    if (strcasecmp(dot, endings[i]) == 0) return true;
  return false;
}

/* Whether `path` is there, in the folder `input`, or in that of an index of shards. */
static bool is_inside(const char *path, const char *input) {
  struct stat info;
  const size_t size = strlen(input), ending = strlen(".index.json");
  const bool index = size > ending && strcmp(input + size - ending, ".index.json") == 0;
  char *folder = index ? path_folder(input) : text_copy(input);
  char *outer = realpath(*folder ? folder : ".", NULL), *inner = realpath(path, NULL);
  const size_t length = outer ? strlen(outer) : 0;
  const bool inside = outer && inner && stat(outer, &info) == 0 && S_ISDIR(info.st_mode) &&
                      strncmp(inner, outer, length) == 0 && inner[length] == '/' && is_read(inner);
  free(folder);
  free(outer);
  free(inner);
  return inside;
}

/* The JSON that is read with a checkpoint: config.json, or one of its own name. */
static bool is_record_of(const char *path, const char *checkpoint) {
  char *folder = path_folder(checkpoint), *stem = path_stem(checkpoint);
  char *config = text_format("%sconfig.json", folder);
  char *own = text_format("%s%s.json", folder, stem);
  const bool is = same_file(path, config) || same_file(path, own);
  free(folder);
  free(stem);
  free(config);
  free(own);
  return is;
}

bool is_input(const char *path, const struct input_file *input) {
  return input->path && (same_file(path, input->path) || is_inside(path, input->path) ||
                         (input->checkpoint && is_record_of(path, input->path)));
}

static enum ditmoe_status check_folder(const struct output_file *output) {
  char *folder = path_folder(output->path);
  const int missing = access(*folder ? folder : ".", W_OK) == 0 ? 0 : errno;
  free(folder);
  if (!missing) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "--%s %s: cannot be written: %s", output->option, output->path,
                      strerror(missing));
}

static enum ditmoe_status check_one(const struct output_file *output,
                                    const struct input_file *inputs, size_t input_count,
                                    bool force) {
  const char *option = output->option, *path = output->path;
  struct stat info;
  TRY(check_folder(output));
  if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
    return report_error(DITMOE_OUTPUT, "--%s %s: is a folder", option, path);
  for (size_t i = 0; i < input_count; i++)
    if (is_input(path, &inputs[i]))
      return report_error(DITMOE_USAGE, "--%s %s: is an input, or read with %s", option, path,
                          inputs[i].path);
  if (lstat(path, &info) == 0 && !force)
    return report_error(DITMOE_OUTPUT, "--%s %s: exists; --force replaces it", option, path);
  return DITMOE_OK;
}

enum ditmoe_status outputs_check(const struct output_file *outputs, size_t count,
                                 const struct input_file *inputs, size_t input_count, bool force) {
  for (size_t i = 0; i < count; i++) {
    if (!outputs[i].path) continue;
    TRY(check_one(&outputs[i], inputs, input_count, force));
    for (size_t j = 0; j < i; j++)
      if (same_file(outputs[i].path, outputs[j].path))
        return report_error(DITMOE_USAGE, "--%s and --%s name the same file", outputs[j].option,
                            outputs[i].option);
  }
  return DITMOE_OK;
}

enum ditmoe_status options_refuse_needless(const struct options *options,
                                           const struct option_use *uses, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const struct option *option = option_of(options, uses[i].field);
    if (!uses[i].useful && option_source(options, option) >= FROM_IMAGE)
      return report_error(DITMOE_USAGE, "--%s has no effect %s", option->name, uses[i].why);
  }
  return DITMOE_OK;
}

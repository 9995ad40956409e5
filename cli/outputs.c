/* Checks before the work is done. */
#include "cli/outputs.h"

#include "cli/report.h"
#include "cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_file(const struct stat *a, const char *path) {
  struct stat b;
  return path && stat(path, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

static enum ditmoe_status check_folder(const struct output_file *output) {
  char *folder = path_folder(output->path);
  const int missing = access(*folder ? folder : ".", W_OK) == 0 ? 0 : errno;
  free(folder);
  if (!missing) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "--%s %s: cannot be written: %s", output->option, output->path,
                      strerror(missing));
}

static enum ditmoe_status check_one(const struct output_file *output, const char *const *inputs,
                                    size_t input_count, bool force) {
  const char *option = output->option, *path = output->path;
  struct stat info;
  TRY(check_folder(output));
  if (stat(path, &info) != 0) return DITMOE_OK;
  if (S_ISDIR(info.st_mode))
    return report_error(DITMOE_OUTPUT, "--%s %s: is a folder", option, path);
  for (size_t i = 0; i < input_count; i++)
    if (same_file(&info, inputs[i]))
      return report_error(DITMOE_USAGE, "--%s %s: is an input", option, path);
  if (!force)
    return report_error(DITMOE_OUTPUT, "--%s %s: exists; --force replaces it", option, path);
  return DITMOE_OK;
}

enum ditmoe_status outputs_check(const struct output_file *outputs, size_t count,
                                 const char *const *inputs, size_t input_count, bool force) {
  for (size_t i = 0; i < count; i++) {
    if (!outputs[i].path) continue;
    TRY(check_one(&outputs[i], inputs, input_count, force));
    for (size_t j = 0; j < i; j++)
      if (outputs[j].path && strcmp(outputs[i].path, outputs[j].path) == 0)
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

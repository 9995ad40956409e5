#include "cli/default_model.h"
#include "cli/text.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* From the folder of the program: as installed, and as built in a checkout. */
static const char *const places[] = {"../share/ditmoe/default", "../../assets/default"};

enum ditmoe_status default_model(char **out) {
  char program[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  program[length > 0 ? length : 0] = 0;
  char *folder = path_folder(program);
  struct stat info;
  *out = NULL;
  for (size_t i = 0; !*out && i < sizeof places / sizeof *places; i++) {
    char *path = text_format("%s%s", folder, places[i]);
    if (stat(path, &info) == 0) *out = realpath(path, NULL);
    free(path);
  }
  enum ditmoe_status status = DITMOE_OK;
  if (!*out)
    status = report_error(DITMOE_USAGE,
                          "no model: give -m FILE or set DITMOE_MODEL; the one that comes with the "
                          "programs is not in %s%s",
                          folder, places[0]);
  free(folder);
  return status;
}

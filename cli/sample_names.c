/* The names of the outputs, checked before any work is done. */
#include "cli/sample.h"
#include "cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DIGITS = 20, MAX_GRID_SIDE = 65535 };

static enum ditmoe_status bad_pattern(const char *pattern) {
  return report_error(DITMOE_USAGE,
                      "--output %s: a pattern has one number such as %%06d, and no other %%",
                      pattern);
}

/* "out_%06d.png" -> "out_", 6 digits with zeros, ".png". The pattern never reaches printf. */
static enum ditmoe_status split_pattern(const char *pattern, struct sample_names *names) {
  const char *percent = strchr(pattern, '%'), *c = percent + 1;
  names->zeros = *c == '0';
  for (; *c >= '0' && *c <= '9'; c++) {
    names->width = 10 * names->width + (*c - '0');
    if (names->width > MAX_DIGITS) return bad_pattern(pattern);
  }
  if (*c != 'd' || strchr(c, '%')) return bad_pattern(pattern);
  names->before = text_copy_part(pattern, (size_t)(percent - pattern));
  names->after = text_copy(c + 1);
  names->numbered = true;
  return DITMOE_OK;
}

char *sample_file_name(const struct sample_names *names, int64_t index) {
  if (!names->numbered) return text_copy(names->before);
  long long number = index;
  return names->zeros ? text_format("%s%0*lld%s", names->before, names->width, number, names->after)
                      : text_format("%s%*lld%s", names->before, names->width, number, names->after);
}

static bool is_folder(const char *path) {
  struct stat info;
  return path[strlen(path) - 1] == '/' || (stat(path, &info) == 0 && S_ISDIR(info.st_mode));
}

static enum ditmoe_status read_pattern(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  struct sample_names *names = &run->names;
  const char *output = s->output;
  if (is_folder(output)) {
    names->before = text_format("%s%s", output, output[strlen(output) - 1] == '/' ? "" : "/");
    names->after = text_format(".%s", s->format ? s->format : "png");
    names->width = 6;
    names->zeros = names->numbered = true;
    return DITMOE_OK;
  }
  if (s->format)
    return report_error(DITMOE_USAGE, "--format has no effect on --output %s, whose ending says it",
                        output);
  if (strchr(output, '%')) return split_pattern(output, names);
  if (sample_selected_count(run) > 1)
    return report_error(DITMOE_USAGE,
                        "--output %s: %lld images need a number in the name, as in out_%%06d.png",
                        output, (long long)sample_selected_count(run));
  names->before = text_copy(output);
  names->after = text_copy("");
  return DITMOE_OK;
}

/* The pattern with "run", or the range of a part, for the number, and the ending .json. */
static char *manifest_name(const struct sample *run) {
  const struct sample_names *names = &run->names;
  const struct sample_labels *labels = &run->labels;
  bool whole = labels->count == labels->total || run->settings.reproduce;
  long long first = labels->first, last = first + labels->count - 1;
  char *number = !names->numbered ? text_copy("")
                 : whole          ? text_copy("run")
                                  : text_format("run.%lld-%lld", first, last);
  char *image = text_format("%s%s%s", names->before, number, names->after);
  char *dot = strrchr(image, '.'); /* check_ending has seen it */
  char *manifest = text_format("%.*s.json", (int)(dot - image), image);
  free(number);
  free(image);
  return manifest;
}

static enum ditmoe_status check_ending(const char *option, const char *path) {
  static const char *const endings[] = {".png", ".jpg", ".jpeg", ".bmp", ".tga"};
  const char *dot = strrchr(path_name(path), '.');
  for (size_t i = 0; dot && i < sizeof endings / sizeof endings[0]; i++)
    if (strcasecmp(dot, endings[i]) == 0) return DITMOE_OK;
  return report_error(DITMOE_USAGE, "--%s %s: the ending must be .png, .jpg, .bmp or .tga", option,
                      path);
}

bool sample_is_png(const char *path) {
  size_t length = strlen(path);
  return length >= 4 && strcasecmp(path + length - 4, ".png") == 0;
}

/* A folder that is missing or read-only is found before the work is done. */
static enum ditmoe_status check_folder(const char *path) {
  char *folder = path_folder(path);
  enum ditmoe_status status = DITMOE_OK;
  if (access(*folder ? folder : ".", W_OK | X_OK) != 0)
    status = report_error(DITMOE_OUTPUT, "%s: %s%s", *folder ? folder : ".", strerror(errno),
                          errno == ENOENT ? "; make the folder first" : "");
  free(folder);
  return status;
}

static enum ditmoe_status check_free(const struct sample *run, const char *path) {
  struct stat info;
  if (lstat(path, &info) != 0) return DITMOE_OK;
  if (S_ISDIR(info.st_mode)) return report_error(DITMOE_OUTPUT, "%s: is a folder", path);
  if (run->settings.force) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: exists; --force replaces it", path);
}

int sample_grid_columns(const struct sample *run) {
  int64_t count = run->labels.count, columns = 1;
  if (run->settings.grid_columns)
    return (int)(run->settings.grid_columns < count ? run->settings.grid_columns : count);
  while (columns * columns < count) columns++;
  return (int)columns;
}

static enum ditmoe_status check_grid_size(const struct sample *run) {
  if (!run->settings.grid) return DITMOE_OK;
  int64_t columns = sample_grid_columns(run), cell = run->side + SAMPLE_GRID_GAP;
  int64_t rows = (run->labels.count + columns - 1) / columns;
  if (columns * cell <= MAX_GRID_SIDE && rows * cell <= MAX_GRID_SIDE) return DITMOE_OK;
  return report_error(DITMOE_USAGE,
                      "--grid: %lld images are too many for one; a side has at most %d pixels",
                      (long long)run->labels.count, MAX_GRID_SIDE);
}

static enum ditmoe_status check_distinct(const char *path, const char *const *others,
                                         size_t count) {
  for (size_t i = 0; i < count; i++)
    if (others[i] && strcmp(others[i], path) == 0)
      return report_error(DITMOE_USAGE, "%s: two outputs of this name", path);
  return DITMOE_OK;
}

/* No output exists, and no two have the same name. */
static enum ditmoe_status check_files(const struct sample *run) {
  const char *const others[] = {run->settings.grid, run->settings.latents, run->names.manifest};
  enum ditmoe_status status = DITMOE_OK;
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    if (!others[i]) continue;
    TRY(check_distinct(others[i], others, i));
    TRY(check_folder(others[i]));
    TRY(check_free(run, others[i]));
  }
  for (int64_t i = 0; i < run->labels.count && status == DITMOE_OK; i++) {
    if (!sample_selected(run, i)) continue;
    char *name = sample_file_name(&run->names, run->labels.first + i);
    status = check_distinct(name, others, sizeof others / sizeof others[0]);
    if (status == DITMOE_OK) status = check_free(run, name);
    free(name);
  }
  return status;
}

enum ditmoe_status sample_name_outputs(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  TRY(read_pattern(run));
  char *first = sample_file_name(&run->names, run->labels.first);
  enum ditmoe_status status = check_ending("output", first);
  bool png = sample_is_png(first) || (s->grid && sample_is_png(s->grid));
  if (status == DITMOE_OK) status = check_folder(first);
  free(first);
  TRY(status);
  if (s->grid) TRY(check_ending("grid", s->grid));
  if (s->disable_image_metadata && !png)
    return report_error(DITMOE_USAGE,
                        "--disable-image-metadata has no effect: only PNG files have any");
  if (s->show && !isatty(STDERR_FILENO) && strcmp(s->common.color, "always") != 0)
    return report_error(DITMOE_USAGE,
                        "--show: standard error is not a terminal; --color always draws anyway");
  TRY(check_grid_size(run));
  run->names.manifest = manifest_name(run);
  return check_files(run);
}

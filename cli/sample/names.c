/* The names of the outputs, checked before any work is done. */
#include "cli/sample/files.h"
#include "cli/sample/work.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DIGITS = 20 };

static enum ditmoe_status bad_pattern(const char *pattern) {
  return report_error(
      DITMOE_USAGE,
      "--output %s: a pattern has one number such as %%06d in its last part, and no other %%",
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
  if (*c != 'd' || strchr(c, '%') || strchr(c, '/')) return bad_pattern(pattern);
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

int64_t sample_file_index(const struct sample_names *names, const char *path) {
  size_t before = strlen(names->before);
  if (!names->numbered || strncmp(path, names->before, before) != 0) return -1;
  int64_t index = strtoll(path + before, NULL, 10);
  char *name = sample_file_name(names, index);
  bool same = strcmp(name, path) == 0;
  free(name);
  return same ? index : -1;
}

char *sample_journal_name(const struct sample_names *names, int64_t rank) {
  return rank ? text_format("%s.%lld.journal", names->journals, (long long)rank)
              : text_format("%s.journal", names->journals);
}

char *sample_piece_name(const struct sample *run, const struct journal_piece *piece) {
  if (!piece->shard) return sample_file_name(&run->names, piece->first);
  return text_format("%s%012lld+%lld.raw", run->names.parts, piece->first, piece->count);
}

static bool ends_with(const char *path, const char *ending) {
  size_t length = strlen(path), size = strlen(ending);
  return length >= size && strcasecmp(path + length - size, ending) == 0;
}

bool sample_is_png(const char *path) { return ends_with(path, ".png"); }

static bool is_folder(const char *path) {
  return path[strlen(path) - 1] == '/' || folder_exists(path);
}

static void name_whole(struct sample_names *names, const char *output) {
  names->before = text_copy(output);
  names->after = text_copy("");
}

static enum ditmoe_status name_npz(struct sample *run) {
  const char *output = run->settings.output;
  if (run->settings.reproduce)
    return report_error(DITMOE_USAGE, "--output %s: --reproduce makes images in files", output);
  name_whole(&run->names, output);
  run->names.npz = text_copy(output);
  run->names.parts = text_format("%s.parts/", output);
  return DITMOE_OK;
}

static enum ditmoe_status name_one(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  int64_t count = sample_selected_count(run);
  name_whole(&run->names, s->output);
  if (count > 1)
    return report_error(DITMOE_USAGE,
                        "--output %s: %lld images need a number in the name, as in out_%%06d.png",
                        s->output, (long long)count);
  if (!s->resume && s->ranks == 1) return DITMOE_OK;
  return report_error(DITMOE_USAGE,
                      "--output %s: --resume and --ranks need a number in the name, as in "
                      "out_%%06d.png",
                      s->output);
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
  return ends_with(output, ".npz") ? name_npz(run) : name_one(run);
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

static void name_others(struct sample *run) {
  struct sample_names *names = &run->names;
  names->folder = path_folder(names->before);
  names->manifest = manifest_name(run);
  if (names->npz)
    names->journals = text_format("%srun", names->parts);
  else if (names->numbered)
    names->journals = text_copy_part(names->manifest, strlen(names->manifest) - strlen(".json"));
}

static enum ditmoe_status check_ending(const char *option, const char *path) {
  static const char *const endings[] = {".png", ".jpg", ".jpeg", ".bmp", ".tga"};
  const char *dot = strrchr(path_name(path), '.');
  for (size_t i = 0; dot && i < sizeof endings / sizeof endings[0]; i++)
    if (strcasecmp(dot, endings[i]) == 0) return DITMOE_OK;
  return report_error(DITMOE_USAGE, "--%s %s: the ending must be .png, .jpg, .bmp or .tga", option,
                      path);
}

enum ditmoe_status sample_name_outputs(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  struct sample_names *names = &run->names;
  TRY(read_pattern(run));
  char *first = sample_file_name(names, run->labels.first);
  enum ditmoe_status status = names->npz ? DITMOE_OK : check_ending("output", first);
  bool png = (!names->npz && sample_is_png(first)) || (s->grid && sample_is_png(s->grid));
  free(first);
  TRY(status);
  name_others(run);
  if (s->grid) TRY(check_ending("grid", s->grid));
  if (s->disable_image_metadata && !png)
    return report_error(DITMOE_USAGE,
                        "--disable-image-metadata has no effect: only PNG files have any");
  if (s->show && !isatty(STDERR_FILENO) && strcmp(s->common.color, "always") != 0)
    return report_error(DITMOE_USAGE,
                        "--show: standard error is not a terminal; --color always draws anyway");
  return sample_check_names(run);
}

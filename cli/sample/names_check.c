/* Outputs that could not be written, would replace an input, or each other: found before any work
 * is done. The files of images are looked for when the run starts. */
#include "cli/outputs.h"
#include "cli/sample/files.h"
#include "cli/sample/sample.h"
#include "cli/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder that is missing or read-only is found before the work is done. The one that --output
 * names may be missing itself. */
static enum ditmoe_status check_folder(const char *path, const struct sample *run) {
  char *folder = path_folder(path);
  size_t length = strlen(run->settings.output);
  const bool made = *folder && same_file(folder, run->names.folder) &&
                    run->settings.output[length - 1] == '/' && !file_exists(folder);
  if (made) {
    char *parent = text_copy_part(folder, strlen(folder) - 1);
    free(folder);
    folder = path_folder(parent);
    free(parent);
  }
  enum ditmoe_status status = DITMOE_OK;
  if (access(*folder ? folder : ".", W_OK | X_OK) != 0)
    status = report_error(DITMOE_OUTPUT, "%s: %s%s", *folder ? folder : ".", strerror(errno),
                          errno == ENOENT ? "; make the folder first" : "");
  free(folder);
  return status;
}

/* A grid is made again by --resume, and by rank 0 alone. */
static enum ditmoe_status check_free(const struct sample *run, const char *path) {
  if (folder_exists(path)) return report_error(DITMOE_OUTPUT, "%s: is a folder", path);
  if (!file_exists(path) || run->settings.force || run->settings.resume) return DITMOE_OK;
  return report_error(DITMOE_OUTPUT, "%s: exists; --force replaces it", path);
}

/* Images in files of their own. */

static bool is_index(const struct sample *run, int64_t index) {
  const struct sample_labels *labels = &run->labels;
  return index >= labels->first && index < labels->first + labels->count &&
         sample_selected(run, index);
}

struct search { /* of a file among the images that are there */
  const struct sample *run;
  const char *path;
  bool found;
};

static enum ditmoe_status compare_image(void *user, const char *name) {
  struct search *search = user;
  const struct sample_names *names = &search->run->names;
  char *image = text_format("%s%s", names->folder, name);
  search->found = search->found || (is_index(search->run, sample_file_index(names, image)) &&
                                    same_file(image, search->path));
  free(image);
  return DITMOE_OK;
}

/* By its name in the folder of the images, and if it has more names, by each image there. */
static bool is_image(const struct sample *run, const char *path) {
  const struct sample_names *names = &run->names;
  struct stat info;
  if (!names->numbered) return same_file(path, names->before);
  char *target = path_target(path), *folder = path_folder(target);
  char *image = text_format("%s%s", names->folder, path_name(target));
  struct search search = {.run = run, .path = path};
  if (same_file(*folder ? folder : ".", *names->folder ? names->folder : "."))
    search.found = is_index(run, sample_file_index(names, image));
  if (!search.found && stat(path, &info) == 0 && info.st_nlink > 1 && folder_exists(names->folder))
    (void)folder_scan(names->folder, compare_image, &search);
  free(image);
  free(folder);
  free(target);
  return search.found;
}

/* A file in the folder `parts`, which does not outlive the run. */
static bool is_part(const char *path, const char *parts) {
  if (!parts) return false;
  char *folder = path_folder(path);
  const bool part = same_file(*folder ? folder : ".", parts);
  free(folder);
  return part;
}

static enum ditmoe_status refuse_inputs(const struct sample *run, const char *const *outputs,
                                        size_t count) {
  const struct sample_settings *s = &run->settings;
  const struct input_file inputs[] = {{s->model, true},       {run->vae_path, true},
                                      {s->record, false},     {s->latents_stats, false},
                                      {s->class_file, false}, {s->reproduce, false}};
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
    const char *input = inputs[i].path;
    if (input && is_image(run, input))
      return report_error(DITMOE_USAGE, "--output %s: %s is an input", s->output, input);
    for (size_t j = 0; j < count; j++)
      if (outputs[j] && is_input(outputs[j], &inputs[i]))
        return report_error(DITMOE_USAGE, "%s: is an input, or read with %s", outputs[j], input);
  }
  return DITMOE_OK;
}

enum { OTHERS = 4, OUTPUTS = OTHERS + 3 };

/* outputs: the first OTHERS are written beside the run, then its own. */
static enum ditmoe_status refuse_same(const struct sample *run, const char *const *outputs,
                                      const char *routing) {
  for (size_t i = 0; i < OTHERS; i++) {
    const char *path = outputs[i];
    if (!path) continue;
    bool taken = is_image(run, path) || is_part(path, run->names.parts) || is_part(path, routing);
    for (size_t j = i + 1; j < OUTPUTS; j++) taken = taken || same_file(outputs[j], path);
    if (taken) return report_error(DITMOE_USAGE, "%s: two outputs of this name", path);
  }
  return DITMOE_OK;
}

static enum ditmoe_status check_files(const struct sample *run, const char *const *outputs) {
  const struct sample_settings *s = &run->settings;
  const char *const dump = s->routing_dump ? s->routing_dump : s->routing_trace;
  char *routing = dump ? text_format("%s.parts/", dump) : NULL;
  enum ditmoe_status status = refuse_same(run, outputs, routing);
  free(routing);
  TRY(status);
  TRY(refuse_inputs(run, outputs, OUTPUTS));
  for (size_t i = 0; i < OUTPUTS; i++) {
    const bool own = i >= OTHERS && run->names.journals; /* is looked for when the run starts */
    if (!outputs[i] || own) continue;
    TRY(check_folder(outputs[i], run));
    if (s->rank == 0) TRY(check_free(run, outputs[i]));
  }
  return DITMOE_OK;
}

enum ditmoe_status sample_check_names(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const struct sample_names *names = &run->names;
  char *journal = names->journals ? sample_journal_name(names, s->rank) : NULL;
  const char *const outputs[OUTPUTS] = {s->grid,
                                        s->latents,
                                        s->routing_dump,
                                        s->routing_trace,
                                        names->numbered ? NULL : names->before,
                                        names->manifest,
                                        journal};
  enum ditmoe_status status = check_folder(names->before, run);
  if (status == DITMOE_OK) status = check_files(run, outputs);
  free(journal);
  return status;
}

/* Which classes, and the label of every index. */
#include "cli/sample.h"
#include "cli/text.h"
#include "cli/text_file.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20 };

struct choice { /* the classes to draw */
  int32_t *labels;
  int64_t count;
};

static enum ditmoe_status choose(struct choice *choice, const struct classes *classes,
                                 const char *what, const char *text) {
  int32_t label;
  TRY(class_find(classes, what, text, &label));
  choice->labels = memory_resize(choice->labels, (size_t)choice->count + 1, sizeof *choice->labels);
  choice->labels[choice->count++] = label;
  return DITMOE_OK;
}

static enum ditmoe_status choose_list(struct choice *choice, const struct sample *run) {
  char *list = text_copy(run->settings.classes), *rest = list, *item;
  enum ditmoe_status status = DITMOE_OK;
  while (status == DITMOE_OK && (item = strsep(&rest, ",")))
    status = choose(choice, &run->classes, "--class", item + strspn(item, " "));
  free(list);
  return status;
}

/* A line may hold a name with commas. */
static enum ditmoe_status choose_file(struct choice *choice, const struct sample *run) {
  const char *path = run->settings.class_file;
  char *text, *line;
  TRY(text_file_read("--class-file", path, MAX_FILE_BYTES, &text));
  enum ditmoe_status status = DITMOE_OK;
  for (char *rest = text; status == DITMOE_OK && (line = strsep(&rest, "\r\n"));)
    if (*line) status = choose(choice, &run->classes, path, line);
  free(text);
  if (status == DITMOE_OK && choice->count == 0)
    status = report_error(DITMOE_FORMAT, "--class-file %s: no class in it", path);
  return status;
}

/* The eight classes that DiT's pictures show, or every class. */
static void choose_default(struct choice *choice, const struct classes *classes) {
  static const int32_t shown[] = {207, 360, 387, 974, 88, 979, 417, 279};
  enum { SHOWN = sizeof shown / sizeof shown[0] };
  bool imagenet = classes->used == 1000;
  choice->count = imagenet ? SHOWN : classes->used;
  choice->labels = memory_get((size_t)choice->count, sizeof *choice->labels);
  for (int32_t i = 0; i < choice->count; i++) choice->labels[i] = imagenet ? shown[i] : i;
}

static enum ditmoe_status find_range(struct sample *run, int64_t classes) {
  const struct sample_settings *s = &run->settings;
  struct sample_labels *labels = &run->labels;
  bool part = option_given(&run->options, &s->index_range);
  labels->total = s->num_samples ? s->num_samples : part ? s->index_range.to : classes;
  labels->first = part ? s->index_range.from : 0;
  labels->count = (part ? s->index_range.to : labels->total) - labels->first;
  if (labels->first + labels->count > labels->total)
    return report_error(DITMOE_USAGE, "--index-range %lld:%lld: the run has %lld images",
                        (long long)s->index_range.from, (long long)s->index_range.to,
                        (long long)labels->total);
  if (strcmp(s->label_sampling, "equal") == 0 && labels->total % classes != 0)
    return report_error(DITMOE_USAGE,
                        "--label-sampling equal: %lld images are not a multiple of %lld classes",
                        (long long)labels->total, (long long)classes);
  return DITMOE_OK;
}

static enum ditmoe_status assign(struct sample *run, const struct choice *choice) {
  const char *rule = run->settings.label_sampling;
  struct sample_labels *labels = &run->labels;
  TRY(find_range(run, choice->count));
  labels->labels = memory_get((size_t)labels->count, sizeof *labels->labels);
  for (int64_t i = 0; i < labels->count; i++) {
    int64_t index = labels->first + i, at = index % choice->count;
    if (strcmp(rule, "equal") == 0) at = index / (labels->total / choice->count);
    if (strcmp(rule, "random") == 0)
      at = ditmoe_random_label(run->settings.seed, index, (int32_t)choice->count);
    labels->labels[i] = choice->labels[at];
  }
  return DITMOE_OK;
}

enum ditmoe_status sample_choose_labels(struct sample *run) {
  if (run->settings.reproduce) {
    run->labels = run->origin.unit;
    run->origin.unit.labels = NULL;
    return DITMOE_OK;
  }
  struct choice choice = {0};
  enum ditmoe_status status = DITMOE_OK;
  if (run->settings.classes)
    status = choose_list(&choice, run);
  else if (run->settings.class_file)
    status = choose_file(&choice, run);
  else
    choose_default(&choice, &run->classes);
  if (status == DITMOE_OK) status = assign(run, &choice);
  free(choice.labels);
  return status;
}

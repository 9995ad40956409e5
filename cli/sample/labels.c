/* Which classes, and the label of every index. */
#include "cli/sample/sample.h"
#include "cli/text.h"
#include "cli/text_file.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20 };

/* The classes to draw. */

static enum ditmoe_status choose(struct sample *run, const char *what, const char *text) {
  struct sample_labels *labels = &run->labels;
  int32_t label;
  TRY(class_find(&run->classes, what, text, &label));
  labels->classes = memory_resize(labels->classes, (size_t)labels->class_count + 1, sizeof label);
  labels->classes[labels->class_count++] = label;
  return DITMOE_OK;
}

static enum ditmoe_status choose_list(struct sample *run) {
  char *list = text_copy(run->settings.classes), *rest = list, *item;
  enum ditmoe_status status = DITMOE_OK;
  while (status == DITMOE_OK && (item = strsep(&rest, ",")))
    status = choose(run, "--class", text_trim(item));
  free(list);
  return status;
}

/* A line may hold a name with commas, and end as on any system. */
static enum ditmoe_status choose_file(struct sample *run) {
  const char *path = run->settings.class_file;
  char *text, *line;
  TRY(text_file_read("--class-file", path, MAX_FILE_BYTES, &text));
  enum ditmoe_status status = DITMOE_OK;
  const char *end = strchr(text, '\n') ? "\n" : "\r";
  char *rest = text;
  for (int number = 1; status == DITMOE_OK && (line = strsep(&rest, end)); number++) {
    char *what = text_format("--class-file %s: line %d", path, number);
    line = text_trim(line);
    if (*line) status = choose(run, what, line);
    free(what);
  }
  free(text);
  if (status == DITMOE_OK && run->labels.class_count == 0)
    status = report_error(DITMOE_FORMAT, "--class-file %s: no class in it", path);
  return status;
}

/* Without --num-samples the eight classes that DiT's pictures show, or every class; with it, every
 * class. */
static void choose_default(struct sample *run) {
  static const int32_t shown[] = {207, 360, 387, 974, 88, 979, 417, 279};
  enum { SHOWN = sizeof shown / sizeof shown[0] };
  struct sample_labels *labels = &run->labels;
  bool few = run->classes.used == 1000 && !run->settings.num_samples;
  const int32_t count = few ? SHOWN : run->classes.used;
  labels->classes = memory_get((size_t)count, sizeof *labels->classes);
  for (int32_t i = 0; i < count; i++)
    if (few || i != run->classes.null_label)
      labels->classes[labels->class_count++] = few ? shown[i] : i;
}

static enum ditmoe_status choose_classes(struct sample *run) {
  if (run->settings.classes) return choose_list(run);
  if (run->settings.class_file) return choose_file(run);
  choose_default(run);
  return DITMOE_OK;
}

/* The rule and the range. */

static const char *const rules[] = {
    [LABELS_LIST] = "list", [LABELS_EQUAL] = "equal", [LABELS_RANDOM] = "random"};

const char *sample_label_rule(const struct sample *run) {
  return run->labels.rule == LABELS_GIVEN ? "given" : rules[run->labels.rule];
}

/* As DiT does, many images without a list of classes have random ones. */
static enum ditmoe_status choose_rule(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const struct option *option = option_of(&run->options, &s->label_sampling);
  bool list = s->classes || s->class_file || !s->num_samples;
  if (!s->label_sampling)
    TRY(option_set(&run->options, option, rules[list ? LABELS_LIST : LABELS_RANDOM], option->name,
                   FROM_PRESET));
  while (strcmp(s->label_sampling, rules[run->labels.rule]) != 0) run->labels.rule++;
  return DITMOE_OK;
}

static enum ditmoe_status find_range(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  struct sample_labels *labels = &run->labels;
  bool part = option_given(&run->options, &s->index_range);
  labels->total = s->num_samples ? s->num_samples : part ? s->index_range.to : labels->class_count;
  labels->first = part ? s->index_range.from : 0;
  labels->count = (part ? s->index_range.to : labels->total) - labels->first;
  if (labels->first + labels->count > labels->total)
    return report_error(DITMOE_USAGE, "--index-range %lld:%lld: the run has %lld images",
                        (long long)s->index_range.from, (long long)s->index_range.to,
                        (long long)labels->total);
  if (labels->rule == LABELS_EQUAL && labels->total % labels->class_count != 0)
    return report_error(DITMOE_USAGE,
                        "--label-sampling equal: %lld images are not a multiple of %lld classes",
                        (long long)labels->total, (long long)labels->class_count);
  return DITMOE_OK;
}

int32_t sample_label(const struct sample *run, int64_t index) {
  const struct sample_labels *labels = &run->labels;
  int64_t classes = labels->class_count, at = index % classes;
  if (labels->rule == LABELS_GIVEN) at = index - labels->first;
  if (labels->rule == LABELS_EQUAL) at = index / (labels->total / classes);
  if (labels->rule == LABELS_RANDOM)
    at = ditmoe_random_label(run->settings.seed, index, (int32_t)classes);
  return labels->classes[at];
}

int32_t *sample_label_list(const struct sample *run, int64_t first, int64_t count) {
  int32_t *list = memory_get((size_t)count, sizeof *list);
  for (int64_t i = 0; i < count; i++) list[i] = sample_label(run, first + i);
  return list;
}

enum ditmoe_status sample_choose_labels(struct sample *run) {
  if (run->settings.reproduce) {
    run->labels = run->origin.unit;
    run->origin.unit.classes = NULL;
    return DITMOE_OK;
  }
  TRY(choose_classes(run));
  TRY(choose_rule(run));
  return find_range(run);
}

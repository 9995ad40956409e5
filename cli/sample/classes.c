/* Classes by id, name or WordNet id. */
#include "cli/sample/classes.h"

#include "base/edit_distance.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/text.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* assets/imagenet_classes.tsv: id, WordNet id, names; one line for each class in order. */
extern const unsigned char imagenet_classes[];
extern const size_t imagenet_classes_size;

enum { IMAGENET_COUNT = 1000, CANDIDATES = 5 };

struct imagenet_class {
  const char *wnid, *names;
};

static const struct imagenet_class *imagenet(void) {
  static struct imagenet_class table[IMAGENET_COUNT];
  static char text[64 << 10];
  if (text[0]) return table;
  memcpy(text, imagenet_classes, imagenet_classes_size);
  char *rest = text;
  for (int i = 0; i < IMAGENET_COUNT; i++) {
    strsep(&rest, "\t");
    table[i].wnid = strsep(&rest, "\t");
    table[i].names = strsep(&rest, "\n");
  }
  return table;
}

struct classes classes_of(const struct ditmoe_model *model, bool allow_null) {
  struct classes classes = {.used = IMAGENET_COUNT, .null_label = IMAGENET_COUNT, .imagenet = true};
  if (!model) return classes;
  struct ditmoe_model_info info;
  ditmoe_model_info(model, &info);
  bool named = false;
  for (int i = 0; i < info.classes_used && !named; i++)
    named = ditmoe_model_class_name(model, i) != NULL;
  return (struct classes){.model = model,
                          .used = info.classes_used,
                          .null_label = info.null_label,
                          .allow_null = allow_null,
                          .imagenet = !named && info.classes_used == IMAGENET_COUNT};
}

const char *class_names(const struct classes *classes, int label) {
  if (label < 0 || label >= classes->used || label == classes->null_label) return NULL;
  return classes->imagenet ? imagenet()[label].names
                           : ditmoe_model_class_name(classes->model, label);
}

const char *class_wnid(const struct classes *classes, int label) {
  return classes->imagenet && label >= 0 && label < IMAGENET_COUNT ? imagenet()[label].wnid : NULL;
}

/* Steps through "a, b, c": the length of the name at *cursor, which moves on; 0 at the end. */
static size_t next_name(const char **cursor, const char **name) {
  *name = *cursor + strspn(*cursor, ", ");
  size_t length = strcspn(*name, ",");
  *cursor = *name + length;
  return length;
}

char *class_title(const struct classes *classes, int label) {
  const char *names = class_names(classes, label), *name;
  if (!names) return text_format(label == classes->null_label ? "no class" : "class %d", label);
  size_t length = next_name(&names, &name);
  return text_sanitize(text_copy_part(name, length));
}

/* Finding. */

static bool equals(const char *name, size_t length, const char *text) {
  return strlen(text) == length && strncasecmp(name, text, length) == 0;
}

static bool contains(const char *name, size_t length, const char *text) {
  size_t size = strlen(text);
  for (size_t i = 0; i + size <= length; i++)
    if (strncasecmp(name + i, text, size) == 0) return true;
  return false;
}

/* Counts the labels with a name for which test(name, text) holds; the first go to `found`. */
static int search(const struct classes *classes, const char *text,
                  bool (*test)(const char *name, size_t length, const char *text), int32_t *found,
                  int capacity) {
  int count = 0;
  for (int label = 0; label < classes->used; label++) {
    const char *names = class_names(classes, label), *name;
    size_t length;
    bool hit = names && equals(names, strlen(names), text); /* a name may hold a comma */
    while (names && !hit && (length = next_name(&names, &name)) > 0) hit = test(name, length, text);
    if (!hit) continue;
    if (count < capacity) found[count] = label;
    count++;
  }
  return count;
}

/* Appends "207 n02099601 golden retriever" to a list; frees the old one. */
static char *append_class(char *list, const struct classes *classes, int label) {
  char *title = class_title(classes, label);
  const char *wnid = class_wnid(classes, label);
  char *longer = text_format("%s%s%d %s%s%s", list, *list ? "; " : "", label, wnid ? wnid : "",
                             wnid ? " " : "", title);
  free(title);
  free(list);
  return longer;
}

static enum ditmoe_status ambiguous(const struct classes *classes, const char *what,
                                    const char *text, const int32_t *found, int count) {
  char *list = text_copy("");
  for (int i = 0; i < count && i < CANDIDATES; i++) list = append_class(list, classes, found[i]);
  report_error(DITMOE_USAGE, "%s: \"%.80s\" may be %d classes: %s%s", what, text, count, list,
               count > CANDIDATES ? "; ..." : "");
  free(list);
  return DITMOE_USAGE;
}

enum { NEAR = 3 };
struct nearness {
  int distance, label;
};

static void keep_nearest(struct nearness near[NEAR], struct nearness one) {
  int at = NEAR;
  for (; at > 0 && near[at - 1].distance > one.distance; at--)
    if (at < NEAR) near[at] = near[at - 1];
  if (at < NEAR) near[at] = one;
}

static int spelling_distance(const char *names, const char *text) {
  const char *name;
  int nearest = INT_MAX;
  for (size_t length; (length = next_name(&names, &name)) > 0;) {
    char *one = text_copy_part(name, length);
    int distance = edit_distance(one, text);
    if (distance < nearest) nearest = distance;
    free(one);
  }
  return nearest;
}

static enum ditmoe_status unknown(const struct classes *classes, const char *what,
                                  const char *text) {
  struct nearness near[NEAR] = {{INT_MAX, -1}, {INT_MAX, -1}, {INT_MAX, -1}};
  for (int label = 0; label < classes->used; label++) {
    const char *names = class_names(classes, label);
    if (names) keep_nearest(near, (struct nearness){spelling_distance(names, text), label});
  }
  if (near[0].label < 0)
    return report_error(DITMOE_USAGE,
                        "%s: \"%.80s\" is not an id from 0 to %d, and the model has no class names",
                        what, text, classes->used - 1);
  char *list = text_copy("");
  for (int i = 0; i < NEAR && near[i].label >= 0; i++)
    list = append_class(list, classes, near[i].label);
  report_error(DITMOE_USAGE, "%s: there is no class \"%.80s\"; near: %s; see --list-classes", what,
               text, list);
  free(list);
  return DITMOE_USAGE;
}

static enum ditmoe_status check_id(const struct classes *classes, const char *what,
                                   const char *text, int32_t *label) {
  long long id = strtoll(text, NULL, 10); /* saturates */
  *label = (int32_t)id;
  const bool null = id >= 0 && id == classes->null_label;
  if (null ? classes->allow_null : id >= 0 && id < classes->used) return DITMOE_OK;
  if (null)
    return report_error(DITMOE_USAGE, "%s: %s is the empty class; --allow-null permits it", what,
                        text);
  return report_error(DITMOE_USAGE, "%s: %s is not a class the model was trained on: 0 to %d", what,
                      text, classes->used - 1);
}

static bool is_wnid(const char *text) {
  return strlen(text) == 9 && tolower((unsigned char)text[0]) == 'n' &&
         strspn(text + 1, "0123456789") == 8;
}

enum ditmoe_status class_find(const struct classes *classes, const char *what, const char *text,
                              int32_t *label) {
  int32_t found[CANDIDATES];
  size_t sign = text[0] == '-';
  if (!*text) return report_error(DITMOE_USAGE, "%s: an empty class name", what);
  if (text[sign] && strspn(text + sign, "0123456789") == strlen(text) - sign)
    return check_id(classes, what, text, label);
  if (is_wnid(text) && classes->imagenet) {
    for (*label = 0; *label < classes->used; ++*label)
      if (strcasecmp(class_wnid(classes, *label), text) == 0) return DITMOE_OK;
    return report_error(DITMOE_USAGE, "%s: %s is not one of the %d synsets; see --list-classes",
                        what, text, classes->used);
  }
  int count = search(classes, text, equals, found, CANDIDATES);
  if (count == 0) count = search(classes, text, contains, found, CANDIDATES);
  if (count == 0) return unknown(classes, what, text);
  if (count > 1) return ambiguous(classes, what, text, found, count);
  *label = found[0];
  return DITMOE_OK;
}

/* Listing. */

static void add_class(cJSON *list, const struct classes *classes, int label) {
  const char *names = class_names(classes, label), *wnid = class_wnid(classes, label);
  cJSON *object = cJSON_CreateObject();
  cJSON_AddNumberToObject(object, "id", label);
  if (wnid) cJSON_AddStringToObject(object, "wnid", wnid);
  if (names) cJSON_AddStringToObject(object, "names", names);
  cJSON_AddItemToArray(list, object);
}

enum ditmoe_status classes_print(const struct classes *classes, const char *regex, bool json) {
  regex_t pattern;
  int code = regcomp(&pattern, regex, REG_EXTENDED | REG_ICASE | REG_NOSUB);
  if (code != 0) {
    char reason[128];
    regerror(code, &pattern, reason, sizeof reason);
    return report_error(DITMOE_USAGE, "--list-classes: \"%s\": %s", regex, reason);
  }
  cJSON *list = cJSON_CreateArray();
  for (int label = 0; label < classes->used; label++) {
    const char *names = class_names(classes, label), *wnid = class_wnid(classes, label);
    char *line =
        text_format("%d  %s%s%s", label, wnid ? wnid : "", wnid ? "  " : "", names ? names : "");
    if (label != classes->null_label && regexec(&pattern, line, 0, NULL, 0) == 0) {
      if (json)
        add_class(list, classes, label);
      else
        report_result(line);
    }
    free(line);
  }
  regfree(&pattern);
  if (json) json_put(list);
  cJSON_Delete(list);
  return DITMOE_OK;
}

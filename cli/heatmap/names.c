/* Names of classes, experts and runs; text of files made safe to show. */
#include "cli/heatmap/heatmap.h"
#include "cli/text.h"
#include "cli/text_file.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CLASS_FILE_LIMIT = 4 << 20, TITLE_LENGTH = 60 };

/* Controls, and marks that turn the direction of the text around them. */
static bool drives(uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x200E && code <= 0x200F) ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

char *heatmap_clean(char *text) {
  char *from = text, *to = from;
  while (*from) {
    uint32_t code = 0;
    const size_t size = text_character(from, &code);
    if (size && !drives(code)) {
      memmove(to, from, size);
      to += size;
    } else {
      *to++ = '?';
    }
    from += size ? size : 1;
  }
  *to = 0;
  return text;
}

/* Classes. */

static void set_name(struct heatmap *heatmap, int label, const char *name) {
  char *copy = text_copy(name);
  free(heatmap->class_names[label]);
  heatmap->class_names[label] = heatmap_clean(copy);
}

/* The member class_names of the run: {"3": "dress"}. */
static void names_of_run(struct heatmap *heatmap) {
  const cJSON *names = cJSON_GetObjectItemCaseSensitive(heatmap->run.meta, "class_names"), *name;
  cJSON_ArrayForEach(name, names) {
    char *end = NULL;
    const long long label = name->string && *name->string ? strtoll(name->string, &end, 10) : -1;
    if (label < 0 || *end || label >= heatmap->run.info.labels || !cJSON_IsString(name)) continue;
    set_name(heatmap, (int)label, name->valuestring);
  }
}

/* "name", "number TAB name" or "number TAB WordNet id TAB name, synonyms" as in
 * assets/imagenet_classes.tsv. */
static enum ditmoe_status name_of_line(struct heatmap *heatmap, const char *path, char *line,
                                       long long number) {
  char *tab = strchr(line, '\t'), *last = strrchr(line, '\t'), *end;
  long long label = number - 1;
  if (tab) {
    label = strtoll(line, &end, 10);
    if (end != tab || end == line)
      return report_error(DITMOE_FORMAT,
                          "--class-file %s: line %lld: no number before the "
                          "tabulator",
                          path, number);
    if (last != tab) last[1 + strcspn(last + 1, ",")] = 0;
  }
  if (label < 0 || label >= heatmap->run.info.labels)
    return report_error(DITMOE_FORMAT,
                        "--class-file %s: line %lld: class %lld, but the run has 0 "
                        "to %d",
                        path, number, label, heatmap->run.info.labels - 1);
  set_name(heatmap, (int)label, text_trim(tab ? last + 1 : line));
  return DITMOE_OK;
}

static enum ditmoe_status names_of_file(struct heatmap *heatmap, const char *path) {
  char *text, *rest, *line;
  enum ditmoe_status status = DITMOE_OK;
  long long number = 0;
  TRY(text_file_read("--class-file", path, CLASS_FILE_LIMIT, &text));
  rest = text;
  while (status == DITMOE_OK && (line = strsep(&rest, "\n"))) {
    number++;
    if (line[strspn(line, " \t\r")]) status = name_of_line(heatmap, path, line, number);
  }
  free(text);
  return status;
}

enum ditmoe_status heatmap_read_names(struct heatmap *heatmap) {
  const char *path = heatmap->settings.class_file;
  heatmap->class_names = memory_get((size_t)heatmap->run.info.labels, sizeof *heatmap->class_names);
  names_of_run(heatmap);
  return path ? names_of_file(heatmap, path) : DITMOE_OK;
}

/* Titles. */

/* Cuts text to `length` bytes at most, between two characters. */
static char *shorten(char *text, size_t length) {
  if (strlen(text) <= length) return text;
  while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
  text[length] = 0;
  char *shorter = text_format("%s...", text);
  free(text);
  return shorter;
}

char *heatmap_class_title(const struct heatmap *heatmap, int label) {
  const char *name = heatmap->class_names[label];
  if (name) return shorten(text_format("%d %s", label, name), TITLE_LENGTH);
  return text_format(label == heatmap->run.info.null_label ? "no class" : "class %d", label);
}

char *heatmap_expert_title(const struct ditmoe_routing_info *info, int expert) {
  return expert == info->uncond_expert ? text_copy("uncond") : text_format("%d", expert);
}

char *heatmap_run_title(const struct heatmap_run *run) {
  return shorten(heatmap_clean(text_copy(path_name(run->path))), TITLE_LENGTH);
}

const char *heatmap_half_name(int half) {
  return half == DITMOE_CONDITIONAL ? "conditional" : "unconditional";
}

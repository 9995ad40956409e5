/* The options of a program and their values. */
#include "cli/option_values.h"
#include "cli/report.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

static const struct option common_options[] = {
    {.name = "json",
     .kind = OPTION_FLAG,
     .field = offsetof(struct common_settings, json),
     .group = "Messages",
     .help = "Print the results as JSON."},
    {.name = "quiet",
     .letter = 'q',
     .kind = OPTION_FLAG,
     .field = offsetof(struct common_settings, quiet),
     .help = "Only errors and warnings."},
    {.name = "verbose",
     .letter = 'v',
     .kind = OPTION_FLAG,
     .field = offsetof(struct common_settings, verbose),
     .help = "Also say what was found and where each setting came from."},
    {.name = "color",
     .kind = OPTION_CHOICE,
     .argument = "auto|always|never",
     .preset = "auto",
     .field = offsetof(struct common_settings, color),
     .help = "Colour in messages."},
    {.name = "help",
     .letter = 'h',
     .kind = OPTION_FLAG,
     .field = offsetof(struct common_settings, help),
     .help = "Print this help."},
    {.name = "version",
     .letter = 'V',
     .kind = OPTION_FLAG,
     .field = offsetof(struct common_settings, version),
     .help = "Print the version, with --json as JSON."},
    {.name = "emit-man",
     .kind = OPTION_FLAG,
     .traits = OPTION_HIDDEN,
     .field = offsetof(struct common_settings, emit_man),
     .help = "Print the man page."},
    {.name = "emit-completion",
     .kind = OPTION_CHOICE,
     .argument = "bash|zsh|fish",
     .traits = OPTION_HIDDEN,
     .field = offsetof(struct common_settings, emit_completion),
     .help = "Print completion for a shell."},
};

enum { COMMON_COUNT = sizeof common_options / sizeof common_options[0] };

const struct option *option_at(const struct program *program, size_t index) {
  if (index < program->count) return &program->options[index];
  index -= program->count;
  return index < COMMON_COUNT ? &common_options[index] : NULL;
}

static enum option_source *source_of(const struct options *options, const struct option *option) {
  for (size_t i = 0;; i++)
    if (option_at(options->program, i) == option) return &options->sources[i];
}

static void *field_of(const struct options *options, const struct option *option) {
  return (char *)options->settings + option->field;
}

static const char *keep_text(struct options *options, char *text) {
  options->texts = memory_resize(options->texts, options->text_count + 1, sizeof *options->texts);
  options->texts[options->text_count++] = text;
  return text;
}

enum option_source option_source(const struct options *options, const struct option *option) {
  return *source_of(options, option);
}

const char *option_source_name(enum option_source source) {
  static const char *const names[] = {"unset",       "default", "model",       "preset",
                                      "environment", "image",   "command line"};
  return names[source];
}

const struct option *option_of(const struct options *options, const void *field) {
  size_t offset = (size_t)((const char *)field - (const char *)options->settings), i = 0;
  while (option_at(options->program, i)->field != offset) i++;
  return option_at(options->program, i);
}

bool option_given(const struct options *options, const void *field) {
  return option_source(options, option_of(options, field)) >= FROM_ENVIRONMENT;
}

char *option_value(const struct options *options, const struct option *option) {
  if (option_source(options, option) == FROM_NOWHERE) return NULL;
  return value_show(option, field_of(options, option));
}

enum ditmoe_status option_set(struct options *options, const struct option *option,
                              const char *text, const char *what, enum option_source source) {
  enum option_source *held = source_of(options, option);
  char *before = *held == source ? option_value(options, option) : NULL;
  if (before && option->kind == OPTION_LIST) {
    char *joined = text_format("%s,%s", before, text);
    free(before);
    before = NULL;
    text = joined;
    keep_text(options, joined);
  }
  if (!value_parse(option, keep_text(options, value_meaning(option, text)),
                   field_of(options, option))) {
    char *expected = value_expected(option);
    report_error(DITMOE_USAGE, "%s: \"%.80s\" is not %s", what, text, expected);
    free(expected);
    free(before);
    return DITMOE_USAGE;
  }
  *held = source;
  enum ditmoe_status status = DITMOE_OK;
  if (before) {
    char *after = option_value(options, option);
    if (strcmp(before, after) != 0)
      status = report_error(DITMOE_USAGE, "%s is given twice: %s and %s", what, before, after);
    free(after);
    free(before);
  }
  return status;
}

/* Passes over a value that OpenMP would not take either. */
static void take_foreign(struct options *options, const struct option_variable *variable,
                         char *value) {
  const struct option *option = option_of(options, variable->field);
  const bool list = strspn(value, "0123456789, \t") == strlen(value);
  char *rest = value, *first = text_trim(strsep(&rest, ","));
  if (list && value_parse(option, first, field_of(options, option))) {
    *source_of(options, option) = FROM_ENVIRONMENT;
    return;
  }
  char *expected = value_expected(option);
  report_warning("%s=%.80s is not used: \"%.80s\" is not %s", variable->name,
                 getenv(variable->name), first, expected);
  free(expected);
}

enum ditmoe_status options_read_environment(struct options *options,
                                            const struct option_variable *variables, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const char *value = getenv(variables[i].name);
    if (!value || !*value || option_given(options, variables[i].field)) continue;
    if (!variables[i].foreign) {
      TRY(option_set(options, option_of(options, variables[i].field), value, variables[i].name,
                     FROM_ENVIRONMENT));
      continue;
    }
    char *copy = text_copy(value);
    take_foreign(options, &variables[i], copy);
    free(copy);
  }
  return DITMOE_OK;
}

static bool same_name(const char *name, size_t size, const char *given, size_t length) {
  if (size != length) return false;
  for (size_t i = 0; i < size; i++)
    if (name[i] != (given[i] == '_' ? '-' : given[i])) return false;
  return true;
}

const struct option *option_find(const struct program *program, const char *name, size_t length) {
  const struct option *option;
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    if (same_name(option->name, strlen(option->name), name, length)) return option;
    for (const char *alias = option->aliases; alias;) {
      size_t size = strcspn(alias, " ");
      if (same_name(alias, size, name, length)) return option;
      alias = alias[size] ? alias + size + 1 : NULL;
    }
  }
  return NULL;
}

void options_create(struct options *options, const struct program *program, void *settings) {
  const struct option *option;
  memset(settings, 0, program->settings_size);
  *options = (struct options){.program = program, .settings = settings};
  options->sources = memory_get(program->count + COMMON_COUNT, sizeof *options->sources);
  for (size_t i = 0; (option = option_at(program, i)); i++)
    if (option->preset) option_set(options, option, option->preset, option->name, FROM_PRESET);
}

void options_free(struct options *options) {
  for (size_t i = 0; i < options->text_count; i++) free(options->texts[i]);
  free(options->texts);
  free(options->sources);
  *options = (struct options){0};
}

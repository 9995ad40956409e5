/* Parsing: the command line, and single values from elsewhere. */
#include "cli/option_values.h"
#include "cli/report.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

/* Single options. */

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
  static const char *const names[] = {"unset",       "default", "model",
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

/* The command line. */

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

static const struct option *find_letter(const struct program *program, char letter) {
  const struct option *option;
  for (size_t i = 0; (option = option_at(program, i)); i++)
    if (option->letter == letter) return option;
  return NULL;
}

static enum ditmoe_status unknown_option(const struct program *program, const char *given) {
  const char *nearest = NULL;
  char *name = text_copy_part(given, strcspn(given, "="));
  int best = (int)strlen(name) / 2 + 1;
  const struct option *option;
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    int distance = text_distance(name, option->name);
    if (strlen(name) > 1 && strncmp(name, option->name, strlen(name)) == 0) distance = 1;
    if (distance >= best || option->traits & OPTION_HIDDEN) continue;
    best = distance;
    nearest = option->name;
  }
  enum ditmoe_status status =
      nearest ? report_error(DITMOE_USAGE, "unknown option --%s; did you mean --%s?", name, nearest)
              : report_error(DITMOE_USAGE, "unknown option --%s; see --help", name);
  free(name);
  return status;
}

struct arguments { /* what is left of the command line */
  char **next, **end;
};

/* The argument of an option: `attached`, or the next word. A word that looks like a long option is
 * taken for a forgotten argument. */
static enum ditmoe_status set_from(struct options *options, const struct option *option,
                                   const char *attached, const char *what,
                                   struct arguments *arguments) {
  if (option->kind == OPTION_FLAG && attached)
    return report_error(DITMOE_USAGE, "%s takes no value", what);
  if (option->kind == OPTION_FLAG) return option_set(options, option, "true", what, FROM_USER);
  if (attached) return option_set(options, option, attached, what, FROM_USER);
  const char *word = arguments->next < arguments->end ? *arguments->next : NULL;
  if (option->kind == OPTION_OPTIONAL && (!word || word[0] == '-'))
    return option_set(options, option, "", what, FROM_USER);
  if (!word) return report_error(DITMOE_USAGE, "%s needs a value", what);
  if (strncmp(word, "--", 2) == 0)
    return report_error(DITMOE_USAGE, "%s needs a value, but %s follows", what, word);
  arguments->next++;
  return option_set(options, option, word, what, FROM_USER);
}

static enum ditmoe_status read_long(struct options *options, const char *word,
                                    struct arguments *arguments) {
  size_t length = strcspn(word, "=");
  const struct option *option = option_find(options->program, word, length);
  if (!option) return unknown_option(options->program, word);
  char *what = text_format("--%s", option->name);
  enum ditmoe_status status =
      set_from(options, option, word[length] ? word + length + 1 : NULL, what, arguments);
  free(what);
  return status;
}

static enum ditmoe_status read_short(struct options *options, const char *word,
                                     struct arguments *arguments) {
  for (; *word; word++) {
    const struct option *option = find_letter(options->program, *word);
    if (!option) return report_error(DITMOE_USAGE, "unknown option -%c; see --help", *word);
    char what[] = {'-', *word, 0};
    bool flag = option->kind == OPTION_FLAG;
    TRY(set_from(options, option, !flag && word[1] ? word + 1 : NULL, what, arguments));
    if (!flag) break;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_words(struct options *options, struct arguments *arguments) {
  bool only_operands = false;
  while (arguments->next < arguments->end) {
    const char *word = *arguments->next++;
    if (!only_operands && strcmp(word, "--") == 0) {
      only_operands = true;
    } else if (!only_operands && strncmp(word, "--", 2) == 0) {
      TRY(read_long(options, word + 2, arguments));
    } else if (!only_operands && word[0] == '-' && word[1]) {
      TRY(read_short(options, word + 1, arguments));
    } else if (options->program->operand && !options->operand) {
      options->operand = word;
    } else if (options->program->second && !options->second) {
      options->second = word;
    } else {
      return report_error(DITMOE_USAGE, "unexpected argument \"%.80s\"; see --help", word);
    }
  }
  return DITMOE_OK;
}

static void print_version(const struct program *program, bool json) {
  if (!json) {
    printf("%s %s\n", program->name, DITMOE_VERSION);
    return;
  }
  printf("{\"program\": \"%s\", \"version\": \"%s\", \"samplers\": [", program->name,
         DITMOE_VERSION);
  for (int i = 0; ditmoe_sampler_name(i); i++)
    printf("%s\"%s\"", i ? ", " : "", ditmoe_sampler_name(i));
  puts("]}");
}

int options_read(struct options *options, const struct program *program, void *settings, int argc,
                 char **argv) {
  struct common_settings *common = settings;
  report_start(program->name);
  memset(settings, 0, program->settings_size);
  *options = (struct options){.program = program, .settings = settings};
  options->sources = memory_get(program->count + COMMON_COUNT, sizeof *options->sources);
  const struct option *option;
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    if (option->preset) option_set(options, option, option->preset, option->name, FROM_PRESET);
  }
  if (read_words(options, &(struct arguments){argv + (argc > 0), argv + argc}) != DITMOE_OK)
    return DITMOE_USAGE;
  report_style(common->quiet     ? REPORT_QUIET
               : common->verbose ? REPORT_VERBOSE
                                 : REPORT_NORMAL,
               common->color);
  bool done = common->help || common->version || common->emit_man || common->emit_completion;
  if (common->help) options_print_help(program, stdout);
  if (common->version) print_version(program, common->json);
  if (common->emit_man) options_print_man(program, stdout);
  if (common->emit_completion) options_print_completion(program, common->emit_completion, stdout);
  if (done) return (int)report_finish(DITMOE_OK);
  if (common->quiet && common->verbose)
    return (int)report_error(DITMOE_USAGE, "--quiet and --verbose contradict each other");
  if (program->operand && !options->operand)
    return (int)report_error(DITMOE_USAGE, "the %s is missing; see --help", program->operand);
  return -1;
}

void options_free(struct options *options) {
  for (size_t i = 0; i < options->text_count; i++) free(options->texts[i]);
  free(options->texts);
  free(options->sources);
  *options = (struct options){0};
}

/* The command line, and what every program answers before its work: --help, --version, --emit. */
#include "cli/options.h"

#include "base/edit_distance.h"
#include "cli/report.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

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
    int distance = edit_distance(name, option->name);
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
  options_create(options, program, settings);
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

/* --help, the man page and the completion, all from the option table. */
#include "cli/options.h"

#include "cli/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_WIDTH = 79, HELP_COLUMN = 27 };

/* Whether this option opens a group that is not open yet. */
static bool opens_group(const struct option *option, const char **group) {
  if (!option->group || (*group && strcmp(option->group, *group) == 0)) return false;
  *group = option->group;
  return true;
}

static bool is_shown(const struct option *option) { return !(option->traits & OPTION_HIDDEN); }

/* Words of `text` from column `column` on, following lines indented to HELP_COLUMN. */
static void print_wrapped(const char *text, int column, FILE *out) {
  bool first = true;
  while (*text) {
    int length = (int)strcspn(text, " ");
    if (!first && column + 1 + length > HELP_WIDTH) {
      fprintf(out, "\n%*s", HELP_COLUMN, "");
      column = HELP_COLUMN;
      first = true;
    }
    fprintf(out, "%s%.*s", first ? "" : " ", length, text);
    column += length + !first;
    first = false;
    text += length;
    text += strspn(text, " ");
  }
}

/* "-s, --seed N", "--list-classes [REGEX]" */
static char *option_heading(const struct option *option) {
  char letter[] = {'-', option->letter, ',', ' ', 0};
  const char *before = option->kind == OPTION_OPTIONAL ? " [" : " ";
  const char *after = option->kind == OPTION_OPTIONAL ? "]" : "";
  bool flag = option->kind == OPTION_FLAG;
  return text_format("%s--%s%s%s%s", option->letter ? letter : "", option->name, flag ? "" : before,
                     flag ? "" : option->argument, flag ? "" : after);
}

/* The help sentence, the default and the other names. */
static char *option_text(const struct option *option) {
  char *text = option->preset ? text_format("%s Default: %s.", option->help, option->preset)
                              : text_copy(option->help);
  for (const char *alias = option->aliases; alias;) {
    size_t size = strcspn(alias, " ");
    char *longer = text_format("%s Also --%.*s.", text, (int)size, alias);
    free(text);
    text = longer;
    alias = alias[size] ? alias + size + 1 : NULL;
  }
  return text;
}

/* " REF [SAMPLES]" */
static void print_operands(const struct program *program, FILE *out) {
  if (program->operand) fprintf(out, " %s", program->operand);
  if (program->second) fprintf(out, " [%s]", program->second);
}

void options_print_help(const struct program *program, FILE *out) {
  const struct option *option;
  const char *group = NULL;
  fprintf(out, "%s: %s\n\nUsage: %s [OPTION...]", program->name, program->summary, program->name);
  print_operands(program, out);
  fputc('\n', out);
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    if (!is_shown(option)) continue;
    if (opens_group(option, &group)) fprintf(out, "\n%s:\n", group);
    char *heading = option_heading(option), *text = option_text(option);
    int column = fprintf(out, "%s%s", option->letter ? "  " : "      ", heading);
    if (column > HELP_COLUMN - 2)
      fprintf(out, "\n%*s", HELP_COLUMN, "");
    else
      fprintf(out, "%*s", HELP_COLUMN - column, "");
    print_wrapped(text, HELP_COLUMN, out);
    fputc('\n', out);
    free(heading);
    free(text);
  }
}

/* Text for roff: dashes and backslashes are literal, a line does not begin with a control. */
static void print_roff(const char *text, FILE *out) {
  for (const char *c = text; *c; c++) {
    if ((c == text || c[-1] == '\n') && (*c == '.' || *c == '\'')) fputs("\\&", out);
    if (*c == '-' || *c == '\\') fputs(*c == '-' ? "\\" : "\\e", out);
    if (*c != '\\') fputc(*c, out);
  }
}

void options_print_man(const struct program *program, FILE *out) {
  const struct option *option;
  const char *group = NULL;
  fputs(".TH ", out);
  for (const char *c = program->name; *c; c++) fputc(toupper((unsigned char)*c), out);
  fprintf(out, " 1 \"\" \"ditmoe %s\" \"User Commands\"\n.SH NAME\n", DITMOE_VERSION);
  print_roff(program->name, out);
  fputs(" \\- ", out);
  print_roff(program->summary, out);
  fputs("\n.SH SYNOPSIS\n.B ", out);
  print_roff(program->name, out);
  fputs("\n[\\fIOPTION\\fR...]", out);
  print_operands(program, out);
  fputs("\n.SH DESCRIPTION\n", out);
  print_roff(program->about, out);
  fputs("\n.SH OPTIONS\n", out);
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    if (!is_shown(option)) continue;
    if (opens_group(option, &group)) fprintf(out, ".SS %s\n", group);
    char *heading = option_heading(option), *text = option_text(option);
    fputs(".TP\n.B ", out);
    print_roff(heading, out);
    fputc('\n', out);
    print_roff(text, out);
    fputc('\n', out);
    free(heading);
    free(text);
  }
  fputs(
      ".SH EXIT STATUS\n"
      "0 done; 1 other failure; 2 usage; 3 an input is missing or malformed; 4 the model does not\n"
      "match; 5 not enough memory; 6 an output cannot be written; 7 not a finite number; 8 "
      "device;\n"
      "9 incomplete; 130 and 143 stopped by SIGINT and SIGTERM.\n",
      out);
}

static bool takes_file(const struct option *option) {
  static const char *const places[] = {"PATH", "FILE", "PATTERN", "IMAGE"};
  for (size_t i = 0; option->argument && i < sizeof places / sizeof places[0]; i++)
    if (strstr(option->argument, places[i])) return true;
  return false;
}

static void print_choices(const struct option *option, FILE *out) {
  for (const char *c = option->argument; *c; c++) fputc(*c == '|' ? ' ' : *c, out);
}

static void print_bash(const struct program *program, FILE *out) {
  const struct option *option;
  const char *part = strchr(program->name, '-') + 1; /* function names have no '-' */
  fprintf(out, "_ditmoe_%s() {\n", part);
  fputs("  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n", out);
  fputs("  case $prev in\n", out);
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    if (option->kind != OPTION_CHOICE || !is_shown(option)) continue;
    fprintf(out, "    --%s) COMPREPLY=($(compgen -W '", option->name);
    print_choices(option, out);
    fputs("' -- \"$cur\")); return ;;\n", out);
  }
  fputs("  esac\n  if [[ $cur == -* ]]; then\n    COMPREPLY=($(compgen -W '", out);
  for (size_t i = 0; (option = option_at(program, i)); i++)
    if (is_shown(option)) fprintf(out, "%s--%s", i ? " " : "", option->name);
  fprintf(out,
          "' -- \"$cur\"))\n  else\n    COMPREPLY=($(compgen -f -- \"$cur\"))\n  fi\n}\n"
          "complete -o filenames -F _ditmoe_%s %s\n",
          part, program->name);
}

/* The help sentence without the characters that a shell or _arguments treats specially. */
static void print_plain(const char *text, FILE *out) {
  for (; *text; text++)
    if (!strchr("'\"[]:\\`$", *text)) fputc(*text, out);
}

static void print_zsh(const struct program *program, FILE *out) {
  const struct option *option;
  fprintf(out, "#compdef %s\n_arguments \\\n", program->name);
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    if (!is_shown(option)) continue;
    fprintf(out, "  '--%s[", option->name);
    print_plain(option->help, out);
    fputc(']', out);
    if (option->kind == OPTION_CHOICE) {
      fputs(":value:(", out);
      print_choices(option, out);
      fputc(')', out);
    } else if (option->kind != OPTION_FLAG) {
      fputs(takes_file(option) ? ":file:_files" : ":value:", out);
    }
    fputs("' \\\n", out);
  }
  fputs("  '*:file:_files'\n", out);
}

static void print_fish(const struct program *program, FILE *out) {
  const struct option *option;
  for (size_t i = 0; (option = option_at(program, i)); i++) {
    if (!is_shown(option)) continue;
    fprintf(out, "complete -c %s -l %s", program->name, option->name);
    if (option->letter) fprintf(out, " -s %c", option->letter);
    if (option->kind != OPTION_FLAG && option->kind != OPTION_OPTIONAL)
      fputs(takes_file(option) ? " -r" : " -x", out);
    if (option->kind == OPTION_CHOICE) {
      fputs(" -a '", out);
      print_choices(option, out);
      fputc('\'', out);
    }
    fputs(" -d '", out);
    print_plain(option->help, out);
    fputs("'\n", out);
  }
}

void options_print_completion(const struct program *program, const char *shell, FILE *out) {
  static const struct {
    const char *shell;
    void (*print)(const struct program *program, FILE *out);
  } shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
  for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++)
    if (strcmp(shell, shells[i].shell) == 0) shells[i].print(program, out);
}

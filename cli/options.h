/* Options of a program: one table gives the parser, --help, the man page and the completion.
 *
 * A program has a settings structure that begins with struct common_settings; a row of its table
 * names a field of it by offset, and `kind` says the field's type. Names match with '_' for '-',
 * but never by a prefix; an option that is given twice with different values is refused. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "ditmoe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct span { /* A:B, whole numbers */
  int64_t from, to;
};

struct interval { /* A:B */
  double from, to;
};

enum option_kind {                  /* type of the field; texts are owned by struct options */
                   OPTION_FLAG,     /* bool                                           */
                   OPTION_INTEGER,  /* int64_t in low .. high                         */
                   OPTION_NUMBER,   /* double in low .. high                          */
                   OPTION_SEED,     /* uint64_t; -1 draws one at random               */
                   OPTION_TEXT,     /* const char *                                   */
                   OPTION_OPTIONAL, /* const char *; "" if the argument is left out   */
                   OPTION_LIST,     /* const char *; repeats are joined by commas     */
                   OPTION_CHOICE,   /* const char *, one of `argument` ("a|b|c")      */
                   OPTION_SPAN,     /* struct span, low <= from < to <= high          */
                   OPTION_INTERVAL  /* struct interval, low <= from < to <= high      */
};

enum {                       /* bits of `traits` */
       OPTION_DECIDES = 1,   /* decides what the image of an index looks like */
       OPTION_IN_RECORD = 2, /* a member of the checkpoint record             */
       OPTION_HIDDEN = 4,    /* not shown in --help                           */
       OPTION_OF_RUN = 8     /* decides what else a run of many images leaves */
};

struct option {
  const char *name;
  const char *aliases; /* further long names, separated by spaces, or NULL */
  char letter;         /* short name or 0                                  */
  enum option_kind kind;
  size_t field;
  const char *argument; /* placeholder in --help; values of a choice       */
  const char *synonyms; /* of a choice: "other=value ...", or NULL         */
  double low, high;
  const char *preset; /* value when nothing is given; NULL: unset, all bits zero */
  unsigned traits;
  const char *group; /* heading, on the first option of a group */
  const char *help;
};

struct program {
  const char *name, *summary;
  const char *operand; /* "FILE" if it needs one, NULL if it takes none        */
  const char *second;  /* another one that may follow, or NULL                 */
  const char *about;   /* paragraphs of the man page, separated by blank lines */
  const struct option *options;
  size_t count;
  size_t settings_size;
};

/* First member of every settings structure. */
struct common_settings {
  bool help, version, json, quiet, verbose, emit_man;
  const char *color, *emit_completion;
};

/* Where a value comes from, weakest first. */
enum option_source {
  FROM_NOWHERE,
  FROM_PRESET,
  FROM_MODEL,
  FROM_PROTOCOL, /* --preset */
  FROM_ENVIRONMENT,
  FROM_IMAGE,
  FROM_USER
};

struct options {
  const struct program *program;
  void *settings;
  enum option_source *sources; /* one for each option_at           */
  char **texts;                /* every string that a field points to */
  size_t text_count;
  const char *operand, *second; /* second: NULL if it was left out */
};

/* options.c */
/* Presets go into `settings` (settings_size bytes); options_free in the end. */
void options_create(struct options *options, const struct program *program, void *settings);
void options_free(struct options *options);
/* The program's own options, then the common ones; NULL after the last. */
const struct option *option_at(const struct program *program, size_t index);
/* NULL if there is none of that name; `length` characters of it count. */
const struct option *option_find(const struct program *program, const char *name, size_t length);
/* Parses text into the option's field; `what` begins the message ("--steps", "DITMOE_THREADS"). */
enum ditmoe_status option_set(struct options *options, const struct option *option,
                              const char *text, const char *what, enum option_source source);
struct option_variable { /* of the environment */
  const char *name;
  const void *field; /* of the settings                                     */
  bool foreign;      /* of other programs: a list, of which the first item counts   */
};

/* Settings that the command line does not give; of variables for one field the first counts. What
 * is wrong with a foreign one is a warning, and it counts as unset. */
enum ditmoe_status options_read_environment(struct options *options,
                                            const struct option_variable *variables, size_t count);
/* The option of a field of the settings. */
const struct option *option_of(const struct options *options, const void *field);
enum option_source option_source(const struct options *options, const struct option *option);
const char *option_source_name(enum option_source source);
/* Whether the user, the environment or an image gave this field of the settings. */
bool option_given(const struct options *options, const void *field);
/* The value as text that option_set reads back, or NULL if it is unset; free(). */
char *option_value(const struct options *options, const struct option *option);

/* option_help.c */
void options_print_help(const struct program *program, FILE *out);
void options_print_man(const struct program *program, FILE *out);
/* shell: "bash", "zsh" or "fish". */
void options_print_completion(const struct program *program, const char *shell, FILE *out);

/* command_line.c */
/* Reads the command line into `settings` (settings_size bytes) and serves --help, --version and the
 * hidden --emit options. Returns an exit code if the program is done, else -1. */
int options_read(struct options *options, const struct program *program, void *settings, int argc,
                 char **argv);

#endif

/* Checks before the work is done: outputs that could not be written after it, options that would
 * act on nothing. */
#ifndef CLI_OUTPUTS_H
#define CLI_OUTPUTS_H

#include "cli/options.h"

struct output_file {
  const char *option, *path; /* path NULL: not asked for */
};

struct input_file {
  const char *path; /* NULL: not given. Of a folder, the files in it count  */
  bool checkpoint;  /* JSON beside it is read with it                       */
};

/* Whether two paths name one file, by any spelling and through links of either kind. What is not
 * there yet has the identity of its folder and a name. NULL names nothing. */
bool same_file(const char *a, const char *b);
/* Where a path leads through links, whether that is there or not; free(). */
char *path_target(const char *path);
/* Whether writing `path` would replace what is read of an input. */
bool is_input(const char *path, const struct input_file *input);

/* DITMOE_OUTPUT for a folder that is missing or read-only and, without `force`, for a file that
 * exists; DITMOE_USAGE for one that is an input or is named twice. */
enum ditmoe_status outputs_check(const struct output_file *outputs, size_t count,
                                 const struct input_file *inputs, size_t input_count, bool force);

struct option_use {
  const void *field; /* of the settings                */
  bool useful;       /* the option has something to act on */
  const char *why;   /* it has not: "without --png"    */
};

/* DITMOE_USAGE if the user or an image gave an option that is not useful: "--cell has no effect
 * <why>". */
enum ditmoe_status options_refuse_needless(const struct options *options,
                                           const struct option_use *uses, size_t count);

#endif

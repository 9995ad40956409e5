/* Checks before the work is done: outputs that could not be written after it, options that would
 * act on nothing. */
#ifndef CLI_OUTPUTS_H
#define CLI_OUTPUTS_H

#include "cli/options.h"

struct output_file {
  const char *option, *path; /* path NULL: not asked for */
};

/* DITMOE_OUTPUT for a folder that is missing or read-only and, without `force`, for a file that
 * exists; DITMOE_USAGE for one that is an input or is named twice. Inputs may be NULL. */
enum ditmoe_status outputs_check(const struct output_file *outputs, size_t count,
                                 const char *const *inputs, size_t input_count, bool force);

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

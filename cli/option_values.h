/* The kinds of option values: text to value and back. Part of cli/options.c's machinery. */
#ifndef CLI_OPTION_VALUES_H
#define CLI_OPTION_VALUES_H

#include "cli/options.h"

/* The text itself, or what it is a synonym of; free(). */
char *value_meaning(const struct option *option, const char *text);
/* Stores the value of `text` in the field; false if it is not one. Kinds that are texts keep the
 * pointer. */
bool value_parse(const struct option *option, const char *text, void *field);
/* Text that value_parse reads back; free(). */
char *value_show(const struct option *option, const void *field);
/* What value_parse accepts, for messages; free(). */
char *value_expected(const struct option *option);

#endif

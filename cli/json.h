/* JSON of the programs. Running out of memory ends a program as in cli/text.h. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include "ditmoe.h"

#include <cjson/cJSON.h>
#include <stdbool.h>

/* The object in a file of at most 1 MB that a user names; cJSON_Delete it. `what` is the option.
 * The library checks its members. */
enum ditmoe_status json_file_read(const char *what, const char *path, cJSON **object);
/* The same as text, NULL for no path; free(). */
enum ditmoe_status json_file_text(const char *what, const char *path, char **text);

/* The text of a value, in UTF-8 whatever names of files are in it, on several lines if `pretty`;
 * free(). */
char *json_text(const cJSON *json, bool pretty);
/* A string as it is, any other value as JSON; free(). */
char *json_value_text(const cJSON *item);
/* On standard output, on several lines. */
void json_put(const cJSON *json);
/* A whole number with all its digits, which a double might not have. */
void json_add_whole(cJSON *object, const char *name, uint64_t value);

#endif

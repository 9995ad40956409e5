/* Small text files that a user names: records and lists. */
#ifndef CLI_TEXT_FILE_H
#define CLI_TEXT_FILE_H

#include "ditmoe.h"

#include <cjson/cJSON.h>

/* A regular file of at most `limit` bytes without zero bytes; free(). `what` is the option. */
enum ditmoe_status text_file_read(const char *what, const char *path, size_t limit, char **text);
/* The JSON object in a file of at most 1 MB; cJSON_Delete it. The library checks its members. */
enum ditmoe_status json_file_read(const char *what, const char *path, cJSON **object);

#endif

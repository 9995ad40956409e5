/* Small text files that a user names. */
#ifndef CLI_TEXT_FILE_H
#define CLI_TEXT_FILE_H

#include "ditmoe.h"

#include <stddef.h>

/* A file or pipe of at most `limit` bytes without zero bytes, and without a byte order mark;
 * free(). DITMOE_FORMAT names what else it is, UTF-16 text for one. `what` is the option. */
enum ditmoe_status text_file_read(const char *what, const char *path, size_t limit, char **text);

#endif

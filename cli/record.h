/* Checkpoint records in files. */
#ifndef CLI_RECORD_H
#define CLI_RECORD_H

#include "ditmoe.h"

#include <cjson/cJSON.h>

/* The JSON object in a file of at most 1 MB; cJSON_Delete it. */
enum ditmoe_status record_read_file(const char *path, cJSON **out);

#endif

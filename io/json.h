/* Configuration files through cJSON: at most 1 MB and depth 64, duplicate keys refused. The only
 * header that other folders need; cJSON.h comes with it. */
#ifndef IO_JSON_H
#define IO_JSON_H

#include "base/memory.h"

#include <cjson/cJSON.h>

/* `origin` (a path, or "--record") begins every message. Free with cJSON_Delete. */
enum ditmoe_status json_parse(struct ditmoe_ctx *ctx, const char *origin, const char *text,
                              size_t size, cJSON **out);
enum ditmoe_status json_read(struct ditmoe_ctx *ctx, const char *path, cJSON **out);
/* JSON as Python writes it, with Infinity (a number that is infinite) and NaN (an empty list),
 * which are replaced in the text. */
enum ditmoe_status json_parse_python(struct ditmoe_ctx *ctx, const char *origin, char *text,
                                     size_t size, cJSON **out);
enum ditmoe_status json_read_python(struct ditmoe_ctx *ctx, const char *path, cJSON **out);

#endif

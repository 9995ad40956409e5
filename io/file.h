/* Files: whole-file reads with a limit, mappings, and outputs that appear complete or not at
 * all. */
#ifndef IO_FILE_H
#define IO_FILE_H

#include "io/checkpoint.h"

#include <stdio.h>

/* DITMOE_FORMAT, naming the path, if it is missing, a folder, not a regular file, or unreadable. */
enum ditmoe_status file_map(struct ditmoe_ctx *ctx, const char *path, struct mapping *out);
void file_unmap(struct mapping *mapping);
/* The whole file, zero-terminated; refused above `limit` bytes. Free with mem_free. */
enum ditmoe_status file_read(struct ditmoe_ctx *ctx, const char *path, size_t limit, char **bytes,
                             size_t *size);

/* An output: write to `stream`, then commit (flush, fsync, rename to path) or abandon (remove the
 * temporary file). commit also abandons when it fails. DITMOE_OUTPUT names path and cause. */
struct file_output {
  FILE *stream;
  char *path, *temporary;
};
enum ditmoe_status file_output_open(struct ditmoe_ctx *ctx, const char *path,
                                    struct file_output *out);
enum ditmoe_status file_output_commit(struct ditmoe_ctx *ctx, struct file_output *out);
void file_output_abandon(struct ditmoe_ctx *ctx, struct file_output *out);

#endif

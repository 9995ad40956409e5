/* The image files of a folder. */
#ifndef IO_FOLDER_H
#define IO_FOLDER_H

#include "base/status.h"

struct path_list {
  char **paths;
  size_t count;
};

/* The .png, .jpg and .jpeg files of a folder, and with `recursive` of those inside it, sorted by
 * the bytes of their paths. Hidden entries and files that are no images are passed over; images of
 * other formats are an error, and so is a folder without any. */
enum ditmoe_status folder_images(struct ditmoe_ctx *ctx, const char *folder, bool recursive,
                                 struct path_list *out);
void path_list_free(struct ditmoe_ctx *ctx, struct path_list *list);

#endif

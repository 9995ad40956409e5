/* What the readers of checkpoint formats share. Private to io/. */
#ifndef IO_FORMATS_H
#define IO_FORMATS_H

#include "base/span.h"
#include "io/file.h"

#include <string.h>

static inline struct text text_of(const char *string) {
  return (struct text){(const uint8_t *)string, strlen(string)};
}

/* One file on its way into a checkpoint. */
struct source {
  struct ditmoe_ctx *ctx;
  struct ditmoe_checkpoint *checkpoint; /* receives the tensors; owns every block made for them */
  const char *path;                     /* begins every message                                 */
  struct span file;                     /* the whole file                                       */
  const char *key;                      /* wanted entry of a training dictionary, or NULL       */
  uint64_t unpacked;                    /* bytes made by inflating or by expanding strides      */
};

/* A format: `match` looks at the first bytes, `read` adds all tensors. */
struct format {
  const char *name;
  bool (*match)(struct span file);
  enum ditmoe_status (*read)(struct source *source);
};

extern const struct format torch_zip_format, torch_legacy_format, safetensors_format,
    sharded_format;

/* Opens bytes in memory that outlive the checkpoint, as if they were the file `path`. */
enum ditmoe_status checkpoint_open_bytes(struct ditmoe_ctx *ctx, const char *path,
                                         const void *bytes, size_t size, const char *key,
                                         struct ditmoe_checkpoint **out);

/* An empty checkpoint of this path for the source to fill. */
enum ditmoe_status source_create(struct source *source, const char *path);
/* Reads a list of tensors without data: the grammar of a safetensors header without data_offsets.
 */
enum ditmoe_status source_read_list(struct source *source, const char *list);
/* Elements of shape, and their bytes; false if either overflows or a dimension is negative. */
bool tensor_measure(struct tensor *tensor, uint64_t *bytes);
/* A terminated copy, owned by the checkpoint. */
enum ditmoe_status source_copy(struct source *source, struct text text, char **out);
/* Adds a copy of `tensor` under `name`; a name with control characters or not in UTF-8 is
 * refused. */
enum ditmoe_status source_add(struct source *source, struct text name, const struct tensor *tensor);
enum ditmoe_status source_add_metadata(struct source *source, struct text key, struct text value);
/* Refuses equal keys among the metadata from number `first` on, which it sorts. */
enum ditmoe_status source_check_metadata(struct source *source, size_t first);
/* A block of `bytes` for `what`, owned by the checkpoint. Refused when all blocks together outgrow
 * the file by far: a small file must not demand much memory. */
enum ditmoe_status source_unpack(struct source *source, uint64_t bytes, struct text what,
                                 uint8_t **out);
/* Notes that `what`, names that --key or -m selects, holds weights that are not taken. */
enum ditmoe_status source_leave(struct source *source, const char *what);
/* Whether a name is that of averaged weights: has the word ema, average, shadow ... in it. */
bool name_says_average(struct text name);
/* Names of tensors without what wrappers put into them (docs/FILES.md). source->key, if it is still
 * there, is the first part of the names that are wanted; else those of averaged weights are taken
 * before those of the weights beside them. Two tensors that get one name are an error. */
enum ditmoe_status source_unwrap(struct source *source);
/* Adds the mapping of another file to the checkpoint and makes it the file of `source`. */
enum ditmoe_status source_map(struct source *source, const char *path);

/* out [checkpoint->metadata_count + count] = metadata of the checkpoint, those of `own` in place of
 * older ones; returns how many. */
size_t metadata_merge(struct checkpoint_entry *out, const struct ditmoe_checkpoint *checkpoint,
                      const struct checkpoint_entry *own, size_t count);
/* An entry of constant texts. */
struct checkpoint_entry metadata_entry(const char *key, const char *value);

/* A tensor and the type it is stored with. */
struct stored_tensor {
  const struct tensor *tensor;
  enum dtype dtype;
};
/* A safetensors file in pieces: the header, with data at a multiple of `alignment`; then the data
 * of every tensor in this order, by safetensors_put or written to out->stream; then commit or
 * abandon.
 */
enum ditmoe_status safetensors_begin(struct ditmoe_ctx *ctx, const char *path,
                                     const struct stored_tensor *tensors, size_t count,
                                     const struct checkpoint_entry *metadata, size_t metadata_count,
                                     int alignment, struct file_output *out);
enum ditmoe_status safetensors_put(struct ditmoe_ctx *ctx, const char *path,
                                   const struct stored_tensor *tensor, struct file_output *out);
/* Into the order of safetensors_write. */
void safetensors_sort(struct stored_tensor *tensors, size_t count);
/* What source_read_list reads; free with free(). NULL: no memory. */
char *safetensors_list(const struct tensor *tensors, size_t count);

/* Sorts the tensors by name and refuses equal names. */
enum ditmoe_status source_sort(struct source *source);
/* The format of source->file by its first bytes; an error says what else the file seems to be. */
enum ditmoe_status source_sniff(struct source *source, const struct format **out);

#endif

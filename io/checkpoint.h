/* A checkpoint: named tensors out of a file of any supported format, told apart by content.
 *
 *   ditmoe_checkpoint_open -> sniff -> torch_zip / torch_legacy -> pickle      (PyTorch)
 *                            -> safetensors
 *                            -> sharded: an index of files of either kind (also diffusers folders)
 *
 * Nothing in a file is executed, no name in a file becomes a path outside its folder, and no size
 * in a file is believed before it is checked against the bytes that are there. */
#ifndef IO_CHECKPOINT_H
#define IO_CHECKPOINT_H

#include "base/memory.h"
#include "base/tensor.h"

/* Key of the checkpoint record in `__metadata__`. */
#define CHECKPOINT_RECORD "ditmoe"
/* Key of the arguments that the training program left in a PyTorch file: a JSON object. */
#define CHECKPOINT_ARGS "args"

struct mapping { /* a whole file, mapped read-only */
  const uint8_t *data;
  size_t size;
};

struct checkpoint_entry { /* one string of `__metadata__` */
  char *key, *value;
};

struct ditmoe_checkpoint {
  struct ditmoe_ctx *ctx; /* hooks for the memory below; outlives the checkpoint */
  char *path;             /* as given                                            */
  const char *format;     /* see ditmoe_checkpoint_format                        */
  char *key;              /* training-dictionary entry used, or NULL             */
  char *left;             /* see ditmoe_checkpoint_left                          */
  struct tensor *tensors; /* sorted by name, unique                              */
  size_t count;
  struct checkpoint_entry *metadata;
  size_t metadata_count;
  struct mapping *mappings; /* files behind the tensors                          */
  size_t mapping_count;
  void **blocks; /* owned: names, strided tensors, inflated entries              */
  size_t block_count;
};

/* ditmoe_checkpoint_open and _close of ditmoe.h are the entry points. */

/* NULL if there is none of that name. */
const struct tensor *checkpoint_find(const struct ditmoe_checkpoint *checkpoint, const char *name);
/* The existing name nearest to `name` by edit distance, for messages; NULL if none is near. */
const char *checkpoint_nearest(const struct ditmoe_checkpoint *checkpoint, const char *name);
const char *checkpoint_metadata(const struct ditmoe_checkpoint *checkpoint, const char *key);

/* The data of a tensor are not needed for now: in a mapped file their pages leave memory, and come
 * back when they are read again. */
void checkpoint_drop(const struct ditmoe_checkpoint *checkpoint, const struct tensor *tensor);

/* Safetensors writer: sorted by alignment then name as the reference library does, data 8-byte
 * aligned, written to a temporary name, synced and renamed. A finite value that `dtype` cannot hold
 * is an error. Tensors are converted to `dtype` where both are floating; DT_COUNT keeps each. */
enum ditmoe_status safetensors_write(struct ditmoe_ctx *ctx, const char *path,
                                     const struct tensor *tensors, size_t count, enum dtype dtype,
                                     const struct checkpoint_entry *metadata,
                                     size_t metadata_count);

#endif

/* Packed files: safetensors whose large layers are stored as a backend has them in memory
 * (docs/RECORD.md). Their metadata say how, and what tensors the layers were made of. */
#ifndef IO_PACKED_H
#define IO_PACKED_H

#include "io/file.h"

/* Entries of the metadata: layout of the layers, instruction tier that made them, JSON of name ->
 * dtype and shape, names of tensors with NaN or infinities, one a line. */
#define PACKED_LAYOUT   "ditmoe.packed"
#define PACKED_TIER     "ditmoe.tier"
#define PACKED_TENSORS  "ditmoe.tensors"
#define PACKED_SUSPECTS "ditmoe.suspects"
/* Of the name of a layer's bytes, which begins with that of its first matrix. */
#define PACKED_ENDING ".packed"

struct packed {
  const struct ditmoe_checkpoint *file;
  const char *layout, *tier;
  struct ditmoe_checkpoint *tensors; /* like the checkpoint that was packed; data are NULL where
                                        they are in a layer's bytes */
  bool *suspect;                     /* [tensors->count] */
};

/* The layout of a packed file; NULL: it is none. And its compute type, "f32" or "bf16", or NULL. */
const char *packed_layout(const struct ditmoe_checkpoint *file);
const char *packed_dtype(const struct ditmoe_checkpoint *file);
/* Reads the metadata of a packed file, which must outlive `out`; DITMOE_FORMAT if they are not in
 * order. Every data of out->tensors have the size of their shape. */
enum ditmoe_status packed_open(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *file,
                               struct packed *out);
void packed_close(struct ditmoe_ctx *ctx, struct packed *packed);

/* Making one: begin, the bytes of each layer in order, finish or abandon. */
struct packed_texts {
  const char *record, *layout, *tier, *suspects;
};
struct stored_tensor;
struct packed_output {
  const char *path;
  struct stored_tensor *tensors; /* the layers, then the other tensors of the checkpoint */
  size_t layers, count;
  struct file_output file;
};
/* layers: U8, without data; in_layers [checkpoint->count]: tensors that they are made of. What is
 * given must live until the end, the texts excepted. */
enum ditmoe_status packed_begin(struct ditmoe_ctx *ctx, const char *path,
                                const struct ditmoe_checkpoint *checkpoint,
                                const struct packed_texts *texts, const struct tensor *layers,
                                size_t layer_count, const bool *in_layers,
                                struct packed_output *out);
void packed_put(struct packed_output *out, const void *bytes, size_t size);
enum ditmoe_status packed_finish(struct ditmoe_ctx *ctx, struct packed_output *out);
void packed_abandon(struct ditmoe_ctx *ctx, struct packed_output *out);

#endif

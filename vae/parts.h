/* The weights of a network as one table: a walk over the architecture names every tensor and its
 * shape once; the table is then matched with a checkpoint, reported where they differ, and turned
 * into the layers of a backend. */
#ifndef VAE_PARTS_H
#define VAE_PARTS_H

#include "backend/backend.h"
#include "io/checkpoint.h"

enum { PART_NAME = 96 };

struct norm { /* affine part of a GroupNorm, in the memory of the backend */
  int channels;
  float *weight, *bias; /* [channels]; bias lies behind weight in one block */
};

struct part_tensor {
  char name[PART_NAME];
  int rank;
  int64_t shape[4];
  const struct tensor *found; /* while a checkpoint is bound */
};

enum part_kind { PART_CONV, PART_LINEAR, PART_NORM };

/* How a convolution moves over an image, and whether it has a bias. */
struct conv_form {
  int kernel, stride, pad_before, pad_after;
  bool bias;
};

struct part {
  enum part_kind kind;
  size_t first; /* its weights, then its biases, in the list of tensors */
  int weights, biases;
  struct conv_form form;
  union {
    struct conv **conv;
    struct linear **linear;
    struct norm *norm;
  } slot;
};

struct parts {
  struct ditmoe_ctx *ctx;
  struct part *part;
  struct part_tensor *tensor;
  size_t part_count, tensor_count;
  char prefix[PART_NAME];    /* of the names to come */
  enum ditmoe_status status; /* sticky: a walk is a list of plain calls */
};

/* Appends to the prefix; the result takes it off again. */
size_t parts_enter(struct parts *parts, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void parts_leave(struct parts *parts, size_t length);

/* Each appends a layer and where to put it; tensors are called <prefix><name>.weight and .bias. */
void parts_conv(struct parts *parts, struct conv **slot, int in, int out,
                const struct conv_form *form, const char *name);
void parts_norm(struct parts *parts, struct norm *slot, int channels, const char *name);
/* `count` matrices [out, in] of these names, with biases, stacked along the outputs. */
void parts_linear(struct parts *parts, struct linear **slot, int in, int out,
                  const char *const *names, int count);

/* Makes all layers from a checkpoint that must hold exactly the tensors of the table;
 * DITMOE_MISMATCH lists the first ten differences. `what` is the architecture in that message. */
enum ditmoe_status parts_load(struct parts *parts, struct backend *be,
                              const struct ditmoe_checkpoint *file, const char *what,
                              uint64_t *weight_bytes);
/* Destroys the layers that were made, and the table. */
void parts_free(struct parts *parts, struct backend *be);

#endif

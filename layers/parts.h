/* The weights of a network as one table: a walk over the architecture names every tensor and its
 * shape once; the table is then matched with a checkpoint, reported where they differ, and turned
 * into the layers of a backend. */
#ifndef LAYERS_PARTS_H
#define LAYERS_PARTS_H

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
  bool unused;                /* of any type, and may be missing */
  const struct tensor *found; /* while a checkpoint is bound     */
};

enum part_kind { PART_CONV, PART_CONV_NORMALISED, PART_LINEAR, PART_NORM };

/* How a convolution moves over an image, and whether it has a bias. */
struct conv_form {
  int kernel[2]; /* rows, columns */
  struct conv_window window;
  bool bias;
};

struct part {
  enum part_kind kind;
  size_t first; /* its weights, then its biases, in the list of tensors */
  int weights, biases;
  bool exact; /* of a linear: f32 whatever the compute type */
  struct conv_window window;
  double eps; /* of the norm behind a convolution */
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
/* Convolution <name>.conv.weight, then batch normalisation <name>.bn.weight, .bias, .running_mean
 * and .running_var with their statistics as they are: one convolution with a bias. form->bias is
 * not looked at. */
void parts_conv_normalised(struct parts *parts, struct conv **slot, int in, int out,
                           const struct conv_form *form, double eps, const char *name);
void parts_norm(struct parts *parts, struct norm *slot, int channels, const char *name);
/* `count` matrices [out, in] of these names, with biases, stacked along the outputs. */
void parts_linear(struct parts *parts, struct linear **slot, int in, int out,
                  const char *const *names, int count);
/* One matrix without a bias, in f32 whatever the compute type. */
void parts_linear_exact(struct parts *parts, struct linear **slot, int in, int out,
                        const char *name);
/* <prefix><name>.<suffix>, which the checkpoint may hold and no layer needs. */
void parts_unused(struct parts *parts, const char *name, const char *suffix, int rank,
                  const int64_t shape[4]);

/* Makes all layers from a checkpoint that must hold exactly the tensors of the table;
 * DITMOE_MISMATCH lists the first ten differences. `what` is the architecture in that message. */
enum ditmoe_status parts_load(struct parts *parts, struct exec *ex,
                              const struct ditmoe_checkpoint *file, const char *what,
                              uint64_t *weight_bytes);
/* Destroys the layers that were made, and the table. */
void parts_free(struct parts *parts, struct exec *ex);

#endif

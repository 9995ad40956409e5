/* The parameters of a network as one table: a walk over the architecture names every tensor and its
 * shape once, a row each, and groups the rows into the layers that are made of them. The table is
 * matched with a file, reported where they differ, and turned into the weights of a backend; what
 * packs, saves, compares or counts parameters iterates it, too.
 *
 *   walk (params_linear, ...) -> params_match (file) -> params_make (weights) ... params_free */
#ifndef PARAMS_PARAMS_H
#define PARAMS_PARAMS_H

#include "backend/backend.h"
#include "io/packed.h"

enum { PARAM_NAME = 128 };

enum param_flag {
  PARAM_FIXED = 1 << 0,  /* a table or statistic that no training changes            */
  PARAM_UNUSED = 1 << 1, /* of any type, may be missing; nothing is made of it       */
  PARAM_EXACT = 1 << 2,  /* its layer takes f32, whatever the compute type           */
  PARAM_PAIRED = 1 << 3, /* gate and up of a SwiGLU, used together                   */
  PARAM_BARE = 1 << 4,   /* the name is that of a matrix, without .weight and a bias */
  PARAM_PLAIN = 1 << 5,  /* packed files keep its tensors as they are                */
  PARAM_UNIT = 1 << 6    /* rows are scaled to norm 1                                */
};

struct param {
  char name[PARAM_NAME]; /* as the file has it */
  int rank;              /* -1: any shape      */
  int64_t shape[4];
  int layer, expert; /* routed; -1: none   */
  uint32_t flags;
  bool suspect;                /* NaN or infinite values, found when its layer was made     */
  const struct tensor *source; /* from params_match to params_make; NULL: it is not there */
};

struct norm { /* affine part of a norm, in the memory of the backend */
  int channels;
  float *weight, *bias; /* [channels]; bias lies behind weight in one block */
};

enum param_kind { PARAM_LINEAR, PARAM_CONV, PARAM_CONV_NORMALISED, PARAM_NORM, PARAM_FLOATS };

/* Rows that one layer is made of: its weights, then its biases. */
struct param_group {
  enum param_kind kind;
  size_t first;
  int weights, biases;
  uint32_t flags;
  int original; /* the group that this one may be a copy of; then it shares its layer. -1: none */
  bool made;    /* what is in the slot is its own */
  struct conv_window window;
  double eps; /* of the norm behind a convolution */
  union {
    const struct linear **linear;
    struct conv **conv;
    struct norm *norm;
    const float **floats;
  } slot;
};

struct params {
  struct ditmoe_ctx *ctx;               /* of the walk, as are the next two */
  const struct ditmoe_checkpoint *file; /* where the values are             */
  const struct packed *packed;          /* layers of a packed file, or NULL */
  struct param *row;
  struct param_group *group;
  size_t count, group_count;
  char prefix[PARAM_NAME];           /* of the names to come                          */
  int layer, expert;                 /* of the rows to come; a %d in a name is the layer, or 0 */
  enum ditmoe_status status;         /* sticky: a walk is a list of plain calls */
  uint64_t parameters, weight_bytes; /* of the layers that were made            */
};

/* An empty table for the values of `file`. */
struct params params_begin(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *file);
/* Appends to the prefix; the result takes it off again. */
size_t params_enter(struct params *params, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void params_leave(struct params *params, size_t length);
/* The tensor <prefix><name> of the file, or NULL. */
const struct tensor *params_find(const struct params *params, const char *name);

/* How a convolution moves over an image, and whether it has a bias. */
struct conv_form {
  int kernel[2]; /* rows, columns */
  struct conv_window window;
  bool bias;
};

/* Up to three matrices [out[i], in] stacked, or the gate and up matrices of a SwiGLU. */
struct linear_form {
  int parts, in, out[3];
  const char *name[3];
  bool bias;
  uint32_t flags;
  int patch; /* > 0: stored as convolutions [out, in / patch^2, patch, patch] */
};

/* Each appends a layer and where to put it; tensors are called <prefix><name>.weight and .bias. */
void params_linear(struct params *params, const struct linear **slot,
                   const struct linear_form *form);
/* One matrix [out, in]. */
void params_matrix(struct params *params, const struct linear **slot, int out, int in, bool bias,
                   uint32_t flags, const char *name);
void params_conv(struct params *params, struct conv **slot, int in, int out,
                 const struct conv_form *form, const char *name);
/* Convolution <name>.conv.weight, then batch normalisation <name>.bn.weight, .bias, .running_mean
 * and .running_var with their statistics as they are: one convolution with a bias. form->bias is
 * not looked at. */
void params_conv_normalised(struct params *params, struct conv **slot, int in, int out,
                            const struct conv_form *form, double eps, const char *name);
void params_norm(struct params *params, struct norm *slot, int channels, const char *name);
/* An array of floats called <prefix><name>. */
void params_floats(struct params *params, const float **slot, int rank, const int64_t *shape,
                   uint32_t flags, const char *name);
/* <prefix><name>, which the file may hold and no layer needs; rank -1: of any shape. */
void params_unused(struct params *params, int rank, const int64_t *shape, const char *name);

/* What the differences of a network are called. */
struct params_what {
  const char *network;
  bool first; /* the kind of a difference comes before the name of the tensor */
};

/* The status of the walk. Then finds every row in the file, which must hold exactly the tensors of
 * the table; DITMOE_MISMATCH lists the first ten differences. */
enum ditmoe_status params_match(struct params *params, const struct exec *ex,
                                const struct params_what *what);
/* Makes all layers; DITMOE_NOMEM without trying if this machine cannot hold them. Those of a dry
 * execution have sizes and no values. The file may be closed afterwards, unless it is packed. */
enum ditmoe_status params_make(struct params *params, struct exec *ex);
/* Both, for a network of this name whose differences begin with the name of the tensor. */
enum ditmoe_status params_load(struct params *params, struct exec *ex, const char *network);
/* Destroys the layers that were made, and the table. */
void params_free(struct params *params, struct exec *ex);

/* For those who make the layers of a matched table themselves. */

/* Whether a packed file has, or gets, the layer of a group in bytes of its own; its name there. */
static inline bool param_group_packs(const struct param_group *group) {
  return group->kind == PARAM_LINEAR && !(group->flags & PARAM_PLAIN);
}
void params_packed_name(const struct params *params, const struct param_group *group,
                        char name[PARAM_NAME]);
/* What a linear layer is made from, and its in, out, type: the part that does not need values. */
struct linear_source params_source(const struct params *params, const struct param_group *group,
                                   const struct exec *ex);
struct linear params_shape(const struct params *params, const struct param_group *group,
                           const struct exec *ex);
/* Counts the rows of a group, and marks and warns of those that are not finite: harmless in an
 * expert that nobody chooses. finite: known to be so. The pages of their data are dropped. */
void params_inspect(struct params *params, const struct param_group *group, bool finite);

#endif

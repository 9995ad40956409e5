/* Takes tensors out of a checkpoint by name, shape and type, and makes weights of them. The same
 * walk over a model runs twice: first it only checks, and all differences are reported together;
 * then it creates. Every tensor must be taken by somebody. */
#ifndef DIT_BINDER_H
#define DIT_BINDER_H

#include "dit/config.h"
#include "io/packed.h"

enum { BINDER_LISTED = 10 };

struct binder_sink;

struct binder {
  struct exec *ex;
  const struct ditmoe_checkpoint *checkpoint;
  const struct packed *packed; /* where its layers are, if they are packed; else NULL */
  struct binder_sink *sink;    /* where layers go, instead of into the model, or NULL */
  struct dit *model;           /* receives suspects and counts */
  bool create;
  double bytes;      /* of the weights to be made, found by the first walk */
  bool *taken;       /* [checkpoint->count] */
  bool *adopted;     /* [packed->file->count] */
  int differences;   /* found so far        */
  char *report;      /* the first ten, one after the other, separated by "; " */
  int layer, expert; /* where the walk is, -1: outside */
};

/* Up to three matrices [out[i], in] stacked, or the gate and up matrices of a SwiGLU. */
struct linear_names {
  int parts;
  bool paired, bias, exact; /* exact: see linear_source */
  int in, out[3];
  const char *name[3]; /* without .weight and .bias; from name_at, used at once */
  bool plain;          /* packed files keep its tensors */
};

/* Takes the layers that are not plain: `layer` sees them in both walks, `begin` comes between. */
struct binder_sink {
  enum ditmoe_status (*begin)(struct binder_sink *sink, struct binder *b);
  enum ditmoe_status (*layer)(struct binder_sink *sink, struct binder *b,
                              const struct linear_names *names, const struct linear_source *source);
};

/* Of a layer: in, out, paired and types. */
struct linear binder_shape(const struct linear_names *names, const struct linear_source *source);

/* A tensor of this name and shape, floating, with its data; NULL if there is none or it is wrong,
 * which is noted. */
const struct tensor *binder_take(struct binder *b, const char *name, int rank,
                                 const int64_t *shape);
enum ditmoe_status binder_linear(struct binder *b, struct linear **out,
                                 const struct linear_names *names);
/* A layer of these tensors, when the binder creates. */
enum ditmoe_status binder_create(struct binder *b, struct linear **out,
                                 const struct linear_source *source);
/* Counts the parameters of a tensor that was used, and remembers it if it is not finite: harmless
 * in an expert that nobody chooses. finite: known to be so. */
enum ditmoe_status binder_inspect(struct binder *b, const struct tensor *tensor, bool finite);
/* The same for all tensors of a layer, whose pages are dropped. */
enum ditmoe_status binder_inspect_all(struct binder *b, const struct linear_source *source,
                                      bool finite);
/* One exact matrix called `name`, without a bias. */
enum ditmoe_status binder_matrix(struct binder *b, struct linear **out, const char *name, int rows,
                                 int in);
/* A float array on the device. */
enum ditmoe_status binder_floats(struct binder *b, float **out, const char *name, int rank,
                                 const int64_t *shape);
/* Notes a tensor that is known and not used. */
void binder_ignore(struct binder *b, const char *name);
/* Marks the end of a walk: tensors that nobody took are differences too. DITMOE_MISMATCH with the
 * report if there are any. */
enum ditmoe_status binder_finish(struct binder *b);

#endif

/* Takes tensors out of a checkpoint by name, shape and type, and makes weights of them. The same
 * walk over a model runs twice: first it only checks, and all differences are reported together;
 * then it creates. Every tensor must be taken by somebody. */
#ifndef DIT_BINDER_H
#define DIT_BINDER_H

#include "dit/config.h"

enum { BINDER_LISTED = 10 };

struct binder {
  struct backend *be;
  const struct ditmoe_checkpoint *checkpoint;
  struct dit *model; /* receives suspects and counts */
  bool create;
  bool *taken;       /* [checkpoint->count] */
  int differences;   /* found so far        */
  char *report;      /* the first ten, one after the other, separated by "; " */
  int layer, expert; /* where the walk is, -1: outside */
};

/* Up to three matrices [out[i], in] stacked, or the gate and up matrices of a SwiGLU. */
struct linear_names {
  int parts;
  bool paired, bias;
  int in, out[3];
  const char *name[3]; /* without .weight and .bias; from name_at, used at once */
};

/* A tensor of this name and shape, floating; NULL if there is none or it is wrong, which is noted.
 */
const struct tensor *binder_take(struct binder *b, const char *name, int rank,
                                 const int64_t *shape);
enum ditmoe_status binder_linear(struct binder *b, struct linear **out,
                                 const struct linear_names *names);
/* One matrix called exactly `name`, without a bias. */
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

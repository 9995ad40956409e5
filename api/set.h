/* What is behind struct ditmoe_set.
 *
 *   set.c         open: which statistics a file gives, which are computed
 *   set_file.c    statistics out of an npz
 *   set_pass.c    the pass over the images
 *   set_save.c    npz and npy
 *   compare.c     two sets */
#ifndef API_SET_H
#define API_SET_H

#include "base/memory.h"
#include "ditmoe_eval.h"

/* Mean and covariance of one kind of features. */
struct set_normal {
  int dims; /* 0: not known */
  bool from_file;
  double *mean, *covariance; /* [dims], [dims, dims], in one block */
};

struct ditmoe_set {
  struct ditmoe_ctx own;
  char *path;
  struct ditmoe_set_info info;
  struct ditmoe_images_options images; /* that the set was opened with */
  int threads;
  struct set_normal pool, spatial;
  float *features; /* [info.images, dims] pool features, or NULL */
  int dims;
  bool scored;
  double score;
  struct ditmoe_features_info network; /* that computed; kind is NULL if none did */
};

/* What the pass over the images has to make. */
struct set_work {
  bool pool, spatial, score, keep;
};

/* Reads the statistics of an npz into pool and spatial; leaves the set as it is where there are
 * none. has_images: whether there is an arr_0, *total its length. DITMOE_FORMAT if there is
 * neither; `path` may be a folder, which has images. */
enum ditmoe_status set_read_file(struct ditmoe_ctx *ctx, struct ditmoe_set *set, bool *has_images,
                                 int64_t *total);
/* One pass: features as `work` says, size and hash of the images. */
enum ditmoe_status set_pass(struct ditmoe_ctx *ctx, struct ditmoe_set *set,
                            struct ditmoe_features *network,
                            const struct ditmoe_set_options *options, const struct set_work *work);
/* Room for the statistics of features of `dims`. */
enum ditmoe_status set_normal_create(struct ditmoe_ctx *ctx, struct set_normal *normal, int dims);
void set_normal_free(struct ditmoe_ctx *ctx, struct set_normal *normal);

#endif

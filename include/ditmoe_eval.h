/* ditmoe: how good are the images of a model? Frechet distances, Inception Score, precision and
 * recall, kernel distance, as the field reports them (docs/EVAL.md).
 *
 *   struct ditmoe_features *network = NULL;
 *   struct ditmoe_set *reference = NULL, *samples = NULL;
 *   static struct ditmoe_set_options options;
 *   struct ditmoe_scores scores;
 *   options.measures = DITMOE_FRECHET | DITMOE_PRECISION;
 *   if (ditmoe_features_open(ctx, "inception.pth", NULL, NULL, &network) == DITMOE_OK &&
 *       ditmoe_set_open(ctx, "reference.npz", network, &options, &reference) == DITMOE_OK &&
 *       ditmoe_set_open(ctx, "run/", network, &options, &samples) == DITMOE_OK &&
 *       ditmoe_compare(ctx, reference, samples, options.measures, &scores) == DITMOE_OK)
 *     printf("%g\n", scores.frechet);
 *
 * The rules of ditmoe.h hold for errors, results and ownership. */
#ifndef DITMOE_EVAL_H
#define DITMOE_EVAL_H

#include "ditmoe.h"

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

/* Images in files. */

struct ditmoe_images;

struct ditmoe_images_options {
  int recursive; /* also the folders inside a folder      */
  int64_t count; /* only the first so many; 0: all        */
};

struct ditmoe_images_info {
  const char *kind;  /* "folder", "npz", or "image" for a single one                   */
  int64_t count;     /* images                                                        */
  int64_t jpeg;      /* of them in JPEG, whose losses move every metric               */
  int width, height; /* of the first                                                  */
  int labelled;      /* an npz with arr_1                                             */
};

/* path: a folder, whose .png, .jpg and .jpeg files are taken in the order of their names' bytes, or
 * an .npz with arr_0 uint8 [N, H, W, 3]. Nothing is left out silently: a file that cannot be read
 * is an error when its turn comes, a folder without images one at once. */
enum ditmoe_status ditmoe_images_open(struct ditmoe_ctx *ctx, const char *path,
                                      const struct ditmoe_images_options *options,
                                      struct ditmoe_images **out);
void ditmoe_images_close(struct ditmoe_images *images);
void ditmoe_images_info(const struct ditmoe_images *images, struct ditmoe_images_info *out);
/* Image `index` as RGB bytes [height, width, 3] in memory of the images, valid until the next call.
 * Grey and palette become RGB, 16 bits their upper 8, alpha is dropped, as PIL's convert("RGB"). */
enum ditmoe_status ditmoe_images_read(struct ditmoe_ctx *ctx, struct ditmoe_images *images,
                                      int64_t index, const uint8_t **pixels, int *width,
                                      int *height);
/* The file of an image, for messages; that of the npz for all of its images. */
const char *ditmoe_images_name(const struct ditmoe_images *images, int64_t index);

/* Arrays in files, to see what is there. */

struct ditmoe_arrays;

struct ditmoe_array_info {
  const char *name; /* without .npy; "" for a file that is a single .npy */
  const char *type; /* NumPy's spelling, "<f8"                           */
  int rank;
  const int64_t *shape;
};

/* path: .npz or .npy. All headers are checked, no data are read. */
enum ditmoe_status ditmoe_arrays_open(struct ditmoe_ctx *ctx, const char *path,
                                      struct ditmoe_arrays **out);
void ditmoe_arrays_close(struct ditmoe_arrays *arrays);
int ditmoe_arrays_count(const struct ditmoe_arrays *arrays);
void ditmoe_arrays_at(const struct ditmoe_arrays *arrays, int index, struct ditmoe_array_info *out);

/* Feature networks. */

struct ditmoe_features;

struct ditmoe_features_info {
  const char *kind;   /* "fid-inception-v3"                                                      */
  const char *name;   /* the same for the weights that FID is defined by, "random-inception" for the
                         random ones of the tests, else kind and the first digits of sha256       */
  int defines_fid;    /* only then may its Frechet distance be called FID                         */
  const char *resize; /* rule in use: "adm" or "pytorch-fid"                                    */
  int side;           /* images are resized to side x side                                      */
  int pool, spatial, logits; /* features of an image: 2048, 2023, 1008; 0: it has none          */
  const char *backend, *tier, *dtype;
  char sha256[65]; /* of the file of weights */
};

/* path: pytorch-fid's pt_inception-2015-12-05-6726825d.pth in either PyTorch form, or the same
 * tensors as safetensors. resize: "adm" (NULL; TensorFlow's rule, as in ADM's evaluator) or
 * "pytorch-fid". options as for models; the compute type defaults to f32 here. */
enum ditmoe_status ditmoe_features_open(struct ditmoe_ctx *ctx, const char *path,
                                        const struct ditmoe_model_options *options,
                                        const char *resize, struct ditmoe_features **out);
void ditmoe_features_close(struct ditmoe_features *features);
void ditmoe_features_info(const struct ditmoe_features *features, struct ditmoe_features_info *out);
/* Features of pixels [count, height, width, 3], RGB: pool [count, P], spatial [count, S], logits
 * without bias [count, L]; each may be NULL. An image's features depend on that image alone. */
enum ditmoe_status ditmoe_features_run(struct ditmoe_ctx *ctx, struct ditmoe_features *features,
                                       const uint8_t *pixels, int count, int height, int width,
                                       float *pool, float *spatial, float *logits);

/* Sets of images, one side of a comparison. */

struct ditmoe_set;

enum {
  DITMOE_FRECHET = 1,   /* Frechet distance of pool features: FID           */
  DITMOE_SPATIAL = 2,   /* of spatial features: sFID                        */
  DITMOE_INCEPTION = 4, /* Inception Score, of the samples alone            */
  DITMOE_PRECISION = 8, /* improved precision and recall, k = 3             */
  DITMOE_KERNEL = 16    /* kernel distance, KID                             */
};

struct ditmoe_set_options {
  unsigned measures; /* what the set will be used for                                         */
  int reference;     /* the set is the reference: no Inception Score                          */
  int recompute;     /* do not use the statistics that an npz holds beside its images         */
  int recursive;     /* as for images                                                         */
  int64_t count;     /* only the first so many images; 0: all                                 */
  int threads;       /* of BLAS, process-wide, here and when sets are compared; 0: as it is */
  int batch;         /* images at a time; 0: 16                                               */
  void *user;
  /* After every batch; a non-zero result ends with DITMOE_CANCELLED. May be NULL. */
  int (*observe)(void *user, int64_t done, int64_t count);
};

struct ditmoe_set_info {
  const char *kind;       /* "folder", "npz", "image", "statistics"                             */
  const char *statistics; /* of pool features: "computed", "file", or NULL: none                */
  int64_t images;         /* -1: statistics alone, of a number of images that the file keeps to
                             itself                                                             */
  int64_t jpeg;
  int64_t sizes;     /* images whose size differs from the first one's                     */
  int width, height; /* of the first                                                       */
  char sha256[65];   /* of the images' bytes in turn, so equal for a folder and an npz of the
                        same images; of the file where there are statistics alone          */
};

/* path: as for images, or an npz of statistics: mu, sigma and perhaps mu_s, sigma_s, as pytorch-fid
 * and ADM write them. network may be NULL if nothing has to be computed. One pass over the images;
 * mean and covariance are summed in double, in an order that depends on no batch. */
enum ditmoe_status ditmoe_set_open(struct ditmoe_ctx *ctx, const char *path,
                                   struct ditmoe_features *network,
                                   const struct ditmoe_set_options *options,
                                   struct ditmoe_set **out);
void ditmoe_set_close(struct ditmoe_set *set);
void ditmoe_set_info(const struct ditmoe_set *set, struct ditmoe_set_info *out);
/* Writes an npz: mu, sigma (float64), mu_s and sigma_s if known; with images the set's images as
 * arr_0, too, as ADM's reference files have them. */
enum ditmoe_status ditmoe_set_save(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                   const char *path, int images);
/* Writes the pool features [N, P] as float32 .npy; the set must have kept them, for
 * DITMOE_PRECISION or DITMOE_KERNEL. */
enum ditmoe_status ditmoe_set_save_features(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                            const char *path);

struct ditmoe_scores {
  double frechet, spatial_frechet; /* lower is better; >= 0 up to rounding                      */
  double clipped, spatial_clipped; /* sum of the negative eigenvalues that became 0, as a share of
                                      the sum of all                                            */
  double inception_score;
  double precision, recall;
  double kernel; /* may be slightly negative: it is unbiased                                    */
};

/* Frechet distance between normal distributions (Heusel et al. 2017, arXiv 1706.08500), spatial
 * features (Nash et al. 2021, arXiv 2103.03841), Inception Score in splits of 5000 (Salimans et al.
 * 2016, arXiv 1606.03498), precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991),
 * kernel distance over the whole sets, unbiased (Binkowski et al. 2018, arXiv 1801.01401). Members
 * that `measures` does not ask for are 0; DITMOE_USAGE if a set lacks what one needs. */
enum ditmoe_status ditmoe_compare(struct ditmoe_ctx *ctx, const struct ditmoe_set *reference,
                                  const struct ditmoe_set *samples, unsigned measures,
                                  struct ditmoe_scores *out);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif

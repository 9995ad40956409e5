/* A feature network: what a kind of network gives to the evaluation. A new one is a file and a line
 * in the table of network.c.
 *
 *   network_open -> kind by its tensors -> network_run: resize (resize.c), forward, download */
#ifndef EVAL_NETWORK_H
#define EVAL_NETWORK_H

#include "backend/backend.h"
#include "eval/resize.h"
#include "io/checkpoint.h"

struct network;

/* Features of a batch in memory of the host; each may be NULL. */
struct features {
  float *pool, *spatial, *logits;
};

struct network_kind {
  const char *name;
  const char *tensor;        /* a tensor that only this kind has */
  int side;                  /* of its input */
  int pool, spatial, logits; /* features of an image */
  /* Fills network->weights. On failure close still frees what was made. */
  enum ditmoe_status (*open)(struct exec *ex, struct network *network,
                             const struct ditmoe_checkpoint *file);
  void (*close)(struct exec *ex, struct network *network);
  /* image [B, side, side, 3], in the range that resize.h gives; arrays of `out` in device memory */
  void (*forward)(struct exec *ex, const struct network *network, const float *image, int B,
                  const struct features *out);
};

/* Told of what a layer gives: x [B, side, side, channels] for the images of a batch from `first`
 * on.
 */
struct network_tap {
  void *user;
  void (*seen)(void *user, struct exec *ex, const char *layer, struct act x, int first, int B,
               int side, int channels);
};

struct network {
  const struct network_kind *kind;
  void *weights; /* of the kind */
  uint64_t weight_bytes;
  const struct network_tap *tap; /* NULL: none */
};

extern const struct network_kind inception_kind;

/* DITMOE_NONFINITE names a tensor with NaN or infinite values: no number of such a network means
 * anything. The backend makes the weights and must outlive the network. */
enum ditmoe_status network_open(struct exec *ex, const char *path, struct network **out);
void network_close(struct exec *ex, struct network *network);
/* Features of pixels [B, height, width, 3] (host). The arena must hold network_bytes(). */
enum ditmoe_status network_run(struct exec *ex, const struct network *network,
                               enum resize_rule rule, const uint8_t *pixels, int B, int height,
                               int width, const struct features *out);
/* Arena bytes for batches of B, by a dry run of the same code. */
size_t network_bytes(const struct exec *ex, const struct network *network, int B);

#endif

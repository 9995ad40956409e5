/* What is behind the opaque types of ditmoe.h. */
#ifndef API_HANDLES_H
#define API_HANDLES_H

#include "dit/dit.h"
#include "sampler/sampler.h"
#include "vae/vae.h"

/* Models, decoders and sessions keep a context of their own for their memory; errors go to the
 * context of the caller, to which the backend points during a call. */
struct ditmoe_model {
  struct ditmoe_ctx own;
  struct exec ex;
  struct dit *dit;
  struct ditmoe_checkpoint *file; /* that the weights lie in, if it is a packed one; else NULL */
  char *record, *sources;         /* JSON, of the same members */
  double *trained_betas;          /* of the record's scheduler, or NULL */
};

struct ditmoe_decoder {
  struct ditmoe_ctx own;
  struct exec ex;
  struct vae *vae;
  int tile;
};

/* A request with every choice made. */
struct resolved {
  int height, width; /* of the latents */
  const struct sampler *sampler;
  struct schedule_request schedule;
  struct guidance guidance;
  bool guided;  /* two predictions a step                        */
  bool batched; /* both from one batch of 2 B                    */
  bool torch;   /* random numbers of torch's CPU generator       */
  bool heun_ends_euler;
  bool two_rows; /* torch draws a step's noise for both halves of guidance */
  int batch;     /* B                                             */
  int block;     /* > 0: images are made in fixed blocks of this many */
};

struct ditmoe_session {
  struct ditmoe_ctx own;
  const struct ditmoe_model *model;
  const struct ditmoe_decoder *decoder; /* NULL: latents only */
  struct exec ex;
  int capacity;      /* images of one batch                */
  int height, width; /* of the latents                     */
  int factor;        /* of the decoder, 1 of a model of images, else 0 */
  struct dit_grid grid;
  struct arena host; /* the memory of the arrays below */
  size_t work_floats;
  float *x;        /* [B, C, H, W]                       */
  float *work;     /* of the sampler                     */
  float *pair_out; /* [2B, Cout, H, W]                   */
  float *noise;    /* [2B, C, H, W], for torch's numbers */
  float *image;    /* [3, H factor, W factor]            */
  float *time;     /* [2B]                               */
  int32_t *labels; /* [2B]                               */
};

/* Checks a request against the model and makes all choices. */
enum ditmoe_status request_resolve(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                   const struct ditmoe_request *request, struct resolved *out);
/* The grid of a request's tokens; without positions, to measure memory. */
struct dit_grid request_grid(const struct ditmoe_model *model, const struct resolved *resolved);
/* Whether the latents are images, which need no decoder. */
static inline bool makes_images(const struct ditmoe_model *model) {
  const struct dit_config *config = &model->dit->config;
  return config->record.pixels && config->channels == 3;
}
/* Values of an image that a decoder of this factor makes. */
static inline size_t image_values(const struct ditmoe_session *s) {
  return 3 * (size_t)s->height * (size_t)s->width * (size_t)s->factor * (size_t)s->factor;
}
/* Bytes of the arena and of the host arrays. */
uint64_t session_arena_bytes(const struct ditmoe_model *model, const struct ditmoe_decoder *decoder,
                             const struct resolved *resolved);
uint64_t session_host_bytes(const struct ditmoe_model *model, const struct ditmoe_decoder *decoder,
                            const struct resolved *resolved);

/* Runs a failed prediction again, looking for the place where the first value that is not finite
 * appears; fails with DITMOE_NONFINITE and names it. out: as dit_predict takes it. */
enum ditmoe_status diagnose_nonfinite(struct exec *ex, const struct dit *model, float *out,
                                      const struct dit_input *in, int step, int steps);

#endif

/* What a kind of autoencoder gives to vae.c and tiles.c.
 *
 * A decoder is a head and stages. The head, the low resolutions with the attention, needs little
 * memory and always sees the whole image. The stages are the last two resolutions: they need
 * nearly all of the memory, consist of convolutions and norms only, and can be run on tiles. */
#ifndef VAE_NETWORK_H
#define VAE_NETWORK_H

#include "vae/blocks.h"
#include "vae/vae.h"

enum { VAE_STAGES = 2, VAE_LATENTS = 256 }; /* most channels of latents */

/* features [height * head_scale, width * head_scale, stage[0].in] of latents [height, width, C] */
typedef void vae_head(struct exec *ex, const struct vae *vae, float *features, const float *latents,
                      int height, int width);
/* moments [height / factor, width / factor, M] of image [height, width, 3]; M is C, or 2 C with log
 * variances. */
typedef void vae_encoder(struct exec *ex, const struct vae *vae, float *moments, const float *image,
                         int height, int width);
/* y [height * scale, width * scale, out] of x [height, width, in] by stage s */
typedef void vae_stage_forward(struct exec *ex, const struct vae *vae, int s, float *y,
                               const float *x, int height, int width, struct tile *tile);

struct vae_stage {
  int in, out; /* channels; the last stage gives the 3 of the image */
  int scale;
  int margin; /* pixels of x around a tile that the pixels of y see */
  int norms;
};

/* x factor / divisor + shift */
struct affine {
  float factor, divisor, shift;
};

struct vae {
  struct vae_info info;
  vae_head *head;
  vae_stage_forward *stage_forward;
  vae_encoder *encode;
  int head_scale, stages, groups; /* groups of each norm */
  struct vae_stage stage[VAE_STAGES];
  struct affine latent[VAE_LATENTS]; /* what becomes of a channel of a denoiser's latents */
  bool log_variance;                 /* encode gives mean and log variance */
  bool whole_only;                   /* a stage is more than convolutions and norms: no tiles */
  struct params params[2];           /* one table per weights file         */
  struct kl *kl;                     /* the layers: one of these           */
  struct taesd *taesd;
};

/* Each fills a cleared struct vae. On failure vae_close still frees what was made. */
enum ditmoe_status kl_open(struct exec *ex, struct vae *vae, const char *config_path,
                           const struct ditmoe_checkpoint *file);
/* Either file may be NULL. */
enum ditmoe_status taesd_open(struct exec *ex, struct vae *vae,
                              const struct ditmoe_checkpoint *decoder,
                              const struct ditmoe_checkpoint *encoder);

/* Stage s on an image [height, width, in] in tiles of `side`, at once if that is not less than
 * both. */
void tiles_forward(struct exec *ex, const struct vae *vae, int s, float *y, const float *x,
                   int height, int width, int side);

#endif

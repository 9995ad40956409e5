/* Latent decoders and encoders. All work on one image at a time, channels-last inside, so that an
 * image never depends on its batch; images are f32 [3, H, W] in about [-1, 1], latents [C, h, w] of
 * a `factor`-th of the sides.
 *
 *   vae_open -> kind from files and tensors -> vae_decode: undo scale and shift, head, stages
 */
#ifndef VAE_VAE_H
#define VAE_VAE_H

#include "backend/backend.h"
#include "io/checkpoint.h"

struct vae_info {
  const char *kind;  /* "autoencoder-kl", "taesd"      */
  const char *names; /* whose names the tensors have */
  int latent_channels, image_channels;
  int factor;          /* image side / latent side */
  double scale, shift; /* z / scale + shift is decoded; taesd: 1, 0 whatever the model says */
  bool statistics;     /* besides, each channel has a mean and a deviation of its own */
  bool unit_range;     /* the network's images are in [0, 1] (taesd), mapped to [-1, 1] here */
  bool can_encode, can_decode;
  uint64_t weight_bytes;
};

struct vae;

/* path: a folder with config.json and weights, a diffusers pipeline folder (its vae/), or a
 * weights file (taesd, autoencoder-kl with config.json beside it or with the names of CompVis). The
 * backend makes the weights and must outlive the vae. */
enum ditmoe_status vae_open(struct exec *ex, const char *path, struct vae **out);
void vae_close(struct exec *ex, struct vae *vae);
void vae_describe(const struct vae *vae, struct vae_info *out);

/* image [3, H, W] (host) of latents [C, height, width] (host), as the denoiser has them. tile:
 * latent side of a tile, 0 or not less than both sides for none. Tiles bound the memory and give
 * the same image up to rounding, for several times the work (tiles.c). The backend's arena must
 * hold vae_decode_bytes(). */
enum ditmoe_status vae_decode(struct exec *ex, const struct vae *vae, float *image,
                              const float *latents, int height, int width, int tile);
/* mean and log variance [C, h, w] (clamped to [-30, 20], unscaled moments) of image
 * [3, height, width]; taesd: log_variance is not written. */
enum ditmoe_status vae_encode(struct exec *ex, const struct vae *vae, float *mean,
                              float *log_variance, const float *image, int height, int width);
/* Arena bytes for latents, or an image to encode, of this size, by a dry run of the same code. */
size_t vae_decode_bytes(const struct exec *ex, const struct vae *vae, int height, int width,
                        int tile);
size_t vae_encode_bytes(const struct exec *ex, const struct vae *vae, int height, int width);

/* pixels [height, width, 3] of image [3, height, width]: trunc(clamp(127.5 x + 128, 0, 255)), NaN
 * 0. */
void vae_pixels(uint8_t *pixels, const float *image, int height, int width);

#endif

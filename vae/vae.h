/* Latent decoders and encoders. All work on one image at a time, channels-last inside, so that an
 * image never depends on its batch; images are f32 [3, S, S] in about [-1, 1].
 *
 *   vae_open -> kind from files and tensors -> vae_decode: divide by scale, add shift, head, stages
 */
#ifndef VAE_VAE_H
#define VAE_VAE_H

#include "backend/backend.h"
#include "io/checkpoint.h"

struct vae_info {
  const char *kind; /* "autoencoder-kl", "taesd" */
  int latent_channels, image_channels;
  int factor;          /* image side / latent side */
  double scale, shift; /* z / scale + shift is decoded; taesd: 1, 0 whatever the model says */
  bool unit_range;     /* the network's images are in [0, 1] (taesd), mapped to [-1, 1] here */
  bool can_encode, can_decode;
  uint64_t weight_bytes;
};

struct vae;

/* path: a folder with config.json and weights, a diffusers pipeline folder (its vae/), or a
 * weights file (taesd, or autoencoder-kl with config.json beside it). The backend makes the
 * weights and must outlive the vae. */
enum ditmoe_status vae_open(struct exec *ex, const char *path, struct vae **out);
void vae_close(struct exec *ex, struct vae *vae);
void vae_describe(const struct vae *vae, struct vae_info *out);

/* image [3, size * factor, ...] (host) of latents [C, size, size] (host), as the denoiser has
 * them. tile: latent side of a tile, 0 or >= size for none. Tiles bound the memory and give the
 * same image up to rounding, for several times the work (tiles.c). The backend's arena must hold
 * vae_decode_bytes(). */
enum ditmoe_status vae_decode(struct exec *ex, const struct vae *vae, float *image,
                              const float *latents, int size, int tile);
/* mean and log variance [C, size / factor, ...] (clamped to [-30, 20], unscaled moments) of image
 * [3, size, size]; taesd: log_variance is not written. */
enum ditmoe_status vae_encode(struct exec *ex, const struct vae *vae, float *mean,
                              float *log_variance, const float *image, int size);
/* Arena bytes for a size (latent side), by a dry run of the same code. */
size_t vae_decode_bytes(const struct exec *ex, const struct vae *vae, int size, int tile);
size_t vae_encode_bytes(const struct exec *ex, const struct vae *vae, int size);

/* pixels [size, size, 3] of image [3, size, size]: trunc(clamp(127.5 x + 128, 0, 255)), NaN 0. */
void vae_pixels(uint8_t *pixels, const float *image, int size);

#endif

/* config.json of an AutoencoderKL in the diffusers layout. */
#ifndef VAE_KL_CONFIG_H
#define VAE_KL_CONFIG_H

#include "vae/blocks.h"

enum { KL_LEVELS = 8, KL_BLOCKS = 9 };

struct kl_config {
  int levels, channels[KL_LEVELS]; /* shallowest first                                    */
  int layers;                      /* residual blocks of a level: n encoding, n + 1 decoding */
  int latent_channels, groups;
  double scale, shift;
  bool quant, post_quant, attention;
};

/* DITMOE_MISMATCH for another class of model, DITMOE_FORMAT for values out of range. */
enum ditmoe_status kl_config_read(struct ditmoe_ctx *ctx, const char *path, struct kl_config *out);

#endif

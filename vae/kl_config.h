/* What an AutoencoderKL consists of, by its config.json (diffusers) or its tensors (CompVis). */
#ifndef VAE_KL_CONFIG_H
#define VAE_KL_CONFIG_H

#include "vae/network.h"

enum { KL_LEVELS = 8, KL_BLOCKS = 9, KL_WIDTH = 8192 };

struct kl_config {
  int levels, channels[KL_LEVELS]; /* shallowest first                                    */
  int layers;                      /* residual blocks of a level: n encoding, n + 1 decoding */
  int latent_channels, groups;
  int z_channels; /* between encoder and quant_conv, post_quant_conv and decoder */
  double scale, shift;
  bool quant, post_quant, attention; /* attention: in the middle               */
  bool statistics;                   /* of the latents: mean, std of a channel */
  float mean[VAE_LATENTS], deviation[VAE_LATENTS];
};

/* The defaults of diffusers. */
struct kl_config kl_config_default(void);
/* DITMOE_MISMATCH for another class of model, DITMOE_FORMAT for values out of range. */
enum ditmoe_status kl_config_read(struct ditmoe_ctx *ctx, const char *path, struct kl_config *out);
/* Of the file only what its tensors do not tell: scale, shift, statistics, groups of the norms;
 * nothing if it is about another class of model. */
enum ditmoe_status kl_config_read_scaling(struct ditmoe_ctx *ctx, const char *path,
                                          struct kl_config *config);

#endif

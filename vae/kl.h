/* The layers of an AutoencoderKL, and the names that their tensors have. */
#ifndef VAE_KL_H
#define VAE_KL_H

#include "vae/kl_config.h"

/* Ends with halving the image (encoder) or doubling it (decoder), but for the last. */
struct level {
  int channels; /* after its blocks */
  bool attends; /* an attention follows each block */
  struct resblock block[KL_BLOCKS];
  struct attention_block attention[KL_BLOCKS];
  struct conv *resample;
};

struct mid {
  struct resblock block[2];
  struct attention_block attention;
};

/* Encoder and decoder have the same parts in another order. */
struct half {
  struct conv *conv_in, *conv_out, *quant;
  struct level level[KL_LEVELS]; /* in the order of the computation */
  struct mid mid;
  struct norm norm_out;
};

struct kl {
  struct kl_config config;
  int split; /* last level of the decoder's head, -1: none */
  struct half encoder, decoder;
};

/* The names of a family of files. Patterns of levels and blocks take a number. */
struct kl_dialect {
  const char *name;   /* whose they are */
  const char *prefix; /* of all names that count; where it is not NULL, others are passed over */
  const char *down, *up, *block, *attention; /* of levels, and inside one */
  bool up_from_finest;                       /* numbers of `up`: 0 is the last one that runs */
  const char *halve, *twice, *norm_out;
  const char *mid_block[2], *mid_attention;
  const char *shortcut;
  int attentions; /* the first of attention_names (blocks.h) that it uses */
};

/* By the names of the middle; DITMOE_MISMATCH if the file is no AutoencoderKL. */
enum ditmoe_status kl_dialect_find(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *file,
                                   const struct kl_dialect **out);
bool kl_has(const struct kl_dialect *dialect, const struct ditmoe_checkpoint *file,
            const char *prefix);
/* The sizes of a file of original names, from its tensors. */
enum ditmoe_status kl_config_infer(struct ditmoe_ctx *ctx, const struct kl_dialect *dialect,
                                   const struct ditmoe_checkpoint *file, struct kl_config *out);
/* Lists the parameters of the halves that the file has. */
void kl_walk(struct kl *kl, struct params *params, const struct kl_dialect *dialect);

/* Channels of the deepest level, and of level i in the order of the decoder. */
static inline int kl_deepest(const struct kl_config *config) {
  return config->channels[config->levels - 1];
}
static inline int kl_up_channels(const struct kl_config *config, int i) {
  return config->channels[config->levels - 1 - i];
}

#endif

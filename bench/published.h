/* The published shapes of DiT-MoE (arXiv 2407.11633), with any number of experts, and of the
 * decoders: what their checkpoints hold. */
#ifndef BENCH_PUBLISHED_H
#define BENCH_PUBLISHED_H

#include "bench/random_checkpoint.h"

struct model_size {
  const char *letters; /* "XL" */
  int depth, width, heads;
  bool flash; /* norms of q and k, and the names of flash-attn */
  const char *objective;
};

struct model_shape {
  const struct model_size *size;
  int depth, patch, experts, top_k;
  int latent, tokens; /* side of the latents, T */
  char name[32];      /* "XL/2-8E2A"            */
};

/* What is free to choose of a shape. */
struct model_choice {
  int experts, top_k, image_size;
  int depth; /* 0: as published */
};

/* text: "XL/2", letters and patch. DITMOE_USAGE, reported, if there is no such shape. */
enum ditmoe_status model_shape_parse(const char *text, const struct model_choice *choice,
                                     struct model_shape *out);
/* Tensors and record. */
void model_shape_draw(const struct model_shape *shape, struct blueprint *out);
/* Floating-point operations of one call for B images: the products of qkv, proj, experts and
 * shared expert and those of the attention, as the peers are counted. */
double model_shape_flop(const struct model_shape *shape, int B);

/* kind: "kl" (sd-vae-ft-mse) or "taesd"; the decoder half alone. */
void decoder_draw(const char *kind, struct blueprint *out);
/* config.json of "kl". */
extern const char decoder_config[];

#endif

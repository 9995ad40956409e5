/* The names that tensors have in the checkpoints of each family. */
#ifndef DIT_NAMES_H
#define DIT_NAMES_H

#include "dit/record.h"

/* Patterns; %d is the block. Without ".weight" and ".bias" where the tensor has both. */
struct dialect {
  const char *patch_embed, *pos_embed;     /* pos_embed NULL: made, not stored */
  const char *time_in, *time_out, *labels; /* with %d where every block has its own */
  const char *modulation;
  const char *qkv[3]; /* one stacked linear layer, or q, k, v */
  const char *proj, *q_norm, *k_norm;
  const char *block; /* prefix of a block            */
  const char *mlp;   /* prefix of a dense block's MLP */
  const char *final_modulation, *final_linear;
};

enum { DIALECT_DIT, DIALECT_FLASH, DIALECT_DIFFUSERS, DIALECTS };
extern const struct dialect dialects[DIALECTS];

/* A family of mixture layers: prefix under the block, its router and its parts. */
struct moe_names {
  const char *prefix; /* "blocks.%d.moe."                              */
  const char *gate;   /* under the prefix, full name                   */
  const char *shared; /* prefix of the shared expert                   */
  const char *second; /* a tensor that tells families of equal gate apart, or NULL */
  int kind;           /* enum dit_kind; DIT_KINDS: the record must tell */
};

enum { MOE_FAMILIES = 5 };
extern const struct moe_names moe_families[MOE_FAMILIES];

/* The forms of an expert or an MLP under its prefix. */
struct expert_form {
  const struct expert_kind *kind;
  const char *in, *second, *out; /* second: the up matrix of a SwiGLU, whose gate is `in` */
  bool bias;
};

enum { EXPERT_FORMS = 4 };
extern const struct expert_form expert_forms[EXPERT_FORMS];

#endif

/* The names that tensors have in the checkpoints of each family. */
#ifndef DIT_NAMES_H
#define DIT_NAMES_H

#include "dit/record.h"

/* Patterns; %d is the block. Without ".weight" and ".bias" where the tensor has both. */
struct dialect {
  const char *patch_reduce;                /* a layer before patch_embed, without bias, or NULL */
  const char *patch_embed, *pos_embed;     /* pos_embed NULL: made, not stored */
  const char *time_in, *time_out, *labels; /* with %d where every block has its own */
  const char *modulation;
  const char *qkv[3]; /* one stacked linear layer, or q, k, v */
  const char *proj, *q_norm, *k_norm;
  const char *block; /* prefix of a block            */
  const char *mlp;   /* prefix of a dense block's MLP */
  const char *final_modulation, *final_linear;
  const char *norm1, *norm2, *final_norm; /* of RMSNorm, where the file has them; or NULL */
  const char *prefix_positions; /* of in-context tokens, where the file has them; or NULL */
  /* What says that q and k turn by their positions, in adjacent pairs: the program of the dialect,
   * or a table of cosines that the file has, and another of sines. */
  bool rotary;
  const char *rope_cos, *rope_sin;
};

enum { DIALECT_DIT, DIALECT_FLASH, DIALECT_DIFFUSERS, DIALECT_JIT, DIALECTS };
extern const struct dialect dialects[DIALECTS];

/* The matrices of an expert or an MLP under its prefix, and what it does with them. */
struct expert_form {
  const struct expert_kind *kind;
  const char *in, *second, *out; /* second: the up matrix of a SwiGLU, whose gate is `in`; NULL:
                                    `in` is both, gate first */
  bool bias;
};

/* Makes a form known. */
#define EXPERT_FORM_ENTRY(form)                                                                    \
  static const struct expert_form *const entry_##form                                              \
      __attribute__((section("ditmoe_expert_forms"), used)) = &(form)

/* All that are known; NULL after the last. */
const struct expert_form *expert_form_at(int index);

#endif

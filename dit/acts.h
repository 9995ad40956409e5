/* What a forward pass computes, by name: the arrays that a backward pass needs again. Carving them
 * from the arena is what sizes it, too: a dry run carves as a real one does. All lie on the device.
 *
 * Without a backward pass arrays share memory as soon as the order of the operations allows. */
#ifndef DIT_ACTS_H
#define DIT_ACTS_H

#include "dit/dit.h"

/* Of an embedder: condition = time + row of the class table. */
struct dit_condition_acts {
  float *features;  /* [B, 256]                                  */
  float *sums;      /* [B, D] features W^T + b                   */
  float *hidden;    /* [B, D] silu(sums)                         */
  float *time;      /* [B, D]                                    */
  float *condition; /* [B, D]                                    */
  float *silu_c;    /* [B, D] silu(condition)                    */
};

/* Of a block, in the order in which they are made. The caller gives x_in, x_out and silu_c; x_out
 * may be x_in if nothing is kept. */
struct dit_block_acts {
  const float *silu_c; /* [B, D]                                                */
  const float *x_in;   /* [B, T, D]                                             */
  float *mod;          /* [B, 6, D] shift, scale, gate of both halves           */
  struct act u1;       /* [B, T, D] what attention sees                         */
  float *qkv_raw;      /* [B, T, 3, H, d] before q and k are normalised         */
  float *qkv;          /* [B, T, 3, H, d] after; qkv_raw without q/k norm       */
  float *lse;          /* [B, H, T] log-sum-exp of the logits; NULL if not kept */
  struct act o;        /* [B, T, H, d] attention before its projection          */
  float *attn;         /* [B, T, D] and after                                   */
  float *x_mid;        /* [B, T, D] x_in + gate * attn                          */
  float *u2_exact;     /* [B, T, D] what routers see; NULL in a dense block     */
  struct act u2;       /* [B, T, D] what experts see                            */
  float *logits;       /* [B, T, E] from router to router; NULL if none flows   */
  struct dispatch plan;
  struct act shared_h; /* [B T, F] hidden activations of the shared expert      */
  float *shared;       /* [B, T, D] and its output; NULL without one            */
  struct act h;        /* [R, F] of the routed experts, or [B T, F] of the MLP  */
  float *rows;         /* [R, D] outputs of the experts before their weights    */
  float *ffn;          /* [B, T, D] feed-forward part before its gate           */
  float *x_out;        /* [B, T, D] x_mid + gate * ffn                          */
};

/* What a forward pass leaves for a backward pass. */
enum dit_keep {
  KEEP_NOTHING,
  KEEP_INPUTS, /* of each block, from which the backward pass computes the rest again */
  KEEP_ALL,
};

/* Of a whole pass. */
struct dit_acts {
  enum dit_keep keep;
  float *patches;                       /* [images, T, C p p]                 */
  float *reduced;                       /* [images, T, reduced], or patches   */
  struct dit_condition_acts condition;  /* of the model's embedder            */
  struct dit_condition_acts *embedders; /* [depth] of the blocks' own ones    */
  struct dit_block_acts *blocks;        /* [depth]                            */
  float *logits;                        /* [B, T, E] if a router flows        */
  float *x;                             /* [B, T, D] output of the last block */
  float *mod;                           /* [B, 2, D] final shift, scale       */
  struct act u;                         /* [B, T, D] final modulated tokens   */
};

/* The lists of blocks (host memory), to be given back with dit_acts_fini; the arrays are carved by
 * dit_forward_keep. */
enum ditmoe_status dit_acts_init(struct ditmoe_ctx *ctx, const struct dit *model,
                                 enum dit_keep keep, struct dit_acts *out);
void dit_acts_fini(struct ditmoe_ctx *ctx, struct dit_acts *acts);

/* Takes from the arena what a block computes between x_in and x_out. keep: each array has memory of
 * its own. */
void dit_block_carve(struct exec *ex, const struct dit *model, int layer,
                     struct dit_block_acts *acts, const struct dit_input *in, bool keep);
/* Likewise what an embedder computes before silu_c. */
void dit_condition_carve(struct exec *ex, const struct dit *model, struct dit_condition_acts *acts,
                         int B, bool keep);

/* The input of a layer's router. */
struct router_input dit_router_input(const struct dit *model, int layer,
                                     const struct dit_block_acts *acts, const struct dit_input *in);

/* Parts of the forward pass, device arrays. moe_forward makes acts->ffn of acts->u2_exact,
 * ffn_forward y [rows, D] of u by way of h [rows, F]. */
void dit_forward_keep(struct exec *ex, const struct dit *model, struct dit_acts *acts, float *out,
                      const struct dit_input *in);
void dit_block(struct exec *ex, const struct dit *model, int layer, struct dit_block_acts *acts,
               const struct dit_input *in);
void moe_forward(struct exec *ex, const struct dit *model, int layer, struct dit_block_acts *acts,
                 const struct dit_input *in);
void ffn_forward(struct exec *ex, const struct expert *expert, float *y, struct act h, struct act u,
                 int64_t rows);

/* The waves of a layer's experts, from {0}: false after the last. Without a store all experts are
 * in memory and one wave. */
struct moe_waves {
  int number;
  struct expert_wave wave;
  int32_t rows[DIT_MAX_EXPERTS]; /* of each expert, if the store wants to know */
};
bool moe_next_wave(struct exec *ex, const struct dit *model, int layer, const struct dispatch *d,
                   struct moe_waves *waves);

#endif

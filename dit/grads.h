/* Gradients of a model's parameters, shaped like its weights, and the backward pass (backward.c).
 * A NULL array is not wanted. */
#ifndef DIT_GRADS_H
#define DIT_GRADS_H

#include "dit/acts.h"

struct dit_embedder_grad {
  struct linear_grad time_in, time_out;
  float *labels; /* [label_rows, D] */
};

struct dit_block_grad {
  struct dit_embedder_grad embedder; /* of a block that has its own */
  struct linear_grad modulation, qkv, proj;
  struct qk_norm_grad qk_norm;
  struct expert_grad mlp;      /* of a dense block, or the shared expert */
  struct router_grad router;   /* of a mixture                           */
  struct expert_grad *experts; /* [E] host memory, NULL in a dense block */
};

struct dit_grads {
  struct dit_embedder_grad embedder;
  struct linear_grad patch_embed, final_modulation, final_linear;
  float *pos_embed;              /* [T, D] as trained   */
  struct dit_block_grad *blocks; /* [depth] host memory */
  float *values;                 /* all arrays, device  */
  size_t count;
};

/* Arrays for all parameters of a loaded model, 0; to be given back with dit_grads_free. */
enum ditmoe_status dit_grads_alloc(struct exec *ex, const struct dit *model, struct dit_grads *out);
void dit_grads_free(struct exec *ex, const struct dit *model, struct dit_grads *grads);

/* After dit_forward_keep with KEEP_INPUTS or KEEP_ALL of the same `in`: dx [images, C, H, W],
 * or NULL, is written, and `grads` added to, of dout [B, Cout, H, W]. The choices of routers
 * are constants, their weights are not. Device arrays. */
void dit_backward(struct exec *ex, const struct dit *model, struct dit_acts *acts, float *dx,
                  const struct dit_grads *grads, const float *dout, const struct dit_input *in);

/* Back through a block with all of its activations: dx [B, T, D] is the gradient by x_out and
 * becomes that by x_in, dsilu_c [B, D] is added to. */
void dit_block_bwd(struct exec *ex, const struct dit *model, int layer,
                   const struct dit_block_acts *acts, float *dx, float *dsilu_c,
                   const struct dit_block_grad *grad, const struct dit_input *in);

#endif

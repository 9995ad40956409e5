/* The denoiser: a diffusion transformer with adaLN-Zero blocks whose feed-forward part is an MLP or
 * a mixture of experts (docs/MODELS.md).
 *
 *   dit_open  -> dit_params (names, shapes, record) -> params_make (weights)
 *   dit_predict -> dit_forward -> dit_embed_condition, dit_block ...       forward.c, read it first
 *                                  dit_block -> attention, ffn_forward or moe_forward
 *
 * B images, T tokens, D width, H heads, E experts. */
#ifndef DIT_DIT_H
#define DIT_DIT_H

#include "dit/experts.h"
#include "dit/record.h"
#include "io/checkpoint.h"

enum {
  DIT_MAX_EXPERTS = 1024,  /* in a layer  */
  DIT_MAX_TOKENS = 1 << 20 /* of an image */
};

/* Timestep and class embedding; [256] -> D -> D, and a row of D for each label. */
struct dit_embedder {
  const struct linear *time_in, *time_out;
  const float *labels; /* device [label_rows, D] */
};

struct dit_moe {
  struct router_layer *router;
  struct expert_bank bank; /* the unconditional expert included */
  struct expert *shared;   /* NULL if there is none               */
  bool adds_input;         /* the router's input joins the result */
};

struct dit_block {
  const struct dit_embedder
      *embedder;                   /* NULL: that of the model; diffusers has one in each block */
  const struct linear *modulation; /* D -> 6 D: shift, scale, gate of both halves             */
  const struct linear *qkv, *proj;
  struct row_norm norm1, norm2;
  struct qk_norm qk_norm; /* if the model has it */
  struct expert *mlp;     /* a dense block's feed-forward part, else NULL */
  struct dit_moe *moe;    /* or a mixture's                               */
};

/* What is added to embedded patches: a table of the file, sines and cosines, nothing. */
enum dit_positions { POSITIONS_STORED, POSITIONS_MADE, POSITIONS_NONE };
/* Whether q and k turn by their positions, and which features are a pair (struct rope). */
enum dit_rope { ROPE_NONE, ROPE_HALVES, ROPE_ADJACENT };

/* Sizes and rules, from the tensors and the record. */
struct dit_config {
  struct dit_record record;
  const struct dialect *dialect;
  const struct family *family; /* dit/families.h; NULL: none that is known */
  char family_why[96];         /* what told it, for people                  */
  int channels, out_channels;  /* C, Cout = C or 2C */
  int size, patch, tokens;     /* as trained: latent side, p, T */
  int width, depth, heads, head_dim;
  int inner;       /* H d: q, k and v of a token; as a rule D                       */
  int label_rows;  /* classes and the null class                                    */
  int reduced;     /* width between the two layers of the patch embedding; 0: one   */
  int prefix;      /* in-context tokens before those of the image (Li & He 2025), ...  */
  int prefix_from; /* ... from this block on                                        */
  enum dit_positions positions;
  enum dit_rope rope;
  bool qk_norm, qk_bias;    /* q and k are normalised; with a bias: by LayerNorm       */
  bool rms_norm, rms_final; /* norms of the blocks, of the final layer are RMSNorm  */
  int *experts;             /* [depth] routed FFN experts of a block, 0: dense               */
};

/* The grid of the tokens of a call, row-major, and what belongs to a place of it. */
struct dit_grid {
  int rows, cols;         /* latents of rows p x cols p   */
  const float *pos_embed; /* device [rows cols, D]; NULL: none is added */
  /* Device, where q and k turn: cosines [prefix + rows cols, d / 2], 1 in the prefix, then sines.
   */
  const float *rope;
};

struct dit {
  struct dit_config config;
  struct params params; /* all that is below */
  int ignored;          /* tensors of the file that only training needs */
  struct dit_embedder embedder;
  struct dit_embedder *block_embedders; /* [depth] where blocks have their own, else NULL */
  const struct linear *patch_reduce;    /* C p p -> reduced, or NULL                        */
  const struct linear *patch_embed;     /* C p p or reduced -> D                            */
  const float *prefix_positions;        /* device [prefix, D] of in-context tokens, or NULL */
  struct dit_grid grid;                 /* as trained                                       */
  bool sincos; /* its positions are the formula's, which gives those of other grids */
  struct dit_block *blocks;
  struct row_norm final_norm;
  const struct linear *final_modulation, *final_linear; /* D -> 2 D, D -> p p Cout */
  struct expert_store *store; /* of the routed experts; NULL: all are in memory */
};

/* What a tap may look at. Data lie on the device and are valid during the call. */
enum dit_tap_point {
  TAP_TIME_FEATURES, /* [B, 256]                    */
  TAP_TIME,          /* [B, D]                      */
  TAP_LABEL,         /* [B, D]                      */
  TAP_CONDITION,     /* [B, D]                      */
  TAP_PATCHES,       /* [B, T, D] before positions  */
  TAP_EMBEDDED,      /* [B, T, D]                   */
  TAP_ATTENTION,     /* [B, T, D] before the gate   */
  TAP_ROUTER,        /* trace and dispatch          */
  TAP_EXPERT_ROWS,   /* [R, D] before the weights; dispatch */
  TAP_FFN,           /* [B, T, D] before the gate   */
  TAP_BLOCK          /* [B, T, D]                   */
};

struct dit_tap_data {
  enum dit_tap_point point;
  int layer; /* -1 outside the blocks */
  int B, T, D;
  const float *data;
  const struct dispatch *dispatch;
  const struct router_trace *trace;
};

struct dit_tap {
  void *user;
  void (*look)(void *user, struct exec *ex, const struct dit_tap_data *data);
};

/* Stands in for the routers of a call: fills the assignments of a plan. */
struct dit_replay {
  void *user;
  void (*fill)(void *user, struct exec *ex, int layer, struct dispatch *d);
};

/* One call of the model: host arrays for dit_predict, device arrays for dit_forward. */
struct dit_input {
  const float *x;        /* [B, C, H, W]; with halves, [B / halves, ...] */
  const float *time;     /* [B] as the model wants it (times time_scale) */
  const int32_t *labels; /* [B] 0 .. label_rows - 1                 */
  int B;
  int halves; /* > 1: the images of x stand so many times in the batch, as for guidance */
  const struct dit_grid *grid;     /* of latents H x W; NULL: as trained */
  const struct routing *routing;   /* NULL: as trained */
  const struct dit_tap *tap;       /* NULL: none       */
  const struct dit_replay *replay; /* NULL: the routers choose */
};

/* Images in x. */
static inline int dit_images(const struct dit_input *in) {
  return in->halves > 1 ? in->B / in->halves : in->B;
}
static inline const struct dit_grid *dit_grid_of(const struct dit *model,
                                                 const struct dit_input *in) {
  return in->grid ? in->grid : &model->grid;
}
/* T, tokens of an image; in a block its in-context tokens come before. */
static inline int dit_tokens(const struct dit *model, const struct dit_input *in) {
  const struct dit_grid *grid = dit_grid_of(model, in);
  return grid->rows * grid->cols;
}
static inline int dit_block_tokens(const struct dit *model, int layer, const struct dit_input *in) {
  const struct dit_config *c = &model->config;
  return dit_tokens(model, in) + (layer >= c->prefix_from ? c->prefix : 0);
}
/* Values of a plane, H W. */
static inline int64_t dit_plane(const struct dit *model, const struct dit_input *in) {
  return (int64_t)dit_tokens(model, in) * model->config.patch * model->config.patch;
}

/* Opens a model; weights are made by `ex`, which must outlive it. record: JSON text of overrides or
 * NULL. The checkpoint may be closed afterwards, unless it is packed (packed_layout): then it must
 * outlive the model, too. */
enum ditmoe_status dit_open(struct exec *ex, const struct ditmoe_checkpoint *checkpoint,
                            const char *record, struct dit **out);
void dit_close(struct exec *ex, struct dit *model);
/* Writes the parameters of a model and its record as safetensors: each row of the table with its
 * values in `values`, the checkpoint that it was opened from or another of the same names and
 * shapes (save.c). */
enum ditmoe_status dit_save(struct ditmoe_ctx *ctx, const struct dit *model,
                            const struct ditmoe_checkpoint *values, const char *path);
/* Writes the packed file `path` of a model for the backend and its compute type (pack.c). */
enum ditmoe_status dit_pack(struct exec *ex, const struct ditmoe_checkpoint *checkpoint,
                            const char *record, const char *path);

/* out [B, Cout, H, W] (host). Working memory comes from the arena of `ex` and is given back.
 */
enum ditmoe_status dit_predict(struct exec *ex, const struct dit *model, float *out,
                               const struct dit_input *in);
/* Arena bytes of dit_predict for B images on a grid (NULL: as trained), by a dry run of it. */
size_t dit_predict_bytes(const struct exec *ex, const struct dit *model,
                         const struct dit_grid *grid, int B);

/* The grid for latents of height x width, whose positions are made unless it is the trained one;
 * to be given back with dit_grid_free. DITMOE_USAGE if the patches do not fit into that size,
 * DITMOE_MISMATCH if the positions of the model are no formula (grid.c). */
enum ditmoe_status dit_grid_make(struct exec *ex, const struct dit *model, int height, int width,
                                 struct dit_grid *out);
void dit_grid_free(struct exec *ex, const struct dit *model, struct dit_grid *grid);
/* Completes the grid of a model whose parameters are made from the checkpoint. */
enum ditmoe_status dit_grid_own(struct exec *ex, struct dit *model,
                                const struct ditmoe_checkpoint *checkpoint);

/* The forward pass, device arrays; its parts are in dit/acts.h. */
void dit_forward(struct exec *ex, const struct dit *model, float *out, const struct dit_input *in);
/* Shows data to the tap of a call, if it has one. */
static inline void dit_look(struct exec *ex, const struct dit_input *in,
                            const struct dit_tap_data *data) {
  if (in->tap && be_active(ex)) in->tap->look(in->tap->user, ex, data);
}

#endif

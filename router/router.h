/* Routers: which experts work on which token. A router only fills the assignments of a dispatch
 * plan; one executor (dit/moe.c) runs any plan.
 *
 * A new router is one file that defines a `const struct router` and one line in router.c. */
#ifndef ROUTER_ROUTER_H
#define ROUTER_ROUTER_H

#include "backend/backend.h"

enum router_weights { WEIGHTS_IDENTITY, WEIGHTS_SIGMOID, WEIGHTS_SOFTMAX };

/* How one call departs from the way the model was trained. */
struct routing {
  int top_k; /* experts of a token; 0: the model's                    */
  int skip;  /* leave out the best `skip` experts: ranks skip + 1 ... */
};

struct router;

/* The router of one layer: its settings and its weights. */
struct router_layer {
  const struct router *router;
  int experts;     /* E: columns of the scores                                                    */
  int top_k;       /* token choice: experts of a token; ProMoE expert choice: see prototype.c     */
  double capacity; /* EC-DiT: tokens of an expert as a multiple of T / E                          */
  enum router_weights weights; /* prototypes: what becomes of the cosines                         */
  int uncond_expert;           /* takes every token of the images labelled uncond_label; -1: none */
  int uncond_label;
  const struct linear *gate;                         /* [E, D]; prototypes: rows of norm 1 */
  const struct linear *predictor_in, *predictor_out; /* DiffMoE: D -> D -> E */
  const float *threshold;                            /* DiffMoE: [E], on the device */
};

struct router_input {
  const float *u;        /* [B * T, D] modulated tokens      */
  const int32_t *labels; /* [B], on the device              */
  int B, T, D;
  const struct routing *routing; /* NULL: as trained */
};

/* What a router computed besides the plan, for taps; NULL where it has none. */
struct router_trace {
  int64_t rows;          /* tokens that were scored     */
  const float *scores;   /* [rows, E] the weights that were compared */
  const float *cosine;   /* [rows, E] prototypes                     */
  const float *capacity; /* [rows, E] DiffMoE                        */
};

/* Gradients of a router's weights, accumulated; each may be NULL. Of prototypes those by their unit
 * rows, which be_normalize_rows_bwd takes to the rows as they are trained. */
struct router_grad {
  struct linear_grad gate;
};

struct router {
  const char *name;
  bool batch_coupled; /* the plan of an image depends on its batch  */
  bool token_choice;  /* every token that is routed has top_k experts */
  /* Upper bound of the assignments for a call. */
  int64_t (*assignments)(const struct router_layer *layer, const struct router_input *in);
  /* Fills d->expert, source, gate completely (expert -1 where unused). */
  void (*route)(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
                struct dispatch *d, struct router_trace *trace);
  /* du [B * T, D] and the gradients of the weights, of dweight [R], those by the weights of the
   * plan's rows. The choice is a constant. NULL: it cannot be trained. */
  void (*bwd)(struct exec *ex, const struct router_layer *layer, const struct router_input *in,
              const struct dispatch *d, const struct router_grad *grad, float *du,
              const float *dweight);
};

/* NULL if unknown. */
const struct router *router_find(const char *name);
/* NULL after the last. */
const struct router *router_at(int index);

/* Scores [B * T, E] in the arena: softmax over experts of u W^T. Sets trace->rows and scores. */
float *router_softmax_scores(struct exec *ex, const struct router_layer *layer,
                             const struct router_input *in, struct router_trace *trace);
/* The `bwd` of a router whose weights are these scores. */
void router_softmax_bwd(struct exec *ex, const struct router_layer *layer,
                        const struct router_input *in, const struct dispatch *d,
                        const struct router_grad *grad, float *du, const float *dweight);
/* Experts of a token in this call, and how many better ones it leaves out; together at most E. */
int router_top_k(const struct router_layer *layer, const struct router_input *in);
int router_skip(const struct router_layer *layer, const struct router_input *in);

#endif

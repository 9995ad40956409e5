/* Routers: which experts work on which token. A router only fills the assignments of a dispatch
 * plan; one executor (dit/moe.c) runs any plan.
 *
 * A new router is one file: its layer, parameters, members of the record and functions in a `const
 * struct router`, the names of the tensors in a `const struct mixture`, and MIXTURE_ENTRY(). */
#ifndef ROUTER_ROUTER_H
#define ROUTER_ROUTER_H

#include "params/params.h"
#include "router/record_key.h"

/* How one call departs from the way the model was trained. */
struct routing {
  int top_k; /* experts of a token; 0: the model's                    */
  int skip;  /* leave out the best `skip` experts: ranks skip + 1 ... */
};

struct router;

/* What every router of a layer begins with; settings and weights of its own follow. */
struct router_layer {
  const struct router *router;
  int experts;               /* E: columns of the scores */
  int top_k;                 /* experts of a token, as the record has it; 1 without */
  int uncond_expert;         /* takes every token of the images labelled uncond_label; -1: none */
  int uncond_label;          /* a member of the record, where the router has it */
  const struct linear *gate; /* [E, D] of router_gate and router_softmax_scores */
};

struct router_input {
  const float *u;        /* [B * T, D] modulated tokens      */
  const int32_t *labels; /* [B], on the device              */
  int B, T, D;
  const struct routing *routing; /* NULL: as trained */
  float *logits; /* [B * T, E] of a router that flows: what the layer before has left, 0 in the
                    first; to be replaced (gating residuals of MoE++, Jin et al. 2024) */
};

/* What a router computed besides the plan, for taps; NULL where it has none. */
struct router_trace {
  int64_t rows;           /* tokens that were scored     */
  const float *scores;    /* [rows, E] the weights that were compared */
  const float *ranked;    /* [rows, E] or what was compared instead   */
  const float *cosine;    /* [rows, E] prototypes                     */
  const float *capacity;  /* [rows, E] DiffMoE                        */
  const float *threshold; /* [E] DiffMoE                              */
};

/* A member of the record that only this router has: an int, a number or a choice, whose place in
 * the router's layer is key.offset. */
struct router_key {
  struct record_key key;
  double fallback; /* if key.need is NULL */
  bool null_label; /* the fallback is the model's null label */
};

/* Gradients of a router's weights, accumulated; each may be NULL. Of prototypes those by their unit
 * rows, which be_normalize_rows_bwd takes to the rows as they are trained. */
struct router_grad {
  struct linear_grad gate;
};

struct router {
  const char *name;
  size_t size;        /* of its layer, which begins with struct router_layer */
  bool batch_coupled; /* the plan of an image depends on its batch  */
  bool token_choice;  /* every token that is routed has top_k experts */
  bool needs_top_k;   /* of the record */
  bool flows;         /* its logits go from layer to layer, all of one E */
  bool unconditional; /* there may be an expert after the E, for images of a label */
  const struct router_key *keys;
  int key_count;
  /* Lists the parameters of a layer, D the width: names under the mixture's prefix. */
  void (*params)(struct router_layer *layer, struct params *params, const char *gate, int D);
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

/* A kind of model by the mixtures of its blocks: their router and what their tensors are called.
 * Of several that fit a file, the one with more tensors to be there comes first. */
struct mixture {
  const char *kind, *alias;      /* as the record has them; alias: another spelling, or NULL */
  const struct router *router;   /* NULL: no mixtures, a dense model */
  const char *prefix;            /* "blocks.%d.moe." */
  const char *gate;              /* under the prefix: a tensor [E, ...], by which it is known */
  const char *second;            /* another tensor that must be there, or NULL */
  const char *told_by;           /* a tensor of the whole model that must be there, or NULL */
  const char *experts;           /* prefix of the routed experts' numbers; NULL: "experts." */
  const char *shared;            /* prefix of the shared expert, under the prefix */
  const struct expert_kind *mlp; /* of dense blocks with one matrix before the activation, if that
                                    is not GELU */
  bool adds_input;               /* to the experts' sum, where there is no shared expert */
  bool rotary;     /* where the file has no table of positions, q and k turn by them, in halves */
  bool free_heads; /* H d need not be D */
  const char *family, *unknown; /* of kinds whose tensors are the same: their common name, and what
                                   only the record tells */
};

/* Makes a mixture known. */
#define MIXTURE_ENTRY(name)                                                                        \
  static const struct mixture *const entry_##name                                                  \
      __attribute__((section("ditmoe_mixtures"), used)) = &(name)

/* All that are known, dense models first; NULL after the last. */
const struct mixture *mixture_at(int index);
/* By kind or alias; NULL if unknown. */
const struct mixture *mixture_find(const char *kind);

/* The gate [E, D], exact; flags PARAM_UNIT for prototypes. */
void router_gate(struct router_layer *layer, struct params *params, const char *name, int D,
                 uint32_t flags);
/* The parameters of a router that has nothing but a gate. */
void router_gate_alone(struct router_layer *layer, struct params *params, const char *gate, int D);
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

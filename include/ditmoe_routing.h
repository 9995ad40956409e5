/* ditmoe: which experts work on what? Routing is counted while a model samples, kept in files, and
 * told in numbers (docs/ROUTING.md).
 *
 *   struct ditmoe_routing *routing = NULL;
 *   static struct ditmoe_routing_options options;
 *   if (ditmoe_routing_create(ctx, model, &request, &options, &routing) == DITMOE_OK) {
 *     request.routing = routing;
 *     if (ditmoe_sample(ctx, session, &request, latents, NULL) == DITMOE_OK)
 *       ditmoe_routing_write(ctx, routing, "routing.npz", DITMOE_ROUTING_FINAL);
 *   }
 *
 * The rules of ditmoe.h hold for errors, results and ownership. In shapes L is the layers that have
 * routed experts, S bins of sampling steps, T tokens of an image, E experts (the largest layer's,
 * the unconditional expert included), C labels (the null label included). */
#ifndef DITMOE_ROUTING_H
#define DITMOE_ROUTING_H

#include "ditmoe.h"

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

/* Tables. */

struct ditmoe_routing;

struct ditmoe_routing_options {
  int bins; /* the steps of the run are counted in so many bins; 0: each alone            */
  int mass; /* also sum the weights of the gate, 8 bytes more for every count             */
  int unconditional; /* also count the unconditional half of guidance */
  void *user;
  /* The label of another image of the same run, chosen by `image` alone, at random: for
   * shuffled_labels, which stay 0 without it. May be NULL. */
  int32_t (*other_label)(void *user, int64_t image);
};

enum ditmoe_half { DITMOE_CONDITIONAL, DITMOE_UNCONDITIONAL, DITMOE_HALVES };

struct ditmoe_routing_info {
  int layers, bins, tokens, experts, labels; /* L S T E C */
  int steps;         /* of the run, which the bins divide                                  */
  int side;          /* tokens of a row and of a column; side * side = tokens              */
  int top_k;         /* experts of every token; 0: the router decides token by token       */
  int uncond_expert; /* takes all tokens of images with the null label; -1: none           */
  int null_label;
  const int32_t *layer; /* [L] number of the block in the model                               */
  const int32_t *layer_experts; /* [L] experts of the layer */
  const int32_t *bin_step; /* [S + 1] bin b has steps bin_step[b] .. bin_step[b + 1] - 1         */
  const double *time;      /* [steps] what the sampler calls the time of a step                  */
  int halves;              /* DITMOE_HALVES if the unconditional one is counted, else 1          */
  int mass;                /* weights are summed                                                 */
  int64_t images;          /* that have been counted                                             */
  const char *meta;        /* JSON object: where the tables come from                            */
};

/* Sums of one half. Weights are summed as whole multiples of DITMOE_ROUTING_UNIT, so that sums do
 * not depend on their order. The leading expert of a token is the one with the largest weight. */
#define DITMOE_ROUTING_UNIT (1.0 / 1073741824)

struct ditmoe_routing_tables {
  const uint32_t *counts;       /* [L, S, T, E] tokens that chose an expert                     */
  const int64_t *mass;          /* [L, S, T, E], or NULL                                        */
  const uint64_t *class_counts; /* [L, C, E] by the class of the image, in both halves          */
  const int64_t *class_mass;    /* [L, C, E], or NULL                                           */
  const uint64_t *evaluations;  /* [S] forward passes, each of one image                        */
  const uint64_t *label_evaluations; /* [C] */
  /* Counts with what they are counted by moved at random, for each image anew: a baseline that
   * keeps everything but the dependence. Steps and positions are rotated, labels are those of other
   * images. */
  const uint64_t *shuffled_positions; /* [L, T, E] */
  const uint64_t *shuffled_steps;     /* [L, S, E] */
  const uint64_t *shuffled_labels;    /* [L, C, E] */
  /* Choices, and leading experts, that are those of the step before, by the later step: kept, and
   * how many there were. The first evaluation of a step counts. */
  const uint64_t *kept;         /* [L, steps, 2] */
  const uint64_t *kept_leading; /* [L, steps, 2] */
  /* Tokens by their leading experts in the layer before (row) and in this one (column); layer 0 is
   * all 0. */
  const uint64_t *pairs; /* [L, E, E] */
};

/* Empty tables for a request of a model, which need not outlive them. request->labels are not
 * looked at. DITMOE_USAGE for a model without experts. */
enum ditmoe_status ditmoe_routing_create(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                         const struct ditmoe_request *request,
                                         const struct ditmoe_routing_options *options,
                                         struct ditmoe_routing **out);
void ditmoe_routing_destroy(struct ditmoe_routing *routing);
void ditmoe_routing_info(const struct ditmoe_routing *routing, struct ditmoe_routing_info *out);
void ditmoe_routing_tables(const struct ditmoe_routing *routing, enum ditmoe_half half,
                           struct ditmoe_routing_tables *out);
/* Replaces the JSON object of info.meta. */
enum ditmoe_status ditmoe_routing_describe(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                           const char *meta);
/* Whether image `index` has been counted. */
int ditmoe_routing_has(const struct ditmoe_routing *routing, int64_t index);
/* Image `index` is not counted any more; one that has been stays. ditmoe_sample leaves it out, like
 * one that has been counted before the batch at hand. */
enum ditmoe_status ditmoe_routing_exclude(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                          int64_t index);
/* Adds the sums of `from`, exactly. DITMOE_MISMATCH names what differs (shapes, steps, what is
 * counted), or an image that both have counted; `into` is then as before. */
enum ditmoe_status ditmoe_routing_merge(struct ditmoe_ctx *ctx, struct ditmoe_routing *into,
                                        const struct ditmoe_routing *from);

/* Both forms are .npz files (docs/ROUTING.md lists the arrays) and can be read. */
enum ditmoe_routing_form {
  DITMOE_ROUTING_FINAL, /* weights as float32                         */
  DITMOE_ROUTING_EXACT  /* weights as they are summed, to be merged   */
};
enum ditmoe_status ditmoe_routing_write(struct ditmoe_ctx *ctx,
                                        const struct ditmoe_routing *routing, const char *path,
                                        enum ditmoe_routing_form form);
/* DITMOE_FORMAT names the file and the array; also for a file of a later version. */
enum ditmoe_status ditmoe_routing_read(struct ditmoe_ctx *ctx, const char *path,
                                       struct ditmoe_routing **out);

/* Traces: every choice of a run, in a file (docs/ROUTING.md describes the format). */

enum {
  DITMOE_TRACE_SCORES = 1 /* also what the router compared, for every token and expert */
};

/* From now on what the tables count is also written to `path`, through a temporary name, in the
 * order in which it happens. The tables are the same with and without. One trace at a time. */
enum ditmoe_status ditmoe_routing_trace_begin(struct ditmoe_ctx *ctx,
                                              struct ditmoe_routing *routing, const char *path,
                                              unsigned what);
/* The file appears under its name, complete and synced. */
enum ditmoe_status ditmoe_routing_trace_commit(struct ditmoe_ctx *ctx,
                                               struct ditmoe_routing *routing);
/* Removes what was written; does nothing without a trace. */
void ditmoe_routing_trace_abandon(struct ditmoe_routing *routing);
/* Writes one trace of several whose images differ: image by image in ascending order, so that the
 * file depends on no batch and no number of parts. The header is that of the first. */
enum ditmoe_status ditmoe_trace_join(struct ditmoe_ctx *ctx, const char *const *parts, size_t count,
                                     const char *path);

struct ditmoe_trace;

/* The choices of one layer for one image in one forward pass. */
struct ditmoe_trace_record {
  int64_t image;
  int32_t label;       /* the class of the image                                          */
  int32_t other_label; /* of another image of the run, for shuffled_labels; -1: unknown   */
  int step, layer;     /* step of the run; 0 .. L - 1                                         */
  int evaluation;      /* number of the forward pass within the step                          */
  enum ditmoe_half half;
  const int32_t *first;   /* [T + 1] choices of token t: first[t] .. first[t + 1] - 1, descending
                             weights                                                             */
  const uint16_t *expert; /* [first[T]]                                                          */
  const float *weight;    /* [first[T]]                                                          */
  const float *scores;    /* [T, scored], or NULL if there are none                              */
  int scored;             /* experts with scores: all but the unconditional one                  */
};

/* Checks the header; needs no model. */
enum ditmoe_status ditmoe_trace_open(struct ditmoe_ctx *ctx, const char *path,
                                     struct ditmoe_trace **out);
void ditmoe_trace_close(struct ditmoe_trace *trace);
/* Empty tables of the trace's shapes. */
enum ditmoe_status ditmoe_trace_tables(struct ditmoe_ctx *ctx, const struct ditmoe_trace *trace,
                                       struct ditmoe_routing **out);
/* The next record in memory of the trace, valid until the next call; *end is set after the last.
 * DITMOE_FORMAT names the file and the place of what is damaged or cut off. */
enum ditmoe_status ditmoe_trace_next(struct ditmoe_ctx *ctx, struct ditmoe_trace *trace,
                                     struct ditmoe_trace_record *out, int *end);
/* Counts a record as if it happened now. */
enum ditmoe_status ditmoe_routing_count(struct ditmoe_ctx *ctx, struct ditmoe_routing *routing,
                                        const struct ditmoe_trace_record *record);

/* Numbers. A layer of -1 means all layers together, a bin of -1 all bins. */

struct ditmoe_routing_load {
  double tokens;     /* choices counted                                                         */
  double largest;    /* load of the busiest expert as a multiple of the mean: max / mean        */
  double smallest;   /* of the least busy one                                                   */
  double variation;  /* standard deviation of the loads / their mean                            */
  double entropy;    /* of the loads, bits                                                      */
  double evenness;   /* entropy / log2 of the number of experts, 0 .. 1                         */
  int experts, dead; /* dead: never chosen                                                      */
};

/* How even the loads of the routed experts are; the unconditional expert is left out. layer >= 0.
 * load: [layer_experts] loads as multiples of the mean, or NULL. */
void ditmoe_routing_load(const struct ditmoe_routing *routing, enum ditmoe_half half, int layer,
                         int bin, struct ditmoe_routing_load *out, double *load);

enum ditmoe_routing_axis { DITMOE_BY_POSITION, DITMOE_BY_STEP, DITMOE_BY_LABEL, DITMOE_AXES };

struct ditmoe_routing_dependence {
  double information; /* mutual information of expert and axis, bits                             */
  double normalised;  /* information / entropy of the expert, 0 .. 1: the share of what there is to
                         know about the expert that the axis tells                               */
  double shuffled, shuffled_normalised; /* the same of the shuffled counts                       */
};

/* Of the routed experts, like the loads. layer -1: mean over the layers. NaN without counts of
 * other labels: shuffled values of DITMOE_BY_LABEL. */
void ditmoe_routing_dependence(const struct ditmoe_routing *routing, enum ditmoe_half half,
                               int layer, enum ditmoe_routing_axis axis,
                               struct ditmoe_routing_dependence *out);

struct ditmoe_routing_memory {
  double kept, kept_leading; /* share of choices, of leading experts, of the step before; 0 for a
                                run of one step */
  double by_chance;    /* share of choices that would be kept if tokens chose by the loads of the
                          layer alone */
  double from_layer;   /* share of leading experts that a table from the leading expert of the layer
                          before guesses right; NaN for the first layer */
  double from_nothing; /* that the best constant guess gets right; NaN for the first layer */
};

/* How far the past and the layer before tell what comes. layer -1: mean over the layers that have a
 * value. */
void ditmoe_routing_memory(const struct ditmoe_routing *routing, enum ditmoe_half half, int layer,
                           struct ditmoe_routing_memory *out);

/* Experts as weights. */

struct ditmoe_similarity {
  int layers, experts; /* L, E: routed FFN experts, the unconditional one included */
  int32_t *layer;      /* [L] block of the model                                   */
  /* [L, E, E] each. NaN between experts that cannot be compared: of different sizes, without
   * weights, beyond a layer's last, or with values that are not finite. */
  float *weights;  /* cosine of all weights and biases                                      */
  float *subspace; /* |A^T B|^2 / rank of the leading right singular vectors of the first
                      product's weights, gate and up of a SwiGLU together: directions among the D
                      inputs. 0 .. 1, rank / D by chance                                       */
  float *router;   /* cosine of the router's rows: gate or prototypes                       */
  int rank;        /* singular vectors compared                                             */
};

/* path, options: as for ditmoe_model_open. rank: 0 for 8, at most the width. DITMOE_USAGE for a
 * model without experts. */
enum ditmoe_status ditmoe_similarity_measure(struct ditmoe_ctx *ctx, const char *path,
                                             const struct ditmoe_model_options *options, int rank,
                                             struct ditmoe_similarity **out);
void ditmoe_similarity_free(struct ditmoe_ctx *ctx, struct ditmoe_similarity *similarity);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif

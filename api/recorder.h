/* Turns what routers choose during a run into records that are counted. */
#ifndef API_RECORDER_H
#define API_RECORDER_H

#include "dit/dit.h"
#include "trace/tables.h"

/* One call of the model on `count` images: the rows of the conditional half, of the other one, or
 * of both, in this order. */
struct recorder_call {
  int64_t first;         /* index of the first image in the run   */
  const int32_t *labels; /* [count] classes of the images         */
  const int32_t *given;  /* [rows] labels that the model is given */
  int count, step;
  bool conditional, unconditional; /* halves in the call */
};

struct recorder {
  struct ditmoe_ctx *ctx;
  const struct dit *model;
  struct ditmoe_routing *routing;
  struct dit_tap tap;
  int rows; /* most images of a call, both halves counted */
  struct recorder_call call;
  int evaluation[DITMOE_HALVES], step[DITMOE_HALVES]; /* of the last call, step -1: none */
  int64_t batch;                                      /* first image of the last call */
  enum ditmoe_status status;                          /* of the tap */
  bool scores;                                        /* are wanted */
  bool *counted; /* [rows] images of the batch at hand that had been counted before it */
  int *layer_of; /* [depth] layer of the tables, -1: none */
  /* The plan of a layer on the host, R rows of the dispatch. */
  int32_t *offset, *first, *row; /* [E + 1], [rows T + 1], [R] */
  float *weight;                 /* [R]                        */
  uint16_t *expert;              /* [R] of a dispatched row    */
  float *score;                  /* [T, E] of an image         */
  /* Of one image, as in struct ditmoe_trace_record. */
  int32_t *image_first;
  uint16_t *image_expert;
  float *image_weight;
};

/* Memory for calls of up to `rows` images. */
enum ditmoe_status recorder_open(struct ditmoe_ctx *ctx, const struct dit *model, int rows,
                                 struct ditmoe_routing *routing, struct recorder *out);
void recorder_close(struct recorder *recorder);
/* The tap for a call; recorder->status says afterwards whether counting succeeded. */
const struct dit_tap *recorder_tap(struct recorder *recorder, const struct recorder_call *call);

/* Shape of tables for a model: all but steps, bins and what is counted. Arrays are made. */
enum ditmoe_status routing_shape_of(struct ditmoe_ctx *ctx, const struct dit *model, int steps,
                                    int bins, struct routing_shape *out);

#endif

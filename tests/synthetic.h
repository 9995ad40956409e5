/* Small DiT-MoE and ProMoE checkpoints with random weights, for what no published model has: layers
 * that differ, experts of several widths and kinds, planted values. */
#ifndef TESTS_SYNTHETIC_H
#define TESTS_SYNTHETIC_H

#include "dit/dit.h"

enum { SYNTHETIC_LAYERS = 4 };

struct synthetic {
  bool promoe;             /* prototypes and an unconditional expert instead of a softmax gate */
  int width, depth, heads; /* depth <= SYNTHETIC_LAYERS */
  int size, patch, channels, classes;
  bool learn_sigma;
  int experts[SYNTHETIC_LAYERS]; /* with tensors                                       */
  int hidden[SYNTHETIC_LAYERS];  /* of expert 0; expert e has hidden + e * hidden_step */
  int hidden_step;
  int zero[SYNTHETIC_LAYERS], copy[SYNTHETIC_LAYERS];
  int top_k[SYNTHETIC_LAYERS];
  bool shared;
  uint64_t seed;
  /* Called for each tensor before it is written; may change the values. NULL: nothing. */
  void (*plant)(void *user, const char *name, float *values, int64_t count);
  void *user;
};

/* Layers, experts and kinds that all differ; ProMoE. */
extern const struct synthetic synthetic_uneven, synthetic_prototypes;

/* Writes the checkpoint with its record to `path`; fails the test if it cannot. */
void synthetic_write(const struct synthetic *spec, const char *path);

/* A model opened by a backend of its own. */
struct opened {
  struct exec ex;
  struct dit *model;
};
void model_open(struct opened *out, const char *path, const char *backend, const char *tier,
                const char *dtype, int threads);
void model_open_with(struct opened *out, const char *path,
                     const struct ditmoe_model_options *options);
void model_close(struct opened *opened);
/* out [B, Cout, size, size] at images `first` .. first + B - 1 of a fixed list of inputs; labels
 * alternate between classes, the null label where `null_images` says so (bit i of the list). */
void model_predict(struct opened *opened, float *out, int first, int B, uint32_t null_images,
                   const struct routing *routing);
size_t model_output_size(const struct opened *opened);

#endif

/* What the modes of ditmoe-bench share: settings, variants, peaks, rows. Every function here
 * reports its errors itself. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "bench/measure.h"
#include "bench/published.h"
#include "bench/rows.h"
#include "cli/options.h"
#include "cli/report.h"
#include "dit/dit.h"

struct bench_settings {
  struct common_settings common;
  const char *step, *ops, *decoder, *features, *routing, *sample, *load, *make;
  bool peak;
  int64_t experts, top_k, depth, batch, image_size, steps;
  bool guided;
  const char *backend, *dtype, *tier, *threads;
  int64_t reps, warm_up;
  uint64_t seed;
  bool profile, no_share;
  const char *format, *output;
  bool force;
};

/* One way to run the same work; several are run in alternation. */
struct variant {
  const char *dtype, *tier; /* NULL: the best of this machine */
  int threads;              /* 0: one per processor available */
};

enum { MAX_VARIANTS = 32 };

/* The fastest product of the machine, in a compute type on a number of threads. */
struct peak {
  enum dtype dtype;
  int threads;
  double flops; /* per second */
  const char *by;
};

struct bench {
  struct options options;
  struct bench_settings settings;
  struct ditmoe_ctx *ctx;
  double started; /* system_seconds() */
  struct variant variants[MAX_VARIANTS];
  int variant_count;
  char *variant_texts[3];
  struct peak peaks[MAX_VARIANTS];
  int peak_count;
  struct rows rows;
};

/* The modes. */
enum ditmoe_status bench_step(struct bench *bench);
enum ditmoe_status bench_operations(struct bench *bench);
enum ditmoe_status bench_decoder(struct bench *bench);
enum ditmoe_status bench_features(struct bench *bench);
enum ditmoe_status bench_routing(struct bench *bench);
enum ditmoe_status bench_sample(struct bench *bench);
enum ditmoe_status bench_load(struct bench *bench);
enum ditmoe_status bench_peak(struct bench *bench);
enum ditmoe_status bench_make(struct bench *bench);

/* Fills the variants from the settings: every compute type with every tier and number of threads,
 * in the order given. */
enum ditmoe_status variants_read(struct bench *bench);
void variants_free(struct bench *bench);
enum ditmoe_status variant_open(struct bench *bench, const struct variant *variant,
                                struct exec *out);
/* Opens all; on failure none is left open. */
enum ditmoe_status variants_open(struct bench *bench, struct exec out[MAX_VARIANTS]);

/* The peak of a variant's compute type and threads, measured when it is first asked for; *out = 0
 * with --no-share. */
enum ditmoe_status peak_of(struct bench *bench, const struct exec *ex, double *out);

struct model_choice bench_choice(const struct bench *bench);
struct repeats bench_repeats(const struct bench *bench);
/* DITMOE_NOMEM unless so many bytes are free. */
enum ditmoe_status bench_fits(const char *what, double bytes);
/* A model of this shape with random weights. */
enum ditmoe_status bench_open_model(struct bench *bench, struct exec *ex,
                                    const struct model_shape *shape, struct dit **out);

/* Inputs of dit_predict, and room for its output. */
struct inputs {
  struct dit_input in;
  float *x, *time, *out;
  int32_t *labels;
};
/* guided: the second half of the batch is the first with the null label. */
enum ditmoe_status inputs_make(const struct dit_config *config, int B, bool guided, uint64_t seed,
                               struct inputs *out);
void inputs_free(struct inputs *inputs);

#endif

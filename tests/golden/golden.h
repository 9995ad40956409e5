/* The golden checker: one folder of fixtures against the library.
 *
 *   tests/golden_check.c -> kind of the manifest -> golden_model, or a module of tests/cases.h
 *     golden_model -> check_calls (calls.c) -> recording (taps) -> check_routing
 *                  -> check_runs  (runs.c)  -> the samplers over dit_predict
 *   -> check_coverage: every output tensor was reported
 *
 * With a `precision` the same calls and runs give the inputs, and what is compared is our bf16
 * with our f32 (precision.c).
 *
 * A number that cannot be computed or compared is reported with an infinite error; a status other
 * than OK means that the folder itself is unusable. */
#ifndef TESTS_GOLDEN_GOLDEN_H
#define TESTS_GOLDEN_GOLDEN_H

#include "api/recorder.h"
#include "tests/cases.h"
#include "tests/golden/report.h"

struct golden {
  struct ditmoe_ctx *ctx;
  struct exec *ex;
  const char *folder;
  const cJSON *manifest;
  struct report *report;
  struct precision *precision; /* NULL: f32 against the fixtures */
};

/* Members of a JSON object; NULL if absent, or no text. */
static inline const cJSON *golden_field(const cJSON *object, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(object, key);
}
static inline const char *golden_text(const cJSON *object, const char *key) {
  return cJSON_GetStringValue(golden_field(object, key));
}

/* Kinds dit_moe, promoe, dit, diffusers_dit, and sampler over a model. */
enum ditmoe_status golden_model(struct golden *g);
/* Kinds vae_kl and taesd: the other weights; the rest is vae_case. */
enum ditmoe_status golden_decoder(struct golden *g);
/* Kind inception: features of images, resized images, layers on the way. */
enum ditmoe_status golden_inception(struct golden *g);
/* Kind metrics: scores of features and of statistics. */
enum ditmoe_status golden_metrics(struct golden *g);
/* Reports every output tensor of the files in the manifest that nothing was compared with. */
enum ditmoe_status check_coverage(struct golden *g);

/* Parts of golden_model. */

enum ditmoe_status check_calls(struct golden *g);
enum ditmoe_status check_runs(struct golden *g);
enum ditmoe_status golden_open(struct golden *g, const char *name, struct case_file *out);
/* The model in a file of the folder, with the record of the manifest; path NULL: the manifest's
 * weights and their key. Close it with dit_close. */
enum ditmoe_status golden_load(struct golden *g, const char *path, const char *key, bool qk_half,
                               struct dit **out);
/* dit_predict with the backend of g, or with `ex`, and an arena of the right size. */
enum ditmoe_status golden_predict(struct golden *g, const struct dit *model, float *out,
                                  const struct dit_input *in);
enum ditmoe_status golden_predict_with(struct exec *ex, const struct dit *model, float *out,
                                       const struct dit_input *in);
/* Latents [n, channels, height, width]. */
struct latents {
  float *values;
  int64_t n;
  int channels, height, width;
};
/* Their images, by the decoder in a file of the folder; mem_free them. */
enum ditmoe_status golden_decode(struct golden *g, struct exec *ex, const char *path,
                                 const struct latents *latents, float **images, int64_t *count);
/* Classifier-free guidance as the original models have it: out [2n, Cout, ...], n conditional rows,
 * then n unconditional ones; u + scale (c - u) goes into the first `channels` (0: all) of both
 * halves. */
void golden_guide(const struct dit_config *config, float *out, int n, double scale, int channels);
/* "all" is 0; the manifest's where the object has none. */
int golden_channels(const struct golden *g, const cJSON *object);
/* Labels of the model; DITMOE_FORMAT if one has no row in its table. *count may be NULL. */
enum ditmoe_status golden_labels(struct case_file *file, const struct dit *model,
                                 const char *tensor, int32_t **labels, int64_t *count);
/* A tensor as floats; mem_free them. *count may be NULL. */
enum ditmoe_status golden_floats(struct case_file *file, const char *tensor, float **values,
                                 int64_t *count);

/* Our bf16 against our f32 (precision.c). A model of golden_load then has a twin in bf16, and
 * golden_predict gives both the same inputs, the twin once with the plans of the model and once
 * without. */

/* The twins are on the backend, tier and threads of `ex`. */
enum ditmoe_status precision_open(const struct exec *ex, struct precision **out);
void precision_close(struct precision *p);
/* That of the twins. */
struct exec *precision_backend(struct precision *p);
enum ditmoe_status precision_load(struct golden *g, const struct ditmoe_checkpoint *checkpoint,
                                  const char *record);
enum ditmoe_status precision_predict(struct golden *g, const struct dit *model, float *out,
                                     const struct dit_input *in);
/* Reports the worst of the forward passes since the last report as those behind a tensor. */
void precision_report(struct golden *g, const char *file, const char *tensor);
/* 20 log10 of what the reference spans over the root mean square of the differences. No difference
 * at all means that one of the two was not computed in its type: a failure, like no number. */
double decibels(const float *values, const float *reference, int64_t count);
/* golden_decode in both types, reported as the images in a tensor. */
enum ditmoe_status precision_decode(struct golden *g, const char *path,
                                    const struct latents *latents, const char *file,
                                    const char *tensor);

/* Comparisons (compare.c). Both also report `tensor`_f64, where the file has it: the ratio of
 * distances in L2 from it. */

enum ditmoe_status compare_l2(struct case_file *file, const char *tensor, const float *values,
                              int64_t count, double limit);
/* Largest difference over the largest magnitude, the worst of `slices` equal parts. */
enum ditmoe_status compare_sampled(struct case_file *file, const char *tensor, const float *values,
                                   int64_t count, int64_t slices);
/* The largest difference over the largest magnitude; infinite if that is not a number. */
double error_peak(const float *values, const double *reference, int64_t count);

/* What a forward pass computed on the way (recording.c). */

struct layer_plan {
  int layer, B, T;
  int columns, experts; /* of the router; with the unconditional one */
  const char *router;
  int64_t rows;                                  /* tokens that were scored */
  float *scores, *cosine, *capacity, *threshold; /* [rows, columns], [columns]; or NULL */
  int32_t *offset, *token, *first, *row;         /* of struct dispatch */
  float *weight;
};

struct recorded {
  char name[32];
  float *values;
  int64_t count;
};

struct recording {
  struct ditmoe_ctx *ctx;
  const struct dit *model;   /* while the taps are called */
  enum ditmoe_status status; /* of the taps               */
  struct recorded *items;
  size_t count;
  struct layer_plan *plans;
  size_t plan_count;
  struct ditmoe_routing *routing; /* its own count of the same plans; NULL: none */
  struct recorder recorder;
  const struct dit_tap *counted; /* of the recorder */
};

struct dit_tap recording_tap(struct recording *recording, const struct dit *model);
/* Counts one call on B images with these labels, too, if the model has experts. */
enum ditmoe_status recording_count(struct recording *recording, const struct dit *model, int B,
                                   const int32_t *labels);
void recording_free(struct recording *recording);
/* Compares all tensors of the file that are named after a tap or a router's result; labels [B] are
 * those of the call. */
enum ditmoe_status check_intermediates(struct golden *g, struct case_file *file,
                                       const struct recording *recording, const int32_t *labels);
/* The router tensor "base.layer", if there is one of that base (routing.c). */
enum ditmoe_status check_routing(struct golden *g, struct case_file *file, const char *base,
                                 const struct layer_plan *plan, const int32_t *labels);
/* What was counted of plan `layer` against the tensor "base.layer", if it holds choices. */
enum ditmoe_status check_counts(struct golden *g, struct case_file *file, const char *base,
                                const struct recording *recording, size_t layer,
                                const int32_t *labels);
/* Whether the fixture sends images with this label to the unconditional expert. */
bool golden_is_null(const struct golden *g, int32_t label);

#endif

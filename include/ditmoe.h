/* ditmoe: sample mixture-of-experts diffusion transformers.
 *
 *   struct ditmoe_ctx *ctx = ditmoe_ctx_create(NULL);
 *   struct ditmoe_model *model = NULL;
 *   struct ditmoe_session *session = NULL;
 *   struct ditmoe_request request = ditmoe_request_default();
 *   int32_t labels[4] = {0, 1, 2, 3};
 *   float latents[4 * 4 * 8 * 8];
 *   request.labels = labels, request.count = 4;
 *   if (ditmoe_model_open(ctx, "model.pth", NULL, &model) != DITMOE_OK ||
 *       ditmoe_session_create(ctx, model, NULL, &request, &session) != DITMOE_OK ||
 *       ditmoe_sample(ctx, session, &request, latents, NULL) != DITMOE_OK)
 *     fprintf(stderr, "%s\n", ditmoe_errmsg(ctx));
 *
 * Every call that can fail returns a status; its text is ditmoe_errmsg(ctx), one line that names
 * the file, the tensor or the option. Results come through out-parameters, set only on DITMOE_OK.
 * Who opens or creates also closes or destroys; pixels and latents go to memory of the caller. A
 * context belongs to one thread at a time; models and decoders are read-only once open and may be
 * shared by sessions of several threads, each with its own context. The library never prints, never
 * exits and never reads the environment. */
#ifndef DITMOE_H
#define DITMOE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default) /* all else in the library is hidden */
#endif

#define DITMOE_VERSION "0.1.0"

/* DITMOE_VERSION of the library that is loaded; that of the headers may be another. */
const char *ditmoe_version(void);

/* The values are the exit codes of the programs. */
enum ditmoe_status {
  DITMOE_OK = 0,
  DITMOE_FAILED = 1,     /* an error inside the library                                   */
  DITMOE_USAGE = 2,      /* an option or argument is wrong                                */
  DITMOE_FORMAT = 3,     /* an input file is missing, unreadable, malformed, unsupported  */
  DITMOE_MISMATCH = 4,   /* the model does not match: tensors, architecture, objective    */
  DITMOE_NOMEM = 5,      /* not enough memory                                             */
  DITMOE_OUTPUT = 6,     /* an output cannot be written                                   */
  DITMOE_NONFINITE = 7,  /* a NaN or an infinity where a number is needed                 */
  DITMOE_DEVICE = 8,     /* the device or instruction tier is missing or failed           */
  DITMOE_INCOMPLETE = 9, /* part of the work failed; the run can be resumed               */
  DITMOE_CANCELLED = 130 /* an observer asked to stop                                     */
};

/* Context: error text, memory and log hooks. */

struct ditmoe_ctx;

struct ditmoe_hooks {
  void *user;
  /* Both or neither. alloc returns memory aligned to 64 bytes, or NULL. */
  void *(*alloc)(void *user, size_t size);
  void (*release)(void *user, void *memory);
  /* Warnings, one line each without a newline; NULL discards them. */
  void (*warn)(void *user, const char *line);
};

/* hooks may be NULL and is copied. NULL on no memory. */
struct ditmoe_ctx *ditmoe_ctx_create(const struct ditmoe_hooks *hooks);
void ditmoe_ctx_destroy(struct ditmoe_ctx *ctx);
/* Text of the last failure in this context; "" before the first. Valid until the next call. */
const char *ditmoe_errmsg(const struct ditmoe_ctx *ctx);
/* Allocations made through this context's hooks so far. */
uint64_t ditmoe_allocations(const struct ditmoe_ctx *ctx);

/* Checkpoint files: any format, by content. */

struct ditmoe_checkpoint;

struct ditmoe_tensor_info {
  const char *name;
  const char *dtype; /* safetensors spelling: F32, F16, BF16, I64, ... */
  int rank;
  const int64_t *shape;
  uint64_t bytes;
};

/* path: a PyTorch file (zip or legacy), a safetensors file, an index.json of shards, or a folder of
 * diffusers or shards. key selects an entry of a training dictionary ("ema", "model",
 * "callbacks.EMA.state"), or the tensors whose names begin with it and a dot; NULL prefers the EMA
 * weights (docs/FILES.md). */
enum ditmoe_status ditmoe_checkpoint_open(struct ditmoe_ctx *ctx, const char *path, const char *key,
                                          struct ditmoe_checkpoint **out);
void ditmoe_checkpoint_close(struct ditmoe_checkpoint *checkpoint);
/* "pytorch-zip", "pytorch-legacy", "safetensors", "safetensors-sharded", "pytorch-sharded" */
const char *ditmoe_checkpoint_format(const struct ditmoe_checkpoint *checkpoint);
/* Key the tensors were taken from, NULL if the file is the state dictionary itself. */
const char *ditmoe_checkpoint_key(const struct ditmoe_checkpoint *checkpoint);
/* What else has weights, "model, module": keys, or files and folders beside the file that was
 * taken; NULL if nothing has. */
const char *ditmoe_checkpoint_left(const struct ditmoe_checkpoint *checkpoint);
size_t ditmoe_checkpoint_count(const struct ditmoe_checkpoint *checkpoint);
void ditmoe_checkpoint_tensor(const struct ditmoe_checkpoint *checkpoint, size_t index,
                              struct ditmoe_tensor_info *out);
/* Value of a `__metadata__` entry, or NULL. */
const char *ditmoe_checkpoint_metadata(const struct ditmoe_checkpoint *checkpoint, const char *key);
/* Which published family the file is of, and what tells that ("sit: args.model is SiT-XL/2"), as
 * far as names of tensors and arguments of a training program go; capacity bytes, cut and
 * terminated. DITMOE_MISMATCH: it is no model of a known kind. */
enum ditmoe_status ditmoe_checkpoint_family(struct ditmoe_ctx *ctx,
                                            const struct ditmoe_checkpoint *checkpoint, char *text,
                                            size_t capacity);
/* Writes all tensors to a safetensors file; floating tensors become dtype ("f32", "bf16", "f16";
 * NULL keeps each). record is the JSON text of the checkpoint record to store with them, or NULL.
 */
enum ditmoe_status ditmoe_checkpoint_write(struct ditmoe_ctx *ctx,
                                           const struct ditmoe_checkpoint *checkpoint,
                                           const char *path, const char *dtype, const char *record);

/* Models. */

struct ditmoe_model;

struct ditmoe_model_options {
  const char *backend; /* "cpu" (default) or "ref"                                            */
  const char *tier;    /* instruction tier: "generic", "avx2", "avx512", "avx512bf16", "amx"; NULL:
                          the best of this machine                                             */
  const char *dtype;   /* compute type: "f32", "bf16"; NULL: what the tier does best            */
  int threads;         /* 0: one per processor available                                       */
  const char *key;     /* see ditmoe_checkpoint_open                                           */
  const char *record;  /* JSON text that overrides the checkpoint record, docs/RECORD.md; NULL */
  int plan_only;       /* read no weights: the model or decoder is good for its info and
                          ditmoe_plan alone, whether it would fit or not                       */
};

struct ditmoe_model_info {
  const char *kind; /* "dit-moe", "promoe-tc", "promoe-ec", "tc-dit", "ec-dit", "diffmoe", "dsmoe",
                       "jitmoe", "dit" */
  const char *family,
      *family_why;       /* of docs/MODELS.md and what told it; NULL: none that is known */
  const char *objective; /* "ddpm" or "rf" */
  const char *backend, *tier, *dtype;
  int channels; /* C of a latent          */
  int size;     /* H = W of the latents that it was trained on */
  int patch, width, depth, heads;
  int num_classes;    /* without the null class */
  int classes_used;   /* labels below it, but for null_label, have been trained */
  int null_label;     /* of no class; -1: there is none, and no guidance */
  int experts, top_k; /* largest over the layers; 0 if dense */
  int batch_coupled;  /* routing of an image depends on its batch */
  int learned_variance;
  int qk_norm;         /* q and k are normalised                  */
  int pixels;          /* it makes images, not latents            */
  int ignored_tensors; /* of the file, which only training needs  */
  double latent_scale; /* 0: unknown to the model */
  uint64_t parameters, weight_bytes;
};

enum ditmoe_status ditmoe_model_open(struct ditmoe_ctx *ctx, const char *path,
                                     const struct ditmoe_model_options *options,
                                     struct ditmoe_model **out);
void ditmoe_model_close(struct ditmoe_model *model);
/* Writes a packed file (docs/RECORD.md): the model as the backend, tier and compute type of the
 * options have it in memory, to be opened by the same without any work. */
enum ditmoe_status ditmoe_model_pack(struct ditmoe_ctx *ctx, const char *path,
                                     const struct ditmoe_model_options *options,
                                     const char *output);
void ditmoe_model_info(const struct ditmoe_model *model, struct ditmoe_model_info *out);
/* Name of a class from the checkpoint record, or NULL. */
const char *ditmoe_model_class_name(const struct ditmoe_model *model, int label);
/* Reads means and deviations of latents, tensors mean and std with a value for each channel, as a
 * record's members: {"latent_mean": [...], "latent_std": [...]}; free the text with free(). */
enum ditmoe_status ditmoe_latent_statistics(struct ditmoe_ctx *ctx, const char *path,
                                            char **record);
/* The complete checkpoint record as JSON (docs/RECORD.md); lives as long as the model. */
const char *ditmoe_model_record(const struct ditmoe_model *model);
/* JSON of the same members, each with the text of its source: "record:top_k" for the options',
 * "x/config.json:num_heads", "published models:heads", "weights", "default". */
const char *ditmoe_model_record_sources(const struct ditmoe_model *model);

/* Decoders: latents to pixels. */

struct ditmoe_decoder;

struct ditmoe_decoder_info {
  const char *kind;  /* "autoencoder-kl" or "taesd"                                   */
  const char *names; /* whose names its tensors have: "diffusers", "CompVis", "taesd" */
  int latent_channels;
  int factor;          /* image side / latent side             */
  double scale, shift; /* latents are divided by scale, then shift is added, before decoding */
  int statistics;      /* besides, each channel has a mean and a deviation of its own */
};

/* path: a folder with config.json, a diffusers pipeline folder, or a weights file. tile: latent
 * side of a tile for tiled decoding, 0 decodes whole images. backend, tier, dtype and
 * threads as for models. */
enum ditmoe_status ditmoe_decoder_open(struct ditmoe_ctx *ctx, const char *path,
                                       const struct ditmoe_model_options *options, int tile,
                                       struct ditmoe_decoder **out);
void ditmoe_decoder_close(struct ditmoe_decoder *decoder);
void ditmoe_decoder_info(const struct ditmoe_decoder *decoder, struct ditmoe_decoder_info *out);

/* Sampling. */

struct ditmoe_observation {
  int step, steps;      /* step = 1 .. steps, just finished                   */
  int64_t first, count; /* indices of the images in this batch, of the request */
  const float *latents; /* [count, C, H, W] after the step                    */
};

struct ditmoe_routing; /* ditmoe_routing.h */

struct ditmoe_request {
  const int32_t *labels; /* [count] class of each image                                  */
  int64_t count;         /* images                                                       */
  int64_t first_index;   /* sample index of labels[0]                                    */
  int height, width;     /* H, W of the latents; 0: as the model was trained. Others need
                            positions that can be made, which is an error for learned ones */
  uint64_t seed;
  const char *sampler; /* "ddpm" "ddim" "euler" "heun" "midpoint" "dpmpp-2m" "sde" "sde-heun"; NULL:
                          the model's                                                  */
  int steps;           /* 0: the family's, else 250 for ddpm and sde, 50 for the others. As the
                          program of the family counts them (docs/MODELS.md)           */
  const char *respacing;   /* ddpm and ddim: "ddim25", "10,15,20"; NULL: `steps` evenly     */
  double cfg_scale;        /* s of u + s (c - u); 1: no guidance, 0: the empty class       */
  double cfg_from, cfg_to; /* guidance only while the progress of the run (0 at the start, 1 at the
                              end) is in [from, to)                                      */
  int cfg_times;           /* cfg_from .. cfg_to are times of the flow instead, by the rule of the
                              family (docs/MODELS.md)                                    */
  int cfg_channels;        /* 0: all of the latents; 3: the first three; -1: the model's   */
  double eta;              /* ddim                                                         */
  /* sde, sde-heun (docs/MODELS.md); NULL and 0: sigma, 1, mean, 0.04, 0 */
  const char *diffusion_form; /* "sigma" "constant" "sbdm" "decreasing"
                                 "increasing-decreasing"                                 */
  double diffusion_norm;
  const char *last_step; /* "mean" "tweedie" "euler" "none"                              */
  double last_step_size, sample_eps;
  double shift;                   /* rectified flow: time shift, 1 = none; 0: the model's         */
  int batch;                      /* images per denoiser call; 0: chosen                          */
  int block;                      /* batch-coupled models and torch-cpu: images per index block   */
  const char *rng;                /* "philox" (default) or "torch-cpu"                            */
  int fixed_variance;             /* ddpm: ignore a learned variance                              */
  int force;                      /* allow a sampler of the other objective                       */
  const float *noise;             /* [count, C, H, W] starting noise of deviation 1, which the
                                     record's noise_scale multiplies, or NULL                     */
  struct ditmoe_routing *routing; /* counts what the routers choose, or NULL               */
  void *user;
  /* Called after every step; a non-zero result ends the run with DITMOE_CANCELLED. May be NULL. */
  int (*observe)(void *user, const struct ditmoe_observation *observation);
};

struct ditmoe_request ditmoe_request_default(void);

struct ditmoe_plan {
  const char *sampler;
  int steps, batch, block;
  int steps_counted;     /* what ditmoe_request.steps is or would be, for these steps */
  int denoiser_calls;    /* forward passes of one batch over the whole run, at most */
  uint64_t weight_bytes; /* model and decoder as held in memory            */
  uint64_t activation_bytes;
  uint64_t available_bytes; /* memory of this machine that is free now       */
};

/* What a request would need; nothing is allocated but the dry run's own bookkeeping. decoder may be
 * NULL. */
enum ditmoe_status ditmoe_plan(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                               const struct ditmoe_decoder *decoder,
                               const struct ditmoe_request *request, struct ditmoe_plan *out);

struct ditmoe_session;

/* Makes all working memory for requests of this batch, block, size and guidance; decoder may be
 * NULL. The model and the decoder must outlive the session. */
enum ditmoe_status ditmoe_session_create(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                         const struct ditmoe_decoder *decoder,
                                         const struct ditmoe_request *request,
                                         struct ditmoe_session **out);
void ditmoe_session_destroy(struct ditmoe_session *session);

/* Samples request->count images. latents [count, C, H, W] or NULL; pixels [count, h, w, 3] (RGB
 * bytes, H and W times the factor, trunc(clamp(127.5 x + 128))) or NULL, needs a decoder or a model
 * of images, whose levels are those of 255 (x + 1) / 2, to nearest even. Image i
 * depends on (seed, first_index + i) alone, whatever the batch and the threads; for batch-coupled
 * models and torch-cpu on the index block that holds it. */
enum ditmoe_status ditmoe_sample(struct ditmoe_ctx *ctx, struct ditmoe_session *session,
                                 const struct ditmoe_request *request, float *latents,
                                 uint8_t *pixels);

/* Class of image `index` when classes are drawn at random: 0 .. classes-1, a function of (seed,
 * index) alone. */
int32_t ditmoe_random_label(uint64_t seed, int64_t index, int32_t classes);

/* Names of the samplers, and the objective each is for. NULL ends the list. */
const char *ditmoe_sampler_name(int index);
const char *ditmoe_sampler_objective(int index);

/* Images. */

struct ditmoe_text {
  const char *key, *value; /* PNG text entries */
};

/* pixels [height, width, 3]. The format follows the ending of path: .png .jpg .bmp .tga. Written to
 * a temporary name and renamed. text: at most 8 entries in UTF-8 for PNG, NULL key ends; NULL for
 * none. JSON (a value that begins with '{') becomes iTXt, other text tEXt if Latin-1 can hold it.
 */
enum ditmoe_status ditmoe_image_write(struct ditmoe_ctx *ctx, const char *path,
                                      const uint8_t *pixels, int width, int height,
                                      const struct ditmoe_text *text);
/* Copies a PNG's text entry `key` into buffer as UTF-8 (capacity bytes, cut and terminated). */
enum ditmoe_status ditmoe_image_text(struct ditmoe_ctx *ctx, const char *path, const char *key,
                                     char *buffer, size_t capacity);
/* Writes whole files the same way. */
enum ditmoe_status ditmoe_file_write(struct ditmoe_ctx *ctx, const char *path, const void *bytes,
                                     size_t size);
/* SHA-256 of a file as 64 hexadecimal digits and a zero; of a folder, or that of an index.json of
 * shards: of the lines that sha256sum prints for its checkpoint files, sorted, two levels deep. */
enum ditmoe_status ditmoe_file_sha256(struct ditmoe_ctx *ctx, const char *path, char digest[65]);

/* NumPy's .npz, written in order and in constant memory: entries are stored, not compressed, in
 * ZIP64 form where they need it, so that programs may map or stream them. */

struct ditmoe_npz;

enum ditmoe_status ditmoe_npz_create(struct ditmoe_ctx *ctx, const char *path,
                                     struct ditmoe_npz **out);
/* Begins the array `name` of dtype "u1", "i4", "u4", "i8", "f4" or "f8" and this shape; its bytes
 * follow, little-endian and row-major, by ditmoe_npz_write in as many pieces as you like. */
enum ditmoe_status ditmoe_npz_array(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                    const char *name, const char *dtype, int rank,
                                    const int64_t *shape);
enum ditmoe_status ditmoe_npz_write(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                    const void *bytes, size_t size);
/* The file appears under its name, complete and synced; DITMOE_FAILED if an array lacks bytes. npz
 * is freed in any case. */
enum ditmoe_status ditmoe_npz_commit(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz);
/* Removes what was written; npz may be NULL. */
void ditmoe_npz_abandon(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif

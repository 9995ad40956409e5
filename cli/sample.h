/* ditmoe-sample: what its parts share. In the order of a run:
 *
 *   sample_options.c    the option table, checks across options, the environment
 *   sample_reproduce.c  settings out of an image
 *   sample_open.c       model, decoder, record, hashes
 *   sample_labels.c     classes and the label of every index
 *   sample_plan.c       the request, memory needed, --dry-run
 *   sample_names.c      names of the outputs
 *   sample_output.c     images, grid, latents
 *   sample_run.c        batches, progress, signals
 *   sample_manifest.c   run.json, --json and the metadata of images */
#ifndef CLI_SAMPLE_H
#define CLI_SAMPLE_H

#include "cli/classes.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/report.h"

#include <cjson/cJSON.h>
#include <pthread.h>

struct sample_settings {
  struct common_settings common;
  /* model */
  const char *model, *key, *vae, *record;
  const char *kind, *objective, *router_weight_mode;
  int64_t heads, top_k, uncond_label, null_label;
  double time_scale, frequency_shift, norm_eps, norm2_eps, qk_norm_eps, capacity;
  double latent_scale, latent_shift;
  int64_t image_size, num_classes, num_experts;
  /* classes and indices */
  const char *classes, *class_file, *label_sampling, *list_classes;
  int64_t num_samples;
  struct span index_range;
  bool allow_null;
  /* sampling */
  uint64_t seed;
  int64_t steps, index_block;
  const char *sampler, *respacing, *cfg_channels, *rng;
  double eta, shift, cfg_scale;
  struct interval cfg_interval;
  bool fixed_variance;
  /* execution */
  int64_t batch_size, threads, tile;
  const char *dtype, *device, *backend, *tier;
  /* outputs */
  const char *output, *format, *grid, *latents, *reproduce;
  int64_t grid_columns, zoom;
  bool show, disable_image_metadata, force, dry_run;
  const char *progress;
};

/* The images of a run: indices first .. first + count - 1 and their labels. */
struct sample_labels {
  int64_t first, count, total; /* total: of the whole run, of which this may be a part */
  int32_t *labels;             /* [count] */
};

/* An image to reproduce, read from its metadata. */
struct sample_origin {
  char *model, *vae;               /* paths as they were given; vae NULL: none */
  char *model_sha256, *vae_sha256; /* vae_sha256 NULL: none                    */
  char *record;                    /* JSON text of overrides, or NULL          */
  int64_t index;                   /* -1: all of the unit (a grid)             */
  bool force;
  struct sample_labels unit;
};

struct sample_names {
  char *before, *after; /* of the number in a file name */
  int width;            /* digits at least              */
  bool zeros, numbered;
  char *manifest;
};

struct sample_image { /* a file that was written */
  char *file;
  int64_t index;
  int32_t label;
};

struct sample_hash {
  struct ditmoe_ctx *ctx; /* of the thread; NULL: nothing to wait for */
  pthread_t thread;
  bool running;
  enum ditmoe_status status;
};

struct sample {
  struct options options;
  struct sample_settings settings;
  int argc;
  char **argv;
  struct ditmoe_ctx *ctx;

  struct sample_origin origin; /* with --reproduce */
  char *record;                /* JSON text of overrides, or NULL */
  char *vae_path;              /* NULL: pixels are the latents    */
  struct ditmoe_model *model;
  struct ditmoe_decoder *decoder;
  struct ditmoe_model_info info;
  struct ditmoe_decoder_info decoder_info;
  struct sample_hash hash;
  char model_sha256[65], vae_sha256[65]; /* after sample_hash_finish */

  struct classes classes;
  struct sample_labels labels;
  struct ditmoe_request request;
  struct ditmoe_plan plan;
  int64_t unit; /* images whose routing or random numbers depend on each other; 1: none */
  int side;     /* pixels */

  struct sample_names names;
  struct sample_image *images;
  size_t image_count;
  bool wrote_grid, wrote_latents;

  char started[32];
  double clock_started, seconds_open, seconds_sample, seconds_write;
};

/* sample_options.c */
extern const struct program sample_program;
enum ditmoe_status sample_read_environment(struct sample *run);
enum ditmoe_status sample_check_options(const struct sample *run);
/* DITMOE_USAGE if the option of a field was given although it is not useful: "--zoom has no effect
 * <why>". */
enum ditmoe_status sample_needless(const struct sample *run, const void *field, bool useful,
                                   const char *why);
/* With -v: every setting that is not a default, and where it came from. */
void sample_show_sources(const struct sample *run);

/* sample_reproduce.c */
/* Whether the image at this position of run->labels is to be written; how many are. */
bool sample_selected(const struct sample *run, int64_t at);
int64_t sample_selected_count(const struct sample *run);
enum ditmoe_status sample_read_image(struct sample *run);
/* Model and decoder must be those of the image. */
enum ditmoe_status sample_verify_origin(const struct sample *run);
void sample_origin_free(struct sample_origin *origin);

/* sample_open.c */
enum ditmoe_status sample_open(struct sample *run);

/* sample_hash.c */
enum ditmoe_status sample_hash_start(struct sample *run);
/* Waits for the result; more than once does no harm. */
enum ditmoe_status sample_hash_finish(struct sample *run);

/* sample_labels.c */
enum ditmoe_status sample_choose_labels(struct sample *run);

/* sample_plan.c */
enum ditmoe_status sample_plan(struct sample *run);
enum ditmoe_status sample_print_plan(const struct sample *run);

/* sample_names.c */
enum { SAMPLE_GRID_GAP = 2 }; /* pixels between the images of a grid */
enum ditmoe_status sample_name_outputs(struct sample *run);
/* File name of an index; free(). */
char *sample_file_name(const struct sample_names *names, int64_t index);
int sample_grid_columns(const struct sample *run);
bool sample_is_png(const char *path);

/* sample_output.c */
/* `at`: position in run->labels. */
enum ditmoe_status sample_write_image(struct sample *run, int64_t at, const uint8_t *pixels);
enum ditmoe_status sample_write_grid(struct sample *run, const uint8_t *pixels);
enum ditmoe_status sample_write_latents(struct sample *run, const float *latents);

/* sample_run.c */
/* The status, or 128 + the signal that ended the run. */
int sample_exit_code(enum ditmoe_status status);
enum ditmoe_status sample_images(struct sample *run);

/* sample_manifest.c */
/* The text entries of an image; index -1 is the grid. free() and cJSON_free(). */
void sample_metadata(const struct sample *run, int64_t index, char **parameters, char **json);
/* Writes it, and with --json prints it. */
enum ditmoe_status sample_write_manifest(struct sample *run, enum ditmoe_status status);
/* The time now, UTC, as "2026-01-31T12:34:56Z". */
void sample_time(char text[32]);

#endif

/* ditmoe-sample: what its parts share. In the order of a run:
 *
 *   options.c    the option table
 *   settings.c   settings from the environment and a launcher; the rules between them
 *   reproduce.c  settings out of an image
 *   presets.c    settings of published protocols
 *   open.c       model, decoder, record
 *   hash.c       their SHA-256
 *   labels.c     classes and the label of every index
 *   plan.c       the request, memory needed, --dry-run
 *   names.c      names of the outputs; names_check.c: that each is one of its own
 *   start.c      a new run, or one that goes on; refusing both
 *   resume.c     what is there: identity, journals, checked files
 *   batch.c      batch after batch: sampled, counted, written
 *   output.c     the files of a batch
 *   shards.c     batches of an .npz, and the .npz of them
 *   grid.c       images side by side
 *   routing.c    which experts worked on the images
 *   ranks.c      the images of a rank, waiting for the others
 *   finish.c     what follows the last batch
 *   metadata.c   the settings in an image
 *   manifest.c   run.json and --json */
#ifndef CLI_SAMPLE_SAMPLE_H
#define CLI_SAMPLE_SAMPLE_H

#include "cli/json.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/sample/classes.h"
#include "cli/sample/journal.h"
#include "cli/sample/made.h"
#include "cli/sample/routing.h"

#include <pthread.h>

struct sample_settings {
  struct common_settings common;
  /* model */
  const char *model, *key, *vae, *latents_stats, *record;
  const char *kind, *family, *objective, *time_direction, *router_weight_mode;
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
  int64_t steps, index_block, width, height;
  const char *preset, *size, *sampler, *respacing, *cfg_channels, *rng;
  double eta, shift, cfg_scale;
  const char *diffusion_form, *last_step;
  double diffusion_norm, last_step_size, sample_eps;
  struct interval cfg_interval, cfg_times;
  bool fixed_variance, list_presets;
  /* execution */
  int64_t batch_size, threads, tile;
  const char *dtype, *device, *backend, *tier;
  /* outputs */
  const char *output, *format, *grid, *latents, *reproduce, *progress;
  int64_t grid_columns, grid_samples, zoom;
  const char *routing_dump, *routing_trace;
  bool routing_mass, routing_uncond, routing_scores;
  bool show, disable_image_metadata, force, dry_run, resume;
  int64_t routing_bins, rank, ranks, rank_timeout;
};

enum label_rule { LABELS_LIST, LABELS_EQUAL, LABELS_RANDOM, LABELS_GIVEN };

/* The images of a run: indices first .. first + count - 1, and the rule of their labels. */
struct sample_labels {
  int64_t first, count, total; /* total: of the whole run, of which this may be a part   */
  enum label_rule rule;
  int32_t *classes; /* [class_count] that are drawn; given: the label of each index */
  int64_t class_count;
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
  char *folder;   /* of the outputs, with the last '/'; "" is the working folder */
  char *npz;      /* NULL: images are files of their own                         */
  char *parts;    /* folder of an npz's batches, with the last '/'               */
  char *journals; /* path without ".journal"; NULL: a run that has none          */
  char *manifest;
};

struct sample_grid { /* the first images of the run */
  int64_t count;     /* 0: no grid                    */
  uint8_t *pixels;   /* [count, height, width, 3]     */
  bool *have;        /* [count] pixels are filled in  */
};

/* How far a run has come. `made` spans the run; a rank knows its own share of it, rank 0 in the end
 * all. */
struct sample_state {
  struct journal journal; /* closed if the run has none */
  char id[JOURNAL_ID + 1];
  int64_t share_first, share_end; /* images of this rank                              */
  struct made made;
  int64_t new_images; /* made by this process                                         */
  bool begun;         /* run.json is there                                            */
  bool resumed;       /* there was a run before                                       */
  bool complete;      /* all of its outputs are there and checked                     */
  bool made_folder;
  int64_t resumes;
  int64_t npz_bytes; /* of the complete npz */
  uint32_t npz_crc;
  cJSON *failures;    /* array */
  int64_t *processes; /* [process_count] that have written journals of this run */
  size_t process_count;
};

struct sample_batches { /* while they are made */
  struct ditmoe_session *session;
  uint8_t *pixels; /* [plan.batch, height, width, 3]                                    */
  float *latents;  /* of a batch; with --latents of all of labels.count, until the end */
  struct progress progress;
  double started;
  int64_t done; /* images before this batch */
  bool told;    /* that the run will stop   */
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
  int64_t unit;      /* images whose routing or random numbers depend on each other; 1: none */
  int width, height; /* pixels      */
  int latent_width, latent_height; /* of latents  */

  struct sample_names names;
  struct sample_grid grid;
  struct sample_state state;
  struct sample_routing routing;
  struct sample_batches batches;
  bool wrote_grid, wrote_latents;

  char started[32];
  double clock_started, seconds_open, seconds_sample, seconds_write;
};

/* options.c */
extern const struct program sample_program;

/* settings.c */
/* All settings from wherever they come, checked against each other. */
enum ditmoe_status sample_read_settings(struct sample *run);

/* ranks.c */
/* The images of a rank: whole units, [first, end). */
void sample_share(const struct sample *run, int64_t rank, int64_t *first, int64_t *end);
/* Rank 0: until every other rank has made its share. DITMOE_INCOMPLETE names those that ended
 * early. */
enum ditmoe_status sample_wait_for_ranks(struct sample *run);
/* Another rank: whether rank 0 will finish the run. */
enum ditmoe_status sample_check_first_rank(struct sample *run);

/* reproduce.c */
/* Whether the image of this index is to be written; how many are. */
bool sample_selected(const struct sample *run, int64_t index);
int64_t sample_selected_count(const struct sample *run);
enum ditmoe_status sample_read_image(struct sample *run);
/* Model and decoder must be those of the image. */
enum ditmoe_status sample_verify_origin(struct sample *run);
void sample_origin_free(struct sample_origin *origin);

/* presets.c */
/* The settings of --preset that nobody else gives. */
enum ditmoe_status sample_apply_preset(struct sample *run);
/* Warns if the model is not the one that the preset is for. */
void sample_check_preset(const struct sample *run);
void sample_list_presets(bool json);

/* open.c */
enum ditmoe_status sample_open(struct sample *run);
/* Bytes of an image, of a latent. */
size_t sample_image_bytes(const struct sample *run);
size_t sample_latent_bytes(const struct sample *run);

/* hash.c */
enum ditmoe_status sample_hash_start(struct sample *run);
/* Waits for the result; more than once does no harm. */
enum ditmoe_status sample_hash_finish(struct sample *run);

/* labels.c */
enum ditmoe_status sample_choose_labels(struct sample *run);
int32_t sample_label(const struct sample *run, int64_t index);
/* Labels of `count` images from index `first` on; free(). */
int32_t *sample_label_list(const struct sample *run, int64_t first, int64_t count);
const char *sample_label_rule(const struct sample *run);

/* plan.c */
enum ditmoe_status sample_plan(struct sample *run);
enum ditmoe_status sample_print_plan(const struct sample *run);

/* names.c */
enum ditmoe_status sample_name_outputs(struct sample *run);
/* File name of an index; free(). */
char *sample_file_name(const struct sample_names *names, int64_t index);
/* The index of a file name, -1 if it is not of that form. */
int64_t sample_file_index(const struct sample_names *names, const char *path);
/* names_check.c: DITMOE_USAGE for an output that is an input or another output, DITMOE_OUTPUT for
 * one that cannot be written or is there already. */
enum ditmoe_status sample_check_names(const struct sample *run);
char *sample_journal_name(const struct sample_names *names, int64_t rank);
bool sample_is_png(const char *path);
/* The file of a piece; free(). */
char *sample_piece_name(const struct sample *run, const struct journal_piece *piece);

#endif

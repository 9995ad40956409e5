/* ditmoe-eval: what its parts share. In the order of a run:
 *
 *   options.c    the option table, checks across options, the environment
 *   inputs.c     what the operands are, and which measures they allow
 *   sets.c       network, sets, comparison, files written of them
 *   run.c        the manifest of the run that made the samples
 *   measures.c   names and values of the measures
 *   protocol.c   how the numbers came about, and what to be wary of
 *   print.c      text and JSON
 *   sheet.c      the contact sheet
 *   report.c     the HTML report
 *   info.c       --info */
#ifndef CLI_EVAL_EVAL_H
#define CLI_EVAL_EVAL_H

#include "cli/options.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "ditmoe_eval.h"

#include <cjson/cJSON.h>

struct eval_settings {
  struct common_settings common;
  /* measures */
  bool fid, sfid, isc, prc, kid;
  /* network */
  const char *inception, *resize, *dtype, *tier, *backend;
  int64_t threads, batch_size;
  /* images */
  int64_t num;
  bool recursive, recompute;
  /* outputs */
  const char *save_stats, *features, *make_ref, *report;
  bool info, force;
  const char *progress;
};

/* One side of the comparison. path is NULL for a reference that is not there. */
struct eval_side {
  const char *role; /* "reference" or "samples"   */
  const char *path;
  bool folder, archive;       /* neither: one image */
  bool images, pool, spatial; /* what the operand holds: images, mu, mu_s */
  int64_t count;              /* images that it holds */
  struct ditmoe_set *set;
  struct ditmoe_set_info info;
};

struct eval {
  struct options options;
  struct eval_settings settings;
  struct ditmoe_ctx *ctx;

  struct eval_side reference, samples;
  unsigned measures; /* DITMOE_FRECHET ... to be printed */
  bool asked;        /* options named them               */
  struct ditmoe_features *network;
  struct ditmoe_features_info features; /* kind is NULL without a network */
  struct ditmoe_scores scores;

  char *run_path; /* manifest of the run that made the samples */
  cJSON *run;     /* NULL: there is none                       */

  char **warnings;
  size_t warning_count;
};

/* options.c */
extern const struct program eval_program;
enum ditmoe_status eval_read_environment(struct eval *eval);
enum ditmoe_status eval_check_options(const struct eval *eval);
/* DITMOE_USAGE if an option was given that has nothing to act on; network: one is needed. */
enum ditmoe_status eval_refuse_needless(const struct eval *eval, bool network);

/* inputs.c */
enum ditmoe_status eval_inspect(struct eval *eval);
/* Measures that cannot be had: an error if options named them, else they are left out with a
 * warning: "<whose> has <what>". */
enum ditmoe_status eval_leave_out(struct eval *eval, unsigned missing, const char *whose,
                                  const char *what);

/* sets.c */
enum ditmoe_status eval_open_network(struct eval *eval);
enum ditmoe_status eval_open_set(struct eval *eval, struct eval_side *side, unsigned measures);
/* Both sets, and their comparison. */
enum ditmoe_status eval_measure(struct eval *eval);
/* The files that --save-stats, --features and --make-ref name. */
enum ditmoe_status eval_save(struct eval *eval);

/* run.c */
/* Looks for run.json in a folder, for FILE.json beside FILE.npz. */
void eval_find_run(struct eval *eval);

/* measures.c */
struct eval_measure {
  unsigned bit;
  size_t field; /* of struct ditmoe_scores */
  /* Where the network defines FID, and where it does not. */
  const char *key, *title, *plain_key, *plain_title;
  const char *better, *meaning;
};
enum { EVAL_MEASURES = 6 };
extern const struct eval_measure eval_measures[EVAL_MEASURES];
double eval_value(const struct eval *eval, const struct eval_measure *measure);
/* Distances of statistics that both came from files are of no network that is known. */
bool eval_is_fid(const struct eval *eval, const struct eval_measure *measure);
const char *eval_key(const struct eval *eval, const struct eval_measure *measure);
/* "FID", or "Frechet distance (features: NAME)"; free(). */
char *eval_title(const struct eval *eval, const struct eval_measure *measure);

/* protocol.c */
/* Keeps and prints it. */
void eval_warn(struct eval *eval, const char *format, ...) __attribute__((format(printf, 2, 3)));
void eval_warn_of_numbers(struct eval *eval);
/* Pairs of names and texts, in order; cJSON_Delete it. */
cJSON *eval_protocol(const struct eval *eval);

/* print.c */
enum ditmoe_status eval_print(const struct eval *eval);

/* sheet.c */
/* A PNG of the first samples side by side; free(). *bytes is NULL if there are no images. */
enum ditmoe_status eval_sheet(const struct eval *eval, char **bytes, size_t *size, int64_t *count);

/* report.c */
enum ditmoe_status eval_write_report(const struct eval *eval);

/* info.c */
enum ditmoe_status eval_info(struct eval *eval);

#endif

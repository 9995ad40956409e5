/* ditmoe-heatmap: what its parts share. In the order of a run:
 *
 *   options.c   the option table, checks across options
 *   rules.c     which options act on what
 *   open.c      dumps, traces, the second run, the model
 *   image.c     the image of --overlay, and its index in the run
 *   names.c     names of classes; text of files made safe to show
 *   view.c      the selection as tables of numbers
 *   labels.c    titles, axes and labels of these tables
 *   overlay.c   the experts drawn over the image
 *   figure.c    PNG, and APNG over the steps
 *   csv.c, npz.c
 *   findings.c  the published findings, checked
 *   json.c, print.c  the numbers as JSON and as text
 *   page.c      the HTML page */
#ifndef CLI_HEATMAP_HEATMAP_H
#define CLI_HEATMAP_HEATMAP_H

#include "cli/options.h"
#include "cli/report.h"
#include "ditmoe_routing.h"
#include "plot/plot.h"

#include <cjson/cJSON.h>

struct heatmap_settings {
  struct common_settings common;
  /* outputs */
  const char *page, *png, *animation, *csv, *npz;
  bool force;
  /* what is shown */
  const char *by, *half, *layers; /* by: NULL if none is given */
  struct span steps;              /* 0:0: all                  */
  bool weighted;
  int64_t class_every; /* 0: chosen */
  const char *class_file;
  /* how */
  const char *normalize, *scale, *colormap; /* colormap: NULL if none is given */
  const char *title;
  int64_t cell, columns, delay; /* pixels of a cell, panels of a row; 0: chosen. milliseconds */
  /* other inputs */
  const char *overlay, *add, *diff, *model, *record;
  int64_t overlay_index, overlay_layer; /* only if given */
};

struct heatmap_run { /* an input file */
  const char *path;
  struct ditmoe_routing *routing;
  struct ditmoe_routing_info info;
  cJSON *meta; /* object of info.meta, all texts in it safe to show; {} if there is none */
};

struct heatmap {
  struct options options;
  struct heatmap_settings settings;
  struct ditmoe_ctx *ctx;

  struct heatmap_run run, other; /* other.routing is NULL without --diff        */
  bool trace;                    /* run.path is a trace, replayed into the tables */
  char **class_names;            /* [info.labels], each a name or NULL            */

  /* Of the layers and bins of the tables: first .. last - 1. */
  int first_layer, last_layer, first_bin, last_bin;
  int first_half, last_half;

  struct ditmoe_similarity *similarity; /* of --model, else NULL */

  /* --overlay: the image, and where its experts come from: those of this image alone, out of a
   * trace, or of all images. */
  uint8_t *image; /* [image_height, image_width, 3], NULL without --overlay */
  int image_width, image_height;
  int64_t image_index;                  /* -1: not known, and not needed        */
  struct ditmoe_routing *image_routing; /* owned; NULL: those of all images     */
};

/* options.c */
extern const struct program heatmap_program;
/* What can be told without opening a file. */
enum ditmoe_status heatmap_check_options(const struct heatmap *heatmap);

/* rules.c */
/* DITMOE_USAGE if an option was given that has nothing to act on. */
enum ditmoe_status heatmap_refuse_needless(const struct heatmap *heatmap);

/* open.c */
enum ditmoe_status heatmap_open(struct heatmap *heatmap);
void heatmap_close(struct heatmap *heatmap);

/* names.c */
/* Makes text of a file safe to show, in place: control characters and what is not UTF-8 become
 * question marks. */
char *heatmap_clean(char *text);
enum ditmoe_status heatmap_read_names(struct heatmap *heatmap);
/* "3 dress", or "class 3" if it has no name, or "no class"; free(). */
char *heatmap_class_title(const struct heatmap *heatmap, int label);
/* "3", or "uncond" for the unconditional expert; free(). */
char *heatmap_expert_title(const struct ditmoe_routing_info *info, int expert);
/* Name of the run: its file without folder, safe to show; free(). */
char *heatmap_run_title(const struct heatmap_run *run);
/* "conditional", "unconditional" */
const char *heatmap_half_name(int half);

/* view.c: a selection of the run, with --diff of the runs' difference. */

enum view_kind {
  VIEW_CLASS,
  VIEW_TOKEN,
  VIEW_STEP,
  VIEW_LAYER,
  VIEW_EXPERT, /* rows: experts, columns: steps                   */
  VIEW_MAP,    /* a panel for each expert, the tokens as an image */
  VIEW_WEIGHTS,
  VIEW_SUBSPACE,
  VIEW_ROUTER, /* these three: experts against experts, of --model */
  VIEW_KINDS
};

/* Where a panel's rows or columns come from; the values are the entries' numbers in their axis. */
struct view_axis {
  const char *name; /* "expert", "class", "token", "step", "layer", "row", "column" */
  int count;
  int *number;   /* [count] label, token, bin, index of the layer, expert */
  char **labels; /* [count] as shown                                      */
};

struct panel_data { /* each [rows, columns]; all NULL for similarity, mass also if there is none */
  double *counts, *mass;
  double *values; /* normalised; NaN: nothing was counted there */
};

struct view_panel {
  char *title;       /* "layer 3"                                               */
  int half;          /* enum ditmoe_half; -1 for similarity                     */
  int layer, expert; /* index in the tables; -1: an axis of the panel            */
  struct view_axis rows, columns;
  struct panel_data run, other; /* other: only with --diff                         */
  double *values; /* [rows, columns] what is shown: the run's, or run - other; NaN: no data */
};

struct view {
  enum view_kind kind;
  int first_bin, last_bin; /* steps that are summed or shown */
  char *title, *subtitle;  /* subtitle: half, steps, layers, normalisation, what is counted */
  char *unit;              /* "ratio to uniform", "share of the row", ...  */
  double centre;           /* value in the middle of a diverging scale, else NaN */
  struct view_panel *panels;
  int count;
};

/* The kind of --by, or `otherwise`. */
enum view_kind heatmap_view_kind(const struct heatmap *heatmap, enum view_kind otherwise);
const char *view_kind_name(enum view_kind kind);
/* bins: first .. last - 1 instead of those of --steps, for animations; picture: classes may be
 * thinned out to fit, and empty maps are left out. The values do not depend on it. */
void heatmap_view(const struct heatmap *heatmap, enum view_kind kind, int first_bin, int last_bin,
                  bool picture, struct view *out);
void view_free(struct view *view);

/* labels.c */
/* Title, subtitle, unit and the panels' titles; labels of the axes. */
void heatmap_label_view(const struct heatmap *heatmap, struct view *view);
/* "steps 0-24 of 50", "all 50 steps"; free(). */
char *heatmap_steps_title(const struct ditmoe_routing_info *info, int first_bin, int last_bin);
/* "layer 3", "layers 3-7", numbers of blocks; free(). */
char *heatmap_layers_title(const struct ditmoe_routing_info *info, int first, int last);

/* image.c */
/* The image and its index, before the run is read. */
enum ditmoe_status heatmap_read_overlay(struct heatmap *heatmap);
/* Whether the run has it. */
enum ditmoe_status heatmap_check_overlay(const struct heatmap *heatmap);

/* overlay.c */
/* Draws the experts of bins first .. last - 1 over the image. */
enum ditmoe_status heatmap_draw_overlay(const struct heatmap *heatmap, int first_bin, int last_bin,
                                        struct canvas *out);

/* The outputs; each does nothing if its option is not given. */
enum ditmoe_status heatmap_write_figure(struct heatmap *heatmap);
enum ditmoe_status heatmap_write_animation(struct heatmap *heatmap);
enum ditmoe_status heatmap_write_csv(struct heatmap *heatmap);
enum ditmoe_status heatmap_write_npz(struct heatmap *heatmap);
enum ditmoe_status heatmap_write_page(struct heatmap *heatmap);

/* Names a file that was written on standard output, unless that is for JSON. */
void heatmap_report(const struct heatmap *heatmap, const char *path);

/* json.c, print.c: loads, dependence, memory, findings, similarity of all layers
 * and steps; of both runs and their difference with --diff. */
cJSON *heatmap_numbers_json(const struct heatmap *heatmap); /* cJSON_Delete it */
enum ditmoe_status heatmap_print_numbers(const struct heatmap *heatmap);

#endif

/* How the numbers came about, and what to be wary of. */
#include "cli/eval/eval.h"
#include "cli/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FULL_COUNT = 50000 };            /* images behind published numbers */
enum { RANK_COUNT = 2048 };             /* pool features of the FID network */
static const double CLIPPED_MAX = 1e-6; /* beyond rounding */

void eval_warn(struct eval *eval, const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  text_sanitize(line);
  eval->warnings = memory_resize(eval->warnings, eval->warning_count + 1, sizeof *eval->warnings);
  eval->warnings[eval->warning_count++] = text_copy(line);
  report_warning("%s", line);
}

/* Warnings. */

static bool uses_file(const struct eval *eval, const struct eval_side *side) {
  return side->info.statistics && strcmp(side->info.statistics, "file") == 0 &&
         eval->measures & (DITMOE_FRECHET | DITMOE_SPATIAL);
}

static void warn_of_side(struct eval *eval, const struct eval_side *side) {
  const struct ditmoe_set_info *info = &side->info;
  if (info->jpeg)
    eval_warn(eval, "%s: %lld of %lld images are JPEG, whose losses move every measure", side->role,
              (long long)info->jpeg, (long long)info->images);
  if (info->sizes)
    eval_warn(eval, "%s: mixed sizes: %lld of %lld images are not %d x %d as the first is",
              side->role, (long long)info->sizes, (long long)info->images, info->width,
              info->height);
  if (uses_file(eval, side))
    eval_warn(eval,
              "%s: the statistics are those of the file; its network and resize rule are "
              "not known%s",
              side->role, side->images ? " (--recompute: anew)" : "");
}

static void warn_of_counts(struct eval *eval) {
  const bool distance = eval->measures & (DITMOE_FRECHET | DITMOE_SPATIAL) ||
                        eval->settings.save_stats || eval->settings.make_ref;
  const long long samples = eval->samples.info.images, reference = eval->reference.info.images;
  if (samples >= 0 && !uses_file(eval, &eval->samples)) {
    if (distance && samples < RANK_COUNT)
      eval_warn(eval,
                "samples: %lld, fewer than 2,048: their covariance has not full rank, and "
                "no number compares with published ones (50,000)",
                samples);
    else if (eval->measures && samples < FULL_COUNT)
      eval_warn(eval,
                "samples: %lld, fewer than the 50,000 of published numbers, with which "
                "these do not compare",
                samples);
  }
  if (distance && eval->reference.path && reference >= 0 && reference < RANK_COUNT &&
      !uses_file(eval, &eval->reference))
    eval_warn(eval, "reference: %lld, fewer than 2,048: their covariance has not full rank",
              reference);
}

static void warn_of_pair(struct eval *eval) {
  const struct ditmoe_set_info *a = &eval->reference.info, *b = &eval->samples.info;
  if (strcmp(a->sha256, b->sha256) == 0)
    eval_warn(eval, "reference and samples are the same images");
  else if (a->images > 0 && b->images > 0 && (a->width != b->width || a->height != b->height))
    eval_warn(eval,
              "the reference has %d x %d pixels, the samples %d x %d: resizing is part of "
              "the distance",
              a->width, a->height, b->width, b->height);
}

static void warn_of_clipping(struct eval *eval, unsigned bit, const char *what, double share) {
  if (eval->measures & bit && share > CLIPPED_MAX)
    eval_warn(eval,
              "%s: negative eigenvalues of %.2g of the trace became 0: more than rounding; "
              "a covariance is not one",
              what, share);
}

void eval_warn_of_numbers(struct eval *eval) {
  warn_of_counts(eval);
  if (eval->reference.path) {
    warn_of_side(eval, &eval->reference);
    warn_of_pair(eval);
  }
  warn_of_side(eval, &eval->samples);
  warn_of_clipping(eval, DITMOE_FRECHET, "Frechet distance", eval->scores.clipped);
  warn_of_clipping(eval, DITMOE_SPATIAL, "spatial Frechet distance", eval->scores.spatial_clipped);
}

/* Protocol. */

static void add(cJSON *object, const char *name, char *text) {
  cJSON_AddStringToObject(object, name, text_sanitize(text));
  free(text);
}

static void add_side(const struct eval *eval, cJSON *object, const struct eval_side *side) {
  const struct ditmoe_set_info *info = &side->info;
  if (!side->path) return;
  char *name = text_format("%s sha256", side->role);
  if (info->images < 0)
    add(object, side->role, text_format("%s: statistics alone", side->path));
  else
    add(object, side->role,
        text_format("%s: %lld images of %d x %d, %s%s", side->path, (long long)info->images,
                    info->width, info->height, info->kind,
                    uses_file(eval, side) ? ", with statistics of the file" : ""));
  add(object, name,
      text_format("%s of the %s", info->sha256, info->images < 0 ? "file" : "pixels"));
  free(name);
}

static void add_network(const struct eval *eval, cJSON *object) {
  const struct ditmoe_features_info *info = &eval->features;
  if (!info->kind) {
    add(object, "features", text_copy("of the files of statistics, from an unknown network"));
    return;
  }
  add(object, "features",
      text_format("%s%s, weights sha256 %s; pool %d, spatial %d, logits %d", info->name,
                  info->defines_fid ? "" : " (not the published weights)", info->sha256, info->pool,
                  info->spatial, info->logits));
  add(object, "resize",
      text_format("%s, to %d x %d",
                  strcmp(info->resize, "adm") == 0
                      ? "adm (TensorFlow's bilinear, no half-pixel centres)"
                      : "pytorch-fid (bilinear with half-pixel centres, no antialias)",
                  info->side, info->side));
  add(object, "computed in",
      text_format("%s, backend %s, tier %s", info->dtype, info->backend, info->tier));
}

static void add_pixels(const struct eval *eval, cJSON *object) {
  const cJSON *formula = cJSON_GetObjectItemCaseSensitive(eval->run, "pixels");
  if (!eval->samples.images) return;
  if (cJSON_IsString(formula))
    add(object, "pixels of samples",
        text_format("%s, says %s", formula->valuestring, eval->run_path));
  else
    add(object, "pixels of samples", text_copy("formula unknown: no manifest of their run"));
}

cJSON *eval_protocol(const struct eval *eval) {
  cJSON *object = cJSON_CreateObject();
  add_side(eval, object, &eval->reference);
  add_side(eval, object, &eval->samples);
  add_network(eval, object);
  add_pixels(eval, object);
  for (int i = 0; i < EVAL_MEASURES; i++) {
    if (!(eval->measures & eval_measures[i].bit)) continue;
    char *title = eval_title(eval, &eval_measures[i]);
    const bool fid = eval_is_fid(eval, &eval_measures[i]);
    const char *name = fid ? title : eval_measures[i].plain_title;
    add(object, name, text_copy(eval_measures[i].meaning));
    free(title);
  }
  if (eval->measures & DITMOE_FRECHET)
    add(object, "clipped share", text_format("%.3g", eval->scores.clipped));
  if (eval->measures & DITMOE_SPATIAL)
    add(object, "clipped share, spatial", text_format("%.3g", eval->scores.spatial_clipped));
  add(object, "program", text_format("ditmoe-eval %s", DITMOE_VERSION));
  return object;
}

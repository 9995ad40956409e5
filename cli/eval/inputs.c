/* What the operands are, and which measures they allow. */
#include "cli/eval/eval.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PRECISION_LEAST = 4 }; /* k + 1 */

static enum ditmoe_status inspect_arrays(struct eval *eval, struct eval_side *side) {
  struct ditmoe_arrays *arrays = NULL;
  TRY(report_call(eval->ctx, ditmoe_arrays_open(eval->ctx, side->path, &arrays)));
  for (int i = 0; i < ditmoe_arrays_count(arrays); i++) {
    struct ditmoe_array_info array;
    ditmoe_arrays_at(arrays, i, &array);
    side->images = side->images || strcmp(array.name, "arr_0") == 0;
    side->pool = side->pool || strcmp(array.name, "mu") == 0;
    side->spatial = side->spatial || strcmp(array.name, "mu_s") == 0;
  }
  ditmoe_arrays_close(arrays);
  return DITMOE_OK;
}

/* An operand that is no good should fail before the network is read. */
static enum ditmoe_status inspect_images(const struct eval *eval, struct eval_side *side) {
  const struct ditmoe_images_options options = {.recursive = eval->settings.recursive};
  struct ditmoe_images *images = NULL;
  struct ditmoe_images_info info;
  TRY(report_call(eval->ctx, ditmoe_images_open(eval->ctx, side->path, &options, &images)));
  ditmoe_images_info(images, &info);
  ditmoe_images_close(images);
  side->count = info.count;
  return DITMOE_OK;
}

/* By its first bytes, as the library does. */
static bool is_image(const char *path) {
  char first[4] = {0};
  struct stat info;
  FILE *file = stat(path, &info) == 0 && S_ISREG(info.st_mode) ? fopen(path, "rbe") : NULL;
  const bool read = file && fread(first, 1, sizeof first, file) == sizeof first;
  if (file) fclose(file);
  return read && (memcmp(first, "\x89PNG", 4) == 0 || memcmp(first, "\xff\xd8\xff", 3) == 0);
}

/* Headers alone; all else is checked when the set is opened. */
static enum ditmoe_status inspect_side(struct eval *eval, struct eval_side *side) {
  struct stat info;
  side->folder = stat(side->path, &info) == 0 && S_ISDIR(info.st_mode);
  side->archive = !side->folder && !is_image(side->path);
  side->images = !side->archive;
  if (side->archive) TRY(inspect_arrays(eval, side));
  return side->images ? inspect_images(eval, side) : DITMOE_OK;
}

static unsigned asked_measures(const struct eval_settings *s) {
  return (s->fid ? DITMOE_FRECHET : 0u) | (s->sfid ? DITMOE_SPATIAL : 0u) |
         (s->isc ? DITMOE_INCEPTION : 0u) | (s->prc ? DITMOE_PRECISION : 0u) |
         (s->kid ? DITMOE_KERNEL : 0u);
}

/* What this side cannot give: statistics alone say nothing about single images. */
static unsigned missing_measures(const struct eval_side *side, bool reference) {
  unsigned missing = 0;
  if (!side->path || side->images) return 0;
  if (!side->spatial) missing |= DITMOE_SPATIAL;
  if (!reference) missing |= DITMOE_INCEPTION;
  return missing | DITMOE_PRECISION | DITMOE_KERNEL;
}

enum ditmoe_status eval_leave_out(struct eval *eval, unsigned missing, const char *whose,
                                  const char *what) {
  missing &= eval->measures;
  for (int i = 0; i < EVAL_MEASURES; i++) {
    if (!(eval_measures[i].bit & missing)) continue;
    if (eval->asked)
      return report_error(DITMOE_USAGE, "%s has %s: not enough for: %s", whose, what,
                          eval_measures[i].plain_title);
    eval_warn(eval, "%s has %s; left out: %s", whose, what, eval_measures[i].plain_title);
  }
  eval->measures &= ~missing;
  return DITMOE_OK;
}

static enum ditmoe_status drop_missing(struct eval *eval, const struct eval_side *side,
                                       bool reference) {
  return eval_leave_out(eval, missing_measures(side, reference), side->path, "statistics alone");
}

/* --num is a promise: fewer images would give another number. */
static enum ditmoe_status check_count(const struct eval *eval) {
  const struct eval_side *side = &eval->samples;
  const long long asked = eval->settings.num;
  if (asked && !side->images)
    return report_error(DITMOE_USAGE, "--num: %s has statistics alone, no images", side->path);
  if (asked > side->count)
    return report_error(DITMOE_USAGE, "--num %lld: %s has %lld images only", asked, side->path,
                        (long long)side->count);
  return DITMOE_OK;
}

/* Precision has no meaning for so few images, but the rest of the usual measures has; where it was
 * asked for, the library refuses. */
static enum ditmoe_status drop_precision(struct eval *eval, const struct eval_side *side) {
  const int64_t limit = side == &eval->samples ? eval->settings.num : 0;
  const int64_t count = limit ? limit : side->count;
  if (eval->asked || !side->images || count >= PRECISION_LEAST) return DITMOE_OK;
  return eval_leave_out(eval, DITMOE_PRECISION, side->path, "fewer than 4 images");
}

static bool has_both(const struct eval_side *side) {
  return side->images && (side->pool || side->spatial);
}

static enum ditmoe_status check_alone(const struct eval *eval) {
  const struct eval_settings *s = &eval->settings;
  if (eval->samples.images) return DITMOE_OK;
  const char *option = s->features ? "features" : s->make_ref ? "make-ref" : NULL;
  if (option)
    return report_error(DITMOE_USAGE, "--%s: %s has statistics alone, no images", option,
                        eval->samples.path);
  return DITMOE_OK;
}

enum ditmoe_status eval_inspect(struct eval *eval) {
  static const unsigned usual =
      DITMOE_FRECHET | DITMOE_SPATIAL | DITMOE_INCEPTION | DITMOE_PRECISION;
  const unsigned asked = asked_measures(&eval->settings);
  if (eval->reference.path) TRY(inspect_side(eval, &eval->reference));
  TRY(inspect_side(eval, &eval->samples));
  eval->measures = asked || !eval->reference.path ? asked : usual;
  eval->asked = asked != 0;
  TRY(drop_missing(eval, &eval->reference, true));
  TRY(drop_missing(eval, &eval->samples, false));
  TRY(drop_precision(eval, &eval->reference));
  TRY(drop_precision(eval, &eval->samples));
  TRY(check_alone(eval));
  if (eval->settings.recompute && !has_both(&eval->reference) && !has_both(&eval->samples))
    return report_error(DITMOE_USAGE, "--recompute has no effect: no operand has images and their "
                                      "statistics");
  return check_count(eval);
}

/* Names and values of the measures, in ADM's order. */
#include "cli/eval/eval.h"
#include "cli/text.h"

#include <string.h>

#define AT(member) offsetof(struct ditmoe_scores, member)

const struct eval_measure eval_measures[EVAL_MEASURES] = {
    {DITMOE_INCEPTION, AT(inception_score), "inception_score", "Inception Score", "inception_score",
     "Inception Score", "higher",
     "class probabilities from logits without bias; splits of 5,000 images in turn, their mean"},
    {DITMOE_FRECHET, AT(frechet), "fid", "FID", "frechet_distance", "Frechet distance", "lower",
     "between normal distributions, covariances with divisor N - 1, in double, by symmetric "
     "eigenvalues"},
    {DITMOE_SPATIAL, AT(spatial_frechet), "sfid", "sFID", "spatial_frechet_distance",
     "Spatial Frechet distance", "lower",
     "the same of spatial features, for Inception 7 channels of Mixed_6d"},
    {DITMOE_PRECISION, AT(precision), "precision", "Precision", "precision", "Precision", "higher",
     "share of samples within the 3rd neighbour's distance of any reference image"},
    {DITMOE_PRECISION, AT(recall), "recall", "Recall", "recall", "Recall", "higher",
     "share of reference images within the 3rd neighbour's distance of any sample"},
    {DITMOE_KERNEL, AT(kernel), "kid", "KID", "kernel_distance", "Kernel distance", "lower",
     "kernel (x y / d + 1)^3, unbiased, over the whole sets: no subsets, no factor"},
};

double eval_value(const struct eval *eval, const struct eval_measure *measure) {
  return *(const double *)((const char *)&eval->scores + measure->field);
}

static bool is_of_file(const struct eval_side *side, unsigned bit) {
  const bool file = side->info.statistics && strcmp(side->info.statistics, "file") == 0;
  return file && (bit == DITMOE_FRECHET || (bit == DITMOE_SPATIAL && side->spatial));
}

/* Of the network that was opened, at least on one side. */
static bool is_known(const struct eval *eval, const struct eval_measure *measure) {
  return eval->features.kind &&
         !(is_of_file(&eval->reference, measure->bit) && is_of_file(&eval->samples, measure->bit));
}

bool eval_is_fid(const struct eval *eval, const struct eval_measure *measure) {
  return eval->features.defines_fid && is_known(eval, measure);
}

const char *eval_key(const struct eval *eval, const struct eval_measure *measure) {
  return eval_is_fid(eval, measure) ? measure->key : measure->plain_key;
}

char *eval_title(const struct eval *eval, const struct eval_measure *measure) {
  if (eval_is_fid(eval, measure)) return text_copy(measure->title);
  return text_format("%s (features: %s)", measure->plain_title,
                     is_known(eval, measure) ? eval->features.name : "unknown");
}

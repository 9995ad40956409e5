/* Published families of models: a row each says how a file of the family is told, and what its
 * program does that neither weights nor sizes show. */
#ifndef DIT_FAMILIES_H
#define DIT_FAMILIES_H

#include "dit/dit.h"

struct family {
  const char *name;  /* member `family` of the record */
  const char *title; /* for people, with the paper    */
  const char *kinds; /* kinds of mixture (router/) that it comes with, separated by blanks */
  /* What tells it from others of its kinds: a tensor, or an argument that its training program has
   * left in the file, "NAME" or "NAME=BEGINNING of the value". A family without a tensor may also
   * be what is left when the record has excluded the others. */
  const char *tensor, *argument;
  /* Arguments that are there must have these beginnings, in any case of letters: "NAME=BEGINNING
   * ..."; else the model is not one that is sampled in the family's way. NULL: none. */
  const char *needs;
  const char *record;  /* members of the record that follow, as JSON */
  const char *ignored; /* beginning of the names that sampling has no use for, or NULL */
  /* Defaults and conventions of its sampling program. */
  bool statistics;     /* latents have the mean and deviation of each channel taken away */
  const char *sampler; /* NULL: what the objective has */
  int steps;           /* 0: what the sampler has      */
  bool counts_points;  /* solvers of a flow: N steps mean the N points of the grid, N - 1 steps */
  bool heun_ends_euler;
  bool single_rows; /* guided runs draw noise for the images only, not for both halves */
  /* Guidance in an interval of times: those of each evaluation, not of the step's start; without
   * its ends. */
  bool guided_by_evaluation, guided_inside;
};

/* NULL after the last. */
const struct family *family_at(int index);
/* By the name in the record; NULL if unknown. */
const struct family *family_find(const char *name);

/* Chooses config->family by the record, else by tensors, arguments and what the record has; writes
 * the reason to config->family_why and fills members that the record lacks. A model of none is no
 * error. DITMOE_USAGE: several families have such tensors, and what follows differs. */
enum ditmoe_status family_choose(struct ditmoe_ctx *ctx, struct dit_config *config,
                                 const struct ditmoe_checkpoint *checkpoint);
/* What the file alone tells, as text: "sit: args.model is SiT-XL/2". kind: that of its tensors. */
void family_describe(const struct ditmoe_checkpoint *checkpoint, const struct mixture *kind,
                     char *text, size_t size);

#endif

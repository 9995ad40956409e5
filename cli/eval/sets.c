/* Network, sets and comparison, with progress. */
#include "cli/eval/eval.h"
#include "cli/stop.h"

/* The network. */

/* Whether `measures` of this side need features that its file does not hold. */
static bool needs_network(const struct eval *eval, const struct eval_side *side,
                          unsigned measures) {
  const struct eval_settings *s = &eval->settings;
  const bool anew = s->recompute || (side == &eval->samples && s->num);
  if (side == &eval->reference) measures &= ~(unsigned)DITMOE_INCEPTION;
  if (!side->path || !side->images) return false;
  if (measures & DITMOE_FRECHET && side->pool && !anew) measures &= ~(unsigned)DITMOE_FRECHET;
  if (measures & DITMOE_SPATIAL && side->spatial && !anew) measures &= ~(unsigned)DITMOE_SPATIAL;
  return measures != 0;
}

/* The measures of the samples, and what the outputs need besides. Spatial statistics are saved if
 * the network has such features, or may have them as long as it is not open. */
static unsigned sample_measures(const struct eval *eval) {
  const struct eval_settings *s = &eval->settings;
  const bool spatial = eval->network ? eval->features.spatial > 0 : s->inception != NULL;
  unsigned measures = eval->measures;
  if (s->save_stats || s->make_ref) measures |= DITMOE_FRECHET | (spatial ? DITMOE_SPATIAL : 0u);
  if (s->features) measures |= DITMOE_KERNEL;
  return measures;
}

enum ditmoe_status eval_open_network(struct eval *eval) {
  const struct eval_settings *s = &eval->settings;
  const struct ditmoe_model_options options = {
      .backend = s->backend, .tier = s->tier, .dtype = s->dtype, .threads = (int)s->threads};
  const bool needed = needs_network(eval, &eval->reference, eval->measures) ||
                      needs_network(eval, &eval->samples, sample_measures(eval));
  TRY(eval_refuse_needless(eval, needed));
  if (!needed) return DITMOE_OK;
  if (!s->inception)
    return report_error(DITMOE_USAGE, "no feature network: give --inception or set "
                                      "DITMOE_INCEPTION to its file of weights");
  TRY(report_call(eval->ctx, ditmoe_features_open(eval->ctx, s->inception, &options, s->resize,
                                                  &eval->network)));
  ditmoe_features_info(eval->network, &eval->features);
  report_detail("network: %s, tier %s, %s", eval->features.name, eval->features.tier,
                eval->features.dtype);
  TRY(eval_leave_out(eval, eval->features.logits ? 0u : DITMOE_INCEPTION, eval->features.name,
                     "no logits"));
  return eval_leave_out(eval, eval->features.spatial ? 0u : DITMOE_SPATIAL, eval->features.name,
                        "no spatial features");
}

/* Sets. */

static int observe(void *user, int64_t done, int64_t count) {
  (void)count;
  progress_step(user, done, 0, 0, 0);
  return stop_asked();
}

enum ditmoe_status eval_open_set(struct eval *eval, struct eval_side *side, unsigned measures) {
  const struct eval_settings *s = &eval->settings;
  struct progress progress;
  const int64_t limit = side == &eval->samples ? s->num : 0;
  const struct ditmoe_set_options options = {
      .measures = measures,
      .reference = side == &eval->reference,
      .recompute = s->recompute && side->images,
      .recursive = s->recursive,
      .count = limit,
      .threads = (int)s->threads,
      .batch = (int)s->batch_size,
      .user = &progress,
      .observe = observe,
  };
  report_note("%s: %s", side->role, side->path);
  progress_start(&progress, s->progress, s->common.quiet, report_uses_color(),
                 limit ? limit : side->count);
  enum ditmoe_status status =
      ditmoe_set_open(eval->ctx, side->path, eval->network, &options, &side->set);
  progress_finish(&progress);
  TRY(report_call(eval->ctx, status));
  ditmoe_set_info(side->set, &side->info);
  return DITMOE_OK;
}

enum ditmoe_status eval_measure(struct eval *eval) {
  stop_on_signals();
  if (eval->reference.path) TRY(eval_open_set(eval, &eval->reference, eval->measures));
  TRY(eval_open_set(eval, &eval->samples, sample_measures(eval)));
  const struct ditmoe_set *reference =
      eval->reference.set ? eval->reference.set : eval->samples.set;
  return report_call(eval->ctx, ditmoe_compare(eval->ctx, reference, eval->samples.set,
                                               eval->measures, &eval->scores));
}

/* Named on standard output where it is not for numbers. */
static void report_output(const struct eval *eval, const char *path) {
  if (path && !eval->measures && !eval->settings.common.json) report_file(path);
}

enum ditmoe_status eval_save(struct eval *eval) {
  const struct eval_settings *s = &eval->settings;
  const struct ditmoe_set *set = eval->samples.set;
  struct ditmoe_ctx *ctx = eval->ctx;
  if (s->save_stats) TRY(report_call(ctx, ditmoe_set_save(ctx, set, s->save_stats, 0)));
  if (s->make_ref) TRY(report_call(ctx, ditmoe_set_save(ctx, set, s->make_ref, 1)));
  if (s->features) TRY(report_call(ctx, ditmoe_set_save_features(ctx, set, s->features)));
  report_output(eval, s->save_stats);
  report_output(eval, s->make_ref);
  report_output(eval, s->features);
  return DITMOE_OK;
}

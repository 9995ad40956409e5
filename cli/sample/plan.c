/* The request, what it needs, and --dry-run. */
#include "cli/outputs.h"
#include "cli/sample/work.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

/* No batch has more images, so that these stand for all of the run. */
enum { MAX_BATCH = 1 << 16 };
static const uint64_t MAX_LATENT_BYTES = (uint64_t)4 << 30;

static void make_request(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  struct ditmoe_request *r = &run->request;
  *r = ditmoe_request_default();
  r->count = run->labels.count < MAX_BATCH ? run->labels.count : MAX_BATCH;
  r->first_index = run->labels.first;
  r->width = run->latent_width;
  r->height = run->latent_height;
  r->seed = s->seed;
  r->sampler = s->sampler;
  r->steps = (int)s->steps;
  r->respacing = s->respacing;
  r->cfg_scale = s->cfg_scale;
  if (option_given(&run->options, &s->cfg_interval))
    r->cfg_from = s->cfg_interval.from, r->cfg_to = s->cfg_interval.to;
  if (s->cfg_times.to > 0)
    r->cfg_from = s->cfg_times.from, r->cfg_to = s->cfg_times.to, r->cfg_times = 1;
  r->diffusion_form = s->diffusion_form;
  r->diffusion_norm = s->diffusion_norm;
  r->last_step = s->last_step;
  r->last_step_size = s->last_step_size;
  r->sample_eps = s->sample_eps;
  if (s->cfg_channels) r->cfg_channels = strcmp(s->cfg_channels, "all") == 0 ? 0 : 3;
  r->eta = s->eta;
  r->shift = s->shift;
  r->batch = (int)s->batch_size;
  r->block = (int)s->index_block;
  r->rng = s->rng;
  r->fixed_variance = s->fixed_variance;
  r->force = s->force || run->origin.force;
}

/* Makes a choice of the library part of the settings, so that it is recorded like a given one. */
static enum ditmoe_status settle(struct sample *run, const char *name, const char *value) {
  const struct option *option = option_find(&sample_program, name, strlen(name));
  char *held = option_value(&run->options, option);
  bool same = held && strcmp(held, value) == 0;
  free(held);
  return same ? DITMOE_OK : option_set(&run->options, option, value, name, FROM_MODEL);
}

static enum ditmoe_status settle_number(struct sample *run, const char *name, int64_t value) {
  char *text = text_format("%lld", (long long)value);
  enum ditmoe_status status = settle(run, name, text);
  free(text);
  return status;
}

static enum ditmoe_status refuse_needless(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const struct option_use uses[] = {
      {&s->eta, strcmp(run->plan.sampler, "ddim") == 0, "except on sampler ddim"},
      {&s->fixed_variance, run->info.learned_variance, "on a model without learned variance"}};
  return options_refuse_needless(&run->options, uses, sizeof uses / sizeof *uses);
}

/* A part of a run must not cut a block in two: its images depend on each other. */
static enum ditmoe_status check_block(struct sample *run) {
  const struct sample_labels *labels = &run->labels;
  run->unit = run->plan.block > 0 ? run->plan.block : 1;
  int64_t end = labels->first + labels->count;
  if (labels->first % run->unit == 0 && (end % run->unit == 0 || end == labels->total))
    return DITMOE_OK;
  return report_error(DITMOE_USAGE,
                      "--index-range %lld:%lld: here images are made in blocks of %lld",
                      (long long)labels->first, (long long)end, (long long)run->unit);
}

static enum ditmoe_status plan_request(struct sample *run) {
  int32_t *labels = sample_label_list(run, run->labels.first, run->request.count);
  run->request.labels = labels;
  enum ditmoe_status status = report_call(
      run->ctx, ditmoe_plan(run->ctx, run->model, run->decoder, &run->request, &run->plan));
  run->request.labels = NULL;
  free(labels);
  return status;
}

/* Latents are kept in memory until the end. */
static enum ditmoe_status check_latents(const struct sample *run) {
  uint64_t count = (uint64_t)run->labels.count;
  if (!run->settings.latents || sample_latent_bytes(run) * count <= MAX_LATENT_BYTES)
    return DITMOE_OK;
  return report_error(DITMOE_USAGE, "--latents: those of %llu images are more than 4 GiB",
                      (unsigned long long)count);
}

enum ditmoe_status sample_plan(struct sample *run) {
  make_request(run);
  TRY(plan_request(run));
  TRY(check_latents(run));
  TRY(refuse_needless(run));
  TRY(check_block(run));
  TRY(settle(run, "sampler", run->plan.sampler));
  if (!run->settings.respacing) TRY(settle_number(run, "steps", run->plan.steps_counted));
  if (run->plan.block) TRY(settle_number(run, "index-block", run->plan.block));
  TRY(settle(run, "backend", run->info.backend));
  TRY(settle(run, "dtype", run->info.dtype));
  if (strcmp(run->info.backend, "ref") != 0) TRY(settle(run, "tier", run->info.tier));
  report_detail("sampler %s, %d steps, %d model calls, batches of %d", run->plan.sampler,
                run->plan.steps, run->plan.denoiser_calls, run->plan.batch);
  return DITMOE_OK;
}

/* Bytes of pixels and latents that the program holds besides the library. */
static uint64_t own_bytes(const struct sample *run) {
  uint64_t all = (uint64_t)run->labels.count, some = (uint64_t)run->plan.batch;
  return sample_image_bytes(run) * (some + 2 * (uint64_t)sample_grid_count(run)) +
         sample_latent_bytes(run) * (run->settings.latents ? 2 * all : some) +
         sample_routing_bytes(run);
}

enum ditmoe_status sample_print_plan(const struct sample *run) {
  const struct ditmoe_plan *p = &run->plan;
  const double mib = 1048576;
  uint64_t working = p->activation_bytes + own_bytes(run);
  uint64_t all = p->weight_bytes + working;
  bool fits = all <= p->available_bytes;
  if (run->settings.common.json) {
    printf(
        "{\"weights\": %llu, \"working\": %llu, \"available\": %llu, \"fits\": %s, \"batch\": %d, "
        "\"sampler\": \"%s\", \"steps\": %d, \"model_calls\": %d, \"images\": %lld}\n",
        (unsigned long long)p->weight_bytes, (unsigned long long)working,
        (unsigned long long)p->available_bytes, fits ? "true" : "false", p->batch, p->sampler,
        p->steps, p->denoiser_calls, (long long)run->labels.count);
  } else {
    printf("weights    %10.1f MiB\n"
           "working    %10.1f MiB for batches of %d\n"
           "available  %10.1f MiB\n"
           "%s: %lld images by %s in %d steps, %d model calls for each batch\n",
           (double)p->weight_bytes / mib, (double)working / mib, p->batch,
           (double)p->available_bytes / mib, fits ? "fits" : "does not fit",
           (long long)run->labels.count, p->sampler, p->steps, p->denoiser_calls);
  }
  if (fits) return DITMOE_OK;
  return report_error(
      DITMOE_NOMEM, "%.1f MiB are needed, %.1f MiB are free; use a smaller --batch-size or --tile",
      (double)all / mib, (double)p->available_bytes / mib);
}

/* Requests: defaults, and every choice checked against the model. */
#include "api/handles.h"
#include "api/scheduler.h"
#include "base/system.h"
#include "dit/families.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_BATCH = 8, DEFAULT_BLOCK = 8, MAX_BATCH = 1 << 16, TRAIN_STEPS = 1000 };
static const double LAST_STEP_SIZE = 0.04;

struct ditmoe_request ditmoe_request_default(void) {
  return (struct ditmoe_request){.cfg_scale = 4.0, .cfg_to = 1.0, .cfg_channels = -1};
}

const char *ditmoe_sampler_name(int index) {
  const struct sampler *sampler = sampler_at(index);
  return sampler ? sampler->name : NULL;
}

const char *ditmoe_sampler_objective(int index) {
  const struct sampler *sampler = sampler_at(index);
  return sampler ? sampler->objective : NULL;
}

static enum ditmoe_status choose_sampler(struct ditmoe_ctx *ctx, const struct dit_config *config,
                                         const struct ditmoe_request *request,
                                         struct resolved *out) {
  bool flow = config->record.objective == OBJECTIVE_RF;
  const char *objective = flow ? "rf" : "ddpm";
  const char *name = request->sampler;
  if (!name) TRY(scheduler_sampler(ctx, &config->record, objective, &name));
  if (!name && config->family) name = config->family->sampler;
  if (!name) name = flow ? "euler" : "ddpm";
  out->sampler = sampler_find(name);
  if (!out->sampler) return fail(ctx, DITMOE_USAGE, "sampler: unknown sampler \"%s\"", name);
  if (strcmp(out->sampler->objective, objective) != 0 && !request->force)
    return fail(ctx, DITMOE_MISMATCH,
                "sampler %s is for %s models, but this one was trained for %s; use %s, or --force",
                name, out->sampler->objective, objective, flow ? "euler" : "ddpm");
  return DITMOE_OK;
}

/* Options that the sampler would ignore. */
static enum ditmoe_status check_applies(struct ditmoe_ctx *ctx,
                                        const struct ditmoe_request *request,
                                        const struct sampler *sampler) {
  bool flow = strcmp(sampler->objective, "rf") == 0;
  const char *option = NULL;
  if (request->eta != 0 && !sampler->takes_eta) option = "eta";
  if (request->respacing && !sampler->takes_respacing) option = "respacing";
  if (request->shift != 0 && (!flow || sampler->takes_diffusion)) option = "shift";
  if (request->cfg_times && !flow) option = "cfg-times";
  if (!sampler->takes_diffusion) {
    if (request->diffusion_form) option = "diffusion-form";
    if (request->diffusion_norm != 0) option = "diffusion-norm";
    if (request->last_step) option = "last-step";
    if (request->last_step_size != 0) option = "last-step-size";
    if (request->sample_eps != 0) option = "sample-eps";
  }
  if (request->fixed_variance && strcmp(sampler->name, "ddpm") != 0) option = "fixed-variance";
  return option ? fail(ctx, DITMOE_USAGE, "%s: sampler %s has no use for it", option, sampler->name)
                : DITMOE_OK;
}

static enum ditmoe_status check_numbers(struct ditmoe_ctx *ctx, const struct ditmoe_request *r) {
  if (r->count < 1)
    return fail(ctx, DITMOE_USAGE, "number of samples %lld: at least 1", (long long)r->count);
  if (r->first_index < 0 || r->first_index > INT64_MAX - r->count)
    return fail(ctx, DITMOE_USAGE, "first sample index %lld: out of range",
                (long long)r->first_index);
  if (r->steps < 0) return fail(ctx, DITMOE_USAGE, "steps %d: at least 1", r->steps);
  if (r->batch < 0 || r->batch > MAX_BATCH)
    return fail(ctx, DITMOE_USAGE, "batch size %d: from 1 to %d", r->batch, MAX_BATCH);
  if (r->block < 0 || r->block > MAX_BATCH)
    return fail(ctx, DITMOE_USAGE, "index block %d: from 1 to %d", r->block, MAX_BATCH);
  if (!isfinite(r->cfg_scale) || fabs(r->cfg_scale) > 1e6)
    return fail(ctx, DITMOE_USAGE, "guidance scale %g: not usable", r->cfg_scale);
  if (!(r->cfg_from >= 0 && r->cfg_from <= r->cfg_to && r->cfg_to <= 1))
    return fail(ctx, DITMOE_USAGE, "guidance interval %g:%g: must be within 0:1", r->cfg_from,
                r->cfg_to);
  if (!(r->eta >= 0 && r->eta <= 1)) return fail(ctx, DITMOE_USAGE, "eta %g: from 0 to 1", r->eta);
  if (r->shift != 0 && !(r->shift >= 1e-3 && r->shift <= 1e3))
    return fail(ctx, DITMOE_USAGE, "shift %g: from 0.001 to 1000", r->shift);
  return DITMOE_OK;
}

static enum ditmoe_status check_labels(struct ditmoe_ctx *ctx, const struct dit_config *config,
                                       const struct ditmoe_request *request) {
  if (!request->labels) return fail(ctx, DITMOE_USAGE, "the request has no labels");
  for (int64_t i = 0; i < request->count; i++) {
    int label = request->labels[i];
    bool trained = label < config->record.classes_used;
    if (label < 0 || (!trained && label != config->record.null_label))
      return fail(ctx, DITMOE_USAGE, "class %d: this model was trained for 0 to %d%s", label,
                  config->record.classes_used - 1,
                  config->record.null_label < 0 ? "" : ", and has a label of no class");
  }
  return DITMOE_OK;
}

static enum ditmoe_status choose_guidance(struct ditmoe_ctx *ctx, const struct dit_config *config,
                                          const struct ditmoe_request *r, struct resolved *out) {
  const struct family *family = config->family;
  int channels = r->cfg_channels >= 0 ? r->cfg_channels : config->record.cfg_channels;
  if (channels > config->channels)
    return fail(ctx, DITMOE_USAGE, "guided channels %d: the latents have %d", channels,
                config->channels);
  out->guidance = (struct guidance){
      .scale = r->cfg_scale,
      .channels = channels,
      .from = r->cfg_from,
      .to = r->cfg_to,
      .by_time = r->cfg_times,
      .by_evaluation = family && family->guided_by_evaluation,
      .open = family && family->guided_inside,
  };
  out->heun_ends_euler = family && family->heun_ends_euler;
  out->guided = r->cfg_scale != 1 && r->cfg_from < r->cfg_to;
  out->two_rows = out->guided && !(family && family->single_rows);
  if (!out->guided || config->record.null_label >= 0) return DITMOE_OK;
  return fail(
      ctx, DITMOE_USAGE,
      "guidance scale %g: no row of the class table is left for the empty class, of %d all are "
      "classes; only --cfg-scale 1 works",
      r->cfg_scale, config->label_rows);
}

/* *out = the number of a word in the order of its enumeration, 0 without one. */
static enum ditmoe_status choose_word(struct ditmoe_ctx *ctx, const char *option, const char *word,
                                      const char *const *words, int *out) {
  *out = 0;
  if (!word) return DITMOE_OK;
  for (; words[*out]; ++*out)
    if (strcmp(words[*out], word) == 0) return DITMOE_OK;
  return fail(ctx, DITMOE_USAGE, "%s: unknown word \"%.40s\"", option, word);
}

static enum ditmoe_status choose_sde(struct ditmoe_ctx *ctx, const struct ditmoe_request *request,
                                     struct sde *out) {
  static const char *const forms[] = {
      "sigma", "constant", "sbdm", "decreasing", "increasing-decreasing", NULL};
  static const char *const lasts[] = {"mean", "tweedie", "euler", "none", NULL};
  int form, last;
  TRY(choose_word(ctx, "diffusion-form", request->diffusion_form, forms, &form));
  TRY(choose_word(ctx, "last-step", request->last_step, lasts, &last));
  if (!(request->diffusion_norm >= 0) || !isfinite(request->diffusion_norm))
    return fail(ctx, DITMOE_USAGE, "diffusion-norm %g: expected a positive number",
                request->diffusion_norm);
  *out = (struct sde){.form = (enum diffusion_form)form,
                      .norm = request->diffusion_norm != 0 ? request->diffusion_norm : 1,
                      .last = (enum last_step)last,
                      .last_size = request->last_step_size,
                      .start = request->sample_eps};
  if (out->last == LAST_NONE && out->last_size != 0)
    return fail(ctx, DITMOE_USAGE, "last-step-size: there is no last step");
  if (out->last != LAST_NONE && out->last_size == 0) out->last_size = LAST_STEP_SIZE;
  return DITMOE_OK;
}

static enum ditmoe_status choose_schedule(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                          const struct ditmoe_request *request,
                                          struct resolved *out) {
  const struct dit_record *record = &model->dit->config.record;
  const struct family *family = model->dit->config.family;
  struct schedule_request *schedule = &out->schedule;
  *schedule = (struct schedule_request){.train_steps = TRAIN_STEPS};
  TRY(scheduler_follow(ctx, record, model->trained_betas, out->sampler, schedule));
  TRY(choose_sde(ctx, request, &schedule->sde));
  schedule->steps = family && family->steps ? family->steps : out->sampler->default_steps;
  if (request->steps) schedule->steps = request->steps;
  schedule->shift = request->shift != 0 ? request->shift : record->shift;
  schedule->rising = record->time_direction == NOISE_AT_0;
  schedule->counts_points = family && family->counts_points;
  schedule->respacing = request->respacing;
  if (request->respacing) schedule->spacing = SPACING_RESPACE;
  return DITMOE_OK;
}

/* What the patches cannot cover, and learned positions, dit_grid_make refuses. */
static enum ditmoe_status choose_size(struct ditmoe_ctx *ctx, const struct dit_config *config,
                                      const struct ditmoe_request *request, struct resolved *out) {
  enum { MAX_SIDE = 1 << 15 };
  out->height = request->height ? request->height : config->size;
  out->width = request->width ? request->width : config->size;
  const int p = config->patch;
  if (out->height > 0 && out->height <= MAX_SIDE && out->height % p == 0 && out->width > 0 &&
      out->width <= MAX_SIDE && out->width % p == 0)
    return DITMOE_OK;
  return fail(ctx, DITMOE_USAGE,
              "latents of %dx%d: sides must be multiples of the patch, %d, and at most %d",
              out->width, out->height, p, MAX_SIDE);
}

struct dit_grid request_grid(const struct ditmoe_model *model, const struct resolved *resolved) {
  const int p = model->dit->config.patch;
  return (struct dit_grid){.rows = resolved->height / p, .cols = resolved->width / p};
}

static enum ditmoe_status choose_batch(struct ditmoe_ctx *ctx, const struct ditmoe_request *request,
                                       bool coupled, int64_t tokens, struct resolved *out) {
  out->batch = request->batch ? request->batch : DEFAULT_BATCH;
  if (!coupled && !out->torch) {
    if (request->block)
      return fail(ctx, DITMOE_USAGE,
                  "index block: only batch-coupled models and torch-cpu have one");
  } else {
    out->block = request->block ? request->block : request->batch ? request->batch : DEFAULT_BLOCK;
    if (request->batch && request->batch != out->block)
      return fail(ctx, DITMOE_USAGE, "batch size %d: here images are made in index blocks of %d",
                  request->batch, out->block);
    if (request->first_index % out->block != 0)
      return fail(ctx, DITMOE_USAGE, "first sample index %lld: must begin an index block of %d",
                  (long long)request->first_index, out->block);
    out->batch = out->block;
  }
  if (out->batch > request->count) out->batch = (int)request->count;
  if (2 * out->batch * tokens > INT32_MAX)
    return fail(ctx, DITMOE_USAGE, "batch size %d: at most %lld for this model and size",
                out->batch, (long long)(INT32_MAX / 2 / tokens));
  return DITMOE_OK;
}

static enum ditmoe_status choose_rng(struct ditmoe_ctx *ctx, const char *name, bool *torch) {
  *torch = name && strcmp(name, "torch-cpu") == 0;
  if (!name || *torch || strcmp(name, "philox") == 0) return DITMOE_OK;
  return fail(ctx, DITMOE_USAGE, "rng: expected \"philox\" or \"torch-cpu\", found \"%s\"", name);
}

enum ditmoe_status request_resolve(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                   const struct ditmoe_request *request, struct resolved *out) {
  const struct dit_config *config = &model->dit->config;
  struct ditmoe_model_info info;
  *out = (struct resolved){0};
  ditmoe_model_info(model, &info);
  TRY(check_numbers(ctx, request));
  TRY(check_labels(ctx, config, request));
  TRY(choose_sampler(ctx, config, request, out));
  TRY(check_applies(ctx, request, out->sampler));
  TRY(choose_rng(ctx, request->rng, &out->torch));
  TRY(choose_size(ctx, config, request, out));
  const struct dit_grid grid = request_grid(model, out);
  TRY(choose_batch(ctx, request, info.batch_coupled, (int64_t)grid.rows * grid.cols, out));
  TRY(choose_schedule(ctx, model, request, out));
  TRY(choose_guidance(ctx, config, request, out));
  out->batched = out->guided && !info.batch_coupled;
  return DITMOE_OK;
}

/* Memory. */

uint64_t session_arena_bytes(const struct ditmoe_model *model, const struct ditmoe_decoder *decoder,
                             const struct resolved *resolved) {
  int rows = resolved->batch * (resolved->batched ? 2 : 1);
  const struct dit_grid grid = request_grid(model, resolved);
  uint64_t denoiser = dit_predict_bytes(&model->ex, model->dit, &grid, rows), images = 0;
  if (decoder)
    images = vae_decode_bytes(&decoder->ex, decoder->vae, resolved->height, resolved->width,
                              decoder->tile);
  return denoiser > images ? denoiser : images;
}

/* Whether the model can be run at this size. */
static enum ditmoe_status check_size(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                                     const struct resolved *resolved) {
  struct exec ex;
  struct dit_grid grid;
  TRY(exec_open(&ex, ctx, model->ex.device));
  enum ditmoe_status status =
      dit_grid_make(&ex, model->dit, resolved->height, resolved->width, &grid);
  if (status == DITMOE_OK) dit_grid_free(&ex, model->dit, &grid);
  exec_close(&ex);
  return status;
}

enum ditmoe_status ditmoe_plan(struct ditmoe_ctx *ctx, const struct ditmoe_model *model,
                               const struct ditmoe_decoder *decoder,
                               const struct ditmoe_request *request, struct ditmoe_plan *out) {
  struct resolved resolved;
  struct schedule schedule = {0};
  TRY(request_resolve(ctx, model, request, &resolved));
  TRY(check_size(ctx, model, &resolved));
  TRY(resolved.sampler->plan(ctx, &resolved.schedule, &schedule));
  int calls = schedule.steps * resolved.sampler->calls_per_step;
  *out = (struct ditmoe_plan){
      .sampler = resolved.sampler->name,
      .steps = schedule.steps,
      .steps_counted = resolved.schedule.steps,
      .batch = resolved.batch,
      .block = resolved.block,
      .denoiser_calls = resolved.guided && !resolved.batched ? 2 * calls : calls,
      .weight_bytes = model->dit->params.weight_bytes,
      .activation_bytes = session_arena_bytes(model, decoder, &resolved) +
                          session_host_bytes(model, decoder, &resolved),
      .available_bytes = system_memory_available(),
  };
  schedule_free(ctx, &schedule);
  if (decoder) {
    struct vae_info info;
    vae_describe(decoder->vae, &info);
    out->weight_bytes += info.weight_bytes;
  }
  return DITMOE_OK;
}

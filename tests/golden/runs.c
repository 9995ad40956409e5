/* The sampling runs of a manifest: the real samplers over dit_predict. Guided DDPM and DDIM runs of
 * the original programs carry 2n rows with noise of their own, of which only the first n are fed
 * back; they are repeated the way users have them, with n rows and the guidance in the sampler. */
#include "tests/golden/golden.h"
#include "tests/limit.h"

#include "sampler/sampler.h"
#include "vae/vae.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct sampling {
  struct golden *g;
  const cJSON *run;
  struct case_file file;
  struct dit *model;
  const struct sampler *sampler;
  struct schedule schedule;
  bool doubled; /* 2n rows, guided in the denoiser */
  bool paired;  /* both predictions of guidance are rows of one call */
  int rows;     /* n, or 2n if doubled */
  int noises;   /* steps that `noise` is for */
  bool guided;
  double scale;                  /* 1 if not guided */
  double guided_from;            /* time before which a doubled run is not */
  float *z, *noise;              /* [rows, C, S, S]; [steps, rows, C, S, S] or NULL */
  int32_t *labels, *null_labels; /* [rows] */
  int64_t each;                  /* C S S */
  /* Scratch for the denoiser, and what a run leaves. */
  float *pair, *output, *time; /* [2 rows, C, S, S], [2 rows, Cout, S, S], [2 rows] */
  int32_t *pair_labels;        /* [2 rows] */
  float *x, *work;
  float *times, *states, *estimates; /* [steps], [steps + 1, rows, ..], [steps, rows, ..] */
  double *call_times, *call_rows;    /* [calls] of the recorded run, in order */
  size_t calls;
  bool recording;
};

/* The denoiser. */

static enum ditmoe_status keep_call(struct sampling *s, float time, int rows) {
  struct ditmoe_ctx *ctx = s->g->ctx;
  TRY(mem_room(ctx, s->calls, sizeof *s->call_times, "times", &s->call_times));
  TRY(mem_room(ctx, s->calls, sizeof *s->call_rows, "rows", &s->call_rows));
  s->call_times[s->calls] = (double)time;
  s->call_rows[s->calls++] = rows;
  return DITMOE_OK;
}

/* Evaluates `count` rows of x with the labels of s->pair_labels; s->time is set here. */
static enum ditmoe_status evaluate(struct sampling *s, float *out, const float *x, int count,
                                   const struct prediction *prediction) {
  const float time = (float)s->model->config.record.time_scale * (float)prediction->time;
  for (int i = 0; i < count; i++) s->time[i] = time;
  if (s->recording && isnan(s->times[prediction->step])) s->times[prediction->step] = time;
  if (s->recording) TRY(keep_call(s, time, count));
  const struct dit_input in = {.x = x,
                               .time = s->time,
                               .labels = s->pair_labels,
                               .B = count,
                               .routing = prediction->routing};
  return golden_predict(s->g, s->model, out, &in);
}

static enum ditmoe_status predict(void *user, float *out, const struct prediction *prediction) {
  struct sampling *s = user;
  const int count = s->doubled ? s->rows / 2 : s->rows;
  const int32_t *labels = prediction->unconditional ? s->null_labels : s->labels;
  memcpy(s->pair_labels, labels, (size_t)count * sizeof *labels);
  return evaluate(s, out, prediction->x, count, prediction);
}

/* [first half of x twice], labels as they are */
static enum ditmoe_status evaluate_pair(struct sampling *s, float *out, const float *x, int n,
                                        const int32_t *second,
                                        const struct prediction *prediction) {
  const size_t half = (size_t)n * (size_t)s->each;
  memcpy(s->pair, x, half * sizeof *x);
  memcpy(s->pair + half, x, half * sizeof *x);
  memcpy(s->pair_labels, s->labels, (size_t)n * sizeof *second);
  memcpy(s->pair_labels + n, second, (size_t)n * sizeof *second);
  return evaluate(s, out, s->pair, 2 * n, prediction);
}

/* As the original's forward_with_cfg: x has 2n rows and the guidance happens here. */
static enum ditmoe_status predict_doubled(void *user, float *out,
                                          const struct prediction *prediction) {
  struct sampling *s = user;
  const int n = s->rows / 2;
  TRY(evaluate_pair(s, out, prediction->x, n, s->labels + n, prediction));
  golden_guide(&s->model->config, out, n, prediction->time < s->guided_from ? 1 : s->scale,
               golden_channels(s->g, s->run));
  return DITMOE_OK;
}

static enum ditmoe_status predict_both(void *user, float *conditional, float *unconditional,
                                       const struct prediction *prediction) {
  struct sampling *s = user;
  const struct dit_config *c = &s->model->config;
  const bool halves = s->doubled && !s->recording;
  const int n = halves ? s->rows / 2 : s->rows;
  const size_t half = (size_t)n * (size_t)c->out_channels * (size_t)(c->size * c->size);
  const int32_t *second = halves ? s->labels + n : s->null_labels;
  TRY(evaluate_pair(s, s->output, prediction->x, n, second, prediction));
  memcpy(conditional, s->output, half * sizeof *conditional);
  memcpy(unconditional, s->output + half, half * sizeof *unconditional);
  return DITMOE_OK;
}

/* Hooks. */

static enum ditmoe_status step_noise(void *user, float *out, int step) {
  struct sampling *s = user;
  const size_t rows = (size_t)(s->doubled && !s->recording ? s->rows / 2 : s->rows);
  if (step >= s->noises)
    return fail(s->g->ctx, DITMOE_FORMAT, "%s: no noise for step %d", s->file.name, step + 1);
  memcpy(out, s->noise + (int64_t)step * s->rows * s->each, rows * (size_t)s->each * sizeof *out);
  return DITMOE_OK;
}

/* The first estimate of a step is the one at its beginning. */
static enum ditmoe_status keep_estimate(void *user, struct sampler_run *run, int step, float *x0) {
  struct sampling *s = user;
  const int64_t size = sampler_elements(run);
  float *kept = s->estimates + step * size;
  if (isnan(kept[0])) memcpy(kept, x0, (size_t)size * sizeof *x0);
  return DITMOE_OK;
}

static enum ditmoe_status keep_state(void *user, struct sampler_run *run, int step, float *x) {
  struct sampling *s = user;
  const int64_t size = sampler_elements(run);
  memcpy(s->states + step * size, x, (size_t)size * sizeof *x);
  return DITMOE_OK;
}

/* Setting up. */

static int find_word(const char *const *words, const char *word) {
  int i = 0;
  while (words[i] && strcmp(words[i], word) != 0) i++;
  return i;
}

/* In the order of their enumerations. On a straight path "linear" is "sigma", and so is "repa" with
 * the signs of falling time; the original misspells the last form. */
static struct sde read_sde(const cJSON *run) {
  static const char *const forms[] = {
      "sigma", "constant", "SBDM", "decreasing", "inccreasing-decreasing", NULL};
  static const char *const lasts[] = {"Mean", "Tweedie", "Euler", NULL};
  const char *form = case_string(run, "diffusion_form");
  const int last = find_word(lasts, case_string(run, "last_step"));
  const bool rising = !strcmp(case_string(run, "time_direction"), "0to1");
  const double t0 = case_number(run, "t0", 0);
  if (!strcmp(form, "linear") || !strcmp(form, "repa")) form = "sigma";
  return (struct sde){.form = (enum diffusion_form)find_word(forms, form),
                      .norm = case_number(run, "diffusion_norm", 1),
                      .last = (enum last_step)last,
                      .last_size = case_number(run, "last_step_size", 0),
                      .start = rising ? t0 : 1 - t0};
}

static enum ditmoe_status plan_schedule(struct sampling *s) {
  const cJSON *run = s->run;
  const char *spacing = case_string(run, "timestep_spacing");
  struct schedule_request request = {
      .steps = (int)case_number(run, "steps", 0),
      .respacing = golden_text(run, "respacing"),
      .spacing = !strcmp(spacing, "leading")    ? SPACING_LEADING
                 : !strcmp(spacing, "trailing") ? SPACING_TRAILING
                 : !strcmp(spacing, "linspace") ? SPACING_LINSPACE
                                                : SPACING_RESPACE,
      .train_steps = 1000,
      .float32_betas = !strcmp(case_string(run, "beta_dtype"), "float32"),
      .final_sigma_min = !strcmp(case_string(run, "final_sigmas_type"), "sigma_min"),
      .shift = case_number(run, "shift", 1) * case_number(run, "sample_shift", 1),
      .rising = !strcmp(case_string(run, "time_direction"), "0to1"),
  };
  const double shift = case_number(run, "timestep_shift", 0);
  if (shift > 0) request.shift = shift;
  s->sampler = sampler_find(case_string(run, "sampler"));
  if (s->sampler && s->sampler->takes_diffusion) {
    request.steps = (int)case_number(run, "upstream_num_steps", 0);
    request.sde = read_sde(run);
  }
  if (!s->sampler)
    return fail(s->g->ctx, DITMOE_FORMAT, "unknown sampler \"%s\"", case_string(run, "sampler"));
  return s->sampler->plan(s->g->ctx, &request, &s->schedule);
}

static bool all_equal(const int32_t *labels, int count, int32_t label) {
  for (int i = 0; i < count; i++)
    if (labels[i] != label) return false;
  return true;
}

/* z of two equal halves, the labels of the second null: rows as the original's forward_with_cfg
 * wants them. */
static bool is_doubled(const struct sampling *s) {
  const int n = s->rows / 2;
  const size_t half = (size_t)n * (size_t)s->each;
  return s->guided && s->rows == 2 * n && n > 0 &&
         all_equal(s->labels + n, n, s->model->config.record.null_label) &&
         memcmp(s->z, s->z + half, half * sizeof *s->z) == 0;
}

static enum ditmoe_status read_inputs(struct sampling *s) {
  struct case_file *file = &s->file;
  const struct ditmoe_checkpoint *checkpoint = file->checkpoint;
  const struct dit_config *c = &s->model->config;
  int64_t count, labels, nulls = -1, noise = 0;
  s->each = (int64_t)c->channels * c->size * c->size;
  const bool drawn = !checkpoint_find(checkpoint, "z"); /* then the noise is one draw, unscaled */
  TRY(golden_floats(file, drawn ? "noise" : "z", &s->z, &count));
  for (int64_t i = 0; drawn && i < count; i++)
    s->z[i] *= (float)case_number(s->run, "noise_scale", 1);
  TRY(golden_labels(file, s->model, checkpoint_find(checkpoint, "labels") ? "labels" : "y",
                    &s->labels, &labels));
  if (labels < 1 || labels > 1 << 16 || count != labels * s->each)
    return fail(file->ctx, DITMOE_FORMAT, "%s: z of %lld elements does not fit %lld labels",
                file->name, (long long)count, (long long)labels);
  s->rows = (int)labels;
  if (!drawn && checkpoint_find(checkpoint, "noise"))
    TRY(golden_floats(file, "noise", &s->noise, &noise));
  s->noises = (int)(noise / count);
  if (noise % count != 0 || s->noises > s->schedule.steps)
    return fail(file->ctx, DITMOE_FORMAT, "%s: noise of %lld elements", file->name,
                (long long)noise);
  if (checkpoint_find(checkpoint, "y_null"))
    TRY(golden_labels(file, s->model, "y_null", &s->null_labels, &nulls));
  if (nulls >= 0 && nulls != labels)
    return fail(file->ctx, DITMOE_FORMAT, "%s: %lld labels in y_null", file->name,
                (long long)nulls);
  if (s->null_labels) return DITMOE_OK;
  TRY(mem_alloc(file->ctx, (size_t)labels, sizeof *s->labels, "labels", &s->null_labels));
  for (int i = 0; i < s->rows; i++) s->null_labels[i] = c->record.null_label;
  return DITMOE_OK;
}

static enum ditmoe_status alloc_arrays(struct sampling *s) {
  struct ditmoe_ctx *ctx = s->g->ctx;
  const struct dit_config *c = &s->model->config;
  const size_t rows = (size_t)s->rows, plane = (size_t)c->size * (size_t)c->size;
  const size_t latents = rows * (size_t)s->each, steps = (size_t)s->schedule.steps;
  const size_t work =
      sampler_work_size(s->sampler, s->rows, c->channels, c->out_channels, (int64_t)plane);
  TRY(mem_alloc(ctx, 2 * latents, sizeof *s->pair, "latents", &s->pair));
  TRY(mem_alloc(ctx, 2 * rows * plane * (size_t)c->out_channels, sizeof *s->output, "outputs",
                &s->output));
  TRY(mem_alloc(ctx, 2 * rows, sizeof *s->time, "times", &s->time));
  TRY(mem_alloc(ctx, 2 * rows, sizeof *s->pair_labels, "labels", &s->pair_labels));
  TRY(mem_alloc(ctx, latents, sizeof *s->x, "latents", &s->x));
  TRY(mem_alloc(ctx, work, sizeof *s->work, "sampler arrays", &s->work));
  TRY(mem_alloc(ctx, steps, sizeof *s->times, "times", &s->times));
  TRY(mem_alloc(ctx, (steps + 1) * latents, sizeof *s->states, "states", &s->states));
  TRY(mem_zalloc(ctx, steps * latents, sizeof *s->estimates, "estimates", &s->estimates));
  for (size_t i = 0; i < steps; i++) s->times[i] = NAN;
  for (size_t i = 0; i < steps; i++) s->estimates[i * latents] = NAN;
  memcpy(s->states, s->z, latents * sizeof *s->states);
  return DITMOE_OK;
}

static void sampling_free(struct sampling *s) {
  void *const owned[] = {s->z,     s->noise,  s->labels,    s->null_labels, s->pair,
                         s->x,     s->work,   s->output,    s->pair_labels, s->time,
                         s->times, s->states, s->estimates, s->call_times,  s->call_rows};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) mem_free(s->g->ctx, owned[i]);
  schedule_free(s->g->ctx, &s->schedule);
  case_close(&s->file);
  dit_close(s->g->ex, s->model);
}

/* Running. */

/* Times between which guidance acts; the originals differ in whose time and in the ends. */
static struct guidance read_guidance(const struct sampling *s) {
  const cJSON *run = s->run;
  const char *rule = case_string(run, "interval_rule");
  struct guidance guidance = {
      .scale = s->scale, .channels = golden_channels(s->g, run), .from = 0, .to = 1};
  if (!*rule) return guidance;
  guidance.by_time = true;
  guidance.from = case_number(run, "guidance_low", case_number(run, "cfg_interval_start", 0));
  guidance.to = case_number(run, "guidance_high", 1);
  guidance.by_evaluation = strstr(rule, "step_start") == NULL;
  guidance.open = guidance.by_evaluation && golden_field(run, "guidance_high");
  return guidance;
}

static struct sampler_run make_run(struct sampling *s, int rows) {
  const struct dit_config *c = &s->model->config;
  memcpy(s->x, s->z, (size_t)rows * (size_t)s->each * sizeof *s->x);
  return (struct sampler_run){
      .ctx = s->g->ctx,
      .count = rows,
      .channels = c->channels,
      .out_channels = c->out_channels,
      .plane = (int64_t)c->size * c->size,
      .denoiser = {.user = s, .predict = predict},
      .guidance = read_guidance(s),
      .heun_ends_euler = !strcmp(case_string(s->run, "heun_last_step"), "euler"),
      .clean_eps =
          c->record.prediction == FLOW_PREDICTS_CLEAN ? case_number(s->run, "t_eps", NAN) : 0,
      .schedule = s->schedule,
      .eta = case_number(s->run, "eta", 0),
      .noise_user = s,
      .noise = step_noise,
      .x = s->x,
      .work = s->work};
}

/* The run of the fixture, with all it leaves behind. */
static enum ditmoe_status run_recorded(struct sampling *s) {
  struct sampler_run run = make_run(s, s->rows);
  if (s->doubled) run.denoiser.predict = predict_doubled, run.guidance.scale = 1;
  if (s->paired) run.denoiser.predict_both = predict_both;
  run.hooks =
      (struct sampler_hooks){.user = s, .estimate = keep_estimate, .after_step = keep_state};
  s->recording = true;
  enum ditmoe_status status = s->sampler->run(&run);
  s->recording = false;
  return status;
}

/* The same run as users have it: both predictions of the guidance from one batch, mixed by the
 * sampler. */
static enum ditmoe_status run_batched(struct sampling *s) {
  const char *output = case_string(s->run, "output");
  const int rows = s->doubled ? s->rows / 2 : s->rows;
  double *golden;
  int64_t count;
  char line[160];
  struct sampler_run run = make_run(s, rows);
  run.denoiser.predict_both = predict_both;
  TRY(s->sampler->run(&run));
  TRY(case_values(&s->file, output, &golden, &count));
  snprintf(line, sizeof line, "%s (guided in one batch)", output);
  case_line(&s->file, line,
            count >= rows * s->each ? error_peak(s->x, golden, rows * s->each) : INFINITY,
            LIMIT_SAMPLED);
  mem_free(s->g->ctx, golden);
  return DITMOE_OK;
}

/* Comparing. */

/* "traj" of the output "final", "traj_cfg1.5" of "final_cfg1.5". */
static const char *sibling(const struct sampling *s, const char *base, char *name, size_t size) {
  const char *output = case_string(s->run, "output");
  const char *suffix = !strncmp(output, "final", 5) ? output + 5 : "";
  snprintf(name, size, "%s%s", base, suffix);
  return checkpoint_find(s->file.checkpoint, name) ? name : NULL;
}

/* Compares `all` [have, rows, ..] with a tensor that keeps those whose number is in traj_idx. */
static enum ditmoe_status compare_states(struct sampling *s, const char *tensor, const float *all,
                                         int64_t have) {
  struct ditmoe_ctx *ctx = s->g->ctx;
  const int64_t size = s->rows * s->each;
  double *index = NULL;
  float *kept = NULL;
  int64_t indices = 0, n = checkpoint_find(s->file.checkpoint, tensor)->elements / size;
  enum ditmoe_status status;
  if (checkpoint_find(s->file.checkpoint, "traj_idx"))
    TRY_DONE(case_values(&s->file, "traj_idx", &index, &indices));
  TRY_DONE(mem_zalloc(ctx, (size_t)(n * size), sizeof *kept, tensor, &kept));
  for (int64_t j = 0; j < n; j++) {
    const int64_t step = j < indices ? (int64_t)index[j] : j;
    if (step < 0 || step >= have)
      TRY_DONE(fail(ctx, DITMOE_FORMAT, "%s: %s has more than the %lld steps of the run",
                    s->file.name, tensor, (long long)have));
    memcpy(kept + j * size, all + step * size, (size_t)size * sizeof *kept);
  }
  status = compare_sampled(&s->file, tensor, kept, n * size, n);
done:
  mem_free(ctx, kept);
  mem_free(ctx, index);
  return status;
}

/* xps: the estimates after the starting noise. */
static enum ditmoe_status compare_xps(struct sampling *s, const char *tensor) {
  const int64_t size = s->rows * s->each, steps = s->schedule.steps;
  float *all;
  TRY(mem_alloc(s->g->ctx, (size_t)((steps + 1) * size), sizeof *all, tensor, &all));
  memcpy(all, s->z, (size_t)size * sizeof *all);
  memcpy(all + size, s->estimates, (size_t)(steps * size) * sizeof *all);
  enum ditmoe_status status = compare_states(s, tensor, all, steps + 1);
  mem_free(s->g->ctx, all);
  return status;
}

/* Times of the model, and sigmas. Integers are exact. */
static enum ditmoe_status compare_times(struct sampling *s) {
  static const char *const names[] = {"t_model", "timesteps", "ddim_timesteps", "sigmas"};
  const int64_t steps = s->schedule.steps;
  const double *sigma = s->schedule.sigma ? s->schedule.sigma : s->schedule.times;
  double *values;
  char line[160];
  enum ditmoe_status status = DITMOE_OK;
  TRY(mem_alloc(s->g->ctx, (size_t)steps + 1, sizeof *values, "times", &values));
  for (size_t i = 0; i < sizeof names / sizeof *names && status == DITMOE_OK; i++) {
    const struct tensor *tensor = checkpoint_find(s->file.checkpoint, names[i]);
    const bool sigmas = !strcmp(names[i], "sigmas");
    snprintf(line, sizeof line, "%s:%s", s->file.name, names[i]);
    if (!tensor || report_has(s->g->report, line)) continue;
    for (int64_t j = 0; j < steps; j++) values[j] = sigmas ? sigma[j] : (double)s->times[j];
    if (sigmas) values[steps] = sigma[steps];
    status = dtype_is_float(tensor->dtype)
                 ? case_relative(&s->file, names[i], values, steps + sigmas, LIMIT_TIMES)
                 : case_equal(&s->file, names[i], values, steps + sigmas);
  }
  mem_free(s->g->ctx, values);
  return status;
}

/* Two ways to one point of a grid may differ by a rounding. */
static bool is_same(double a, double b) { return fabs(a - b) <= 1e-6 * fabs(a); }

/* Times and rows of all calls. Some originals call the network twice for one evaluation: what
 * repeats the call before counts once. */
static enum ditmoe_status compare_calls(struct sampling *s, const char *tensor, const double *ours,
                                        double limit) {
  double *golden = NULL, *values = NULL;
  int64_t count = 0;
  size_t at = 0;
  enum ditmoe_status status;
  if (!checkpoint_find(s->file.checkpoint, tensor)) return DITMOE_OK;
  TRY_DONE(case_values(&s->file, tensor, &golden, &count));
  TRY_DONE(mem_zalloc(s->g->ctx, (size_t)count, sizeof *values, tensor, &values));
  const bool collapse = (size_t)count != s->calls;
  for (int64_t i = 0; i < count; i++) {
    const bool repeated = collapse && i > 0 && is_same(golden[i], golden[i - 1]);
    const size_t before = at;
    if (i > 0 && !repeated) at++;
    while (collapse && at > before && at < s->calls && is_same(ours[at], ours[before])) at++;
    values[i] = at < s->calls ? ours[at] : INFINITY;
  }
  status = case_relative(&s->file, tensor, values, count, limit);
done:
  mem_free(s->g->ctx, golden);
  mem_free(s->g->ctx, values);
  return status;
}

/* The finals as the decoder shows them. */
static enum ditmoe_status compare_images(struct sampling *s, float *finals) {
  const struct dit_config *c = &s->model->config;
  const struct latents latents = {finals, s->rows, c->channels, c->size, c->size};
  const char *tensor = golden_text(s->run, "image");
  const char *path = case_string(s->g->manifest, "weights_vae");
  float *images = NULL;
  int64_t count;
  if (!tensor) return DITMOE_OK;
  if (s->g->precision) return precision_decode(s->g, path, &latents, s->file.name, tensor);
  enum ditmoe_status status = golden_decode(s->g, s->g->ex, path, &latents, &images, &count);
  if (status == DITMOE_OK) status = compare_l2(&s->file, tensor, images, count, LIMIT_DECODED);
  mem_free(s->g->ctx, images);
  return status;
}

/* Finals as the levels that are shown, of models of images. */
static enum ditmoe_status compare_levels(struct sampling *s, const float *finals) {
  double *golden, worst = 0;
  int64_t count;
  if (!checkpoint_find(s->file.checkpoint, "final_u8")) return DITMOE_OK;
  TRY(case_values(&s->file, "final_u8", &golden, &count));
  for (int64_t i = 0; count == s->rows * s->each && i < count; i++)
    worst = fmax(worst, fabs((double)pixel_level(finals[i]) - golden[i]));
  case_line(&s->file, "final_u8", count == s->rows * s->each ? worst : INFINITY, LIMIT_PIXEL);
  mem_free(s->g->ctx, golden);
  return DITMOE_OK;
}

/* Finals as a decoder gets them: each channel with a mean and a deviation of its own. */
static enum ditmoe_status compare_latents(struct sampling *s, const float *finals) {
  const struct dit_config *c = &s->model->config;
  const int64_t plane = (int64_t)c->size * c->size;
  double *mean = NULL, *deviation = NULL;
  float *latents = NULL;
  int64_t count, channels;
  enum ditmoe_status status;
  if (!checkpoint_find(s->file.checkpoint, "final_latents")) return DITMOE_OK;
  TRY_DONE(case_values(&s->file, "latent_mean", &mean, &channels));
  TRY_DONE(case_values(&s->file, "latent_std", &deviation, &channels));
  TRY_DONE(golden_floats(&s->file, "final_latents", &latents, &count));
  if (channels != c->channels || count > s->rows * s->each)
    TRY_DONE(fail(s->g->ctx, DITMOE_FORMAT, "%s: final_latents do not fit", s->file.name));
  for (int64_t i = 0; i < count; i++) {
    const int64_t channel = i / plane % c->channels;
    latents[i] = (float)(finals[i] * deviation[channel] + mean[channel]);
  }
  status = compare_sampled(&s->file, "final_latents", latents, count, 1);
done:
  mem_free(s->g->ctx, latents);
  mem_free(s->g->ctx, deviation);
  mem_free(s->g->ctx, mean);
  return status;
}

static enum ditmoe_status compare_run(struct sampling *s) {
  const int64_t steps = s->schedule.steps, size = s->rows * s->each;
  float *finals = s->states + steps * size;
  const char *output = case_string(s->run, "output");
  char name[160];
  if (s->g->precision) {
    precision_report(s->g, s->file.name, output);
    return compare_images(s, finals);
  }
  TRY(compare_sampled(&s->file, output, finals, size, 1));
  if (sibling(s, "traj", name, sizeof name)) TRY(compare_states(s, name, s->states, steps + 1));
  if (sibling(s, "pred_xstart", name, sizeof name))
    TRY(compare_states(s, name, s->estimates, steps));
  if (sibling(s, "xps", name, sizeof name)) TRY(compare_xps(s, name));
  if (sibling(s, "final_state", name, sizeof name))
    TRY(compare_sampled(&s->file, name, finals, size, 1));
  TRY(compare_levels(s, finals));
  TRY(compare_latents(s, finals));
  TRY(compare_times(s));
  TRY(compare_calls(s, "model_times", s->call_times, LIMIT_TIMES));
  TRY(compare_calls(s, "model_rows", s->call_rows, LIMIT_EXACT));
  return compare_images(s, finals);
}

static bool couples_batch(const struct golden *g) {
  return cJSON_IsTrue(golden_field(golden_field(g->manifest, "moe"), "batch_coupled"));
}

static enum ditmoe_status check_run(struct golden *g, const cJSON *run) {
  struct sampling s = {.g = g,
                       .run = run,
                       .guided = cJSON_IsNumber(golden_field(run, "cfg_scale")),
                       .scale = case_number(run, "cfg_scale", 1),
                       .guided_from = case_number(run, "cfg_interval_start", 0)};
  enum ditmoe_status status;
  TRY_DONE(golden_open(g, case_string(run, "file"), &s.file));
  TRY_DONE(golden_load(g, NULL, NULL, false, &s.model));
  TRY_DONE(plan_schedule(&s));
  TRY_DONE(read_inputs(&s));
  s.doubled = is_doubled(&s);
  s.paired = !s.doubled && cJSON_IsFalse(golden_field(run, "two_calls"));
  TRY_DONE(alloc_arrays(&s));
  TRY_DONE(run_recorded(&s));
  TRY_DONE(compare_run(&s));
  if (s.scale > 1 && !couples_batch(g) && !g->precision) status = run_batched(&s);
done:
  sampling_free(&s);
  return status;
}

enum ditmoe_status check_runs(struct golden *g) {
  const cJSON *run;
  cJSON_ArrayForEach(run, golden_field(g->manifest, "runs")) TRY(check_run(g, run));
  return DITMOE_OK;
}

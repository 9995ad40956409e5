/* The registry of samplers, and what all of them share: the guided and checked prediction, the two
 * forms of the estimate of the clean latents, the work arrays, the end of a step. */
#include "sampler/sampler.h"
#include "base/tensor.h"

#include <math.h>
#include <string.h>

/* One line for each sampler. */
#define SAMPLERS(X) X(ddpm) X(ddim) X(euler) X(heun) X(midpoint) X(dpmpp_2m) X(sde) X(sde_heun)

#define DECLARE(name) extern const struct sampler sampler_##name;
#define ADDRESS(name) &sampler_##name,
SAMPLERS(DECLARE)
static const struct sampler *const samplers[] = {SAMPLERS(ADDRESS) NULL};

static const struct {
  const char *alias, *name;
} aliases[] = {{"rf", "euler"},
               {"rf-euler", "euler"},
               {"flow-euler", "euler"},
               {"rf-heun", "heun"},
               {"dpm++2m", "dpmpp-2m"},
               {"euler-maruyama", "sde"},
               {"sde-euler-maruyama", "sde"}};

const struct sampler *sampler_find(const char *name) {
  for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
    if (!strcmp(name, aliases[i].alias)) name = aliases[i].name;
  for (int i = 0; samplers[i]; i++)
    if (!strcmp(name, samplers[i]->name)) return samplers[i];
  return NULL;
}

const struct sampler *sampler_at(int index) {
  int count = sizeof samplers / sizeof *samplers - 1;
  return index >= 0 && index < count ? samplers[index] : NULL;
}

/* Work arrays begin at multiples of 64 bytes. */
static size_t array_floats(int64_t count, int channels, int64_t plane) {
  return ((size_t)count * (size_t)channels * (size_t)plane + 15) & ~(size_t)15;
}

size_t sampler_work_size(const struct sampler *sampler, int64_t count, int channels,
                         int out_channels, int64_t plane) {
  return 2 * array_floats(count, out_channels, plane) +
         (size_t)sampler->arrays * array_floats(count, channels, plane);
}

float *sampler_output(struct sampler_run *run) { return run->work; }

float *sampler_array(struct sampler_run *run, int index) {
  return run->work + 2 * array_floats(run->count, run->out_channels, run->plane) +
         (size_t)index * array_floats(run->count, run->channels, run->plane);
}

static enum ditmoe_status check_finite(struct sampler_run *run, const float *values, int channels,
                                       int step, const char *what) {
  int64_t size = channels * run->plane, image = 0;
  if (f32_all_finite(values, run->count * size)) return DITMOE_OK;
  while (f32_all_finite(values + image * size, size)) image++;
  return fail(
      run->ctx, DITMOE_NONFINITE,
      "step %d of %d: %s of image %d of the batch is not finite; the weights hold a NaN or an "
      "infinity, or the sampler does not fit the model",
      step + 1, run->schedule.steps, what, (int)image);
}

enum ditmoe_status sampler_predict(struct sampler_run *run, float *output, const float *x,
                                   double time, int step) {
  const struct prediction prediction = {.x = x, .time = time, .step = step};
  float *scratch = run->work + array_floats(run->count, run->out_channels, run->plane);
  TRY(guidance_predict(run, output, scratch, &prediction));
  TRY(check_finite(run, output, run->out_channels, step, "the prediction"));
  if (!run->hooks.prediction) return DITMOE_OK;
  return run->hooks.prediction(run->hooks.user, run, &prediction, output);
}

enum ditmoe_status sampler_clean(struct sampler_run *run, float *x0, struct clean_form form,
                                 double time, int step) {
  int64_t size = run->channels * run->plane, stride = run->out_channels * run->plane;
  TRY(sampler_predict(run, sampler_output(run), run->x, time, step));
  for (int64_t n = 0; n < run->count; n++) {
    const float *x = run->x + n * size, *out = sampler_output(run) + n * stride;
    for (int64_t i = 0; i < size; i++) x0[n * size + i] = form.a * x[i] - form.b * out[i];
  }
  return run->hooks.estimate ? run->hooks.estimate(run->hooks.user, run, step, x0) : DITMOE_OK;
}

/* The correction is a difference of two estimates, exactly 0 where the hook changed nothing. */
enum ditmoe_status sampler_velocity(struct sampler_run *run, float *v, const float *x, double t,
                                    int step) {
  float *output = sampler_output(run), *x0 = output;
  const float left = run->schedule.rising ? 1 - (float)t : -(float)t; /* to pure data */
  int64_t size = run->channels * run->plane, stride = run->out_channels * run->plane;
  int64_t elements = sampler_elements(run);
  TRY(sampler_predict(run, output, x, t, step));
  for (int64_t n = 0; n < run->count; n++)
    memcpy(v + n * size, output + n * stride, (size_t)size * sizeof *v);
  if (run->clean_eps > 0) {
    const float least = copysignf((float)run->clean_eps, run->schedule.rising ? 1 : -1);
    const float divisor = fabsf(left) > fabsf(least) ? left : least;
    for (int64_t i = 0; i < elements; i++) v[i] = (v[i] - x[i]) / divisor;
  }
  if (!run->hooks.estimate || left == 0) return DITMOE_OK;
  for (int64_t i = 0; i < elements; i++) x0[i] = x[i] + left * v[i];
  TRY(run->hooks.estimate(run->hooks.user, run, step, x0));
  for (int64_t i = 0; i < elements; i++) v[i] += (x0[i] - (x[i] + left * v[i])) / left;
  return DITMOE_OK;
}

enum ditmoe_status sampler_step_done(struct sampler_run *run, int step) {
  TRY(check_finite(run, run->x, run->channels, step, "the latent"));
  if (!run->hooks.after_step) return DITMOE_OK;
  return run->hooks.after_step(run->hooks.user, run, step + 1, run->x);
}

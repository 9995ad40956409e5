/* Ancestral sampling of a diffusion model (Ho, Jain and Abbeel 2020), with the learned variance of
 * Nichol and Dhariwal (2021) where the model has one:
 *
 *   x' = c1 x0 + c2 x + exp(logvar / 2) noise,   logvar = f ln beta + (1 - f) posterior logvar,
 *
 * f = (v + 1) / 2. Without a learned variance it is beta or the posterior's. Table elements are
 * rounded to float32 and the arithmetic is float32, as in the original. */
#include "sampler/sampler.h"

#include <math.h>

/* Step at chain index i. */
static void advance(struct sampler_run *run, const float *x0, const float *noise, int i,
                    bool noisy) {
  const struct schedule *s = &run->schedule;
  float c1 = (float)s->posterior_c1[i], c2 = (float)s->posterior_c2[i];
  float log_beta = (float)log(s->beta[i]), log_posterior = (float)s->posterior_log_variance[i];
  float fixed = expf(0.5f * (s->variance == VARIANCE_SMALL ? log_posterior : log_beta));
  int64_t size = run->channels * run->plane, stride = run->out_channels * run->plane;
  bool learned = s->variance == VARIANCE_MODEL && run->out_channels == 2 * run->channels &&
                 !run->fixed_variance;
  const float bound = sampler_bound(s);
  for (int64_t n = 0; n < run->count; n++) {
    float *x = run->x + n * size;
    const float *v = sampler_output(run) + n * stride + size;
    for (int64_t j = 0; j < size; j++) {
      float mean = c1 * sampler_bounded(x0[n * size + j], bound) + c2 * x[j], deviation = fixed;
      x[j] = mean;
      if (!noisy) continue;
      if (learned) {
        float f = (v[j] + 1) / 2;
        deviation = expf(0.5f * (f * log_beta + (1 - f) * log_posterior));
      }
      x[j] = mean + deviation * noise[n * size + j];
    }
  }
}

static enum ditmoe_status run_ddpm(struct sampler_run *run) {
  const struct schedule *s = &run->schedule;
  float *x0 = sampler_array(run, 0), *noise = sampler_array(run, 1);
  for (int i = s->steps - 1, step = 0; i >= 0; i--, step++) {
    const bool noisy = i > 0 || s->noisy_end;
    TRY(sampler_clean(run, x0,
                      schedule_clean_form(s, s->sqrt_recip_abar[i], s->sqrt_recipm1_abar[i]),
                      s->times[i], step));
    if (noisy) TRY(run->noise(run->noise_user, noise, step));
    advance(run, x0, noise, i, noisy);
    TRY(sampler_step_done(run, step));
  }
  return DITMOE_OK;
}

const struct sampler sampler_ddpm = {
    .name = "ddpm",
    .objective = "ddpm",
    .default_steps = 250,
    .calls_per_step = 1,
    .arrays = 2,
    .takes_respacing = true,
    .plan = schedule_ddpm,
    .run = run_ddpm,
};

/* Denoising diffusion implicit models (Song, Meng and Ermon 2021, equations 12 and 16). With the
 * noise e that the estimate x0 implies,
 *
 *   x' = sqrt(abar') x0 + sqrt(1 - abar' - sigma^2) e + sigma noise,
 *   sigma = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar').
 *
 * An estimate that is clipped leaves e as it was. Table elements are rounded to float32 and the
 * arithmetic is float32, as in the original. */
#include "sampler/sampler.h"

#include <math.h>

struct coefficients {
  float a, b, c; /* e = (a x - c x0) / b */
  float clean, direction, sigma;
};

static struct coefficients coefficients_at(const struct schedule *s, int i, float eta) {
  float abar = (float)s->abar[i], previous = (float)s->abar_prev[i];
  float sigma = eta * sqrtf((1 - previous) / (1 - abar)) * sqrtf(1 - abar / previous);
  const bool signal = abar > 0; /* else x is the noise */
  return (struct coefficients){.a = signal ? (float)s->sqrt_recip_abar[i] : 1,
                               .b = signal ? (float)s->sqrt_recipm1_abar[i] : 1,
                               .c = signal,
                               .clean = sqrtf(previous),
                               .direction = sqrtf(fmaxf(1 - previous - sigma * sigma, 0)),
                               .sigma = sigma};
}

static enum ditmoe_status run_ddim(struct sampler_run *run) {
  const struct schedule *s = &run->schedule;
  float *x = run->x, *x0 = sampler_array(run, 0), *noise = sampler_array(run, 1);
  int64_t elements = sampler_elements(run);
  const float bound = sampler_bound(s);
  if (!(run->eta >= 0 && run->eta <= 1))
    return fail(run->ctx, DITMOE_USAGE, "eta %g: expected 0 to 1", run->eta);
  for (int i = s->steps - 1, step = 0; i >= 0; i--, step++) {
    struct coefficients k = coefficients_at(s, i, (float)run->eta);
    bool noisy = k.sigma > 0; /* not in the last step, where abar_prev is 1 */
    TRY(sampler_clean(run, x0,
                      schedule_clean_form(s, s->sqrt_recip_abar[i], s->sqrt_recipm1_abar[i]),
                      s->times[i], step));
    if (noisy) TRY(run->noise(run->noise_user, noise, step));
    for (int64_t j = 0; j < elements; j++) {
      float e = (k.a * x[j] - k.c * x0[j]) / k.b;
      float mean = k.clean * sampler_bounded(x0[j], bound) + k.direction * e;
      x[j] = noisy ? mean + k.sigma * noise[j] : mean;
    }
    TRY(sampler_step_done(run, step));
  }
  return DITMOE_OK;
}

const struct sampler sampler_ddim = {
    .name = "ddim",
    .objective = "ddpm",
    .default_steps = 50,
    .calls_per_step = 1,
    .arrays = 2,
    .takes_eta = true,
    .takes_respacing = true,
    .plan = schedule_ddim,
    .run = run_ddim,
};

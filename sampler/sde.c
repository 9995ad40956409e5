/* The stochastic differential equation of a flow (Ma et al. 2024, SiT, section 2): with the share a
 * of data in x = a data + (1 - a) noise, w the velocity towards data and s the score,
 *
 *   dx = (w + g s) da + sqrt(2 g) dW,   s = (a w - x) / (1 - a),
 *
 * which has the marginals of the flow for every g(a) >= 0. Euler and Maruyama's method, of strong
 * order 1/2, and Heun's on the drift after the noise. The last step is without noise. */
#include "sampler/sampler.h"

#include <math.h>

static double share_of_data(const struct sampler_run *run, double t) {
  return run->schedule.rising ? t : 1 - t;
}

static double diffusion(const struct sde *sde, double a) {
  const double pi = 3.14159265358979323846, m = sde->norm;
  switch (sde->form) {
  case DIFFUSION_SIGMA:
    return m * (1 - a);
  case DIFFUSION_CONSTANT:
    return m;
  case DIFFUSION_SBDM:
    return m * (1 - a) / a;
  case DIFFUSION_DECREASING:
    return 0.25 * (m * cos(pi * a) + 1) * (m * cos(pi * a) + 1);
  case DIFFUSION_INCREASING_DECREASING:
    return m * sin(pi * a) * sin(pi * a);
  }
  return 0;
}

/* out = toward w + score s, of the velocity at (x, t). */
static enum ditmoe_status combine(struct sampler_run *run, float *out, const float *x, double t,
                                  int step, const double factor[2]) {
  const double data = share_of_data(run, t), sign = run->schedule.rising ? 1 : -1;
  const float v = (float)(sign * (factor[0] + factor[1] * data / (1 - data)));
  const float position = (float)(factor[1] / (1 - data));
  const int64_t elements = sampler_elements(run);
  TRY(sampler_velocity(run, out, x, t, step));
  for (int64_t i = 0; i < elements; i++) out[i] = v * out[i] - position * x[i];
  return DITMOE_OK;
}

/* out = w + g s */
static enum ditmoe_status drift(struct sampler_run *run, float *out, const float *x, double t,
                                int step) {
  const double factor[2] = {1, diffusion(&run->schedule.sde, share_of_data(run, t))};
  return combine(run, out, x, t, step, factor);
}

/* The scale of a step's normal numbers, whose array is `noise`. */
static enum ditmoe_status draw(struct sampler_run *run, float *noise, int step, float *scale) {
  const double *t = &run->schedule.times[step];
  const double g = diffusion(&run->schedule.sde, share_of_data(run, t[0]));
  *scale = (float)sqrt(2 * g * fabs(t[1] - t[0]));
  return run->noise(run->noise_user, noise, step);
}

static enum ditmoe_status last_step(struct sampler_run *run, float *d, int step) {
  const struct sde *sde = &run->schedule.sde;
  const double t = run->schedule.times[step], a = share_of_data(run, t), L = 1 - a;
  double keep = 1, factor[2] = {L, L * diffusion(sde, a)};
  if (sde->last == LAST_NONE) return DITMOE_OK;
  if (sde->last == LAST_TWEEDIE) keep = 1 / a, factor[0] = 0, factor[1] = L * L / a;
  if (sde->last == LAST_EULER) factor[1] = 0;
  TRY(combine(run, d, run->x, t, step, factor));
  const int64_t elements = sampler_elements(run);
  for (int64_t i = 0; i < elements; i++) run->x[i] = (float)keep * run->x[i] + d[i];
  return DITMOE_OK;
}

static enum ditmoe_status run_sde(struct sampler_run *run) {
  const double *t = run->schedule.times;
  float *x = run->x, *d = sampler_array(run, 0), *noise = sampler_array(run, 1), scale;
  const int64_t elements = sampler_elements(run);
  const int last = run->schedule.steps - 1;
  for (int step = 0; step < last; step++) {
    const float dt = (float)fabs(t[step + 1] - t[step]);
    TRY(drift(run, d, x, t[step], step));
    TRY(draw(run, noise, step, &scale));
    for (int64_t i = 0; i < elements; i++) x[i] += dt * d[i] + scale * noise[i];
    TRY(sampler_step_done(run, step));
  }
  TRY(last_step(run, d, last));
  return sampler_step_done(run, last);
}

static enum ditmoe_status run_sde_heun(struct sampler_run *run) {
  const double *t = run->schedule.times;
  float *x = run->x, *d = sampler_array(run, 0), *ahead = sampler_array(run, 1), scale;
  float *second = sampler_array(run, 2);
  const int64_t elements = sampler_elements(run);
  const int last = run->schedule.steps - 1;
  if (run->schedule.sde.last == LAST_NONE)
    return fail(run->ctx, DITMOE_USAGE,
                "sampler sde-heun divides by zero at pure data; it needs a last step");
  for (int step = 0; step < last; step++) {
    const float dt = (float)fabs(t[step + 1] - t[step]);
    TRY(draw(run, ahead, step, &scale));
    for (int64_t i = 0; i < elements; i++) x[i] += scale * ahead[i];
    TRY(drift(run, d, x, t[step], step));
    for (int64_t i = 0; i < elements; i++) ahead[i] = x[i] + dt * d[i];
    TRY(drift(run, second, ahead, t[step + 1], step));
    for (int64_t i = 0; i < elements; i++) x[i] += 0.5f * dt * (d[i] + second[i]);
    TRY(sampler_step_done(run, step));
  }
  TRY(last_step(run, d, last));
  return sampler_step_done(run, last);
}

const struct sampler sampler_sde = {
    .name = "sde",
    .objective = "rf",
    .default_steps = 250,
    .calls_per_step = 1,
    .arrays = 2,
    .takes_diffusion = true,
    .plan = schedule_sde,
    .run = run_sde,
};

const struct sampler sampler_sde_heun = {
    .name = "sde-heun",
    .objective = "rf",
    .default_steps = 250,
    .calls_per_step = 2,
    .arrays = 3,
    .takes_diffusion = true,
    .plan = schedule_sde,
    .run = run_sde_heun,
};

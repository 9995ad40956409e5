/* DPM-Solver++ (2M) (Lu et al. 2022, algorithm 2), the midpoint form that diffusers runs. With
 * alpha = 1/sqrt(sigma^2 + 1), s = sigma alpha, lambda = ln(alpha/s), h = lambda' - lambda, x0
 * estimates D and r = (lambda - lambda of the step before) / h,
 *
 *   x' = s'/s x - alpha' (e^-h - 1) (D + (D - D before) / (2 r)).
 *
 * Without the last term, of order 1: the first step, and the last one if it ends at sigma 0 or the
 * run has fewer than 15 steps. */
#include "sampler/sampler.h"

#include <math.h>

struct point {
  double alpha, s, lambda;
};

static struct point point_at(double sigma) {
  double alpha = 1 / sqrt(sigma * sigma + 1), s = sigma * alpha;
  return (struct point){alpha, s, log(alpha) - log(s)};
}

struct coefficients {
  float x, current, change; /* x' = x x + current D + change (D - D before) */
};

static struct coefficients coefficients_at(const struct schedule *schedule, int step) {
  const double *sigma = schedule->sigma + step;
  bool last = step + 1 == schedule->steps;
  bool first_order = step == 0 || (last && schedule->first_order_final);
  struct point now = point_at(sigma[0]), next = point_at(sigma[1]);
  double h = next.lambda - now.lambda, current = -next.alpha * expm1(-h), r = 1;
  if (!first_order) r = (now.lambda - point_at(sigma[-1]).lambda) / h;
  return (struct coefficients){.x = (float)(next.s / now.s),
                               .current = (float)current,
                               .change = first_order ? 0 : (float)(0.5 * current / r)};
}

static enum ditmoe_status run_dpmpp_2m(struct sampler_run *run) {
  const struct schedule *s = &run->schedule;
  float *x = run->x, *now = sampler_array(run, 0), *before = sampler_array(run, 1);
  int64_t elements = sampler_elements(run);
  for (int step = 0; step < s->steps; step++) {
    struct point point = point_at(s->sigma[step]);
    struct coefficients k = coefficients_at(s, step);
    TRY(sampler_clean(run, now, schedule_clean_form(s, 1 / point.alpha, s->sigma[step]),
                      s->times[step], step));
    for (int64_t i = 0; i < elements; i++) {
      float change = step > 0 ? k.change * (now[i] - before[i]) : 0;
      x[i] = k.x * x[i] + k.current * now[i] + change;
    }
    TRY(sampler_step_done(run, step));
    float *spare = before;
    before = now;
    now = spare;
  }
  return DITMOE_OK;
}

const struct sampler sampler_dpmpp_2m = {
    .name = "dpmpp-2m",
    .objective = "ddpm",
    .default_steps = 50,
    .calls_per_step = 1,
    .arrays = 2,
    .plan = schedule_dpmpp,
    .run = run_dpmpp_2m,
};

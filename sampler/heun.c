/* Heun's method on a rectified flow: k = v(x, t), x' = x + dt/2 (k + v(x + dt k, t + dt)), in every
 * step with the last one, or without it: x' = x + dt k. Order 2. */
#include "sampler/sampler.h"

#include <string.h>

static enum ditmoe_status run_heun(struct sampler_run *run) {
  const double *t = run->schedule.times;
  float *x = run->x, *k = sampler_array(run, 0), *ahead = sampler_array(run, 1);
  float *v = sampler_array(run, 2);
  int64_t elements = sampler_elements(run);
  const int second_order = run->schedule.steps - run->heun_ends_euler;
  for (int step = 0; step < run->schedule.steps; step++) {
    float dt = (float)(t[step + 1] - t[step]);
    TRY(sampler_velocity(run, k, x, t[step], step));
    for (int64_t i = 0; i < elements; i++) ahead[i] = x[i] + dt * k[i];
    if (step < second_order) {
      TRY(sampler_velocity(run, v, ahead, t[step + 1], step));
      for (int64_t i = 0; i < elements; i++) x[i] += 0.5f * dt * (k[i] + v[i]);
    } else {
      memcpy(x, ahead, (size_t)elements * sizeof *x);
    }
    TRY(sampler_step_done(run, step));
  }
  return DITMOE_OK;
}

const struct sampler sampler_heun = {
    .name = "heun",
    .objective = "rf",
    .default_steps = 50,
    .calls_per_step = 2,
    .arrays = 3,
    .plan = schedule_flow,
    .run = run_heun,
};

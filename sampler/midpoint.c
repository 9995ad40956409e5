/* The midpoint method on a rectified flow: x' = x + dt v(x + dt/2 v(x, t), t + dt/2). Order 2. */
#include "sampler/sampler.h"

static enum ditmoe_status run_midpoint(struct sampler_run *run) {
  const double *t = run->schedule.times;
  float *x = run->x, *v = sampler_array(run, 0), *middle = sampler_array(run, 1);
  int64_t elements = sampler_elements(run);
  for (int step = 0; step < run->schedule.steps; step++) {
    float dt = (float)(t[step + 1] - t[step]);
    TRY(sampler_velocity(run, v, x, t[step], step));
    for (int64_t i = 0; i < elements; i++) middle[i] = x[i] + 0.5f * dt * v[i];
    TRY(sampler_velocity(run, v, middle, 0.5 * (t[step] + t[step + 1]), step));
    for (int64_t i = 0; i < elements; i++) x[i] += dt * v[i];
    TRY(sampler_step_done(run, step));
  }
  return DITMOE_OK;
}

const struct sampler sampler_midpoint = {
    .name = "midpoint",
    .objective = "rf",
    .default_steps = 50,
    .calls_per_step = 2,
    .arrays = 2,
    .plan = schedule_flow,
    .run = run_midpoint,
};

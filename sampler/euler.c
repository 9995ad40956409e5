/* Euler's method on a rectified flow (Liu, Gong and Liu 2023): x' = x + dt v(x, t), dt < 0. */
#include "sampler/sampler.h"

static enum ditmoe_status run_euler(struct sampler_run *run) {
  const double *t = run->schedule.times;
  float *x = run->x, *v = sampler_array(run, 0);
  int64_t elements = sampler_elements(run);
  for (int step = 0; step < run->schedule.steps; step++) {
    float dt = (float)(t[step + 1] - t[step]);
    TRY(sampler_velocity(run, v, x, t[step], step));
    for (int64_t i = 0; i < elements; i++) x[i] += dt * v[i];
    TRY(sampler_step_done(run, step));
  }
  return DITMOE_OK;
}

const struct sampler sampler_euler = {
    .name = "euler",
    .objective = "rf",
    .default_steps = 50,
    .calls_per_step = 1,
    .arrays = 1,
    .plan = schedule_flow,
    .run = run_euler,
};

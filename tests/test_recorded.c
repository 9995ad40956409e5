/* Recorded runs of a real model without the model: the estimate hook hands in the recorded
 * estimate, so each step must lead from one recorded latent to the next. */
#include "support.h"

#include "cases.h"
#include "sampler/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct replay {
  double *latents, *estimates, *noise;
  int64_t n;
  double worst;
};

static enum ditmoe_status replay_predict(void *user, float *out,
                                         const struct prediction *prediction) {
  const struct replay *replay = user;
  (void)prediction;
  memset(out, 0, (size_t)replay->n * sizeof *out);
  return DITMOE_OK;
}

static enum ditmoe_status replay_noise(void *user, float *out, int step) {
  const struct replay *replay = user;
  for (int64_t i = 0; i < replay->n; i++) out[i] = (float)replay->noise[step * replay->n + i];
  return DITMOE_OK;
}

static enum ditmoe_status replay_estimate(void *user, struct sampler_run *run, int step,
                                          float *x0) {
  const struct replay *replay = user;
  (void)run;
  for (int64_t i = 0; i < replay->n; i++) x0[i] = (float)replay->estimates[step * replay->n + i];
  return DITMOE_OK;
}

static enum ditmoe_status replay_compare(void *user, struct sampler_run *run, int step, float *x) {
  struct replay *replay = user;
  double error = 0, peak = 0;
  (void)run;
  for (int64_t i = 0; i < replay->n; i++) {
    double expected = replay->latents[step * replay->n + i];
    error = fmax(error, fabs((double)x[i] - expected));
    peak = fmax(peak, fabs(expected));
    x[i] = (float)expected;
  }
  replay->worst = fmax(replay->worst, error / peak);
  return DITMOE_OK;
}

static void check_replay(const char *name, const char *sampler_name, double eta,
                         const char *estimates, int64_t skip) {
  struct ditmoe_ctx *ctx = test_ctx();
  const struct sampler *sampler = sampler_find(sampler_name);
  const struct schedule_request request = {.steps = 10, .train_steps = 1000, .shift = 1};
  struct case_file file;
  struct replay replay = {0};
  int64_t total;
  assert_ok(ctx, case_open(ctx, fixture_path("samplers/c_flash_qknorm"), name, NULL, NULL, &file));
  assert_ok(ctx, case_values(&file, "traj", &replay.latents, &total));
  assert_ok(ctx, case_values(&file, estimates, &replay.estimates, NULL));
  replay.n = total / 11;
  replay.estimates += skip * replay.n;
  if (eta > 0) assert_ok(ctx, case_values(&file, "noise", &replay.noise, NULL));
  struct sampler_run run = {
      .ctx = ctx,
      .count = 1,
      .channels = 1,
      .out_channels = 1,
      .plane = replay.n,
      .eta = eta,
      .denoiser = {&replay, replay_predict, NULL},
      .hooks = {&replay, NULL, replay_estimate, replay_compare},
      .noise_user = &replay,
      .noise = replay_noise,
      .x = malloc((size_t)replay.n * sizeof(float)),
      .work = malloc(sampler_work_size(sampler, 1, 1, 1, replay.n) * sizeof(float)),
  };
  assert_true(run.x && run.work);
  for (int64_t i = 0; i < replay.n; i++) run.x[i] = (float)replay.latents[i];
  assert_ok(ctx, sampler->plan(ctx, &request, &run.schedule));
  assert_ok(ctx, sampler->run(&run));
  schedule_free(ctx, &run.schedule);
  free(run.x);
  free(run.work);
  mem_free(ctx, replay.latents);
  mem_free(ctx, replay.estimates - skip * replay.n);
  mem_free(ctx, replay.noise);
  case_close(&file);
  assert_within(name, replay.worst, 1e-5);
}

static void test_ddim(void **state) {
  (void)state;
  check_replay("ddim10_eta0.safetensors", "ddim", 0, "pred_xstart", 0);
  check_replay("ddim10_eta0.5.safetensors", "ddim", 0.5, "pred_xstart", 0);
}

/* The first of the recorded estimates belongs to no step. */
static void test_euler(void **state) {
  (void)state;
  check_replay("rf10.safetensors", "euler", 0, "xps", 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ddim), cmocka_unit_test(test_euler)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

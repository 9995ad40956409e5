/* Golden runs of SiT and REPA through the library's interface: what a caller gets who names the
 * family, the steps as its program counts them, and the guidance. */
#include "support.h"

#include "tests/cases.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LATENT = 4 * 8 * 8, IMAGES = 2 };

static const struct golden_run {
  const char *family, *folder, *weights, *file;
  struct ditmoe_request request; /* what the caller sets */
} runs[] = {
    {"sit", "sit/sit_tiny", "SiT-tiny.pt", "ode_euler.safetensors", {.steps = 11, .cfg_scale = 1}},
    {"sit",
     "sit/sit_tiny",
     "SiT-tiny.pt",
     "ode_euler_cfg.safetensors",
     {.steps = 11, .cfg_scale = 4}},
    {"sit",
     "sit/sit_tiny",
     "bare.safetensors",
     "ode_heun_cfg.safetensors",
     {.sampler = "heun", .steps = 6, .cfg_scale = 4}},
    {"sit",
     "sit/sit_tiny",
     "bare.safetensors",
     "ode_midpoint.safetensors",
     {.sampler = "midpoint", .steps = 6, .cfg_scale = 1}},
    {"repa",
     "repa/repa_tiny",
     "0400000.pt",
     "ode_euler.safetensors",
     {.sampler = "euler", .steps = 10, .cfg_scale = 1}},
    {"repa",
     "repa/repa_tiny",
     "last.pt",
     "ode_euler_cfg.safetensors",
     {.sampler = "euler", .steps = 10, .cfg_scale = 1.8}},
    {"repa",
     "repa/repa_tiny",
     "last.pt",
     "ode_euler_cfg_interval.safetensors",
     {.sampler = "euler", .steps = 10, .cfg_scale = 1.8, .cfg_times = 1, .cfg_to = 0.7}},
    {"repa",
     "repa/repa_tiny",
     "last.pt",
     "ode_heun_cfg_interval.safetensors",
     {.sampler = "heun",
      .steps = 6,
      .cfg_scale = 2.5,
      .cfg_times = 1,
      .cfg_from = 0.25,
      .cfg_to = 0.75}},
};

/* The first `count` values of a tensor. */
static void read_values(struct ditmoe_checkpoint *file, const char *name, double *out, int count) {
  const struct tensor *tensor = checkpoint_find(file, name);
  assert_non_null(tensor);
  assert_true(tensor->elements >= count);
  for (int i = 0; i < count; i++) out[i] = case_value(tensor, i);
}

static void check(const struct golden_run *run) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct ditmoe_checkpoint *file;
  struct ditmoe_model *model;
  struct ditmoe_session *session;
  struct ditmoe_request request = run->request;
  double start[IMAGES * LATENT], expected[IMAGES * LATENT], labels[IMAGES], error = 0, peak = 0;
  float noise[IMAGES * LATENT], latents[IMAGES * LATENT];
  int32_t classes[IMAGES];
  char path[256], record[64];
  snprintf(path, sizeof path, "%s/%s", run->folder, run->file);
  assert_ok(ctx, ditmoe_checkpoint_open(ctx, fixture_path(path), NULL, &file));
  read_values(file, "z", start, IMAGES * LATENT);
  read_values(file, "y", labels, IMAGES);
  read_values(file, "final", expected, IMAGES * LATENT);
  for (int i = 0; i < IMAGES * LATENT; i++) noise[i] = (float)start[i];
  for (int i = 0; i < IMAGES; i++) classes[i] = (int32_t)labels[i];
  snprintf(record, sizeof record, "{\"heads\":4,\"family\":\"%s\"}", run->family);
  const struct ditmoe_model_options options = {.record = record, .dtype = "f32"};
  snprintf(path, sizeof path, "%s/%s", run->folder, run->weights);
  assert_ok(ctx, ditmoe_model_open(ctx, fixture_path(path), &options, &model));
  request.labels = classes;
  request.count = IMAGES;
  request.noise = noise;
  request.cfg_channels = -1;
  if (!request.cfg_times) request.cfg_to = 1;
  assert_ok(ctx, ditmoe_session_create(ctx, model, NULL, &request, &session));
  assert_ok(ctx, ditmoe_sample(ctx, session, &request, latents, NULL));
  for (int i = 0; i < IMAGES * LATENT; i++) {
    error = fmax(error, fabs((double)latents[i] - expected[i]));
    peak = fmax(peak, fabs(expected[i]));
  }
  assert_within(run->file, error / peak, 1e-5);
  ditmoe_session_destroy(session);
  ditmoe_model_close(model);
  ditmoe_checkpoint_close(file);
}

static void test_runs(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) check(&runs[i]);
}

/* What a family does where nobody asks. */
static void test_defaults(void **state) {
  static const struct {
    const char *record, *sampler;
    int steps, counted;
  } cases[] = {
      {"{\"heads\":4,\"family\":\"sit\"}", "euler", 249, 250},
      {"{\"heads\":4,\"family\":\"repa\"}", "sde", 250, 250},
      {"{\"heads\":4,\"family\":\"promoe-dit\"}", "euler", 50, 50},
      {"{\"heads\":4,\"family\":\"dit\"}", "ddpm", 250, 250},
  };
  const int32_t label = 0;
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct ditmoe_model_options options = {.record = cases[i].record};
    struct ditmoe_request request = ditmoe_request_default();
    struct ditmoe_model *model;
    struct ditmoe_plan plan;
    request.labels = &label;
    request.count = 1;
    assert_ok(test_ctx(),
              ditmoe_model_open(test_ctx(), fixture_path("sit/sit_tiny/bare.safetensors"), &options,
                                &model));
    assert_ok(test_ctx(), ditmoe_plan(test_ctx(), model, NULL, &request, &plan));
    assert_string_equal(plan.sampler, cases[i].sampler);
    assert_int_equal(plan.steps, cases[i].steps);
    assert_int_equal(plan.steps_counted, cases[i].counted);
    ditmoe_model_close(model);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_runs),
      cmocka_unit_test(test_defaults),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

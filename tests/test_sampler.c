/* The samplers over fields in closed form, given predictions, and a toy denoiser on which every
 * setting must act. */
#include "support.h"

#include "base/rng.h"
#include "cases.h"
#include "sampler/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct routing {
  int variant;
};

enum { CHANNELS = 3, PLANE = 7, SIZE = CHANNELS * PLANE, IMAGES = 3, WORK = 4096 };

/* A denoiser of a few elements that reacts to all it is told, and the run over it. */
struct toy {
  struct sampler_run run;
  const struct sampler *sampler;
  int conditional, unconditional, both; /* calls so far */
  int nan_step, nan_image;              /* -1: none */
  uint64_t first;                       /* sample index of image 0 */
  float x[IMAGES * SIZE], work[WORK];
};

static float toy_value(const struct prediction *prediction, bool unconditional, int channel,
                       float x) {
  float t = (float)(prediction->time > 1 ? prediction->time / 1000 : prediction->time);
  float routed = prediction->routing ? 0.125f * (float)prediction->routing->variant : 0;
  float label = unconditional ? 0.75f : 0;
  if (channel >= CHANNELS) return sinf(3 * t + (float)channel + x) + 0.25f * label;
  return 0.5f * x + 0.25f * t + 0.0625f * (float)channel + label + routed;
}

static void toy_fill(struct toy *toy, float *out, const struct prediction *prediction,
                     bool unconditional) {
  int channels = toy->run.out_channels;
  for (int64_t n = 0; n < toy->run.count; n++)
    for (int c = 0; c < channels; c++)
      for (int i = 0; i < PLANE; i++) {
        float x = prediction->x[(n * CHANNELS + c % CHANNELS) * PLANE + i];
        bool broken = prediction->step == toy->nan_step && n == toy->nan_image && i == PLANE - 1;
        out[(n * channels + c) * PLANE + i] =
            broken ? NAN : toy_value(prediction, unconditional, c, x);
      }
}

static enum ditmoe_status toy_predict(void *user, float *out, const struct prediction *prediction) {
  struct toy *toy = user;
  ++*(prediction->unconditional ? &toy->unconditional : &toy->conditional);
  toy_fill(toy, out, prediction, prediction->unconditional);
  return DITMOE_OK;
}

static enum ditmoe_status toy_both(void *user, float *conditional, float *unconditional,
                                   const struct prediction *prediction) {
  struct toy *toy = user;
  toy->both++;
  toy_fill(toy, conditional, prediction, false);
  toy_fill(toy, unconditional, prediction, true);
  return DITMOE_OK;
}

static enum ditmoe_status toy_noise(void *user, float *out, int step) {
  const struct toy *toy = user;
  for (int64_t n = 0; n < toy->run.count; n++)
    rng_normal(out + n * SIZE, SIZE, 11, toy->first + (uint64_t)n, (uint32_t)step, RNG_STEP_NOISE);
  return DITMOE_OK;
}

/* All that a run of `count` images from sample index `first` needs. */
static void toy_open_at(struct toy *toy, const struct sampler *sampler, int steps, int64_t count,
                        uint64_t first) {
  const struct schedule_request request = {
      .steps = steps,
      .train_steps = 1000,
      .shift = 1,
      .sde = {.norm = 1, .last = LAST_EULER, .last_size = 0.04}};
  *toy = (struct toy){.sampler = sampler, .nan_step = -1, .nan_image = -1, .first = first};
  toy->run = (struct sampler_run){
      .ctx = test_ctx(),
      .count = count,
      .channels = CHANNELS,
      .out_channels = 2 * CHANNELS,
      .plane = PLANE,
      .denoiser = {.user = toy, .predict = toy_predict},
      .guidance = {.scale = 1, .to = 1},
      .noise_user = toy,
      .noise = toy_noise,
      .x = toy->x,
      .work = toy->work,
  };
  assert_true(sampler_work_size(sampler, count, CHANNELS, 2 * CHANNELS, PLANE) <= WORK);
  for (size_t i = 0; i < WORK; i++) toy->work[i] = NAN;
  for (int64_t n = 0; n < count; n++)
    rng_normal(toy->x + n * SIZE, SIZE, 11, first + (uint64_t)n, 0, RNG_INITIAL_NOISE);
  assert_ok(test_ctx(), sampler->plan(test_ctx(), &request, &toy->run.schedule));
}

static void toy_open(struct toy *toy, const struct sampler *sampler, int steps, int64_t count) {
  toy_open_at(toy, sampler, steps, count, 0);
}

static void toy_run(struct toy *toy) { assert_ok(test_ctx(), toy->sampler->run(&toy->run)); }

static void toy_close(struct toy *toy) { schedule_free(test_ctx(), &toy->run.schedule); }

static bool same_images(const struct toy *a, const struct toy *b) {
  return !memcmp(a->x, b->x, SIZE * sizeof(float));
}

static void check(void *user, const char *tensor, double error, double limit) {
  ++*(int *)user;
  assert_within(tensor, error, limit);
}

/* The number of compared tensors; *runs is that of the manifest. */
static int check_tables(const char *folder, int *runs) {
  struct ditmoe_ctx *ctx = test_ctx();
  char path[256];
  int lines = 0;
  cJSON *manifest;
  snprintf(path, sizeof path, "%s/manifest.json", folder);
  assert_ok(ctx, json_read(ctx, fixture_path(path), &manifest));
  assert_ok(ctx, sampler_table_case(ctx, fixture_path(folder), manifest, check, &lines));
  *runs = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(manifest, "runs"));
  cJSON_Delete(manifest);
  return lines;
}

static void test_dpmpp_tables(void **state) {
  int runs, lines = check_tables("samplers/dpmpp_2m", &runs);
  (void)state;
  assert_true(runs >= 3);
  assert_int_equal(lines, 8 * runs);
}

/* Two fields: exact path, velocity and end, 12 finals, 6 trajectories; 9 slopes of the mixture. */
static void test_flow_solvers(void **state) {
  int runs, lines = check_tables("samplers/flow_solvers", &runs);
  (void)state;
  assert_int_equal(runs, 24);
  assert_int_equal(lines, 2 * (3 + 12 + 6) + 9);
}

/* Ancestral sampling once more, in double precision and straight from the definition. */
static void reference_ddpm(const struct toy *toy, const float *start, double *x, bool learned) {
  const struct schedule *s = &toy->run.schedule;
  for (int i = 0; i < SIZE; i++) x[i] = (double)start[i];
  for (int i = s->steps - 1; i >= 0; i--) {
    struct prediction prediction = {.time = s->times[i]};
    float noise[SIZE];
    rng_normal(noise, SIZE, 11, 0, (uint32_t)(s->steps - 1 - i), RNG_STEP_NOISE);
    for (int j = 0; j < SIZE; j++) {
      double eps = (double)toy_value(&prediction, false, j / PLANE, (float)x[j]);
      double v = (double)toy_value(&prediction, false, CHANNELS + j / PLANE, (float)x[j]);
      double x0 = (x[j] - sqrt(1 - s->abar[i]) * eps) / sqrt(s->abar[i]);
      double high = log(s->beta[i]), low = s->posterior_log_variance[i];
      double deviation = exp(0.5 * (learned ? low + (v + 1) / 2 * (high - low) : high));
      x[j] = s->posterior_c1[i] * x0 + s->posterior_c2[i] * x[j] +
             (i > 0 ? deviation * (double)noise[j] : 0);
    }
  }
}

static void test_ddpm_variances(void **state) {
  (void)state;
  for (int fixed = 0; fixed < 3; fixed++) {
    struct toy toy;
    float start[SIZE];
    double expected[SIZE], peak = 0, error = 0;
    toy_open(&toy, sampler_find("ddpm"), 20, 1);
    toy.run.fixed_variance = fixed == 1;
    if (fixed == 2) toy.run.out_channels = CHANNELS;
    memcpy(start, toy.x, sizeof start);
    reference_ddpm(&toy, start, expected, fixed == 0);
    toy_run(&toy);
    for (int i = 0; i < SIZE; i++) {
      peak = fmax(peak, fabs(expected[i]));
      error = fmax(error, fabs((double)toy.x[i] - expected[i]));
    }
    assert_within("ddpm against double", error / peak, 1e-5);
    toy_close(&toy);
  }
}

static void test_registry(void **state) {
  static const char *const names[][2] = {{"ddpm", "ddpm"}, {"ddim", "ddpm"},   {"euler", "rf"},
                                         {"heun", "rf"},   {"midpoint", "rf"}, {"dpmpp-2m", "ddpm"},
                                         {"sde", "rf"},    {"sde-heun", "rf"}};
  static const char *const aliases[][2] = {{"rf", "euler"},         {"rf-euler", "euler"},
                                           {"flow-euler", "euler"}, {"rf-heun", "heun"},
                                           {"dpm++2m", "dpmpp-2m"}, {"euler-maruyama", "sde"}};
  (void)state;
  for (int i = 0; i < 8; i++) {
    assert_string_equal(sampler_at(i)->name, names[i][0]);
    assert_string_equal(sampler_at(i)->objective, names[i][1]);
    assert_ptr_equal(sampler_find(names[i][0]), sampler_at(i));
  }
  for (int i = 0; i < 6; i++)
    assert_ptr_equal(sampler_find(aliases[i][0]), sampler_find(aliases[i][1]));
  assert_null(sampler_at(8));
  assert_null(sampler_at(-1));
  assert_null(sampler_find("plms"));
  assert_null(sampler_find(""));
}

static void guided_run(struct toy *toy, const struct sampler *sampler, int64_t count,
                       uint64_t first) {
  toy_open_at(toy, sampler, 6, count, first);
  toy->run.guidance.scale = 3;
  toy->run.eta = 0.5;
  toy_run(toy);
  toy_close(toy);
}

/* The same bits again, and for each image alone as in a batch of three. */
static void test_batch_invariance(void **state) {
  (void)state;
  for (int i = 0; sampler_at(i); i++) {
    struct toy batch, other;
    guided_run(&batch, sampler_at(i), IMAGES, 0);
    guided_run(&other, sampler_at(i), IMAGES, 0);
    assert_memory_equal(batch.x, other.x, sizeof batch.x);
    for (int n = 0; n < IMAGES; n++) {
      guided_run(&other, sampler_at(i), 1, (uint64_t)n);
      assert_memory_equal(batch.x + n * SIZE, other.x, SIZE * sizeof(float));
    }
  }
}

static enum ditmoe_status cancel_at_3(void *user, struct sampler_run *run, int step, float *x) {
  (void)run, (void)x;
  *(int *)user = step;
  return step == 3 ? DITMOE_CANCELLED : DITMOE_OK;
}

static void test_cancel(void **state) {
  (void)state;
  for (int i = 0; sampler_at(i); i++) {
    struct toy toy;
    int last = 0;
    toy_open(&toy, sampler_at(i), 6, 1);
    toy.run.hooks = (struct sampler_hooks){.user = &last, .after_step = cancel_at_3};
    assert_int_equal(toy.sampler->run(&toy.run), DITMOE_CANCELLED);
    assert_int_equal(last, 3);
    assert_int_equal(toy.conditional, 3 * toy.sampler->calls_per_step);
    toy_close(&toy);
  }
}

static void test_eta(void **state) {
  static const double etas[] = {0, 0.5, 1};
  static const double bad[] = {-0.1, 1.1, NAN};
  struct toy toys[3];
  (void)state;
  for (int i = 0; i < 3; i++) {
    toy_open(&toys[i], sampler_find("ddim"), 6, 1);
    toys[i].run.eta = etas[i];
    toy_run(&toys[i]);
    toy_close(&toys[i]);
    for (int j = 0; j < i; j++) assert_false(same_images(&toys[i], &toys[j]));
  }
  for (int i = 0; i < 3; i++) {
    toy_open(&toys[0], sampler_find("ddim"), 6, 1);
    toys[0].run.eta = bad[i];
    assert_fails(test_ctx(), DITMOE_USAGE, "eta", toys[0].sampler->run(&toys[0].run));
    toy_close(&toys[0]);
  }
}

static void guided(struct toy *toy, const char *sampler, struct guidance guidance, bool both) {
  toy_open(toy, sampler_find(sampler), 8, 1);
  toy->run.guidance = guidance;
  if (both) toy->run.denoiser.predict_both = toy_both;
  toy_run(toy);
  toy_close(toy);
}

/* Which calls are made, and that one batch gives the bits of two calls. */
static void test_guidance_calls(void **state) {
  struct toy toy, batch;
  (void)state;
  guided(&toy, "heun", (struct guidance){.scale = 1, .to = 1}, true);
  assert_true(toy.conditional == 16 && toy.unconditional == 0 && toy.both == 0);
  guided(&toy, "heun", (struct guidance){.scale = 4, .to = 1}, false);
  assert_true(toy.conditional == 16 && toy.unconditional == 16);
  guided(&batch, "heun", (struct guidance){.scale = 4, .to = 1}, true);
  assert_true(batch.conditional == 0 && batch.unconditional == 0 && batch.both == 16);
  assert_true(same_images(&toy, &batch));
  guided(&toy, "ddim", (struct guidance){.scale = 4, .from = 0.25, .to = 0.75}, false);
  assert_true(toy.conditional == 8 && toy.unconditional == 4);
}

/* Scale, interval and channels each change the image; channels that are not guided do not. */
static void test_guidance_acts(void **state) {
  static const struct guidance settings[] = {
      {.scale = 1, .to = 1},
      {.scale = 2, .to = 1},
      {.scale = 4, .to = 1},
      {.scale = 4, .channels = 2, .to = 1},
      {.scale = 4, .from = 0.25, .to = 1},
      {.scale = 4, .to = 0.5},
  };
  enum { COUNT = sizeof settings / sizeof *settings };
  struct toy toys[COUNT];
  (void)state;
  for (int i = 0; i < COUNT; i++) {
    guided(&toys[i], "ddim", settings[i], false);
    for (int j = 0; j < i; j++) assert_false(same_images(&toys[i], &toys[j]));
  }
  const float *none = toys[0].x, *some = toys[3].x, *all = toys[2].x;
  assert_memory_equal(some, all, 2 * PLANE * sizeof *all);
  assert_memory_equal(some + 2 * PLANE, none + 2 * PLANE, PLANE * sizeof *all);
}

static enum ditmoe_status keep_output(void *user, struct sampler_run *run,
                                      const struct prediction *prediction, float *output) {
  (void)prediction;
  memcpy(user, output, (size_t)(run->out_channels * PLANE) * sizeof *output);
  return DITMOE_OK;
}

/* e = u + s (c - u) on the guided channels alone, of the latents at most; an Euler step of length 1
 * makes x - e. */
static void test_guidance_formula(void **state) {
  static const int channels[] = {0, 2, CHANNELS, 2 * CHANNELS, 99};
  static const int guided_channels[] = {CHANNELS, 2, CHANNELS, CHANNELS, CHANNELS};
  (void)state;
  for (size_t k = 0; k < sizeof channels / sizeof *channels; k++) {
    struct toy toy;
    float start[SIZE], output[2 * SIZE];
    toy_open(&toy, sampler_find("euler"), 1, 1);
    toy.run.guidance = (struct guidance){.scale = 4, .channels = channels[k], .to = 1};
    toy.run.hooks = (struct sampler_hooks){.user = output, .prediction = keep_output};
    memcpy(start, toy.x, sizeof start);
    toy_run(&toy);
    for (int i = 0; i < 2 * SIZE; i++) {
      struct prediction prediction = {.time = 1};
      float c = toy_value(&prediction, false, i / PLANE, start[i % SIZE]);
      float u = toy_value(&prediction, true, i / PLANE, start[i % SIZE]);
      assert_true(output[i] == (i / PLANE < guided_channels[k] ? u + 4 * (c - u) : c));
      if (i < SIZE) assert_true(toy.x[i] == start[i] - output[i]);
    }
    toy_close(&toy);
  }
}

static void test_nonfinite(void **state) {
  (void)state;
  for (int i = 0; sampler_at(i); i++) {
    struct toy toy;
    toy_open(&toy, sampler_at(i), 5, IMAGES);
    toy.nan_step = 2;
    toy.nan_image = 1;
    assert_fails(test_ctx(), DITMOE_NONFINITE, "step 3 of 5: the prediction of image 1",
                 toy.sampler->run(&toy.run));
    toy_close(&toy);
  }
}

static enum ditmoe_status overflow(void *user, struct sampler_run *run,
                                   const struct prediction *prediction, float *output) {
  (void)user, (void)run;
  if (prediction->step == 1) output[0] = 3e38f, output[1] = INFINITY;
  return DITMOE_OK;
}

static void test_nonfinite_latent(void **state) {
  struct toy toy;
  (void)state;
  toy_open(&toy, sampler_find("euler"), 5, 1);
  toy.run.hooks.prediction = overflow;
  assert_fails(test_ctx(), DITMOE_NONFINITE, "step 2 of 5: the latent of image 0",
               toy.sampler->run(&toy.run));
  toy_close(&toy);
}

/* Two evaluations in a step with different routing: the hook asks the model again under other
 * settings and mixes the two. */
static const struct routing other = {.variant = 8};

static enum ditmoe_status mix(void *user, struct sampler_run *run,
                              const struct prediction *prediction, float *output) {
  float second[2 * SIZE], weight = *(const float *)user;
  struct prediction again = *prediction;
  again.routing = &other;
  enum ditmoe_status status = run->denoiser.predict(run->denoiser.user, second, &again);
  for (int i = 0; i < 2 * SIZE; i++) output[i] += weight * (second[i] - output[i]);
  return status;
}

static void test_two_routings(void **state) {
  static const float weights[] = {0, 0.5f, 1};
  struct toy toys[3];
  (void)state;
  for (int i = 0; i < 3; i++) {
    float weight = weights[i];
    toy_open(&toys[i], sampler_find("euler"), 1, 1);
    toys[i].run.hooks = (struct sampler_hooks){.user = &weight, .prediction = mix};
    toy_run(&toys[i]);
    assert_int_equal(toys[i].conditional, 2);
    toy_close(&toys[i]);
  }
  for (int i = 0; i < SIZE; i++) { /* variant 8 adds 1 to the velocity */
    assert_within("half", fabs((double)(toys[0].x[i] - toys[1].x[i]) - 0.5), 1e-6);
    assert_within("whole", fabs((double)(toys[0].x[i] - toys[2].x[i]) - 1), 1e-6);
  }
}

static enum ditmoe_status look(void *user, struct sampler_run *run, int step, float *x0) {
  (void)run, (void)step, (void)x0;
  ++*(int *)user;
  return DITMOE_OK;
}

static enum ditmoe_status replace(void *user, struct sampler_run *run, int step, float *x0) {
  (void)step;
  for (int64_t i = 0; i < sampler_elements(run); i++) x0[i] = *(const float *)user;
  return DITMOE_OK;
}

/* Looking at the estimate changes nothing; replacing it by a constant leads there. Heun's last
 * evaluation is at t = 0, where there is no estimate to replace; that of the stochastic equation
 * has a last step of one evaluation. */
static void test_estimate_hook(void **state) {
  float constant = 0.375f;
  (void)state;
  for (int i = 0; sampler_at(i); i++) {
    struct toy plain, seen, replaced;
    int calls = 0;
    bool heun = sampler_at(i) == sampler_find("heun");
    bool short_end = heun || sampler_at(i) == sampler_find("sde-heun");
    toy_open(&plain, sampler_at(i), 6, 1);
    toy_run(&plain);
    toy_open(&seen, sampler_at(i), 6, 1);
    seen.run.hooks = (struct sampler_hooks){.user = &calls, .estimate = look};
    toy_run(&seen);
    assert_int_equal(calls, 6 * seen.sampler->calls_per_step - short_end);
    assert_true(same_images(&plain, &seen));
    toy_open(&replaced, sampler_at(i), 6, 1);
    replaced.run.hooks = (struct sampler_hooks){.user = &constant, .estimate = replace};
    toy_run(&replaced);
    assert_false(same_images(&plain, &replaced));
    for (int j = 0; j < SIZE && !heun; j++)
      assert_within("constant estimate", fabs((double)(replaced.x[j] - constant)), 1e-6);
    toy_close(&plain);
    toy_close(&seen);
    toy_close(&replaced);
  }
}

static enum ditmoe_status times_of(void *user, struct sampler_run *run,
                                   const struct prediction *prediction, float *output) {
  (void)run, (void)output;
  ((double *)user)[prediction->step] = prediction->time;
  return DITMOE_OK;
}

/* The denoiser gets the original timesteps, the largest first. */
static void test_original_timesteps(void **state) {
  static const char *const names[] = {"ddpm", "ddim"};
  (void)state;
  for (int k = 0; k < 2; k++) {
    struct toy toy;
    double times[10];
    toy_open(&toy, sampler_find(names[k]), 10, 1);
    toy.run.hooks = (struct sampler_hooks){.user = times, .prediction = times_of};
    toy_run(&toy);
    for (int j = 0; j < 10; j++) assert_true(times[j] == 999 - 111 * j);
    toy_close(&toy);
  }
}

/* A model that always predicts the clean value 2. */
static enum ditmoe_status predict_two(void *user, float *out, const struct prediction *prediction) {
  const struct toy *toy = user;
  (void)prediction;
  for (int64_t i = 0; i < toy->run.count * 2 * CHANNELS * PLANE; i++) out[i] = 2;
  return DITMOE_OK;
}

/* The velocity leads to it in the time that is left, at least clean_eps, in both directions. */
static void test_clean_predictions(void **state) {
  (void)state;
  static const struct {
    const char *sampler;
    bool rising;
    double eps, left; /* share of the way to 2 that is left after 4 steps */
  } cases[] = {{"euler", true, 0.05, 0},
               {"euler", false, 0.05, 0},
               {"heun", true, 0.05, 0},
               {"euler", true, 0.5, 0.125},
               {"euler", false, 1, 0.31640625}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct toy toy;
    toy_open(&toy, sampler_find(cases[i].sampler), 4, 1);
    toy_close(&toy);
    const struct schedule_request request = {.steps = 4, .shift = 1, .rising = cases[i].rising};
    assert_ok(test_ctx(), toy.sampler->plan(test_ctx(), &request, &toy.run.schedule));
    const float start = toy.x[0];
    toy.run.denoiser.predict = predict_two;
    toy.run.clean_eps = cases[i].eps;
    toy.run.heun_ends_euler = true;
    toy_run(&toy);
    const double expected = 2 + ((double)start - 2) * cases[i].left;
    assert_within("the way that is left", fabs((double)toy.x[0] - expected), 1e-6);
    toy_close(&toy);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_clean_predictions),
      cmocka_unit_test(test_dpmpp_tables),
      cmocka_unit_test(test_flow_solvers),
      cmocka_unit_test(test_ddpm_variances),
      cmocka_unit_test(test_registry),
      cmocka_unit_test(test_batch_invariance),
      cmocka_unit_test(test_cancel),
      cmocka_unit_test(test_eta),
      cmocka_unit_test(test_guidance_calls),
      cmocka_unit_test(test_guidance_acts),
      cmocka_unit_test(test_guidance_formula),
      cmocka_unit_test(test_nonfinite),
      cmocka_unit_test(test_nonfinite_latent),
      cmocka_unit_test(test_two_routings),
      cmocka_unit_test(test_estimate_hook),
      cmocka_unit_test(test_original_timesteps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Two denoiser calls in a step, with different routing, on a real model: a prediction hook that
 * moves the prediction away from that of the second-best experts (self-contrast, as SCMoE does it).
 */
#include "base/rng.h"
#include "sampler/sampler.h"
#include "support.h"
#include "synthetic.h"

#include <stdlib.h>
#include <string.h>

enum { IMAGES = 2, CHANNELS = 4, SIDE = 8, VALUES = IMAGES * CHANNELS * SIDE * SIDE, STEPS = 3 };

static const struct routing second_best = {.top_k = 1, .skip = 1};
static const float strength = 0.5f;

static enum ditmoe_status predict(void *user, float *out, const struct prediction *prediction) {
  struct opened *opened = user;
  const float t = (float)prediction->time, time[IMAGES] = {t, t};
  const int32_t labels[IMAGES] = {1, 2};
  const struct dit_input in = {.x = prediction->x,
                               .time = time,
                               .labels = labels,
                               .B = IMAGES,
                               .routing = prediction->routing};
  return dit_predict(&opened->ex, opened->model, out, &in);
}

static void contrast(float *strong, const float *weak) {
  for (int i = 0; i < VALUES; i++) strong[i] += strength * (strong[i] - weak[i]);
}

static enum ditmoe_status contrast_hook(void *user, struct sampler_run *run,
                                        const struct prediction *prediction, float *output) {
  struct prediction again = *prediction;
  float *weak = user;
  again.routing = &second_best;
  TRY(run->denoiser.predict(run->denoiser.user, weak, &again));
  contrast(output, weak);
  return DITMOE_OK;
}

static void sample(struct opened *opened, float *x, bool hooked) {
  static float weak[VALUES];
  const struct sampler *euler = sampler_find("euler");
  const struct schedule_request request = {.steps = STEPS, .train_steps = 1000, .shift = 1};
  size_t work = sampler_work_size(euler, IMAGES, CHANNELS, CHANNELS, SIDE * SIDE);
  struct sampler_run run = {.ctx = test_ctx(),
                            .count = IMAGES,
                            .channels = CHANNELS,
                            .out_channels = CHANNELS,
                            .plane = SIDE * SIDE,
                            .denoiser = {opened, predict, NULL},
                            .guidance = {.scale = 1, .to = 1},
                            .hooks = {.user = weak, .prediction = hooked ? contrast_hook : NULL},
                            .x = x,
                            .work = malloc(work * sizeof(float))};
  assert_non_null(run.work);
  assert_ok(test_ctx(), euler->plan(test_ctx(), &request, &run.schedule));
  rng_normal(x, VALUES, 3, 0, 0, RNG_INITIAL_NOISE);
  assert_ok(test_ctx(), euler->run(&run));
  schedule_free(test_ctx(), &run.schedule);
  free(run.work);
}

/* The same by hand: x += dt (v + strength (v - weak)) */
static void sample_by_hand(struct opened *opened, float *x) {
  static float v[VALUES], weak[VALUES];
  rng_normal(x, VALUES, 3, 0, 0, RNG_INITIAL_NOISE);
  for (int step = 0; step < STEPS; step++) {
    struct prediction prediction = {.x = x, .time = 1 - (double)step / STEPS, .step = step};
    assert_ok(test_ctx(), predict(opened, v, &prediction));
    prediction.routing = &second_best;
    assert_ok(test_ctx(), predict(opened, weak, &prediction));
    contrast(v, weak);
    for (int i = 0; i < VALUES; i++) x[i] -= v[i] / STEPS;
  }
}

static void test_self_contrast(void **state) {
  (void)state;
  static float hooked[VALUES], plain[VALUES], expected[VALUES];
  const struct synthetic spec = {.width = 32,
                                 .depth = 2,
                                 .heads = 2,
                                 .size = SIDE,
                                 .patch = 2,
                                 .channels = CHANNELS,
                                 .classes = 4,
                                 .experts = {6, 6},
                                 .hidden = {48, 48},
                                 .top_k = {2, 2},
                                 .seed = 5};
  struct opened opened;
  synthetic_write(&spec, temporary_path("contrast.safetensors"));
  model_open(&opened, temporary_path("contrast.safetensors"), "cpu", NULL, "f32", 1);
  assert_ok(test_ctx(),
            exec_reserve(&opened.ex, dit_predict_bytes(&opened.ex, opened.model, NULL, IMAGES)));
  sample(&opened, plain, false);
  sample(&opened, hooked, true);
  sample_by_hand(&opened, expected);
  assert_within("against the steps by hand", relative_max(hooked, expected, VALUES), 1e-5);
  assert_true(relative_max(hooked, plain, VALUES) > 1e-3);
  model_close(&opened);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_self_contrast)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

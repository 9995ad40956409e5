/* The stochastic samplers of flows and the grids, directions and intervals that they share with
 * the solvers, over a field in closed form: data N(MEAN, DEVIATION^2), every element alike. */
#include "support.h"

#include "base/rng.h"
#include "sampler/sampler.h"

#include <math.h>
#include <string.h>

enum { ELEMENTS = 16384 };
static const double MEAN = 0.7, DEVIATION = 0.4;

struct field {
  struct sampler_run run;
  double time[64]; /* of the calls */
  int calls, nulls;
  float x[ELEMENTS], work[7 * ELEMENTS + 64];
};

/* Velocity towards data at the share a of data: the posterior means of data - noise. */
static double towards_data(double x, double a) {
  const double b = 1 - a, variance = DEVIATION * DEVIATION;
  const double gain = (a * variance - b) / (a * a * variance + b * b);
  return MEAN + gain * (x - a * MEAN);
}

static enum ditmoe_status field_predict(void *user, float *out, const struct prediction *p) {
  struct field *f = user;
  const bool rising = f->run.schedule.rising;
  if (f->calls < 64) f->time[f->calls] = p->time;
  f->calls++;
  f->nulls += p->unconditional;
  for (int i = 0; i < ELEMENTS; i++) {
    const double w = towards_data((double)p->x[i], rising ? p->time : 1 - p->time);
    out[i] = (float)(rising ? w : -w);
  }
  return DITMOE_OK;
}

static enum ditmoe_status field_noise(void *user, float *out, int step) {
  (void)user;
  rng_normal(out, ELEMENTS, 5, 0, (uint32_t)step, RNG_STEP_NOISE);
  return DITMOE_OK;
}

static struct field field; /* large */

static struct field *field_open(const char *sampler, const struct schedule_request *request) {
  struct field *f = &field;
  memset(f, 0, sizeof *f);
  f->run = (struct sampler_run){.ctx = test_ctx(),
                                .count = 1,
                                .channels = 1,
                                .out_channels = 1,
                                .plane = ELEMENTS,
                                .denoiser = {.user = f, .predict = field_predict},
                                .guidance = {.scale = 1, .to = 1},
                                .noise_user = f,
                                .noise = field_noise,
                                .x = f->x,
                                .work = f->work};
  rng_normal(f->x, ELEMENTS, 5, 0, 0, RNG_INITIAL_NOISE);
  assert_ok(test_ctx(), sampler_find(sampler)->plan(test_ctx(), request, &f->run.schedule));
  return f;
}

static void field_run(struct field *f, const char *sampler) {
  assert_ok(test_ctx(), sampler_find(sampler)->run(&f->run));
  schedule_free(test_ctx(), &f->run.schedule);
}

static void moments(const float *x, double *mean, double *deviation) {
  double sum = 0, squares = 0;
  for (int i = 0; i < ELEMENTS; i++) sum += (double)x[i];
  *mean = sum / ELEMENTS;
  for (int i = 0; i < ELEMENTS; i++) squares += pow((double)x[i] - *mean, 2);
  *deviation = sqrt(squares / ELEMENTS);
}

/* The last step from the share a = 0.96 of data is linear in x: what it makes of the deviation
 * there, with g as the forms have it for the norm 0.8. */
static double last_deviation(enum diffusion_form form, enum last_step last) {
  const double a = 0.96, L = 1 - a, pi = 3.14159265358979323846;
  const double g[] = {0.8 * L, 0.8, 0.8 * L / a, 0.25 * pow(0.8 * cos(pi * a) + 1, 2),
                      0.8 * pow(sin(pi * a), 2)};
  const double gain = towards_data(1, a) - towards_data(0, a), score = (a * gain - 1) / L;
  const double scale[] = {1 + L * (gain + g[form] * score), 1 / a + L * L / a * score,
                          1 + L * gain};
  return scale[last] * sqrt(pow(a * DEVIATION, 2) + L * L);
}

/* Whatever the diffusion, the marginals are those of the flow. A sample of 16384 strays by
 * DEVIATION / 128 = 0.003 in the mean; the rest is the error of 120 steps. */
static void test_marginals(void **state) {
  static const char *const samplers[] = {"sde", "sde-heun"};
  (void)state;
  for (int s = 0; s < 2; s++)
    for (int form = DIFFUSION_SIGMA; form <= DIFFUSION_INCREASING_DECREASING; form++)
      for (int last = LAST_MEAN; last <= LAST_EULER; last++) {
        const struct schedule_request request = {
            .steps = 120,
            .shift = 1,
            .rising = (form + last) % 2 != 0,
            .sde = {(enum diffusion_form)form, 0.8, (enum last_step)last, 0.04, 0.01}};
        const double expected = last_deviation(request.sde.form, request.sde.last);
        double mean, deviation;
        struct field *f = field_open(samplers[s], &request);
        field_run(f, samplers[s]);
        moments(f->x, &mean, &deviation);
        if (fabs(mean - MEAN) > 0.02 || fabs(deviation - expected) > 0.01)
          fail_msg("%s, form %d, last %d: mean %g, deviation %g, expected %g", samplers[s], form,
                   last, mean, deviation, expected);
        assert_int_equal(f->calls, s == 0 ? 120 : 239);
      }
}

/* Without a last step the state stays where the last noise has left it. */
static void test_no_last_step(void **state) {
  const struct schedule_request request = {
      .steps = 60, .shift = 1, .sde = {.norm = 1, .last = LAST_NONE}};
  struct field *f = field_open("sde", &request);
  (void)state;
  field_run(f, "sde");
  assert_int_equal(f->calls, 59);
  f = field_open("sde-heun", &request);
  assert_fails(test_ctx(), DITMOE_USAGE, "needs a last step",
               sampler_find("sde-heun")->run(&f->run));
  schedule_free(test_ctx(), &f->run.schedule);
}

/* Both directions of time are one process, given the same noise. */
static void test_directions(void **state) {
  static const char *const samplers[] = {"euler", "heun", "midpoint", "sde", "sde-heun"};
  static float falling[ELEMENTS];
  (void)state;
  for (size_t s = 0; s < sizeof samplers / sizeof *samplers; s++) {
    struct schedule_request request = {
        .steps = 12, .shift = 1, .sde = {.norm = 1, .last_size = 0.04}};
    double error = 0;
    struct field *f = field_open(samplers[s], &request);
    assert_true(f->run.schedule.times[0] == 1 && f->run.schedule.times[12] == 0);
    field_run(f, samplers[s]);
    memcpy(falling, f->x, sizeof falling);
    request.rising = true;
    f = field_open(samplers[s], &request);
    assert_true(f->run.schedule.times[0] == 0 && f->run.schedule.times[12] == 1);
    field_run(f, samplers[s]);
    for (int i = 0; i < ELEMENTS; i++)
      error = fmax(error, fabs((double)f->x[i] - (double)falling[i]));
    assert_within(samplers[s], error, 1e-5);
  }
}

/* One step of the sigma form, against the equation. */
static void test_step(void **state) {
  const struct schedule_request request = {
      .steps = 2, .shift = 1, .rising = true, .sde = {.norm = 0.5, .last_size = 0.1, .start = 0.3}};
  static float start[ELEMENTS], noise[ELEMENTS];
  struct field *f = field_open("sde", &request);
  double error = 0;
  (void)state;
  memcpy(start, f->x, sizeof start);
  field_noise(NULL, noise, 0);
  field_run(f, "sde");
  for (int i = 0; i < ELEMENTS; i++) {
    double x = (double)start[i], a = 0.3, w = towards_data(x, a), g = 0.5 * 0.7;
    x += 0.6 * (w + g * (a * w - x) / 0.7) + sqrt(2 * g * 0.6) * (double)noise[i];
    a = 0.9, w = towards_data(x, a), g = 0.5 * 0.1;
    x += 0.1 * (w + g * (a * w - x) / (1 - a));
    error = fmax(error, fabs(x - (double)f->x[i]));
  }
  assert_within("sigma form", error, 5e-6);
}

/* N points have N - 1 steps between them; the shift bends the family's own time. */
static void test_points(void **state) {
  struct schedule_request request = {
      .steps = 5, .shift = 0.3, .rising = true, .counts_points = true};
  struct schedule s;
  (void)state;
  assert_ok(test_ctx(), schedule_flow(test_ctx(), &request, &s));
  assert_int_equal(s.steps, 4);
  for (int j = 0; j <= 4; j++)
    assert_within("time", fabs(s.times[j] - 0.3 * j / 4 / (1 - 0.7 * j / 4)), 1e-15);
  schedule_free(test_ctx(), &s);
  request.steps = 1;
  assert_fails(test_ctx(), DITMOE_USAGE, "points of the time grid",
               schedule_flow(test_ctx(), &request, &s));
}

/* The grid of a scheduler of flows goes from noise to data in both directions of time. */
static void test_points_of_noise(void **state) {
  struct schedule_request request = {
      .steps = 4, .shift = 3, .train_steps = 1000, .flow_sigma_min = true};
  struct schedule falling, rising;
  (void)state;
  assert_ok(test_ctx(), schedule_flow(test_ctx(), &request, &falling));
  request.rising = true;
  assert_ok(test_ctx(), schedule_flow(test_ctx(), &request, &rising));
  for (int j = 0; j <= 4; j++)
    assert_within("time", fabs(falling.times[j] + rising.times[j] - 1), 1e-15);
  assert_true(rising.times[0] == 0 && rising.times[4] == 1);
  schedule_free(test_ctx(), &falling);
  schedule_free(test_ctx(), &rising);
}

static void test_last_heun_step(void **state) {
  const struct schedule_request request = {.steps = 6, .shift = 1};
  struct field *f = field_open("heun", &request);
  (void)state;
  f->run.heun_ends_euler = true;
  field_run(f, "heun");
  assert_int_equal(f->calls, 11);
}

/* Of ten steps in falling time, those whose time is in 0.3 .. 0.7, or beside it, are guided. */
static void test_intervals(void **state) {
  static const struct {
    struct guidance guidance;
    int nulls;
  } cases[] = {
      {{.scale = 2, .from = 0.3, .to = 0.7, .by_time = true}, 5},
      {{.scale = 2, .from = 0.3, .to = 0.7, .by_time = true, .by_evaluation = true, .open = true},
       3},
      {{.scale = 2, .from = 0, .to = 0.7, .by_time = true, .by_evaluation = true, .open = true}, 6},
      {{.scale = 2, .from = 0.3, .to = 0.7}, 4},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct schedule_request request = {.steps = 10, .shift = 1};
    struct field *f = field_open("euler", &request);
    for (int j = 0; j <= 10; j++) f->run.schedule.times[j] = (10 - j) / 10.0;
    f->run.guidance = cases[i].guidance;
    field_run(f, "euler");
    if (f->nulls != cases[i].nulls) fail_msg("case %zu: %d steps guided", i, f->nulls);
  }
}

/* Heun's second evaluation has the guidance of its step, or its own. */
static void test_interval_of_evaluations(void **state) {
  const struct schedule_request request = {.steps = 4, .shift = 1};
  (void)state;
  for (int own = 0; own < 2; own++) {
    struct field *f = field_open("heun", &request);
    f->run.guidance = (struct guidance){
        .scale = 2, .from = 0.5, .to = 1, .by_time = true, .by_evaluation = own != 0};
    field_run(f, "heun");
    assert_int_equal(f->nulls, own ? 5 : 6); /* times 1 .75 | .75 .5 | .5 .25 | .25 0 */
  }
}

static void test_refused(void **state) {
  static const struct {
    struct schedule_request request;
    const char *text;
  } cases[] = {
      {{.steps = 1, .shift = 1, .sde = {.norm = 1, .last_size = 0.04}}, "2 to"},
      {{.steps = 9, .shift = 1, .sde = {.norm = 1}}, "last step of size 0"},
      {{.steps = 9, .shift = 3, .sde = {.norm = 1, .last_size = 0.04}}, "time shift of 3"},
      {{.steps = 9, .shift = 1, .sde = {.form = DIFFUSION_SBDM, .norm = 1, .last_size = 0.04}},
       "--sample-eps"},
      {{.steps = 9, .shift = 1, .sde = {.norm = 1, .last_size = 0.5, .start = 0.5}},
       "leave nothing between them"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct schedule s;
    assert_fails(test_ctx(), DITMOE_USAGE, cases[i].text,
                 schedule_sde(test_ctx(), &cases[i].request, &s));
    schedule_free(test_ctx(), &s);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_marginals),
      cmocka_unit_test(test_no_last_step),
      cmocka_unit_test(test_directions),
      cmocka_unit_test(test_step),
      cmocka_unit_test(test_points),
      cmocka_unit_test(test_points_of_noise),
      cmocka_unit_test(test_last_heun_step),
      cmocka_unit_test(test_intervals),
      cmocka_unit_test(test_interval_of_evaluations),
      cmocka_unit_test(test_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

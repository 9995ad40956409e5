/* Noise schedules and time grids: fixtures, grids in closed form, and what must be refused. */
#include "support.h"

#include "cases.h"
#include "sampler/schedule.h"

#include <math.h>
#include <string.h>

static void check(void *user, const char *tensor, double error, double limit) {
  ++*(int *)user;
  assert_within(tensor, error, limit);
}

static void test_fixture(void **state) {
  int lines = 0;
  (void)state;
  assert_ok(test_ctx(),
            schedule_case(test_ctx(), fixture_path("samplers/schedules"), check, &lines));
  assert_int_equal(lines, 6 * 14 + 3 + 5 + 3);
}

static void test_respacings_refused(void **state) {
  static const struct {
    const char *respacing, *message;
  } bad[] = {
      {"ddim600", "no integer stride"},
      {"ddim0", "no integer stride"},
      {"ddim99999999999999999999", "no integer stride"},
      {"ddim", "number after"},
      {"ddim25x", "number after"},
      {"1001", "cannot take 1001 steps out of 1000"},
      {"10,500,10", "cannot take 500 steps out of 333"},
      {"99999999999999999999", "cannot take"},
      {"0", "no steps"},
      {"-5", "joined by commas"},
      {"10,", "joined by commas"},
      {",10", "joined by commas"},
      {"10 20", "joined by commas"},
      {"fifty", "joined by commas"},
  };
  struct ditmoe_ctx *ctx = test_ctx();
  int *timesteps, count;
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_fails(ctx, DITMOE_USAGE, bad[i].message,
                 schedule_space_timesteps(ctx, 1000, bad[i].respacing, &timesteps, &count));
}

/* Positions are rounded half to even: 2.5 to 2. */
static void test_rounding(void **state) {
  static const int expected[] = {0, 2, 5};
  struct ditmoe_ctx *ctx = test_ctx();
  int *timesteps, count;
  (void)state;
  assert_ok(ctx, schedule_space_timesteps(ctx, 6, "3", &timesteps, &count));
  assert_int_equal(count, 3);
  assert_memory_equal(timesteps, expected, sizeof expected);
  mem_free(ctx, timesteps);
}

/* More sections than timesteps leave the last ones empty. */
static void test_many_sections(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  int *timesteps, count;
  (void)state;
  assert_ok(ctx, schedule_space_timesteps(ctx, 3, "1,1,1,0,0", &timesteps, &count));
  assert_int_equal(count, 3);
  for (int i = 0; i < 3; i++) assert_int_equal(timesteps[i], i);
  mem_free(ctx, timesteps);
  assert_fails(ctx, DITMOE_USAGE, "cannot take 1 steps out of 0",
               schedule_space_timesteps(ctx, 3, "1,1,1,1", &timesteps, &count));
}

/* `steps` alone is the respacing of that number; a chain may be a single step. */
static void test_steps(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct schedule_request request = {.steps = 10, .train_steps = 1000};
  struct schedule schedule;
  (void)state;
  assert_ok(ctx, schedule_ddpm(ctx, &request, &schedule));
  assert_int_equal(schedule.steps, 10);
  for (int i = 0; i < 10; i++) assert_true(schedule.times[i] == 111 * i);
  schedule_free(ctx, &schedule);
  request.steps = 1;
  assert_ok(ctx, schedule_ddpm(ctx, &request, &schedule));
  assert_true(schedule.steps == 1 && isfinite(schedule.posterior_log_variance[0]));
  schedule_free(ctx, &schedule);
}

/* A DDIM pipeline: multiples of T div N over single-precision betas. */
static void test_leading(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct schedule_request request = {
      .steps = 7, .train_steps = 1000, .spacing = SPACING_LEADING, .float32_betas = true};
  struct schedule schedule;
  double beta[1000], abar = 1;
  (void)state;
  schedule_betas(beta, &request, true);
  assert_ok(ctx, schedule_ddpm(ctx, &request, &schedule));
  for (int t = 0; t < 1000; t++) {
    assert_true(beta[t] == (double)(float)beta[t]);
    abar *= (double)(1 - (float)beta[t]);
    if (t % 142 != 0 || t / 142 >= 7) continue;
    assert_true(schedule.times[t / 142] == t);
    assert_true((float)schedule.abar[t / 142] == (float)abar);
  }
  schedule_free(ctx, &schedule);
}

static void test_flow_grid(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct schedule_request request = {.steps = 50, .shift = 1};
  struct schedule schedule;
  (void)state;
  assert_ok(ctx, schedule_flow(ctx, &request, &schedule));
  assert_true(schedule.times[0] == 1 && schedule.times[50] == 0);
  for (int j = 0; j <= 50; j++) assert_within("t", fabs(schedule.times[j] - (1 - j / 50.0)), 2e-16);
  schedule_free(ctx, &schedule);
  request.shift = 3;
  assert_ok(ctx, schedule_flow(ctx, &request, &schedule));
  assert_true(schedule.times[0] == 1 && schedule.times[50] == 0);
  assert_within("shifted middle", fabs(schedule.times[25] - 0.75), 2e-16);
  schedule_free(ctx, &schedule);
}

static void test_requests_refused(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  static const struct {
    enum ditmoe_status (*plan)(struct ditmoe_ctx *, const struct schedule_request *,
                               struct schedule *);
    struct schedule_request request;
    const char *message;
  } bad[] = {
      {schedule_flow, {.steps = 0, .shift = 1}, "steps 0"},
      {schedule_flow, {.steps = -3, .shift = 1}, "steps -3"},
      {schedule_flow, {.steps = 2000000, .shift = 1}, "steps 2000000"},
      {schedule_flow, {.steps = 5, .shift = 0}, "shift 0"},
      {schedule_flow, {.steps = 5, .shift = -1}, "shift -1"},
      {schedule_flow, {.steps = 5, .shift = NAN}, "shift"},
      {schedule_flow, {.steps = 5, .shift = INFINITY}, "shift inf"},
      {schedule_ddpm, {.steps = 0, .train_steps = 1000}, "steps 0"},
      {schedule_ddpm, {.steps = 1001, .train_steps = 1000}, "steps 1001"},
      {schedule_ddpm, {.steps = 5, .train_steps = 0}, "0 training timesteps"},
      {schedule_ddpm, {.steps = 5, .train_steps = 20}, "a beta reaches 1"},
      {schedule_ddpm, {.steps = 5, .train_steps = 12}, "a beta reaches 1"},
      {schedule_ddim,
       {.steps = 1000, .train_steps = 1000, .spacing = SPACING_LEADING, .steps_offset = 1},
       "with steps_offset 1 the first timestep is 1000 of 1000"},
      {schedule_ddim,
       {.steps = 5, .train_steps = 1000, .spacing = SPACING_TRAILING, .zero_snr = true},
       "prediction_type must be another than epsilon"},
      {schedule_ddpm, {.steps = 1001, .train_steps = 1000, .spacing = SPACING_LEADING}, "1001"},
      {schedule_dpmpp, {.steps = 1000, .train_steps = 1000, .spacing = SPACING_LINSPACE}, "999"},
      {schedule_dpmpp, {.steps = 1000, .train_steps = 1000, .spacing = SPACING_LEADING}, "999"},
      {schedule_dpmpp, {.steps = 1001, .train_steps = 1000, .spacing = SPACING_TRAILING}, "1000"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct schedule schedule;
    assert_fails(ctx, DITMOE_USAGE, bad[i].message, bad[i].plan(ctx, &bad[i].request, &schedule));
    assert_null(schedule.block);
  }
}

/* dpmpp-2m has strictly falling timesteps and sigmas up to its limits. */
static void test_dpmpp_falls(void **state) {
  struct ditmoe_ctx *ctx = test_ctx();
  (void)state;
  for (int spacing = SPACING_LINSPACE; spacing <= SPACING_TRAILING; spacing++)
    for (int steps = 1; steps < 1000; steps += steps < 40 ? 1 : 137) {
      struct schedule_request request = {.steps = steps, .train_steps = 1000, .spacing = spacing};
      struct schedule schedule;
      assert_ok(ctx, schedule_dpmpp(ctx, &request, &schedule));
      for (int j = 0; j < steps; j++) {
        assert_true(schedule.times[j] >= 0 && schedule.sigma[j] > schedule.sigma[j + 1]);
        assert_true(j == 0 || schedule.times[j] < schedule.times[j - 1]);
      }
      schedule_free(ctx, &schedule);
    }
}

/* Every allocation may fail; nothing stays behind. */
static void test_out_of_memory(void **state) {
  static const struct {
    enum ditmoe_status (*plan)(struct ditmoe_ctx *, const struct schedule_request *,
                               struct schedule *);
    struct schedule_request request;
  } plans[] = {{schedule_ddpm, {.steps = 5, .train_steps = 1000}},
               {schedule_ddim, {.steps = 5, .train_steps = 1000, .spacing = SPACING_LEADING}},
               {schedule_dpmpp, {.steps = 5, .train_steps = 1000}},
               {schedule_flow, {.steps = 5, .shift = 1}}};
  (void)state;
  for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
    for (int64_t at = 0, fired = 1; fired; at++) {
      struct ditmoe_ctx *ctx = faulty_ctx(at);
      struct schedule schedule;
      enum ditmoe_status status = plans[i].plan(ctx, &plans[i].request, &schedule);
      fired = faulty_fired();
      assert_int_equal(status, fired ? DITMOE_NOMEM : DITMOE_OK);
      schedule_free(ctx, &schedule);
      assert_int_equal(faulty_held(), 0);
      ditmoe_ctx_destroy(ctx);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fixture),     cmocka_unit_test(test_respacings_refused),
      cmocka_unit_test(test_rounding),    cmocka_unit_test(test_many_sections),
      cmocka_unit_test(test_steps),       cmocka_unit_test(test_leading),
      cmocka_unit_test(test_flow_grid),   cmocka_unit_test(test_requests_refused),
      cmocka_unit_test(test_dpmpp_falls), cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

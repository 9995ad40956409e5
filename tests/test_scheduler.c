/* Scheduler files of diffusers: each member against diffusers 0.42.1 itself, on a network in closed
 * form; which are refused; whose sampler runs. */
#include "api/scheduler.h"
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SIZE = 4 };

static const float start[SIZE] = {1, -0.5f, 0.25f, -2};

/* The network: 0.3 x - 0.1 + t, t from 0 to 1, and 0.5 for a learned variance. */
struct toy {
  bool flow, learned;
};

static enum ditmoe_status predict(void *user, float *out, const struct prediction *prediction) {
  const struct toy *toy = user;
  const float time = (float)(toy->flow ? prediction->time : prediction->time / 1000);
  for (int i = 0; i < SIZE; i++) out[i] = 0.3f * prediction->x[i] - 0.1f + time;
  for (int i = 0; toy->learned && i < SIZE; i++) out[SIZE + i] = 0.5f;
  return DITMOE_OK;
}

static enum ditmoe_status noise(void *user, float *out, int step) {
  (void)user, (void)step;
  for (int i = 0; i < SIZE; i++) out[i] = 0.5f;
  return DITMOE_OK;
}

/* A record with the scheduler {"_class_name": "CLASSScheduler", MEMBERS}. */
static struct dit_record record_of(const char *class, const char *members) {
  static const struct record_origin origin = {"p/scheduler_config.json", RECORD_STORED, NULL};
  struct dit_record record = {.shift = 1};
  char text[1024];
  cJSON *object;
  snprintf(text, sizeof text, "{\"scheduler\":{\"_class_name\":\"%sScheduler\"%s%s}}", class,
           *members ? "," : "", members);
  assert_ok(test_ctx(), json_parse(test_ctx(), "test", text, strlen(text), &object));
  const cJSON *shift = cJSON_GetObjectItem(cJSON_GetObjectItem(object, "scheduler"), "shift");
  if (shift) record.shift = shift->valuedouble;
  assert_ok(test_ctx(), record_read_json(test_ctx(), &record, &origin, object));
  cJSON_Delete(object);
  return record;
}

static void sample(const struct dit_record *record, const struct sampler *sampler, int steps,
                   bool learned, float *x) {
  struct ditmoe_ctx *ctx = test_ctx();
  struct schedule_request request = {.train_steps = 1000};
  struct toy toy = {.flow = strcmp(sampler->objective, "rf") == 0, .learned = learned};
  double *betas = NULL;
  float work[SIZE * 16 * 8];
  assert_ok(ctx, scheduler_open(ctx, record, &betas));
  assert_ok(ctx, scheduler_follow(ctx, record, betas, sampler, &request));
  request.steps = steps;
  request.shift = record->shift;
  struct sampler_run run = {.ctx = ctx,
                            .count = 1,
                            .channels = 1,
                            .out_channels = learned ? 2 : 1,
                            .plane = SIZE,
                            .denoiser = {.user = &toy, .predict = predict},
                            .guidance = {.scale = 1, .to = 1},
                            .noise = noise,
                            .x = x,
                            .work = work};
  assert_true(sampler_work_size(sampler, 1, 1, run.out_channels, SIZE) <= sizeof work / 4);
  assert_ok(ctx, sampler->plan(ctx, &request, &run.schedule));
  memcpy(x, start, sizeof start);
  assert_ok(ctx, sampler->run(&run));
  schedule_free(ctx, &run.schedule);
  mem_free(ctx, betas);
}

static const struct sampler *own_sampler(const struct dit_record *record, const char *objective) {
  const char *name = NULL;
  assert_ok(test_ctx(), scheduler_sampler(test_ctx(), record, objective, &name));
  return sampler_find(name);
}

/* The steps of ddpm have noise 0.5. */
static const struct {
  const char *class;
  int steps;
  const char *members;
  double latents[SIZE];
} made_by_diffusers[] = {
    {"DDIM",
     5,
     "\"beta_schedule\":\"squaredcos_cap_v2\",\"clip_sample\":false",
     {0.71263921, -2.2792349, -0.78329736, -5.2711072}},
    {"DDIM",
     5,
     "\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012,\"clip_"
     "sample\":false,\"steps_offset\":1,\"set_alpha_to_one\":false",
     {0.93273818, -3.3766332, -1.2219474, -7.6860051}},
    {"DDIM", 5, "", {1.0, -0.2222103, 0.26317352, -0.40738329}},
    {"DDIM",
     5,
     "\"clip_sample\":true,\"clip_sample_range\":0.4",
     {0.40000001, 0.22625034, 0.40000001, 0.041077331}},
    {"DDIM",
     5,
     "\"clip_sample\":false,\"prediction_type\":\"sample\"",
     {0.039660104, -0.076895811, -0.018617861, -0.19345176}},
    {"DDIM",
     5,
     "\"clip_sample\":false,\"prediction_type\":\"sample\",\"timestep_spacing\":\"trailing\","
     "\"rescale_betas_zero_snr\":true",
     {0.46113065, 0.084790036, 0.27296034, -0.29155052}},
    {"DDIM",
     5,
     "\"clip_sample\":false,\"prediction_type\":\"v_prediction\",\"timestep_spacing\":\"linspace\","
     "\"rescale_betas_zero_snr\":true",
     {0.2403702, -0.50198245, -0.13080612, -1.2443349}},
    {"DDIM",
     7,
     "\"clip_sample\":false,\"timestep_spacing\":\"linspace\"",
     {-3.7334871, -44.90102, -24.317261, -86.068542}},
    {"DDIM",
     3,
     "\"clip_sample\":false,\"timestep_spacing\":\"trailing\"",
     {-14.931971, -110.03158, -62.481781, -205.1312}},
    {"DDIM",
     4,
     "\"clip_sample\":false,\"num_train_timesteps\":6,\"trained_betas\":[0.1,0.2,0.3,0.4,0.5,0.6]",
     {1.4117322, -0.51224071, 0.44974574, -2.4362135}},
    {"DDIM",
     4,
     "\"clip_sample\":false,\"num_train_timesteps\":100,\"beta_end\":0.2",
     {10.243199, -4.4504132, 2.8963935, -19.14403}},
    {"DDPM", 5, "", {0.72959834, -0.09239354, -0.016074374, -0.24503177}},
    {"DDPM",
     5,
     "\"clip_sample\":false,\"variance_type\":\"fixed_small\"",
     {0.72959834, -12.089082, -5.6797409, -24.907757}},
    {"DDPM",
     5,
     "\"clip_sample\":false,\"variance_type\":\"fixed_small_log\"",
     {0.72959834, -12.089082, -5.6797409, -24.907757}},
    {"DDPM",
     5,
     "\"clip_sample\":false,\"variance_type\":\"fixed_large\",\"steps_offset\":1",
     {1.2325779, -11.655232, -5.2113252, -24.543036}},
    {"DDPM",
     5,
     "\"clip_sample\":false,\"variance_type\":\"learned_range\"",
     {0.99223268, -11.826447, -5.4171057, -24.645123}},
    {"DDPM",
     5,
     "\"clip_sample\":false,\"prediction_type\":\"v_prediction\",\"timestep_spacing\":\"trailing\","
     "\"rescale_betas_zero_snr\":true",
     {0.070367791, 0.070499413, 0.070433587, 0.07063102}},
    {"DDPM",
     5,
     "\"clip_sample\":false,\"prediction_type\":\"sample\",\"timestep_spacing\":\"linspace\"",
     {0.030233137, 0.028369866, 0.029301502, 0.02650658}},
    {"DPMSolverMultistep", 6, "", {-3.7623377, -54.592911, -29.177626, -105.42345}},
    {"DPMSolverMultistep",
     20,
     "\"final_sigmas_type\":\"sigma_min\"",
     {-1.3645009, -43.988598, -22.676565, -86.612701}},
    {"DPMSolverMultistep",
     20,
     "\"final_sigmas_type\":\"sigma_min\",\"euler_at_final\":true",
     {-1.4032515, -44.096371, -22.749826, -86.789505}},
    {"DPMSolverMultistep",
     6,
     "\"final_sigmas_type\":\"sigma_min\",\"lower_order_final\":false",
     {-2.101203, -40.907326, -21.504271, -79.713425}},
    {"DPMSolverMultistep",
     6,
     "\"prediction_type\":\"v_prediction\",\"timestep_spacing\":\"trailing\",\"rescale_betas_zero_"
     "snr\":true",
     {0.27880403, -0.45891142, -0.090053707, -1.196627}},
    {"DPMSolverMultistep",
     6,
     "\"prediction_type\":\"sample\",\"timestep_spacing\":\"leading\",\"steps_offset\":1,\"solver_"
     "type\":\"bh2\"",
     {0.33017272, 0.015808761, 0.17299074, -0.29855525}},
    {"DPMSolverMultistep",
     6,
     "\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012,\"variance_"
     "type\":null",
     {0.43966681, -7.9847808, -3.7725575, -16.409225}},
    {"FlowMatchEulerDiscrete", 5, "", {0.28524658, -0.81292129, -0.26383734, -1.9110889}},
    {"FlowMatchEulerDiscrete",
     5,
     "\"shift\":3.0,\"shift_terminal\":null",
     {0.2323415, -0.86057478, -0.31411666, -1.9534909}},
    {"FlowMatchEulerDiscrete", 1, "\"shift\":3.0", {-0.20000005, -1.25, -0.72500002, -2.3}},
    {"FlowMatchEulerDiscrete",
     4,
     "\"shift\":0.5,\"num_train_timesteps\":100",
     {0.21064606, -0.88011658, -0.33473527, -1.9708792}},
};

static void test_against_diffusers(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof made_by_diffusers / sizeof *made_by_diffusers; i++) {
    const char *class = made_by_diffusers[i].class, *members = made_by_diffusers[i].members;
    const bool flow = strncmp(class, "Flow", 4) == 0;
    struct dit_record record = record_of(class, members);
    char what[512];
    float x[SIZE];
    snprintf(what, sizeof what, "%s {%s}", class, members);
    sample(&record, own_sampler(&record, flow ? "rf" : "ddpm"), made_by_diffusers[i].steps,
           strstr(members, "learned_range") != NULL, x);
    assert_within(what, relative_max_f64(x, made_by_diffusers[i].latents, SIZE), 1e-5);
    record_free(test_ctx(), &record);
  }
}

/* Another sampler than the file's goes by the members that its own class has. */
static void test_another_sampler(void **state) {
  (void)state;
  const char shared[] = "\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":"
                        "0.012,\"timestep_spacing\":\"leading\",\"steps_offset\":1,"
                        "\"clip_sample\":false";
  const char karras[] = "\"use_karras_sigmas\":true,\"lambda_min_clipped\":-5.1";
  char both[512];
  float one[SIZE], other[SIZE];
  snprintf(both, sizeof both, "%s,%s", shared, karras);
  struct dit_record ddim = record_of("DDIM", shared), euler = record_of("EulerDiscrete", both);
  sample(&ddim, sampler_find("ddim"), 5, false, one);
  sample(&euler, sampler_find("ddim"), 5, false, other);
  assert_memory_equal(one, other, sizeof one);
  record_free(test_ctx(), &euler);
  /* The defaults of a class are for its own files: nothing is clipped here. */
  euler = record_of("EulerDiscrete", "\"timestep_spacing\":\"leading\"");
  struct dit_record unclipped = record_of("DDIM", "\"clip_sample\":false");
  sample(&unclipped, sampler_find("ddim"), 5, false, one);
  sample(&euler, sampler_find("ddim"), 5, false, other);
  assert_memory_equal(one, other, sizeof one);
  record_free(test_ctx(), &ddim);
  record_free(test_ctx(), &euler);
  record_free(test_ctx(), &unclipped);
}

static void test_refused(void **state) {
  static const struct {
    const char *class, *members, *sampler, *text;
  } cases[] = {
      {"DDIM", "\"thresholding\":true", "ddim", "\"thresholding\": true is not supported"},
      {"DDPM", "\"thresholding\":true", "ddpm", "\"thresholding\": true is not supported"},
      {"DDIM", "\"prediction_type\":\"flow\"", "ddim", "expected epsilon|v_prediction|sample"},
      {"DDIM", "\"beta_schedule\":\"sigmoid\"", "ddim", "\"beta_schedule\": sigmoid"},
      {"DDIM", "\"timestep_spacing\":\"\"", "ddim", "expected linspace|leading|trailing"},
      {"DDIM", "\"steps_offset\":0.5", "ddim", "\"steps_offset\" must be a whole number"},
      {"DDIM", "\"beta_end\":\"0.02\"", "ddim", "\"beta_end\" must be a number"},
      {"DDIM", "\"num_train_timesteps\":1", "ddim", "\"num_train_timesteps\" must be"},
      {"DDIM", "\"trained_betas\":[0.1,0.2]", "ddim", "has 2 elements"},
      {"DDPM", "\"variance_type\":\"learned\"", "ddpm", "\"variance_type\": learned"},
      {"DDPM", "\"variance_type\":\"fixed_large_log\"", "ddpm", "fixed_large_log is not"},
      {"DPMSolverMultistep", "\"solver_order\":3", "dpmpp-2m", "\"solver_order\": 3"},
      {"DPMSolverMultistep", "\"solver_type\":\"heun\"", "dpmpp-2m", "\"solver_type\": heun"},
      {"DPMSolverMultistep", "\"algorithm_type\":\"sde-dpmsolver++\"", "dpmpp-2m",
       "\"algorithm_type\": sde-dpmsolver++"},
      {"DPMSolverMultistep", "\"use_karras_sigmas\":true", "dpmpp-2m", "\"use_karras_sigmas\""},
      {"DPMSolverMultistep", "\"use_exponential_sigmas\":true", "dpmpp-2m", "use_exponential"},
      {"DPMSolverMultistep", "\"use_beta_sigmas\":true", "dpmpp-2m", "\"use_beta_sigmas\""},
      {"DPMSolverMultistep", "\"use_lu_lambdas\":true", "dpmpp-2m", "\"use_lu_lambdas\""},
      {"DPMSolverMultistep", "\"use_flow_sigmas\":true", "dpmpp-2m", "\"use_flow_sigmas\""},
      {"DPMSolverMultistep", "\"lambda_min_clipped\":-5.1", "dpmpp-2m", "\"lambda_min_clipped\""},
      {"DPMSolverMultistep", "\"final_sigmas_type\":\"one\"", "dpmpp-2m",
       "expected zero|sigma_min"},
      {"FlowMatchEulerDiscrete", "\"use_dynamic_shifting\":true", "euler", "use_dynamic_shifting"},
      {"FlowMatchEulerDiscrete", "\"shift_terminal\":0.1", "euler", "\"shift_terminal\""},
      {"FlowMatchEulerDiscrete", "\"invert_sigmas\":true", "euler", "\"invert_sigmas\""},
      {"FlowMatchEulerDiscrete", "\"stochastic_sampling\":true", "heun", "stochastic_sampling"},
  };
  struct ditmoe_ctx *ctx = test_ctx();
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct dit_record record = record_of(cases[i].class, cases[i].members);
    struct schedule_request request = {.train_steps = 1000};
    double *betas = NULL;
    assert_ok(ctx, scheduler_open(ctx, &record, &betas));
    assert_fails(ctx, DITMOE_FORMAT, cases[i].text,
                 scheduler_follow(ctx, &record, betas, sampler_find(cases[i].sampler), &request));
    assert_non_null(strstr(ditmoe_errmsg(ctx), "p/scheduler_config.json:scheduler"));
    mem_free(ctx, betas);
    record_free(ctx, &record);
  }
}

static void test_given_betas_refused(void **state) {
  static const char *const bad[] = {"\"trained_betas\":[0.1,2]", "\"trained_betas\":[0.1,\"0.2\"]",
                                    "\"trained_betas\":\"linear\""};
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct dit_record record = record_of("DDIM", bad[i]);
    double *betas = NULL;
    assert_fails(test_ctx(), DITMOE_FORMAT, "\"trained_betas\"",
                 scheduler_open(test_ctx(), &record, &betas));
    assert_null(betas);
    record_free(test_ctx(), &record);
  }
}

/* A class that is not here is refused by its name, and so is one for the other objective. */
static void test_whose_sampler(void **state) {
  static const struct {
    const char *class, *objective, *sampler, *way_out;
  } cases[] = {
      {"DDIM", "ddpm", "ddim", NULL},
      {"DDPM", "ddpm", "ddpm", NULL},
      {"DPMSolverMultistep", "ddpm", "dpmpp-2m", NULL},
      {"FlowMatchEulerDiscrete", "rf", "euler", NULL},
      {"EulerDiscrete", "ddpm", NULL, "--sampler ddim"},
      {"PNDM", "ddpm", NULL, "--sampler ddim"},
      {"FlowMatchHeunDiscrete", "rf", NULL, "--sampler euler"},
      {"DPMSolverMultistep", "rf", NULL, "for flows; --sampler euler"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct dit_record record = record_of(cases[i].class, "");
    const char *sampler = NULL;
    if (cases[i].sampler) {
      assert_string_equal(own_sampler(&record, cases[i].objective)->name, cases[i].sampler);
    } else {
      assert_fails(test_ctx(), DITMOE_FORMAT, cases[i].way_out,
                   scheduler_sampler(test_ctx(), &record, cases[i].objective, &sampler));
      assert_non_null(strstr(ditmoe_errmsg(test_ctx()), cases[i].class));
    }
    record_free(test_ctx(), &record);
  }
}

/* Members of nobody are passed over with a warning, an empty object is no scheduler. */
static void test_passed_over(void **state) {
  struct dit_record record = record_of("DDIM", "\"skip_prk_steps\":true,\"clip_sample\":false");
  struct schedule_request request = {.train_steps = 7};
  double *betas = NULL;
  (void)state;
  assert_ok(test_ctx(), scheduler_open(test_ctx(), &record, &betas));
  assert_non_null(strstr(test_warning(), "\"skip_prk_steps\""));
  cJSON_Delete(record.scheduler);
  record.scheduler = cJSON_CreateObject();
  assert_ok(test_ctx(),
            scheduler_follow(test_ctx(), &record, NULL, sampler_find("ddim"), &request));
  assert_true(request.train_steps == 7 && !request.float32_betas && !request.clip);
  record_free(test_ctx(), &record);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_diffusers), cmocka_unit_test(test_another_sampler),
      cmocka_unit_test(test_refused),           cmocka_unit_test(test_given_betas_refused),
      cmocka_unit_test(test_whose_sampler),     cmocka_unit_test(test_passed_over),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

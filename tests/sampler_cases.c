/* Samplers without a model: dpmpp-2m driven by given predictions, and the flow solvers on velocity
 * fields in closed form. For x_t = (1 - t) x0 + t n, data N(m, s^2) gives
 *
 *   v = -m + (t - (1 - t) s^2) / V (x - (1 - t) m),   V = (1 - t)^2 s^2 + t^2,
 *
 * and a mixture the mean of these under the weights w V^(-1/2) exp(-(x - (1 - t) m)^2 / (2 V)). */
#include "cases.h"
#include "limit.h"
#include "sampler/sampler.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What a run leaves behind, and the sources of its predictions. */
struct table_run {
  struct sampler_run run;
  const struct sampler *sampler;
  const double *predictions;         /* [steps, n], or NULL: the field */
  const double *mean, *std, *weight; /* weight NULL: one Gaussian per element */
  int64_t components;
  float *x;
  double *latents, *estimates; /* [steps + 1, n], [steps, n] */
};

static double gaussian_velocity(double m, double s, double x, double t) {
  double variance = (1 - t) * (1 - t) * s * s + t * t;
  return -m + (t - (1 - t) * s * s) / variance * (x - (1 - t) * m);
}

static double field(const struct table_run *run, int64_t element, double x, double t) {
  if (!run->weight) return gaussian_velocity(run->mean[element], run->std[element], x, t);
  double sum = 0, total = 0;
  for (int64_t k = 0; k < run->components; k++) {
    double m = run->mean[k], s = run->std[k], variance = (1 - t) * (1 - t) * s * s + t * t;
    double d = x - (1 - t) * m, r = run->weight[k] / sqrt(variance) * exp(-d * d / (2 * variance));
    sum += r * gaussian_velocity(m, s, x, t);
    total += r;
  }
  return sum / total;
}

static enum ditmoe_status predict(void *user, float *out, const struct prediction *prediction) {
  const struct table_run *run = user;
  int64_t n = run->run.plane;
  for (int64_t i = 0; i < n; i++)
    out[i] = (float)(run->predictions ? run->predictions[prediction->step * n + i]
                                      : field(run, i, (double)prediction->x[i], prediction->time));
  return DITMOE_OK;
}

static enum ditmoe_status keep_estimate(void *user, struct sampler_run *run, int step, float *x0) {
  struct table_run *table = user;
  for (int64_t i = 0; i < run->plane; i++) table->estimates[step * run->plane + i] = (double)x0[i];
  return DITMOE_OK;
}

static enum ditmoe_status keep_latents(void *user, struct sampler_run *run, int step, float *x) {
  struct table_run *table = user;
  for (int64_t i = 0; i < run->plane; i++) table->latents[step * run->plane + i] = (double)x[i];
  return DITMOE_OK;
}

static void table_run_free(struct ditmoe_ctx *ctx, struct table_run *table) {
  schedule_free(ctx, &table->run.schedule);
  mem_free(ctx, table->x);
  mem_free(ctx, table->run.work);
  mem_free(ctx, table->latents);
  mem_free(ctx, table->estimates);
}

/* Runs from z [n] over the whole schedule; the caller frees. */
static enum ditmoe_status table_run(struct ditmoe_ctx *ctx, struct table_run *table,
                                    const double *z, int64_t n,
                                    const struct schedule_request *request) {
  struct sampler_run *run = &table->run;
  size_t elements = (size_t)n;
  run->ctx = ctx;
  run->count = run->channels = run->out_channels = 1;
  run->plane = n;
  run->denoiser = (struct denoiser){.user = table, .predict = predict};
  run->hooks =
      (struct sampler_hooks){.user = table, .estimate = keep_estimate, .after_step = keep_latents};
  TRY(table->sampler->plan(ctx, request, &run->schedule));
  size_t steps = (size_t)run->schedule.steps;
  TRY(mem_alloc(ctx, elements, sizeof *run->x, "latents", &table->x));
  TRY(mem_alloc(ctx, sampler_work_size(table->sampler, 1, 1, 1, n), sizeof(float), "work",
                &run->work));
  TRY(mem_alloc(ctx, (steps + 1) * elements, sizeof(double), "latents", &table->latents));
  TRY(mem_alloc(ctx, steps * elements, sizeof(double), "estimates", &table->estimates));
  run->x = table->x;
  for (int64_t i = 0; i < n; i++) table->latents[i] = z[i], run->x[i] = (float)z[i];
  return table->sampler->run(run);
}

static struct schedule_request dpmpp_request(const cJSON *run) {
  const char *spacing = case_string(run, "timestep_spacing");
  return (struct schedule_request){
      .steps = (int)case_number(run, "steps", 0),
      .train_steps = 1000,
      .spacing = !strcmp(spacing, "leading")    ? SPACING_LEADING
                 : !strcmp(spacing, "trailing") ? SPACING_TRAILING
                                                : SPACING_LINSPACE,
      .final_sigma_min = !strcmp(case_string(run, "final_sigmas_type"), "sigma_min"),
  };
}

/* The order of each step as the run shows it: 1 where it is x s'/s - alpha' (e^-h - 1) D. */
static enum ditmoe_status check_orders(struct case_file *file, const struct table_run *table) {
  const double *sigma = table->run.schedule.sigma;
  int64_t n = table->run.plane, steps = table->run.schedule.steps;
  double *orders;
  TRY(mem_alloc(file->ctx, (size_t)steps, sizeof *orders, "orders", &orders));
  for (int64_t j = 0; j < steps; j++) {
    const double *x = table->latents + j * n, *next = x + n, *clean = table->estimates + j * n;
    double alpha = 1 / hypot(1, sigma[j]), alpha_next = 1 / hypot(1, sigma[j + 1]);
    double ratio = sigma[j + 1] * alpha_next / (sigma[j] * alpha), error = 0, peak = 0;
    for (int64_t i = 0; i < n; i++) {
      double first_order = ratio * x[i] - (ratio * alpha - alpha_next) * clean[i];
      error = fmax(error, fabs(next[i] - first_order));
      peak = fmax(peak, fabs(next[i]));
    }
    orders[j] = error > 1e-4 * peak ? 2 : 1;
  }
  enum ditmoe_status status = case_equal(file, "orders", orders, steps);
  mem_free(file->ctx, orders);
  return status;
}

static enum ditmoe_status check_predictions(struct case_file *file, const cJSON *run) {
  struct table_run table = {.sampler = sampler_find(case_string(run, "sampler"))};
  struct schedule_request request = dpmpp_request(run);
  double *eps = NULL, *z = NULL;
  int64_t n = 0, steps = request.steps;
  enum ditmoe_status status;
  TRY_DONE(case_values(file, "eps", &eps, NULL));
  TRY_DONE(case_values(file, "z", &z, &n));
  table.predictions = eps;
  TRY_DONE(table_run(file->ctx, &table, z, n, &request));
  TRY_DONE(case_equal(file, "timesteps", table.run.schedule.times, steps));
  TRY_DONE(case_relative(file, "sigmas", table.run.schedule.sigma, steps + 1, LIMIT_SCHEDULE));
  TRY_DONE(check_orders(file, &table));
  TRY_DONE(case_peak(file, "x0", table.estimates, steps * n, LIMIT_SAMPLED));
  const struct {
    const char *tensor;
    int64_t first;
  } states[] = {{"latents", 0}, {"latents_f64", 0}, {"final", steps}, {"final_f64", steps}};
  for (size_t i = 0; i < sizeof states / sizeof *states; i++)
    TRY_DONE(case_peak(file, states[i].tensor, table.latents + states[i].first * n,
                       (steps + 1 - states[i].first) * n, LIMIT_SAMPLED));
done:
  table_run_free(file->ctx, &table);
  mem_free(file->ctx, z);
  mem_free(file->ctx, eps);
  return status;
}

/* One velocity field: its file and its parameters. */
struct flow_case {
  struct case_file *file;
  double *mean, *std, *weight, *z, *exact;
  int64_t components, n;
};

static enum ditmoe_status flow_open(struct flow_case *flow) {
  struct case_file *file = flow->file;
  TRY(case_values(file, "mean", &flow->mean, &flow->components));
  TRY(case_values(file, "std", &flow->std, NULL));
  if (checkpoint_find(file->checkpoint, "weight"))
    TRY(case_values(file, "weight", &flow->weight, NULL));
  TRY(case_values(file, "exact_f64", &flow->exact, NULL));
  return case_values(file, "z", &flow->z, &flow->n);
}

static void flow_close(struct flow_case *flow) {
  double *const owned[] = {flow->mean, flow->std, flow->weight, flow->z, flow->exact};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) mem_free(flow->file->ctx, owned[i]);
}

static enum ditmoe_status flow_run(const struct flow_case *flow, const char *sampler, int steps,
                                   struct table_run *table) {
  const struct schedule_request request = {.steps = steps, .shift = 1};
  *table = (struct table_run){.sampler = sampler_find(sampler),
                              .mean = flow->mean,
                              .std = flow->std,
                              .weight = flow->weight,
                              .components = flow->components};
  if (!table->sampler) return fail(flow->file->ctx, DITMOE_FORMAT, "unknown sampler %s", sampler);
  return table_run(flow->file->ctx, table, flow->z, flow->n, &request);
}

static double rms(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sqrt(sum / (double)n);
}

/* The error of the run before, for the slope where the steps double. */
struct convergence {
  char sampler[16];
  int steps;
  double error;
};

static void check_slope(const struct flow_case *flow, const cJSON *run, const double *final,
                        struct convergence *last) {
  char line[64];
  struct convergence now = {.steps = (int)case_number(run, "steps", 0),
                            .error = rms(final, flow->exact, flow->n)};
  snprintf(now.sampler, sizeof now.sampler, "%s", case_string(run, "sampler"));
  bool doubled = !strcmp(now.sampler, last->sampler) && now.steps == 2 * last->steps;
  if (doubled && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(run, "order_check"))) {
    snprintf(line, sizeof line, "slope_%s_%d_%d", now.sampler, last->steps, now.steps);
    case_line(flow->file, line, fabs(log2(last->error / now.error) - case_number(run, "order", 0)),
              0.2);
  }
  *last = now;
}

static enum ditmoe_status check_flow(const struct flow_case *flow, const cJSON *run,
                                     struct convergence *last) {
  struct table_run table;
  int steps = (int)case_number(run, "steps", 0);
  char trajectory[64];
  enum ditmoe_status status;
  TRY_DONE(flow_run(flow, case_string(run, "sampler"), steps, &table));
  const double *final = table.latents + steps * flow->n;
  TRY_DONE(case_peak(flow->file, case_string(run, "output"), final, flow->n, LIMIT_SAMPLED));
  snprintf(trajectory, sizeof trajectory, "traj_%s_%d_f64", case_string(run, "sampler"), steps);
  if (checkpoint_find(flow->file->checkpoint, trajectory))
    TRY_DONE(
        case_peak(flow->file, trajectory, table.latents, (steps + 1) * flow->n, LIMIT_SAMPLED));
  check_slope(flow, run, final, last);
done:
  table_run_free(flow->file->ctx, &table);
  return status;
}

/* A run of many steps against the exact flow, and the field itself along it. */
static enum ditmoe_status check_exact(const struct flow_case *flow) {
  enum { STEPS = 1000 };
  struct case_file *file = flow->file;
  double *times = NULL, *exact = NULL, *velocity = NULL, *path = NULL;
  int64_t points = 0, total = 0, n = flow->n;
  struct table_run table = {0};
  enum ditmoe_status status;
  TRY_DONE(flow_run(flow, "heun", STEPS, &table));
  TRY_DONE(case_values(file, "times", &times, &points));
  TRY_DONE(case_values(file, "exact_path_f64", &exact, &total));
  TRY_DONE(mem_alloc(file->ctx, (size_t)total, sizeof *path, "path", &path));
  TRY_DONE(mem_alloc(file->ctx, (size_t)total, sizeof *velocity, "velocity", &velocity));
  for (int64_t i = 0; i < total; i++) {
    double t = times[i / n];
    path[i] = table.latents[lrint((1 - t) * STEPS) * n + i % n];
    velocity[i] = field(&table, i % n, exact[i], t);
  }
  TRY_DONE(case_peak(file, "exact_path_f64", path, total, LIMIT_SAMPLED));
  TRY_DONE(case_peak(file, "velocity_path_f64", velocity, total, LIMIT_SCHEDULE));
  TRY_DONE(case_peak(file, "exact_f64", table.latents + STEPS * n, n, LIMIT_SAMPLED));
done:
  table_run_free(file->ctx, &table);
  mem_free(file->ctx, path);
  mem_free(file->ctx, velocity);
  mem_free(file->ctx, exact);
  mem_free(file->ctx, times);
  return status;
}

static enum ditmoe_status check_field(struct case_file *file, const cJSON *runs) {
  struct flow_case flow = {.file = file};
  struct convergence last = {0};
  const cJSON *run;
  enum ditmoe_status status;
  TRY_DONE(flow_open(&flow));
  TRY_DONE(check_exact(&flow));
  cJSON_ArrayForEach(run, runs) if (!strcmp(case_string(run, "file"), file->name))
      TRY_DONE(check_flow(&flow, run, &last));
done:
  flow_close(&flow);
  return status;
}

enum ditmoe_status sampler_table_case(struct ditmoe_ctx *ctx, const char *folder,
                                      const cJSON *manifest, case_report *report, void *user) {
  const cJSON *run, *runs = cJSON_GetObjectItemCaseSensitive(manifest, "runs");
  bool given = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(manifest, "given_predictions"));
  const char *last = "";
  cJSON_ArrayForEach(run, runs) {
    struct case_file file;
    const char *name = case_string(run, "file");
    if (!given && !strcmp(name, last)) continue;
    last = name;
    TRY(case_open(ctx, folder, name, report, user, &file));
    enum ditmoe_status status = given ? check_predictions(&file, run) : check_field(&file, runs);
    case_close(&file);
    TRY(status);
  }
  return DITMOE_OK;
}

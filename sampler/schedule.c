/* Noise schedules of the DDPM family (Ho, Jain and Abbeel 2020; Nichol and Dhariwal 2021), and the
 * sigmas of DPM-Solver++ (Lu et al. 2022). With abar_t the product of 1 - beta up to t,
 *
 *   q(x_t | x_0) = N(sqrt(abar_t) x_0, 1 - abar_t)
 *   q(x_{t-1} | x_t, x_0) = N(c1 x_0 + c2 x_t, posterior variance)
 *
 * Tables are float64 in the order of operations of the original programs: 1 - beta cancels, so
 * another order would differ by more than 1e-12. */
#include "sampler/schedule.h"

#include <math.h>
#include <stdio.h>

enum { MAX_TRAIN_STEPS = 1000000 };
static const double PI = 3.14159265358979323846;

/* linspace(1e-4, 0.02, n) as torch makes it in single precision: from both ends, fused. */
static void linear_betas_f32(double *beta, int n) {
  const float first = 1e-4f, last = 0.02f, step = (last - first) / (float)(n - 1);
  for (int i = 0; i < n; i++)
    beta[i] =
        (double)(i < n / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(n - 1 - i), last));
}

static void linear_betas(double *beta, int n) {
  double first = 1000.0 / n * 0.0001, last = 1000.0 / n * 0.02, step = (last - first) / (n - 1);
  for (int i = 0; i < n; i++) beta[i] = i * step + first;
  beta[n - 1] = last;
}

static double squared_cosine(double progress) {
  double c = cos((progress + 0.008) / 1.008 * PI / 2);
  return c * c;
}

static void squared_cosine_betas(double *beta, int n, bool float32) {
  for (int i = 0; i < n; i++) {
    double b = fmin(1 - squared_cosine((i + 1.0) / n) / squared_cosine((double)i / n), 0.999);
    beta[i] = float32 ? (double)(float)b : b;
  }
}

void schedule_betas(double *beta, enum beta_kind kind, int train_steps, bool float32) {
  if (kind == BETA_SQUARED_COSINE)
    squared_cosine_betas(beta, train_steps, float32);
  else
    (float32 ? linear_betas_f32 : linear_betas)(beta, train_steps);
}

/* abar of the full chain. torch multiplies single-precision factors in double precision and rounds
 * each product that it stores. */
static enum ditmoe_status full_abar(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                    bool float32, double **out) {
  int n = request->train_steps;
  if (n < 2 || n > MAX_TRAIN_STEPS)
    return fail(ctx, DITMOE_USAGE, "schedule of %d training timesteps: expected 2 to %d", n,
                MAX_TRAIN_STEPS);
  double *abar, product = 1;
  bool positive = true;
  TRY(mem_alloc(ctx, (size_t)n, sizeof *abar, "noise schedule", &abar));
  schedule_betas(abar, request->betas, n, float32);
  for (int i = 0; i < n; i++) {
    product *= float32 ? (double)(1 - (float)abar[i]) : 1 - abar[i];
    abar[i] = float32 ? (double)(float)product : product;
    positive &= abar[i] > 0;
  }
  if (positive) {
    *out = abar;
    return DITMOE_OK;
  }
  mem_free(ctx, abar);
  return fail(ctx, DITMOE_USAGE, "schedule of %d training timesteps: too few, a beta reaches 1", n);
}

/* Points the members of `out` at arrays of steps + 1 elements in one block. */
static enum ditmoe_status alloc_tables(struct ditmoe_ctx *ctx, struct schedule *out, int steps,
                                       double **const *tables, int count) {
  size_t length = (size_t)steps + 1;
  TRY(mem_alloc(ctx, length * (size_t)count, sizeof(double), "noise schedule", &out->block));
  for (int i = 0; i < count; i++) *tables[i] = (double *)out->block + length * (size_t)i;
  out->steps = steps;
  return DITMOE_OK;
}

void schedule_free(struct ditmoe_ctx *ctx, struct schedule *schedule) {
  mem_free(ctx, schedule->block);
  *schedule = (struct schedule){0};
}

static enum ditmoe_status check_steps(struct ditmoe_ctx *ctx, int steps, int most) {
  if (steps >= 1 && steps <= most) return DITMOE_OK;
  return fail(ctx, DITMOE_USAGE, "steps %d: this schedule has room for 1 to %d", steps, most);
}

/* The spacing of a diffusers DDIM pipeline: multiples of T div N. */
static enum ditmoe_status leading_timesteps(struct ditmoe_ctx *ctx, int train_steps, int steps,
                                            int **timesteps) {
  TRY(check_steps(ctx, steps, train_steps));
  TRY(mem_alloc(ctx, (size_t)steps, sizeof **timesteps, "timesteps", timesteps));
  for (int i = 0; i < steps; i++) (*timesteps)[i] = i * (train_steps / steps);
  return DITMOE_OK;
}

static enum ditmoe_status chain_timesteps(struct ditmoe_ctx *ctx,
                                          const struct schedule_request *request, int **timesteps,
                                          int *count) {
  char decimal[16];
  *count = request->steps;
  if (request->spacing == SPACING_LEADING)
    return leading_timesteps(ctx, request->train_steps, request->steps, timesteps);
  if (request->spacing != SPACING_RESPACE)
    return fail(ctx, DITMOE_USAGE, "timestep spacing: linspace and trailing are for dpmpp-2m");
  if (!request->respacing) TRY(check_steps(ctx, request->steps, request->train_steps));
  snprintf(decimal, sizeof decimal, "%d", request->steps);
  return schedule_space_timesteps(ctx, request->train_steps,
                                  request->respacing ? request->respacing : decimal, timesteps,
                                  count);
}

/* Tables of the shortened chain from its own betas, 1 - abar[u_j] / abar[u_{j-1}]. */
static void fill_tables(struct schedule *s, const double *abar, const int *timesteps) {
  int n = s->steps;
  double last = 1, product = 1;
  for (int i = 0; i < n; i++) {
    s->times[i] = timesteps[i];
    s->beta[i] = 1 - abar[timesteps[i]] / last;
    last = abar[timesteps[i]];
    s->abar_prev[i] = product;
    product *= 1 - s->beta[i];
    s->abar[i] = product;
  }
  for (int i = 0; i < n; i++) {
    double a = s->abar[i], previous = s->abar_prev[i], beta = s->beta[i];
    s->abar_next[i] = i + 1 < n ? s->abar[i + 1] : 0;
    s->sqrt_recip_abar[i] = sqrt(1 / a);
    s->sqrt_recipm1_abar[i] = sqrt(1 / a - 1);
    s->posterior_variance[i] = beta * (1 - previous) / (1 - a);
    s->posterior_log_variance[i] = log(s->posterior_variance[i]);
    s->posterior_c1[i] = beta * sqrt(previous) / (1 - a);
    s->posterior_c2[i] = (1 - previous) * sqrt(1 - beta) / (1 - a);
  }
  /* The variance of element 0 is 0. A chain of one step never uses the logarithm. */
  s->posterior_log_variance[0] = n > 1 ? s->posterior_log_variance[1] : 0;
}

enum ditmoe_status schedule_ddpm(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out) {
  double **const tables[] = {&out->times,
                             &out->beta,
                             &out->abar,
                             &out->abar_prev,
                             &out->abar_next,
                             &out->posterior_variance,
                             &out->posterior_c1,
                             &out->posterior_log_variance,
                             &out->posterior_c2,
                             &out->sqrt_recip_abar,
                             &out->sqrt_recipm1_abar};
  double *abar = NULL;
  int *timesteps = NULL, steps;
  enum ditmoe_status status = DITMOE_OK;
  *out = (struct schedule){0};
  TRY_DONE(full_abar(ctx, request, request->float32_betas, &abar));
  TRY_DONE(chain_timesteps(ctx, request, &timesteps, &steps));
  TRY_DONE(alloc_tables(ctx, out, steps, tables, sizeof tables / sizeof *tables));
  fill_tables(out, abar, timesteps);
done:
  mem_free(ctx, timesteps);
  mem_free(ctx, abar);
  return status;
}

/* Timestep number j of the N in execution order; 0 <= j < N. */
static double dpmpp_timestep(enum spacing spacing, int train_steps, int steps, int j) {
  if (spacing == SPACING_LEADING) return (steps - j) * (train_steps / (steps + 1));
  if (spacing == SPACING_TRAILING) return rint(train_steps - j * (train_steps / (double)steps)) - 1;
  return rint((steps - j) * ((train_steps - 1) / (double)steps));
}

static double sigma_of(double abar) {
  float a = (float)abar;
  return (double)sqrtf((1 - a) / a);
}

enum ditmoe_status schedule_dpmpp(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                  struct schedule *out) {
  double **const tables[] = {&out->times, &out->sigma};
  double *abar = NULL;
  int steps = request->steps, train_steps = request->train_steps;
  enum ditmoe_status status = DITMOE_OK;
  *out = (struct schedule){0};
  TRY_DONE(full_abar(ctx, request, true, &abar));
  /* Beyond it timesteps would repeat. */
  TRY_DONE(check_steps(ctx, steps, train_steps - (request->spacing != SPACING_TRAILING)));
  TRY_DONE(alloc_tables(ctx, out, steps, tables, sizeof tables / sizeof *tables));
  for (int j = 0; j < steps; j++) {
    out->times[j] = dpmpp_timestep(request->spacing, train_steps, steps, j);
    out->sigma[j] = sigma_of(abar[(int)out->times[j]]);
  }
  out->sigma[steps] = request->final_sigma_min ? sigma_of(abar[0]) : 0;
done:
  mem_free(ctx, abar);
  return status;
}

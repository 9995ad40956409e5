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

enum { MAX_TRAIN_STEPS = 1000000, LOWER_ORDER_FINAL = 15 };
/* Of a logarithm, as diffusers bounds it. */
static const double LEAST_VARIANCE = 1e-20;
/* At the end of a chain with zero signal, which dpmpp-2m cannot divide by. */
static const double LEAST_ABAR = 0x1p-24;

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
  schedule_betas(abar, request, float32);
  for (int i = 0; i < n; i++) {
    product *= float32 ? (double)(1 - (float)abar[i]) : 1 - abar[i];
    abar[i] = float32 ? (double)(float)product : product;
    positive &= abar[i] > 0 || (request->zero_snr && i == n - 1);
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

/* Timesteps of a spacing over the chain, from the least noisy. */
static enum ditmoe_status
spaced_timesteps(struct ditmoe_ctx *ctx, const struct schedule_request *request, int **timesteps) {
  const int steps = request->steps, train_steps = request->train_steps;
  const int offset = request->spacing == SPACING_LEADING ? request->steps_offset : 0;
  TRY(check_steps(ctx, steps, train_steps));
  const int last = schedule_spaced_timestep(request->spacing, train_steps, steps, steps - 1);
  if (last + offset >= train_steps)
    return fail(ctx, DITMOE_USAGE,
                "steps %d: with steps_offset %d the first timestep is %d of %d; take fewer", steps,
                offset, last + offset, train_steps);
  TRY(mem_alloc(ctx, (size_t)steps, sizeof **timesteps, "timesteps", timesteps));
  for (int i = 0; i < steps; i++)
    (*timesteps)[i] = offset + schedule_spaced_timestep(request->spacing, train_steps, steps, i);
  return DITMOE_OK;
}

static enum ditmoe_status chain_timesteps(struct ditmoe_ctx *ctx,
                                          const struct schedule_request *request, int **timesteps,
                                          int *count) {
  char decimal[16];
  *count = request->steps;
  if (request->spacing != SPACING_RESPACE) return spaced_timesteps(ctx, request, timesteps);
  if (!request->respacing) TRY(check_steps(ctx, request->steps, request->train_steps));
  snprintf(decimal, sizeof decimal, "%d", request->steps);
  return schedule_space_timesteps(ctx, request->train_steps,
                                  request->respacing ? request->respacing : decimal, timesteps,
                                  count);
}

/* abar of a shortened chain with betas of its own, 1 - abar[u_j] / abar[u_{j-1}]. */
static void respaced_abar(struct schedule *s, const double *abar, const int *timesteps) {
  double last = 1, product = 1;
  for (int i = 0; i < s->steps; i++) {
    s->beta[i] = 1 - abar[timesteps[i]] / last;
    last = abar[timesteps[i]];
    s->abar_prev[i] = product;
    product *= 1 - s->beta[i];
    s->abar[i] = product;
  }
}

/* abar where each step begins and ends. stride: a step goes so far down; 0: to the next one. */
static void spaced_abar(struct schedule *s, const struct schedule_request *request,
                        const double *abar, const int *timesteps, int stride) {
  const double final = request->final_alpha_first ? abar[0] : 1;
  for (int i = 0; i < s->steps; i++) {
    const int previous = stride ? timesteps[i] - stride : i > 0 ? timesteps[i - 1] : -1;
    s->abar[i] = abar[timesteps[i]];
    s->abar_prev[i] = previous >= 0 ? abar[previous] : final;
    s->beta[i] = request->float32_betas ? (double)(1 - (float)s->abar[i] / (float)s->abar_prev[i])
                                        : 1 - s->abar[i] / s->abar_prev[i];
  }
}

/* What follows from beta, abar and abar_prev. */
static void fill_tables(struct schedule *s, double least_variance) {
  const int n = s->steps;
  for (int i = 0; i < n; i++) {
    double a = s->abar[i], previous = s->abar_prev[i], beta = s->beta[i];
    s->abar_next[i] = i + 1 < n ? s->abar[i + 1] : 0;
    s->sqrt_recip_abar[i] = sqrt(1 / a);
    s->sqrt_recipm1_abar[i] = sqrt(1 / a - 1);
    s->posterior_variance[i] = beta * (1 - previous) / (1 - a);
    s->posterior_log_variance[i] = log(fmax(s->posterior_variance[i], least_variance));
    s->posterior_c1[i] = beta * sqrt(previous) / (1 - a);
    s->posterior_c2[i] = (1 - previous) * sqrt(1 - beta) / (1 - a);
  }
}

static enum ditmoe_status fill_chain(struct ditmoe_ctx *ctx, struct schedule *s,
                                     const struct schedule_request *request, const double *abar,
                                     const int *timesteps, int stride) {
  const bool spaced = request->spacing != SPACING_RESPACE;
  for (int i = 0; i < s->steps; i++) s->times[i] = timesteps[i];
  if (spaced)
    spaced_abar(s, request, abar, timesteps, stride);
  else
    respaced_abar(s, abar, timesteps);
  if (s->abar[s->steps - 1] <= 0 && request->prediction == PREDICTS_NOISE)
    return fail(ctx, DITMOE_USAGE,
                "rescale_betas_zero_snr: nothing but noise is left at timestep %d, where a "
                "prediction of noise tells nothing; prediction_type must be another than epsilon",
                timesteps[s->steps - 1]);
  fill_tables(s, spaced ? LEAST_VARIANCE : 0);
  /* The variance of element 0 is 0. A chain of one step never uses the logarithm. */
  if (!spaced) s->posterior_log_variance[0] = s->steps > 1 ? s->posterior_log_variance[1] : 0;
  s->prediction = request->prediction;
  s->variance = request->variance;
  s->clip = request->clip ? request->clip_range : 0;
  s->noisy_end = spaced && timesteps[0] > 0;
  return DITMOE_OK;
}

struct clean_form schedule_clean_form(const struct schedule *schedule, double scale, double ratio) {
  const double alpha = 1 / scale;
  if (schedule->prediction == PREDICTS_VELOCITY)
    return (struct clean_form){(float)alpha, (float)sqrt(1 - alpha * alpha)};
  if (schedule->prediction == PREDICTS_CLEAN) return (struct clean_form){0, -1};
  return (struct clean_form){(float)scale, (float)ratio};
}

static enum ditmoe_status plan_chain(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                     int stride, struct schedule *out) {
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
  TRY_DONE(fill_chain(ctx, out, request, abar, timesteps, stride));
done:
  if (status != DITMOE_OK) schedule_free(ctx, out);
  mem_free(ctx, timesteps);
  mem_free(ctx, abar);
  return status;
}

enum ditmoe_status schedule_ddpm(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out) {
  return plan_chain(ctx, request, 0, out);
}

enum ditmoe_status schedule_ddim(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out) {
  return plan_chain(ctx, request, request->steps > 0 ? request->train_steps / request->steps : 0,
                    out);
}

static double sigma_of(double abar) {
  float a = (float)abar;
  return (double)sqrtf((1 - a) / a);
}

enum ditmoe_status schedule_dpmpp(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                  struct schedule *out) {
  double **const tables[] = {&out->times, &out->sigma};
  double *abar = NULL;
  const int steps = request->steps, train_steps = request->train_steps;
  const bool trailing = request->spacing == SPACING_TRAILING;
  const int offset = request->spacing == SPACING_LEADING ? request->steps_offset : 0;
  enum ditmoe_status status = DITMOE_OK;
  *out = (struct schedule){.prediction = request->prediction};
  TRY_DONE(full_abar(ctx, request, true, &abar));
  if (request->zero_snr) abar[train_steps - 1] = LEAST_ABAR;
  /* Beyond it timesteps would repeat. */
  TRY_DONE(check_steps(ctx, steps, train_steps - !trailing));
  TRY_DONE(alloc_tables(ctx, out, steps, tables, sizeof tables / sizeof *tables));
  for (int j = 0; j < steps; j++) {
    /* The other spacings have a last point, which is not visited. */
    const int t =
        offset +
        (trailing ? schedule_spaced_timestep(request->spacing, train_steps, steps, steps - 1 - j)
                  : schedule_spaced_timestep(request->spacing, train_steps, steps + 1, steps - j));
    out->times[j] = t;
    out->sigma[j] = sigma_of(abar[t < train_steps ? t : train_steps - 1]);
  }
  out->sigma[steps] = request->final_sigma_min ? sigma_of(abar[0]) : 0;
  out->first_order_final = out->sigma[steps] <= 0 || request->euler_at_final ||
                           (steps < LOWER_ORDER_FINAL && !request->full_order_final);
done:
  mem_free(ctx, abar);
  return status;
}

/* The time grids of rectified flow, from noise to data. Of solvers of its differential equation: S
 * equal steps, bent by the shift of Esser et al., "Scaling rectified flow transformers" (2024),
 * t' = a t / (1 + (a - 1) t). */
#include "sampler/schedule.h"

#include <math.h>

enum { MAX_STEPS = 1000000 };

static enum ditmoe_status begin(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                int steps, struct schedule *out) {
  *out = (struct schedule){.steps = steps, .rising = request->rising, .sde = request->sde};
  TRY(mem_alloc(ctx, (size_t)steps + 1, sizeof(double), "time grid", &out->block));
  out->times = out->block;
  return DITMOE_OK;
}

static double shifted(double t, double a) { return a * t / (1 + (a - 1) * t); }

enum ditmoe_status schedule_flow(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out) {
  const int least = request->counts_points ? 2 : 1;
  const double a = request->shift;
  *out = (struct schedule){0};
  if (request->steps < least || request->steps > MAX_STEPS)
    return fail(ctx, DITMOE_USAGE, "steps %d: expected %d to %d%s", request->steps, least,
                MAX_STEPS, request->counts_points ? ", the points of the time grid" : "");
  if (!(a > 0) || !isfinite(a))
    return fail(ctx, DITMOE_USAGE, "shift %g: expected a positive number; 1 is no shift", a);
  const int steps = request->steps - request->counts_points;
  TRY(begin(ctx, request, steps, out));
  /* The grid of diffusers is one of noise, whichever way time goes. It has the shifted 1 / T before
   * 0, and is shifted once more. */
  const bool rising = request->rising && !request->flow_sigma_min;
  const double last = shifted(1.0 / request->train_steps, a);
  for (int j = 0; j <= steps; j++) {
    double t = (double)(rising ? j : steps - j) / steps;
    if (request->flow_sigma_min && j > 0 && j < steps) t = 1 + (last - 1) * j / (steps - 1);
    t = shifted(t, a);
    out->times[j] = request->rising == rising ? t : 1 - t;
  }
  return DITMOE_OK;
}

/* What would divide by zero. */
static enum ditmoe_status check_sde(struct ditmoe_ctx *ctx, const struct sde *sde, double shift) {
  if (shift != 1)
    return fail(ctx, DITMOE_USAGE,
                "the model's time shift of %g is one of euler, heun and midpoint; an sde has none",
                shift);
  if (sde->form == DIFFUSION_SBDM && !(sde->start > 0))
    return fail(ctx, DITMOE_USAGE,
                "diffusion form sbdm is infinite at pure noise; start behind it with --sample-eps");
  if (sde->last != LAST_NONE && !(sde->last_size > 0))
    return fail(ctx, DITMOE_USAGE, "last step of size %g: expected a positive one, or none",
                sde->last_size);
  if (!(sde->start >= 0 && sde->start + sde->last_size < 1))
    return fail(ctx, DITMOE_USAGE, "a start of %g and a last step of %g leave nothing between them",
                sde->start, sde->last_size);
  return DITMOE_OK;
}

enum ditmoe_status schedule_sde(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                struct schedule *out) {
  const struct sde *sde = &request->sde;
  const double span = (sde->last == LAST_NONE ? 1 : 1 - sde->last_size) - sde->start;
  *out = (struct schedule){0};
  if (request->steps < 2 || request->steps > MAX_STEPS)
    return fail(ctx, DITMOE_USAGE, "steps %d: this sampler takes 2 to %d", request->steps,
                MAX_STEPS);
  TRY(check_sde(ctx, sde, request->shift));
  TRY(begin(ctx, request, request->steps, out));
  for (int j = 0; j <= out->steps; j++) {
    const double data = j < out->steps ? sde->start + span * j / (out->steps - 1) : 1;
    out->times[j] = request->rising ? data : 1 - data;
  }
  return DITMOE_OK;
}

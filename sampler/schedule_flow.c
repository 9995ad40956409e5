/* The time grid of rectified flow: t_j = 1 - j/S from noise at 1 to data at 0, bent by the shift of
 * Esser et al., "Scaling rectified flow transformers" (2024), t' = a t / (1 + (a - 1) t). */
#include "sampler/schedule.h"

#include <math.h>

enum { MAX_STEPS = 1000000 };

static double shifted(double t, double a) { return a * t / (1 + (a - 1) * t); }

enum ditmoe_status schedule_flow(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out) {
  int steps = request->steps;
  double a = request->shift;
  *out = (struct schedule){0};
  if (steps < 1 || steps > MAX_STEPS)
    return fail(ctx, DITMOE_USAGE, "steps %d: expected 1 to %d", steps, MAX_STEPS);
  if (!(a > 0) || !isfinite(a))
    return fail(ctx, DITMOE_USAGE, "shift %g: expected a positive number; 1 is no shift", a);
  TRY(mem_alloc(ctx, (size_t)steps + 1, sizeof(double), "time grid", &out->block));
  out->times = out->block;
  out->steps = steps;
  /* The original grid ends a step above 0, the other one at the shifted 1 / T; both are shifted. */
  const double last = request->flow_sigma_min ? shifted(1.0 / request->train_steps, a) : 0;
  for (int j = 0; j < steps; j++) {
    const double t = request->flow_sigma_min && j > 0 ? 1 + (last - 1) * j / (steps - 1)
                                                      : (double)(steps - j) / steps;
    out->times[j] = shifted(t, a);
  }
  out->times[steps] = 0;
  return DITMOE_OK;
}

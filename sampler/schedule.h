/* Noise schedules: which times a run visits, and the coefficients there. Tables are float64. */
#ifndef SAMPLER_SCHEDULE_H
#define SAMPLER_SCHEDULE_H

#include "base/memory.h"

enum beta_kind { BETA_LINEAR, BETA_SQUARED_COSINE };
enum spacing { SPACING_RESPACE, SPACING_LINSPACE, SPACING_LEADING, SPACING_TRAILING };

/* g of a flow's stochastic differential equation, dx = (w + g s) dt + sqrt(2 g) dW, at the share a
 * of data and 1 - a of noise in x, m the norm. */
enum diffusion_form {
  DIFFUSION_SIGMA,                 /* m (1 - a)                    */
  DIFFUSION_CONSTANT,              /* m                            */
  DIFFUSION_SBDM,                  /* m (1 - a) / a                */
  DIFFUSION_DECREASING,            /* (m cos(pi a) + 1)^2 / 4      */
  DIFFUSION_INCREASING_DECREASING, /* m sin(pi a)^2                */
};
/* How the last stretch, of length L to pure data, is gone: x + L (w + g s), the posterior mean
 * x / a + (1 - a)^2 / a s, x + L w, or not at all. */
enum last_step { LAST_MEAN, LAST_TWEEDIE, LAST_EULER, LAST_NONE };

struct sde {
  enum diffusion_form form;
  double norm;
  enum last_step last;
  double last_size; /* L */
  double start;     /* share of data at which the run begins */
};

/* What a user or a checkpoint asks for. */
struct schedule_request {
  int steps;
  const char *respacing; /* DDPM, DDIM: "ddim25", "10,15,20", ""; NULL: `steps` */
  enum spacing spacing;  /* dpmpp-2m (RESPACE is LINSPACE); ddim: RESPACE or LEADING */
  enum beta_kind betas;
  int train_steps; /* T, 1000 */
  /* Betas and their cumulative product rounded as diffusers does; dpmpp-2m: always. */
  bool float32_betas;
  bool final_sigma_min; /* dpmpp-2m: the last sigma is that of t = 0, not 0 */
  double shift;         /* rectified flow: t = a t / (1 + (a - 1) t); 1: none */
  bool rising;          /* rectified flow: time 0 is noise, 1 data */
  bool counts_points;   /* solvers of a flow: `steps` points of the grid, a step less */
  struct sde sde;
};

/* A chain of `steps` DDPM steps in the order of the chain (index 0 is the least noisy), or the grid
 * of a flow from noise to data (times[0] = 1 .. times[steps] = 0, or 0 .. 1 if it is rising).
 * Arrays that do not apply are NULL. */
struct schedule {
  int steps;
  bool rising;
  struct sde sde; /* as requested */
  double *times;  /* DDPM family: [steps] original timesteps; flow: [steps + 1] */
  double *beta, *abar, *abar_prev, *abar_next, *posterior_variance, *posterior_log_variance;
  double *posterior_c1, *posterior_c2, *sqrt_recip_abar, *sqrt_recipm1_abar;
  double *sigma; /* dpmpp-2m: [steps + 1]; it and times are in execution order */
  void *block;   /* the memory behind all arrays */
};

/* The betas of the full chain, [train_steps]. */
void schedule_betas(double *beta, enum beta_kind kind, int train_steps, bool float32);
/* Timesteps of "a,b,c", "ddimN" or "" out of 0 .. train_steps-1, ascending; train_steps >= 1.
 * *count values; free with mem_free. DITMOE_USAGE if they cannot be made. */
enum ditmoe_status schedule_space_timesteps(struct ditmoe_ctx *ctx, int train_steps,
                                            const char *respacing, int **timesteps, int *count);
enum ditmoe_status schedule_ddpm(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out);
enum ditmoe_status schedule_dpmpp(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                  struct schedule *out);
enum ditmoe_status schedule_flow(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out);
/* The grid of an SDE: N - 1 equal steps from the start to 1 - L, and the last one (of no length if
 * it is LAST_NONE; then they go to 1). */
enum ditmoe_status schedule_sde(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                struct schedule *out);
void schedule_free(struct ditmoe_ctx *ctx, struct schedule *schedule);

#endif

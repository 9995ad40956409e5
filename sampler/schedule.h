/* Noise schedules: which times a run visits, and the coefficients there. Tables are float64. */
#ifndef SAMPLER_SCHEDULE_H
#define SAMPLER_SCHEDULE_H

#include "base/memory.h"

enum beta_kind { BETA_LINEAR, BETA_SCALED_LINEAR, BETA_SQUARED_COSINE };
enum spacing { SPACING_RESPACE, SPACING_LINSPACE, SPACING_LEADING, SPACING_TRAILING };
/* What the output of the network is. With alpha = sqrt(abar) and sigma = sqrt(1 - abar), the noise
 * e of x = alpha x0 + sigma e; alpha e - sigma x0 (Salimans and Ho 2022); or x0. */
enum prediction_kind { PREDICTS_NOISE, PREDICTS_VELOCITY, PREDICTS_CLEAN };
/* Of a ddpm step: learned where the model has one, else that of LARGE; the posterior's; beta. */
enum variance_kind { VARIANCE_MODEL, VARIANCE_SMALL, VARIANCE_LARGE };

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

/* What a user or a checkpoint asks for. All zero but steps, train_steps and shift: as the original
 * programs. */
struct schedule_request {
  int steps;
  const char *respacing; /* DDPM, DDIM: "ddim25", "10,15,20", ""; NULL: `steps` */
  enum spacing spacing;  /* ddpm, ddim; dpmpp-2m (RESPACE is LINSPACE) */
  int steps_offset;      /* added to the timesteps of SPACING_LEADING */
  int train_steps;       /* T, 1000 */
  enum beta_kind betas;
  double beta_start, beta_end; /* of the linear kinds; 0: 1e-4 and 0.02 */
  const double *trained_betas; /* [T] in their place, or NULL */
  bool zero_snr;               /* betas rescaled so that nothing but noise is left at T - 1 */
  /* Betas and their cumulative product rounded as diffusers does; dpmpp-2m: always. */
  bool float32_betas;
  enum prediction_kind prediction;
  bool clip; /* ddpm, ddim: estimates of the clean latents, to +-clip_range */
  double clip_range;
  bool final_alpha_first; /* ddim: beyond the last step abar is that of t = 0, not 1 */
  enum variance_kind variance;
  bool final_sigma_min;  /* dpmpp-2m: the last sigma is that of t = 0, not 0 */
  bool euler_at_final;   /* dpmpp-2m: the last step is of order 1 */
  bool full_order_final; /* dpmpp-2m: it is not, even in a run of fewer than 15 steps */
  double shift;          /* rectified flow: sigma = a sigma / (1 + (a - 1) sigma); 1: none */
  /* Rectified flow: the last time before 0 is the shifted 1 / T, as a scheduler of diffusers has it
   * that is told nothing but the number of steps. */
  bool flow_sigma_min;
  bool rising;        /* rectified flow: time 0 is noise, 1 data */
  bool counts_points; /* solvers of a flow: `steps` points of the grid, a step less */
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
  enum prediction_kind prediction;
  enum variance_kind variance;
  double clip;            /* bound of the estimates of the clean latents; 0: none */
  bool noisy_end;         /* ddpm: the last step adds noise, too */
  bool first_order_final; /* dpmpp-2m */
};

/* x0 = a x - b output. */
struct clean_form {
  float a, b;
};
/* Of the network's output where 1 / alpha is `scale` and sigma / alpha is `ratio`; abar = 0, where
 * both are infinite, does for all but PREDICTS_NOISE. */
struct clean_form schedule_clean_form(const struct schedule *schedule, double scale, double ratio);

/* The betas of the full chain, [train_steps]; float32: rounded as torch does. */
void schedule_betas(double *beta, const struct schedule_request *request, bool float32);
/* Timestep number k, from the least noisy, of `points` (at least 1) that are spaced over
 * 0 .. train_steps-1; not for SPACING_RESPACE. */
int schedule_spaced_timestep(enum spacing spacing, int train_steps, int points, int k);
/* Timesteps of "a,b,c", "ddimN" or "" out of 0 .. train_steps-1, ascending; train_steps >= 1.
 * *count values; free with mem_free. DITMOE_USAGE if they cannot be made. */
enum ditmoe_status schedule_space_timesteps(struct ditmoe_ctx *ctx, int train_steps,
                                            const char *respacing, int **timesteps, int *count);
/* The two differ where the request has a spacing: a step goes to the timestep that is visited next,
 * and in ddim to the one T / steps below. */
enum ditmoe_status schedule_ddpm(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                                 struct schedule *out);
enum ditmoe_status schedule_ddim(struct ditmoe_ctx *ctx, const struct schedule_request *request,
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

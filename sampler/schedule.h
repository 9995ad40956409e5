/* Noise schedules: which times a run visits, and the coefficients there. Tables are float64. */
#ifndef SAMPLER_SCHEDULE_H
#define SAMPLER_SCHEDULE_H

#include "base/memory.h"

enum beta_kind { BETA_LINEAR, BETA_SQUARED_COSINE };
enum spacing { SPACING_RESPACE, SPACING_LINSPACE, SPACING_LEADING, SPACING_TRAILING };

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
  double shift;         /* rectified flow: sigma = a sigma / (1 + (a - 1) sigma); 1: none */
};

/* A chain of `steps` DDPM steps in the order of the chain (index 0 is the least noisy), or the grid
 * of a flow (times[0] = 1 .. times[steps] = 0). Arrays that do not apply are NULL. */
struct schedule {
  int steps;
  double *times; /* DDPM family: [steps] original timesteps; flow: [steps + 1] */
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
void schedule_free(struct ditmoe_ctx *ctx, struct schedule *schedule);

#endif

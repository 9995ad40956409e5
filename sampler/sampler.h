/* Samplers: loops over a denoiser that they know only as a callback. All arithmetic is f32 on host
 * arrays [B, C, H, W], element by element, so that an image never depends on its batch.
 *
 *   sampler_find -> sampler->plan (times)  -> sampler->run -> guidance_predict -> denoiser->predict
 *
 * A new sampler is one file that defines a `const struct sampler` and one line in sampler.c. */
#ifndef SAMPLER_SAMPLER_H
#define SAMPLER_SAMPLER_H

#include "base/memory.h"
#include "sampler/schedule.h"

#include <math.h>

struct routing; /* router/router.h: settings of the routers for one call */

/* One evaluation of the model on the `count` images of the run. */
struct prediction {
  const float *x;                /* [B, C, H, W] */
  double time;                   /* DDPM: the original timestep; flow: t in [0, 1] */
  int step;                      /* 0 .. steps-1 */
  bool unconditional;            /* null label for every image */
  const struct routing *routing; /* NULL: as the model was trained */
};

/* The model as samplers see it. Outputs are [B, Cout, H, W], the prediction in channels 0 .. C-1
 * and a learned variance, if any, in C .. 2C-1. */
struct denoiser {
  void *user;
  enum ditmoe_status (*predict)(void *user, float *out, const struct prediction *prediction);
  /* Conditional and unconditional outputs from one batch of 2B. NULL: guidance makes two calls. */
  enum ditmoe_status (*predict_both)(void *user, float *conditional, float *unconditional,
                                     const struct prediction *prediction);
};

struct guidance {
  double scale;    /* e = u + scale (c - u); 1: none, one evaluation */
  int channels;    /* guided channels of the C of the latents; 0: all */
  double from, to; /* progress of the run, in [0, 1), between which it acts */
  /* Of a flow: from <= t <= to instead, t at the start of the step. */
  bool by_time;
  bool by_evaluation; /* t of each evaluation                              */
  bool open;          /* from < t < to, where from is above 0; by_evaluation */
};

struct sampler_run;

/* Each may be NULL; each may change the array it is given; another status than OK ends the run. */
struct sampler_hooks {
  void *user;
  /* After guidance: output [B, Cout, H, W] of the model at x. The hook may call
   * run->denoiser.predict again, with other routing. */
  enum ditmoe_status (*prediction)(void *user, struct sampler_run *run,
                                   const struct prediction *prediction, float *output);
  /* The estimate of the clean latents [B, C, H, W] before it is used, once per evaluation of the
   * model (flow: not at pure data, where it is x itself). The step goes on from what the hook
   * leaves in x0; an estimate left alone changes no bit of the run. step counts from 0. */
  enum ditmoe_status (*estimate)(void *user, struct sampler_run *run, int step, float *x0);
  /* Latents after a step; step counts from 1. */
  enum ditmoe_status (*after_step)(void *user, struct sampler_run *run, int step, float *x);
};

struct sampler_run {
  struct ditmoe_ctx *ctx;
  int64_t count;              /* B */
  int channels, out_channels; /* C, Cout = C or 2C */
  int64_t plane;              /* H * W */
  struct denoiser denoiser;
  struct guidance guidance;
  struct sampler_hooks hooks;
  struct schedule schedule;
  double eta;           /* ddim */
  bool fixed_variance;  /* ddpm: ignore a learned variance */
  bool heun_ends_euler; /* the last step of heun is one of euler */
  /* > 0: of a flow, whose model predicts the clean data; its velocity is what leads there in the
   * time that is left, at least so much. */
  double clean_eps;
  /* Standard normals of a step's own noise, [B, C, H, W]. */
  void *noise_user;
  enum ditmoe_status (*noise)(void *noise_user, float *out, int step);
  float *x;    /* [B, C, H, W]: starting noise in, latents out */
  float *work; /* sampler_work_size() floats */
};

struct sampler {
  const char *name;
  const char *objective; /* "ddpm" or "rf" */
  int default_steps;
  int calls_per_step; /* denoiser evaluations, before guidance */
  int arrays;         /* work arrays of [B, C, H, W] that run() uses */
  bool takes_eta, takes_respacing, takes_diffusion;
  enum ditmoe_status (*plan)(struct ditmoe_ctx *ctx, const struct schedule_request *request,
                             struct schedule *out);
  enum ditmoe_status (*run)(struct sampler_run *run);
};

/* By name or alias (rf, rf-euler, flow-euler, rf-heun, dpm++2m, euler-maruyama,
 * sde-euler-maruyama); NULL if unknown. */
const struct sampler *sampler_find(const char *name);
/* NULL after the last. */
const struct sampler *sampler_at(int index);
/* Floats of run->work: two model outputs, one of them for guidance, and the sampler's arrays. */
size_t sampler_work_size(const struct sampler *sampler, int64_t count, int channels,
                         int out_channels, int64_t plane);

/* For the samplers. */

/* output [B, Cout, H, W] = the conditional prediction, guided where run->guidance acts at this
 * step. scratch has the size of output and is used only then. */
enum ditmoe_status guidance_predict(struct sampler_run *run, float *output, float *scratch,
                                    const struct prediction *prediction);
/* The guided prediction at x: one or two model evaluations, guidance, finite check
 * (DITMOE_NONFINITE names the step), hook. output [B, Cout, H, W]. */
enum ditmoe_status sampler_predict(struct sampler_run *run, float *output, const float *x,
                                   double time, int step);
/* The estimate x0 [B, C, H, W] from the prediction at run->x, then the estimate hook. The
 * prediction stays in sampler_output(run). */
enum ditmoe_status sampler_clean(struct sampler_run *run, float *x0, struct clean_form form,
                                 double time, int step);
/* The bound of estimates, and an estimate within it. */
static inline float sampler_bound(const struct schedule *schedule) {
  return schedule->clip > 0 ? (float)schedule->clip : INFINITY;
}
static inline float sampler_bounded(float x0, float bound) {
  return x0 > bound ? bound : x0 < -bound ? -bound : x0;
}
/* The velocity v [B, C, H, W] at (x, t); the estimate hook sees x - t v, or x + (1 - t) v where
 * time is rising, and moves v with it. */
enum ditmoe_status sampler_velocity(struct sampler_run *run, float *v, const float *x, double t,
                                    int step);
/* Array number `index` of the run's work arrays. */
float *sampler_array(struct sampler_run *run, int index);
float *sampler_output(struct sampler_run *run);
/* Elements of an array, B C H W. */
static inline int64_t sampler_elements(const struct sampler_run *run) {
  return run->count * run->channels * run->plane;
}
/* Finite check of run->x (names the step) and the after_step hook. step counts from 0. */
enum ditmoe_status sampler_step_done(struct sampler_run *run, int step);

#endif

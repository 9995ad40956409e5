/* Classifier-free guidance (Ho and Salimans 2022): e = u + s (c - u) on the guided channels; the
 * others, a learned variance above all, keep the conditional values. */
#include "sampler/sampler.h"

static bool acts(const struct sampler_run *run, const struct prediction *prediction) {
  const struct guidance *g = &run->guidance;
  const double progress = (double)prediction->step / run->schedule.steps;
  const double t = g->by_evaluation ? prediction->time : run->schedule.times[prediction->step];
  if (g->scale == 1) return false;
  if (!g->by_time) return progress >= g->from && progress < g->to;
  if (g->open) return (t > g->from || g->from == 0) && t < g->to;
  return t >= g->from && t <= g->to;
}

static enum ditmoe_status predict_two(const struct denoiser *denoiser, float *conditional,
                                      float *unconditional, const struct prediction *prediction) {
  struct prediction null = *prediction;
  if (denoiser->predict_both)
    return denoiser->predict_both(denoiser->user, conditional, unconditional, prediction);
  null.unconditional = true;
  TRY(denoiser->predict(denoiser->user, conditional, prediction));
  return denoiser->predict(denoiser->user, unconditional, &null);
}

enum ditmoe_status guidance_predict(struct sampler_run *run, float *output, float *scratch,
                                    const struct prediction *prediction) {
  const struct denoiser *denoiser = &run->denoiser;
  if (!acts(run, prediction)) return denoiser->predict(denoiser->user, output, prediction);
  TRY(predict_two(denoiser, output, scratch, prediction));
  int latents = run->channels, channels = run->guidance.channels;
  int64_t stride = run->out_channels * run->plane;
  int64_t guided = (channels > 0 && channels < latents ? channels : latents) * run->plane;
  float scale = (float)run->guidance.scale;
  for (int64_t b = 0; b < run->count; b++) {
    float *c = output + b * stride;
    const float *u = scratch + b * stride;
    for (int64_t i = 0; i < guided; i++) c[i] = u[i] + scale * (c[i] - u[i]);
  }
  return DITMOE_OK;
}

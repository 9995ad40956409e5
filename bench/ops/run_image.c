/* Calls of the operations on images. */
#include "bench/ops/run.h"

void run_patchify(struct trial *t) {
  const struct shape *s = t->s;
  int64_t item = (int64_t)s->C * s->size * s->width;
  float *x = trial_items(t, item);
  be_patchify(t->ex, trial_results(t, item), x, (int)t->count, s->C, s->size, s->width, s->patch);
}

void run_unpatchify(struct trial *t) {
  const struct shape *s = t->s;
  int64_t item = (int64_t)s->C * s->size * s->width;
  float *rows = trial_items(t, item);
  be_unpatchify(t->ex, trial_results(t, item), rows, (int)t->count, s->C, s->size, s->width,
                s->patch);
}

/* Of the result of one image. */
static int64_t conv_pixels(const struct shape *s, const struct conv *w) {
  return w ? (int64_t)conv_size(w, 0, s->size) * conv_size(w, 1, s->width) : 0;
}

static int64_t image_values(const struct shape *s) { return (int64_t)s->size * s->width * s->C; }

void run_conv2d(struct trial *t) {
  const struct shape *s = t->s;
  struct conv *w = trial_conv(t);
  struct act x = trial_acts(t, image_values(s));
  be_conv2d(t->ex, trial_results(t, conv_pixels(s, w) * s->out), x, w, (int)t->count, s->size,
            s->width);
}

void run_conv2d_3x3(struct trial *t) { run_conv2d(t); }

/* `parts` branches of one x; every other one is the sum itself. */
void run_conv2d_relu(struct trial *t) {
  const struct shape *s = t->s;
  const int ldy = s->ldy ? s->ldy : s->out, parts = s->parts ? s->parts : 1;
  struct act x = trial_acts(t, image_values(s));
  struct conv_branch branches[CONV_BRANCHES];
  for (int i = 0; i < parts; i++) {
    struct conv *w = trial_conv(t);
    const int64_t pixels = conv_pixels(s, w);
    branches[i] = (struct conv_branch){.w = w, .ldy = ldy, .at = s->at};
    if (i % 2)
      branches[i].sum = trial_results(t, pixels * s->out);
    else
      branches[i].y = trial_act_results(t, pixels * ldy);
  }
  be_conv2d_relu(t->ex, branches, parts, x, (int)t->count, s->size, s->width);
}

void run_conv2d_3x3_relu(struct trial *t) { run_conv2d_relu(t); }

void run_max_pool(struct trial *t) {
  const struct shape *s = t->s;
  const int ldy = s->ldy ? s->ldy : s->C;
  const int64_t pixels =
      (int64_t)pool_size(s->size, s->stride, s->before) * pool_size(s->width, s->stride, s->before);
  struct act x = trial_acts(t, image_values(s));
  be_max_pool(t->ex, trial_act_results(t, pixels * ldy), ldy, s->at, x, (int)t->count, s->size,
              s->width, s->C, s->stride, s->before);
}

void run_avg_pool_relu(struct trial *t) {
  const struct shape *s = t->s;
  const int ldy = s->ldy ? s->ldy : s->C;
  float *x = trial_items(t, image_values(s));
  be_avg_pool_relu(t->ex, trial_act_results(t, (int64_t)s->size * s->width * ldy), ldy, s->at, x,
                   (int)t->count, s->size, s->width, s->C);
}

void run_mean_pixels(struct trial *t) {
  const struct shape *s = t->s;
  struct act x = trial_acts(t, image_values(s));
  be_mean_pixels(t->ex, trial_results(t, s->C), x, (int)t->count, (int64_t)s->size * s->width,
                 s->C);
}

void run_take_channels(struct trial *t) {
  const struct shape *s = t->s;
  struct act x = trial_acts(t, s->C);
  be_take_channels(t->ex, trial_results(t, s->out), x, t->count, s->C, s->out);
}

void run_group_norm(struct trial *t) {
  const struct shape *s = t->s;
  int64_t pixels = (int64_t)s->size * s->width;
  float *weight = trial_values(t, s->C, 0.1F, 1), *bias = trial_values(t, s->C, 0.1F, 0);
  float *x = trial_items(t, pixels * s->C);
  be_group_norm(t->ex, trial_act_results(t, pixels * s->C), x, weight, bias, (int)t->count, pixels,
                s->C, s->groups, (float)s->eps, s->silu);
}

/* A window that leaves out one pixel at the top and at the right, twice. */
void run_group_moments(struct trial *t) {
  const struct shape *s = t->s;
  int window[4] = {1, 0, s->size, s->width - 1};
  float *x = trial_values(t, (int64_t)s->size * s->width * s->C, 1, 0.5F);
  double zero[64] = {0};
  double *moments = trial_upload(t, zero, 4 * (int64_t)s->groups);
  t->block[t->blocks - 1].role = BLOCK_SCRATCH;
  float *weight = trial_values(t, s->C, 0.1F, 1), *bias = trial_values(t, s->C, 0.1F, 0);
  int64_t pixels = 2 * (int64_t)(s->size - 1) * (s->width - 1);
  for (int i = 0; i < 2; i++)
    be_group_moments(t->ex, moments, x, s->width, window, s->C, s->groups, pixels);
  be_group_norm_given(t->ex, trial_act_result(t, (int64_t)s->size * s->width * s->C), x, moments,
                      weight, bias, (int64_t)s->size * s->width, s->C, s->groups, (float)s->eps,
                      s->silu);
}

void run_group_norm_given(struct trial *t) {
  const struct shape *s = t->s;
  double moments[64];
  int64_t pixels = (int64_t)s->size * s->width;
  for (int g = 0; g < s->groups; g++) moments[2 * g] = 0.1 * g, moments[2 * g + 1] = 1 + 0.1 * g;
  double *given = trial_upload(t, moments, 4 * (int64_t)s->groups);
  float *weight = trial_values(t, s->C, 0.1F, 1), *bias = trial_values(t, s->C, 0.1F, 0);
  float *x = trial_values(t, pixels * s->C, 1, 0);
  be_group_norm_given(t->ex, trial_act_result(t, pixels * s->C), x, given, weight, bias, pixels,
                      s->C, s->groups, (float)s->eps, s->silu);
}

void run_upsample2x(struct trial *t) {
  const struct shape *s = t->s;
  int64_t item = (int64_t)s->size * s->width * s->C;
  float *x = trial_items(t, item);
  be_upsample2x(t->ex, trial_act_results(t, 4 * item), x, (int)t->count, s->size, s->width, s->C);
}

void run_channels_last(struct trial *t) {
  int64_t pixels = (int64_t)t->s->size * t->s->width, item = pixels * t->s->C;
  float *x = trial_items(t, item);
  be_channels_last(t->ex, trial_results(t, item), x, (int)t->count, t->s->C, pixels);
}

void run_channels_first(struct trial *t) {
  int64_t pixels = (int64_t)t->s->size * t->s->width, item = pixels * t->s->C;
  float *x = trial_items(t, item);
  be_channels_first(t->ex, trial_results(t, item), x, (int)t->count, t->s->C, pixels);
}

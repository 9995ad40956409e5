/* Betas of the full chain. float32: rounded step by step as torch rounds them, which users of
 * diffusers have. */
#include "sampler/schedule.h"

#include <math.h>

static const double PI = 3.14159265358979323846;

/* What the papers take where a request names no ends. */
static double first_beta(const struct schedule_request *request) {
  return request->beta_start > 0 ? request->beta_start : 1e-4;
}

static double last_beta(const struct schedule_request *request) {
  return request->beta_end > 0 ? request->beta_end : 0.02;
}

/* torch.linspace in single precision: from both ends, fused. */
static void linspace_f32(double *out, float first, float last, int n) {
  const float step = (last - first) / (float)(n - 1);
  for (int i = 0; i < n; i++)
    out[i] =
        (double)(i < n / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(n - 1 - i), last));
}

/* In double precision the ends are those of a chain of 1000. */
static void linear_betas(double *beta, const struct schedule_request *request, bool float32) {
  const int n = request->train_steps;
  double first = first_beta(request), last = last_beta(request);
  if (float32) {
    linspace_f32(beta, (float)first, (float)last, n);
    return;
  }
  first *= 1000.0 / n, last *= 1000.0 / n;
  const double step = (last - first) / (n - 1);
  for (int i = 0; i < n; i++) beta[i] = i * step + first;
  beta[n - 1] = last;
}

/* Linear in the square root (Rombach et al. 2022). */
static void scaled_linear_betas(double *beta, const struct schedule_request *request) {
  const int n = request->train_steps;
  linspace_f32(beta, (float)sqrt(first_beta(request)), (float)sqrt(last_beta(request)), n);
  for (int i = 0; i < n; i++) beta[i] = (double)((float)beta[i] * (float)beta[i]);
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

/* Shifts and scales sqrt(abar) so that the last one is 0 and the first stays (Lin et al., "Common
 * diffusion noise schedules and sample steps are flawed", 2023, algorithm 1). */
static void rescale_zero_snr(double *beta, int n) {
  double product = 1;
  for (int i = 0; i < n; i++) {
    product *= (double)(1 - (float)beta[i]);
    beta[i] = (double)sqrtf((float)product);
  }
  const float first = (float)beta[0], last = (float)beta[n - 1], scale = first / (first - last);
  float before = 1;
  for (int i = 0; i < n; i++) {
    const float root = ((float)beta[i] - last) * scale, abar = root * root;
    beta[i] = (double)(1 - abar / before);
    before = abar;
  }
}

static void given_betas(double *beta, const struct schedule_request *request) {
  for (int i = 0; i < request->train_steps; i++) beta[i] = (double)(float)request->trained_betas[i];
}

void schedule_betas(double *beta, const struct schedule_request *request, bool float32) {
  if (request->trained_betas)
    given_betas(beta, request);
  else if (request->betas == BETA_SQUARED_COSINE)
    squared_cosine_betas(beta, request->train_steps, float32);
  else if (request->betas == BETA_SCALED_LINEAR)
    scaled_linear_betas(beta, request);
  else
    linear_betas(beta, request, float32);
  if (request->zero_snr) rescale_zero_snr(beta, request->train_steps);
}

/* GroupNorm of an image that is computed in tiles: statistics gathered tile by tile, then
 * applied. */
#include "backend/ref/ref_ops.h"

/* moments[g] += (sum of x, sum of x^2) / (pixels n) over the window and the n channels of group g:
 * over all windows of an image, E[x] and E[x^2]. */
void ref_group_moments(struct exec *ex, double *moments, const float *x, int width,
                       const int window[4], int C, int groups, int64_t pixels) {
  int n = C / groups;
  double count = (double)pixels * n;
  for (int g = 0; g < groups; g++, moments += 2) {
    double sum = 0, squares = 0;
    for (int64_t row = window[0]; row < window[2]; row++)
      for (int64_t column = window[1]; column < window[3]; column++) {
        const float *values = x + (row * width + column) * C + g * n;
        for (int c = 0; c < n; c++) sum += values[c], squares += (double)values[c] * values[c];
      }
    moments[0] += sum / count;
    moments[1] += squares / count;
  }
}

/* y[p, c] = f((x[p, c] - E[x]) / sqrt(E[x^2] - E[x]^2 + eps) weight[c] + bias[c]) */
void ref_group_norm_given(struct exec *ex, struct act y, const float *x, const double *moments,
                          const float *weight, const float *bias, int64_t pixels, int C, int groups,
                          float eps, bool silu) {
  for (int c = 0; c < C; c++) {
    const double *m = moments + 2 * (c / (C / groups));
    double scale = weight[c] / sqrt(fmax(m[1] - m[0] * m[0], 0) + eps);
    for (int64_t p = 0; p < pixels; p++) {
      double value = (x[p * C + c] - m[0]) * scale + bias[c];
      act_set(y, p * C + c, silu ? silu_of(value) : value);
    }
  }
}

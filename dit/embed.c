/* The condition of an image: timestep features, an MLP, and the row of the class table. */
#include "dit/embed.h"

#include <math.h>

/* c = Linear(silu(Linear(features(t)))) + table[label], [B, D] (Peebles & Xie 2023); blocks see
 * silu(c). features are [B, 256]. */
void dit_embed_condition(struct exec *ex, const struct dit *model,
                         const struct dit_embedder *embedder, const struct dit_condition_acts *a,
                         const struct dit_input *in) {
  const int B = in->B, D = model->config.width;
  const int64_t n = (int64_t)B * D;
  be_time_features(ex, a->features, in->time, B, TIME_FEATURES,
                   (float)model->config.record.frequency_shift);
  be_linear(ex, a->sums, act_f32(a->features), embedder->time_in, B);
  be_silu(ex, a->hidden, a->sums, n);
  be_linear(ex, a->time, act_f32(a->hidden), embedder->time_out, B);
  be_gather_rows(ex, a->condition, embedder->labels, in->labels, B, D);
  be_add(ex, a->condition, a->time, a->condition, n);
  const struct dit_tap_data seen[] = {
      {TAP_TIME_FEATURES, -1, B, 1, TIME_FEATURES, a->features, NULL, NULL},
      {TAP_TIME, -1, B, 1, D, a->time, NULL, NULL},
      {TAP_CONDITION, -1, B, 1, D, a->condition, NULL, NULL}};
  for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) dit_look(ex, in, &seen[i]);
  be_silu(ex, a->silu_c, a->condition, n);
}

/* Number i of n, as diffusers rounds it. */
static double place_of(int i, int n, int base) {
  return base > 0 ? (double)((float)i / (float)((double)n / base)) : i;
}

/* Row n is the patch at column n % cols, row n / cols of a grid, its values four blocks of D / 4:
 *
 *   sin(column w_m), cos(column w_m), sin(row w_m), cos(row w_m), w_m = 10000^(-m / (D / 4)) */
void sincos_positions(float *table, int rows, int cols, int base, int width) {
  const int quarter = width / 4;
  for (int m = 0; m < quarter; m++) {
    const double omega = pow(10000.0, -(double)m / quarter);
    for (int n = 0; n < rows * cols; n++) {
      float *own = table + (int64_t)n * width + m;
      const float *same_column = table + (int64_t)(n % cols) * width + m;
      const float *same_row = table + (int64_t)(n - n % cols) * width + m;
      const double column = place_of(n, cols, base) * omega;
      const double row = place_of(n / cols, rows, base) * omega;
      own[0] = n < cols ? (float)sin(column) : same_column[0];
      own[quarter] = n < cols ? (float)cos(column) : same_column[quarter];
      own[2 * quarter] = n % cols ? same_row[2 * quarter] : (float)sin(row);
      own[3 * quarter] = n % cols ? same_row[3 * quarter] : (float)cos(row);
    }
  }
}

/* The condition of an image: timestep features, an MLP, and the row of the class table. */
#include "dit/embed.h"

#include <math.h>

void dit_embed_condition(struct exec *ex, const struct dit *model,
                         const struct dit_embedder *embedder, float *silu_c,
                         const struct dit_input *in) {
  const int B = in->B, D = model->config.width;
  size_t mark = arena_mark(&ex->arena);
  float *features = be_floats(ex, (int64_t)B * TIME_FEATURES);
  float *hidden = be_floats(ex, (int64_t)B * D);
  float *time = be_floats(ex, (int64_t)B * D);
  float *label = be_floats(ex, (int64_t)B * D);
  be_time_features(ex, features, in->time, B, TIME_FEATURES,
                   (float)model->config.record.frequency_shift);
  be_linear(ex, hidden, act_f32(features), embedder->time_in, B);
  be_silu(ex, hidden, hidden, (int64_t)B * D);
  be_linear(ex, time, act_f32(hidden), embedder->time_out, B);
  be_gather_rows(ex, label, embedder->labels, in->labels, B, D);
  be_add(ex, label, time, label, (int64_t)B * D);
  dit_look(
      ex, in,
      &(struct dit_tap_data){TAP_TIME_FEATURES, -1, B, 1, TIME_FEATURES, features, NULL, NULL});
  dit_look(ex, in, &(struct dit_tap_data){TAP_TIME, -1, B, 1, D, time, NULL, NULL});
  dit_look(ex, in, &(struct dit_tap_data){TAP_CONDITION, -1, B, 1, D, label, NULL, NULL});
  be_silu(ex, silu_c, label, (int64_t)B * D);
  arena_reset(&ex->arena, mark);
}

void sincos_positions(float *table, int tokens, int width) {
  int side = (int)lround(sqrt(tokens)), quarter = width / 4;
  for (int n = 0; n < tokens; n++)
    for (int m = 0; m < quarter; m++) {
      double omega = pow(10000.0, -(double)m / quarter);
      float *row = table + (int64_t)n * width;
      row[m] = (float)sin(n % side * omega);
      row[quarter + m] = (float)cos(n % side * omega);
      row[2 * quarter + m] = (float)sin(n / side * omega);
      row[3 * quarter + m] = (float)cos(n / side * omega);
    }
}

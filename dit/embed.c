/* Timestep features [cos(t f_i), sin(t f_i)], f_i = 10000^(-i / (128 - shift)), an MLP, and the row
 * of the class table. The features are made on the host: they are 256 numbers an image. */
#include "dit/embed.h"

#include <math.h>

/* The original program has frequencies and angles in f32; for t near 1000 one ulp of a frequency
 * moves the angle by 6e-5, so the rounding is part of the definition. (Its library rounds one or
 * two of the frequencies wrongly, which ones depends on the machine; ours are the nearest floats.)
 */
static void time_features(float *e, float t, float shift) {
  const int half = TIME_FEATURES / 2;
  for (int i = 0; i < half; i++) {
    float exponent = (float)-9.210340371976184 * (float)i / ((float)half - shift);
    float angle = t * (float)exp((double)exponent);
    e[i] = (float)cos((double)angle);
    e[half + i] = (float)sin((double)angle);
  }
}

void dit_embed_condition(struct backend *be, const struct dit *model,
                         const struct dit_embedder *embedder, float *silu_c,
                         const struct dit_input *in) {
  const int B = in->B, D = model->config.width;
  size_t mark = arena_mark(&be->arena);
  float *features = be_floats(be, (int64_t)B * TIME_FEATURES);
  float *hidden = be_floats(be, (int64_t)B * D);
  float *time = be_floats(be, (int64_t)B * D);
  float *label = be_floats(be, (int64_t)B * D);
  int32_t *index = be_ints(be, B);
  for (int b = 0; be_active(be) && b < B; b++) {
    float row[TIME_FEATURES];
    time_features(row, in->time[b], (float)model->config.record.frequency_shift);
    be_upload(be, features + (int64_t)b * TIME_FEATURES, row, sizeof row);
  }
  be_linear_exact(be, hidden, features, embedder->time_in, B);
  be_silu(be, hidden, hidden, (int64_t)B * D);
  be_linear_exact(be, time, hidden, embedder->time_out, B);
  be_upload(be, index, in->labels, (size_t)B * sizeof *index);
  be_gather_rows(be, label, embedder->labels, index, B, D);
  be_add(be, label, time, label, (int64_t)B * D);
  dit_look(
      be, in,
      &(struct dit_tap_data){TAP_TIME_FEATURES, -1, B, 1, TIME_FEATURES, features, NULL, NULL});
  dit_look(be, in, &(struct dit_tap_data){TAP_TIME, -1, B, 1, D, time, NULL, NULL});
  dit_look(be, in, &(struct dit_tap_data){TAP_CONDITION, -1, B, 1, D, label, NULL, NULL});
  be_silu(be, silu_c, label, (int64_t)B * D);
  arena_reset(&be->arena, mark);
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

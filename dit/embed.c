/* The condition of an image: timestep features, an MLP, and the row of the class table. */
#include "dit/embed.h"

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
  dit_look(ex, in, &(struct dit_tap_data){TAP_LABEL, -1, B, 1, D, a->condition, NULL, NULL});
  be_add(ex, a->condition, a->time, a->condition, n);
  const struct dit_tap_data seen[] = {
      {TAP_TIME_FEATURES, -1, B, 1, TIME_FEATURES, a->features, NULL, NULL},
      {TAP_TIME, -1, B, 1, D, a->time, NULL, NULL},
      {TAP_CONDITION, -1, B, 1, D, a->condition, NULL, NULL}};
  for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) dit_look(ex, in, &seen[i]);
  be_silu(ex, a->silu_c, a->condition, n);
}

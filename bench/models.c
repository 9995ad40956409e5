/* Models with random weights, and their inputs. */
#include "base/rng.h"
#include "base/system.h"
#include "bench/bench.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

enum ditmoe_status bench_fits(const char *what, double bytes) {
  double available = (double)system_memory_available();
  if (bytes <= available) return DITMOE_OK;
  return report_error(DITMOE_NOMEM, "%s: %.1f GiB are needed, %.1f GiB are free", what,
                      bytes / 0x1p30, available / 0x1p30);
}

struct model_choice bench_choice(const struct bench *bench) {
  const struct bench_settings *s = &bench->settings;
  return (struct model_choice){(int)s->experts, (int)s->top_k, (int)s->image_size, (int)s->depth};
}

struct repeats bench_repeats(const struct bench *bench) {
  return (struct repeats){(int)bench->settings.warm_up, (int)bench->settings.reps, 0};
}

enum ditmoe_status bench_open_model(struct bench *bench, struct exec *ex,
                                    const struct model_shape *shape, struct dit **out) {
  struct blueprint blueprint;
  struct ditmoe_checkpoint *checkpoint = NULL;
  model_shape_draw(shape, &blueprint);
  enum ditmoe_status status =
      report_call(bench->ctx, random_checkpoint(bench->ctx, &blueprint, shape->name, DT_BF16,
                                                bench->settings.seed, &checkpoint));
  blueprint_free(&blueprint);
  TRY(status);
  status = report_call(bench->ctx, dit_open(ex, checkpoint, NULL, out));
  ditmoe_checkpoint_close(checkpoint);
  return status;
}

enum ditmoe_status inputs_make(const struct dit_config *config, int B, bool guided, uint64_t seed,
                               struct inputs *out) {
  const size_t plane = (size_t)config->size * (size_t)config->size;
  const size_t image = (size_t)config->channels * plane, count = (size_t)B;
  const double time = config->record.objective == OBJECTIVE_RF ? 0.5 : 500;
  if (guided && B % 2)
    return report_error(DITMOE_USAGE, "--guided needs an even --batch, found %d", B);
  if (guided && config->record.null_label < 0)
    return report_error(DITMOE_USAGE, "--guided: the model has no label of no class");
  const int images = guided ? B / 2 : B;
  out->x = memory_get((size_t)images * image, sizeof *out->x);
  out->time = memory_get(count, sizeof *out->time);
  out->labels = memory_get(count, sizeof *out->labels);
  out->out = memory_get(count * (size_t)config->out_channels * plane, sizeof *out->out);
  for (int i = 0; i < images; i++)
    rng_normal(out->x + (size_t)i * image, (int64_t)image, seed, (uint64_t)i, 0, RNG_INITIAL_NOISE);
  for (int i = 0; i < B; i++) {
    out->time[i] = (float)(time * config->record.time_scale);
    out->labels[i] = i < images ? (int32_t)rng_below((uint32_t)config->record.classes_used, seed,
                                                     (uint64_t)i, 0, RNG_LABEL)
                                : config->record.null_label;
  }
  out->in = (struct dit_input){
      .x = out->x, .time = out->time, .labels = out->labels, .B = B, .halves = guided ? 2 : 0};
  return DITMOE_OK;
}

void inputs_free(struct inputs *inputs) {
  free(inputs->x);
  free(inputs->time);
  free(inputs->labels);
  free(inputs->out);
}

/* Random checkpoints as files. */
#include "bench/bench.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

static void say(const struct bench *bench, const struct model_shape *shape, const char *dtype,
                const struct ditmoe_checkpoint *checkpoint) {
  const char *output = bench->settings.output;
  if (!bench->settings.common.json) {
    report_file(output);
    return;
  }
  double parameters = 0;
  for (size_t i = 0; i < checkpoint->count; i++)
    parameters += (double)checkpoint->tensors[i].elements;
  cJSON *object = cJSON_CreateObject();
  cJSON_AddStringToObject(object, "file", output);
  cJSON_AddStringToObject(object, "shape", shape->name);
  cJSON_AddStringToObject(object, "dtype", dtype);
  cJSON_AddNumberToObject(object, "tensors", (double)checkpoint->count);
  cJSON_AddNumberToObject(object, "parameters", parameters);
  char *text = cJSON_Print(object);
  puts(text);
  cJSON_free(text);
  cJSON_Delete(object);
}

enum ditmoe_status bench_make(struct bench *bench) {
  const struct bench_settings *s = &bench->settings;
  const struct model_choice choice = bench_choice(bench);
  const char *dtype = s->dtype ? s->dtype : "bf16";
  struct model_shape shape;
  struct blueprint blueprint;
  struct ditmoe_checkpoint *checkpoint = NULL;
  if (!s->output) return report_error(DITMOE_USAGE, "--make needs --output");
  if (strcmp(dtype, "bf16") != 0 && strcmp(dtype, "f32") != 0)
    return report_error(DITMOE_USAGE, "--make takes one --dtype, bf16 or f32, not \"%.40s\"",
                        dtype);
  TRY(model_shape_parse(s->make, &choice, &shape));
  model_shape_draw(&shape, &blueprint);
  enum dtype type = strcmp(dtype, "f32") == 0 ? DT_F32 : DT_BF16;
  enum ditmoe_status status =
      report_call(bench->ctx, random_checkpoint(bench->ctx, &blueprint, shape.name, type, s->seed,
                                                &checkpoint));
  blueprint_free(&blueprint);
  TRY(status);
  status = report_call(
      bench->ctx, safetensors_write(bench->ctx, s->output, checkpoint->tensors, checkpoint->count,
                                    DT_COUNT, checkpoint->metadata, checkpoint->metadata_count));
  if (status == DITMOE_OK) say(bench, &shape, dtype, checkpoint);
  ditmoe_checkpoint_close(checkpoint);
  return status;
}

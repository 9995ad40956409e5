/* Models of a folder: opened with the manifest's settings, called. */
#include "tests/golden/golden.h"

#include <stdio.h>
#include <string.h>

/* Members of the manifest that are fields of the record, and where they are. */
static const struct {
  const char *parent, *name, *field;
} record_fields[] = {
    {NULL, "uncond_label", "uncond_label"},
    {NULL, "null_label", "null_label"},
    {NULL, "time_scale", "time_scale"},
    {NULL, "time_direction", "time_direction"},
    {NULL, "frequency_shift", "frequency_shift"},
    {NULL, "norm_eps", "norm_eps"},
    {NULL, "norm2_eps", "norm2_eps"},
    {NULL, "qk_norm_eps", "qk_norm_eps"},
    {NULL, "cfg_channels", "cfg_channels"},
    {"config", "num_heads", "heads"},
    {"config", "input_size", "input_size"},
    {"moe", "top_k", "top_k"},
    {"moe", "capacity", "capacity"},
    {"moe", "router_weight_mode", "router_weight_mode"},
};

/* JSON text of the record, for cJSON_free; NULL without memory. The objective matters to nobody
 * here, as runs name their sampler, but for the family that follows from it. */
static char *record_text(const cJSON *manifest, bool qk_half) {
  cJSON *record = cJSON_CreateObject();
  const bool flow = golden_field(manifest, "time_direction") != NULL;
  bool ok = record && cJSON_AddStringToObject(record, "objective", flow ? "rf" : "ddpm") &&
            cJSON_AddBoolToObject(record, "qk_half", qk_half);
  const char *kind = case_string(manifest, "architecture");
  if (ok && mixture_find(kind)) ok = cJSON_AddStringToObject(record, "kind", kind) != NULL;
  if (ok && flow)
    ok = cJSON_AddStringToObject(record, "family", case_string(manifest, "kind")) != NULL;
  for (size_t i = 0; ok && i < sizeof record_fields / sizeof *record_fields; i++) {
    const char *parent = record_fields[i].parent;
    const cJSON *from = parent ? golden_field(manifest, parent) : manifest;
    const cJSON *value = golden_field(from, record_fields[i].name);
    if (!value || cJSON_IsNull(value)) continue;
    ok = cJSON_AddItemToObject(record, record_fields[i].field, cJSON_Duplicate(value, true));
  }
  char *text = ok ? cJSON_PrintUnformatted(record) : NULL;
  cJSON_Delete(record);
  return text;
}

enum ditmoe_status golden_load(struct golden *g, const char *path, const char *key, bool qk_half,
                               struct dit **out) {
  struct ditmoe_checkpoint *checkpoint = NULL;
  char full[2048];
  char *record = record_text(g->manifest, qk_half);
  if (!record) return fail(g->ctx, DITMOE_NOMEM, "%s: no memory for the record", g->folder);
  if (!path)
    path = case_string(g->manifest, "weights"), key = golden_text(g->manifest, "weights_key");
  snprintf(full, sizeof full, "%s/%s", g->folder, path);
  enum ditmoe_status status = ditmoe_checkpoint_open(g->ctx, full, key, &checkpoint);
  if (status == DITMOE_OK) status = dit_open(g->ex, checkpoint, record, out);
  if (status == DITMOE_OK && g->precision) status = precision_load(g, checkpoint, record);
  ditmoe_checkpoint_close(checkpoint);
  cJSON_free(record);
  return status;
}

enum ditmoe_status golden_predict_with(struct exec *ex, const struct dit *model, float *out,
                                       const struct dit_input *in) {
  TRY(exec_reserve(ex, dit_predict_bytes(ex, model, in->grid, in->B)));
  return dit_predict(ex, model, out, in);
}

enum ditmoe_status golden_predict(struct golden *g, const struct dit *model, float *out,
                                  const struct dit_input *in) {
  return g->precision ? precision_predict(g, model, out, in)
                      : golden_predict_with(g->ex, model, out, in);
}

void golden_guide(const struct dit_config *config, float *out, int n, double scale, int channels) {
  const int64_t plane = (int64_t)config->size * config->size;
  const int64_t each = config->out_channels * plane;
  const int64_t guided = channels > 0 && channels < config->out_channels ? channels * plane : each;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < guided; j++) {
      float *c = out + i * each + j, *u = out + (n + i) * each + j;
      *c = *u = *u + (float)scale * (*c - *u);
    }
}

int golden_channels(const struct golden *g, const cJSON *object) {
  const cJSON *channels = golden_field(object, "cfg_channels");
  if (!channels || cJSON_IsNull(channels)) channels = golden_field(g->manifest, "cfg_channels");
  return cJSON_IsNumber(channels) ? (int)channels->valuedouble : 0;
}

enum ditmoe_status golden_model(struct golden *g) {
  TRY(check_calls(g));
  return check_runs(g);
}

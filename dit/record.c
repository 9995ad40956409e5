/* One table of fields drives reading, writing and messages of the checkpoint record. */
#include "dit/record.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum field_type { FIELD_INT, FIELD_NUMBER, FIELD_CHOICE, FIELD_INTS, FIELD_STRING, FIELD_NAMES };

struct choice {
  const char *name;
  int value;
};

/* Further spellings are those of the configurations that the original programs and diffusers write.
 */
static const struct choice kinds[] = {{"dit-moe", DIT_MOE},
                                      {"promoe-tc", DIT_PROMOE_TC},
                                      {"promoe-ec", DIT_PROMOE_EC},
                                      {"tc-dit", DIT_TC},
                                      {"ec-dit", DIT_EC},
                                      {"diffmoe", DIT_DIFFMOE},
                                      {"dit", DIT_DENSE},
                                      {"ProMoE token choice", DIT_PROMOE_TC},
                                      {"ProMoE expert choice", DIT_PROMOE_EC},
                                      {NULL, 0}};
static const struct choice objectives[] = {
    {"ddpm", OBJECTIVE_DDPM}, {"rf", OBJECTIVE_RF}, {"rectified flow", OBJECTIVE_RF}, {NULL, 0}};
static const struct choice weight_modes[] = {{"identity", WEIGHTS_IDENTITY},
                                             {"sigmoid", WEIGHTS_SIGMOID},
                                             {"softmax", WEIGHTS_SOFTMAX},
                                             {NULL, 0}};
static const struct choice channels[] = {{"all", 0}, {NULL, 0}};
static const struct choice booleans[] = {{"false", 0}, {"true", 1}, {NULL, 0}};

struct field {
  const char *name, *alias, *flag;
  enum field_type type;
  size_t offset;
  double low, high; /* of numbers */
  const struct choice *choices;
};

#define AT(member) offsetof(struct dit_record, member)
static const struct field fields[REC_FIELDS] = {
    [REC_KIND] = {"kind", "architecture", "--kind", FIELD_CHOICE, AT(kind), 1, 0, kinds},
    [REC_HEADS] = {"heads", "num_heads", "--heads", FIELD_INT, AT(heads), 1, 1 << 16, NULL},
    [REC_TOP_K] = {"top_k", NULL, "--top-k", FIELD_INTS, AT(top_k), 1, 4096, NULL},
    [REC_OBJECTIVE] = {"objective", NULL, "--objective", FIELD_CHOICE, AT(objective), 1, 0,
                       objectives},
    [REC_INPUT_SIZE] = {"input_size", NULL, NULL, FIELD_INT, AT(input_size), 1, 1 << 14, NULL},
    [REC_TIME_SCALE] = {"time_scale", NULL, "--time-scale", FIELD_NUMBER, AT(time_scale), 1e-6, 1e6,
                        NULL},
    [REC_FREQUENCY_SHIFT] = {"frequency_shift", NULL, "--frequency-shift", FIELD_NUMBER,
                             AT(frequency_shift), 0, 100, NULL},
    [REC_NORM_EPS] = {"norm_eps", NULL, "--norm-eps", FIELD_NUMBER, AT(norm_eps), 1e-12, 1, NULL},
    [REC_NORM2_EPS] = {"norm2_eps", NULL, "--norm2-eps", FIELD_NUMBER, AT(norm2_eps), 1e-12, 1,
                       NULL},
    [REC_QK_NORM_EPS] = {"qk_norm_eps", NULL, "--qk-norm-eps", FIELD_NUMBER, AT(qk_norm_eps), 1e-12,
                         1, NULL},
    [REC_QK_HALF] = {"qk_half", NULL, NULL, FIELD_CHOICE, AT(qk_half), 1, 0, booleans},
    [REC_CFG_CHANNELS] = {"cfg_channels", NULL, "--cfg-channels", FIELD_CHOICE, AT(cfg_channels), 0,
                          1 << 16, channels},
    [REC_UNCOND_LABEL] = {"uncond_label", NULL, "--uncond-label", FIELD_INT, AT(uncond_label), 0,
                          1 << 30, NULL},
    [REC_NULL_LABEL] = {"null_label", NULL, "--null-label", FIELD_INT, AT(null_label), 0, 1 << 30,
                        NULL},
    [REC_CLASSES_USED] = {"classes_used", NULL, NULL, FIELD_INT, AT(classes_used), 1, 1 << 30,
                          NULL},
    [REC_ROUTER_WEIGHT_MODE] = {"router_weight_mode", NULL, "--router-weight-mode", FIELD_CHOICE,
                                AT(router_weight_mode), 1, 0, weight_modes},
    [REC_CAPACITY] = {"capacity", NULL, "--capacity", FIELD_NUMBER, AT(capacity), 0, 4096, NULL},
    [REC_ZERO_EXPERTS] = {"zero_experts", NULL, NULL, FIELD_INTS, AT(zero_experts), 0, 4096, NULL},
    [REC_COPY_EXPERTS] = {"copy_experts", NULL, NULL, FIELD_INTS, AT(copy_experts), 0, 4096, NULL},
    [REC_SHIFT] = {"shift", NULL, "--shift", FIELD_NUMBER, AT(shift), 1e-3, 1e3, NULL},
    [REC_LATENT_SCALE] = {"latent_scale", "latent_scaling_factor", "--latent-scale", FIELD_NUMBER,
                          AT(latent_scale), 1e-6, 1e6, NULL},
    [REC_LATENT_SHIFT] = {"latent_shift", NULL, "--latent-shift", FIELD_NUMBER, AT(latent_shift),
                          -1e6, 1e6, NULL},
    [REC_CLASS_NAMES] = {"class_names", NULL, NULL, FIELD_NAMES, AT(class_names), 0, 0, NULL},
    [REC_VAE] = {"vae", NULL, "--vae", FIELD_STRING, AT(vae), 0, 0, NULL},
};

const char *dit_kind_name(int kind) {
  return kind >= 0 && kind < DIT_KINDS ? kinds[kind].name : "unknown";
}

const char *record_name(enum record_field field) { return fields[field].name; }

const char *record_flag(enum record_field field) { return fields[field].flag; }

int layer_int(const struct layer_ints *ints, int layer) {
  if (ints->count == 0) return 0;
  return ints->values[layer < ints->count ? layer : ints->count - 1];
}

static void *member(struct dit_record *record, enum record_field field) {
  return (char *)record + fields[field].offset;
}

static const void *const_member(const struct dit_record *record, enum record_field field) {
  return (const char *)record + fields[field].offset;
}

enum ditmoe_status record_set_ints(struct ditmoe_ctx *ctx, struct dit_record *record,
                                   enum record_field field, const int *values, int count) {
  struct layer_ints *ints = member(record, field);
  TRY(mem_alloc(ctx, (size_t)count, sizeof *ints->values, "checkpoint record", &ints->values));
  memcpy(ints->values, values, (size_t)count * sizeof *values);
  ints->count = count;
  record->set |= 1u << field;
  return DITMOE_OK;
}

/* Reading. */

static enum ditmoe_status bad_value(struct ditmoe_ctx *ctx, const char *origin,
                                    const struct field *field, bool strict) {
  enum ditmoe_status code = strict ? DITMOE_USAGE : DITMOE_FORMAT;
  if (field->type == FIELD_CHOICE && field->choices) {
    char list[128] = "";
    for (const struct choice *c = field->choices; c->name; c++) {
      size_t used = strlen(list);
      snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", c->name);
    }
    return fail(ctx, code, "%s: \"%s\" must be one of: %s", origin, field->name, list);
  }
  if (field->type == FIELD_STRING)
    return fail(ctx, code, "%s: \"%s\" must be text", origin, field->name);
  if (field->type == FIELD_NAMES)
    return fail(ctx, code, "%s: \"%s\" must be a list of texts", origin, field->name);
  return fail(ctx, code, "%s: \"%s\" must be a number from %g to %g%s", origin, field->name,
              field->low, field->high,
              field->type == FIELD_INTS ? ", or a list with one for each layer" : "");
}

static bool number_fits(const struct field *field, const cJSON *value, bool whole) {
  return cJSON_IsNumber(value) && isfinite(value->valuedouble) &&
         value->valuedouble >= field->low && value->valuedouble <= field->high &&
         (!whole || value->valuedouble == floor(value->valuedouble));
}

static bool read_choice(const struct field *field, const cJSON *value, int *out) {
  if (cJSON_IsBool(value) && field->choices == booleans) {
    *out = cJSON_IsTrue(value);
    return true;
  }
  if (cJSON_IsString(value))
    for (const struct choice *c = field->choices; c->name; c++)
      if (strcasecmp(c->name, value->valuestring) == 0) {
        *out = c->value;
        return true;
      }
  if (field->low <= field->high && number_fits(field, value, true)) {
    *out = (int)value->valuedouble;
    return true;
  }
  return false;
}

static enum ditmoe_status read_ints(struct ditmoe_ctx *ctx, struct dit_record *record,
                                    enum record_field f, const char *origin, const cJSON *value,
                                    bool strict) {
  int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 1;
  if (count < 1 || count > 4096) return bad_value(ctx, origin, &fields[f], strict);
  int *values = NULL;
  TRY(mem_alloc(ctx, (size_t)count, sizeof *values, "checkpoint record", &values));
  const cJSON *item = cJSON_IsArray(value) ? value->child : value;
  enum ditmoe_status status = DITMOE_OK;
  for (int i = 0; i < count; i++, item = item->next) {
    if (!number_fits(&fields[f], item, true)) {
      status = bad_value(ctx, origin, &fields[f], strict);
      break;
    }
    values[i] = (int)item->valuedouble;
  }
  if (status == DITMOE_OK) status = record_set_ints(ctx, record, f, values, count);
  mem_free(ctx, values);
  return status;
}

static enum ditmoe_status read_names(struct ditmoe_ctx *ctx, struct dit_record *record,
                                     const char *origin, const cJSON *value, bool strict) {
  if (!cJSON_IsArray(value)) return bad_value(ctx, origin, &fields[REC_CLASS_NAMES], strict);
  int count = cJSON_GetArraySize(value);
  TRY(mem_zalloc(ctx, (size_t)count, sizeof *record->class_names, "class names",
                 &record->class_names));
  record->set |= 1u << REC_CLASS_NAMES;
  for (const cJSON *item = value->child; item; item = item->next) {
    if (!cJSON_IsString(item)) return bad_value(ctx, origin, &fields[REC_CLASS_NAMES], strict);
    TRY(mem_strdup(ctx, item->valuestring, &record->class_names[record->class_count]));
    record->class_count++;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_field(struct ditmoe_ctx *ctx, struct dit_record *record,
                                     enum record_field f, const char *origin, const cJSON *value,
                                     bool strict) {
  const struct field *field = &fields[f];
  void *out = member(record, f);
  switch (field->type) {
  case FIELD_INTS:
    return read_ints(ctx, record, f, origin, value, strict);
  case FIELD_NAMES:
    return read_names(ctx, record, origin, value, strict);
  case FIELD_STRING:
    if (!cJSON_IsString(value)) return bad_value(ctx, origin, field, strict);
    TRY(mem_strdup(ctx, value->valuestring, out));
    break;
  case FIELD_CHOICE:
    if (!read_choice(field, value, out)) return bad_value(ctx, origin, field, strict);
    break;
  case FIELD_INT:
    if (!number_fits(field, value, true)) return bad_value(ctx, origin, field, strict);
    *(int *)out = (int)value->valuedouble;
    break;
  case FIELD_NUMBER:
    if (!number_fits(field, value, false)) return bad_value(ctx, origin, field, strict);
    *(double *)out = value->valuedouble;
    break;
  }
  record->set |= 1u << f;
  return DITMOE_OK;
}

enum ditmoe_status record_read_json(struct ditmoe_ctx *ctx, struct dit_record *record,
                                    const char *origin, const cJSON *object, bool strict) {
  if (!cJSON_IsObject(object))
    return fail(ctx, strict ? DITMOE_USAGE : DITMOE_FORMAT, "%s: not a JSON object", origin);
  for (const cJSON *item = object->child; item; item = item->next) {
    int f = 0;
    while (f < REC_FIELDS && strcmp(fields[f].name, item->string) != 0 &&
           !(fields[f].alias && strcmp(fields[f].alias, item->string) == 0))
      f++;
    if (f == REC_FIELDS && strict)
      return fail(ctx, DITMOE_USAGE, "%s: unknown member \"%s\" (docs/RECORD.md lists them)",
                  origin, item->string);
    if (f == REC_FIELDS || cJSON_IsNull(item) || record_has(record, (enum record_field)f)) continue;
    TRY(read_field(ctx, record, (enum record_field)f, origin, item, strict));
  }
  return DITMOE_OK;
}

/* Writing. */

static cJSON *write_ints(const struct layer_ints *ints) {
  return ints->count == 1 ? cJSON_CreateNumber(ints->values[0])
                          : cJSON_CreateIntArray(ints->values, ints->count);
}

static cJSON *write_choice(const struct field *field, int value) {
  if (field->choices == booleans) return cJSON_CreateBool(value);
  for (const struct choice *c = field->choices; c->name; c++)
    if (c->value == value) return cJSON_CreateString(c->name);
  return cJSON_CreateNumber(value);
}

static cJSON *write_field(const struct dit_record *record, enum record_field f) {
  const void *value = const_member(record, f);
  switch (fields[f].type) {
  case FIELD_INTS:
    return write_ints(value);
  case FIELD_NAMES:
    return cJSON_CreateStringArray((const char *const *)record->class_names, record->class_count);
  case FIELD_STRING:
    return cJSON_CreateString(*(char *const *)value);
  case FIELD_CHOICE:
    return write_choice(&fields[f], *(const int *)value);
  case FIELD_INT:
    return cJSON_CreateNumber(*(const int *)value);
  case FIELD_NUMBER:
    return cJSON_CreateNumber(*(const double *)value);
  }
  return NULL;
}

enum ditmoe_status record_write_json(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     char **text) {
  cJSON *object = cJSON_CreateObject();
  for (int f = 0; object && f < REC_FIELDS; f++) {
    if (!record_has(record, (enum record_field)f)) continue;
    cJSON *value = write_field(record, (enum record_field)f);
    if (!value || !cJSON_AddItemToObject(object, fields[f].name, value)) {
      cJSON_Delete(value);
      cJSON_Delete(object);
      object = NULL;
    }
  }
  char *printed = object ? cJSON_PrintUnformatted(object) : NULL;
  cJSON_Delete(object);
  if (!printed) return fail(ctx, DITMOE_NOMEM, "no memory for the checkpoint record");
  enum ditmoe_status status = mem_strdup(ctx, printed, text);
  cJSON_free(printed);
  return status;
}

void record_free(struct ditmoe_ctx *ctx, struct dit_record *record) {
  mem_free(ctx, record->top_k.values);
  mem_free(ctx, record->zero_experts.values);
  mem_free(ctx, record->copy_experts.values);
  for (int i = 0; i < record->class_count; i++) mem_free(ctx, record->class_names[i]);
  mem_free(ctx, record->class_names);
  mem_free(ctx, record->vae);
  *record = (struct dit_record){0};
}

/* One table of fields drives reading, writing and messages of the checkpoint record. */
#include "dit/record.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct record_choice objectives[] = {
    {"ddpm", OBJECTIVE_DDPM}, {"rf", OBJECTIVE_RF}, {"rectified flow", OBJECTIVE_RF}, {NULL, 0}};
static const struct record_choice directions[] = {
    {"1to0", NOISE_AT_1}, {"0to1", NOISE_AT_0}, {NULL, 0}};
static const struct record_choice channels[] = {{"all", 0}, {NULL, 0}};
static const struct record_choice booleans[] = {{"false", 0}, {"true", 1}, {NULL, 0}};

#define AT(member) offsetof(struct dit_record, member)
static const struct record_key keys[REC_FIELDS] = {
    [REC_KIND] = {"kind", "architecture", "--kind", RECORD_KIND, AT(kind), 1, 0, NULL, NULL},
    [REC_FAMILY] = {"family", NULL, "--family", RECORD_TEXT, AT(family), 0, 0, NULL, NULL},
    [REC_HEADS] = {"heads", "num_heads", "--heads", RECORD_INT, AT(heads), 1, 1 << 16, NULL,
                   "the number of heads"},
    [REC_TOP_K] = {"top_k", NULL, "--top-k", RECORD_INTS, AT(top_k), 1, 4096, NULL,
                   "how many experts work on a token"},
    [REC_OBJECTIVE] = {"objective", NULL, "--objective", RECORD_CHOICE, AT(objective), 1, 0,
                       objectives, "whether this is a DDPM or a rectified-flow model"},
    [REC_TIME_DIRECTION] = {"time_direction", NULL, "--time-direction", RECORD_CHOICE,
                            AT(time_direction), 1, 0, directions, NULL},
    [REC_INPUT_SIZE] = {"input_size", NULL, NULL, RECORD_INT, AT(input_size), 1, 1 << 14, NULL,
                        NULL},
    [REC_TIME_SCALE] = {"time_scale", NULL, "--time-scale", RECORD_NUMBER, AT(time_scale), 1e-6,
                        1e6, NULL, NULL},
    [REC_FREQUENCY_SHIFT] = {"frequency_shift", NULL, "--frequency-shift", RECORD_NUMBER,
                             AT(frequency_shift), 0, 100, NULL, NULL},
    [REC_NORM_EPS] = {"norm_eps", NULL, "--norm-eps", RECORD_NUMBER, AT(norm_eps), 1e-12, 1, NULL,
                      NULL},
    [REC_NORM2_EPS] = {"norm2_eps", NULL, "--norm2-eps", RECORD_NUMBER, AT(norm2_eps), 1e-12, 1,
                       NULL, NULL},
    [REC_QK_NORM_EPS] = {"qk_norm_eps", NULL, "--qk-norm-eps", RECORD_NUMBER, AT(qk_norm_eps),
                         1e-12, 1, NULL, NULL},
    [REC_QK_HALF] = {"qk_half", NULL, NULL, RECORD_CHOICE, AT(qk_half), 1, 0, booleans, NULL},
    [REC_CFG_CHANNELS] = {"cfg_channels", NULL, "--cfg-channels", RECORD_CHOICE, AT(cfg_channels),
                          0, 1 << 16, channels, NULL},
    [REC_NULL_LABEL] = {"null_label", NULL, "--null-label", RECORD_INT, AT(null_label), 0, 1 << 30,
                        NULL, NULL},
    [REC_CLASSES_USED] = {"classes_used", NULL, NULL, RECORD_INT, AT(classes_used), 1, 1 << 30,
                          NULL, NULL},
    [REC_ZERO_EXPERTS] = {"zero_experts", NULL, NULL, RECORD_INTS, AT(zero_experts), 0, 4096, NULL,
                          NULL},
    [REC_COPY_EXPERTS] = {"copy_experts", NULL, NULL, RECORD_INTS, AT(copy_experts), 0, 4096, NULL,
                          NULL},
    [REC_SHIFT] = {"shift", NULL, "--shift", RECORD_NUMBER, AT(shift), 1e-3, 1e3, NULL, NULL},
    [REC_LATENT_SCALE] = {"latent_scale", "latent_scaling_factor", "--latent-scale", RECORD_NUMBER,
                          AT(latent_scale), 1e-6, 1e6, NULL, NULL},
    [REC_LATENT_SHIFT] = {"latent_shift", NULL, "--latent-shift", RECORD_NUMBER, AT(latent_shift),
                          -1e6, 1e6, NULL, NULL},
    [REC_CLASS_NAMES] = {"class_names", NULL, NULL, RECORD_TEXTS, AT(class_names), 0, 0, NULL,
                         NULL},
    [REC_VAE] = {"vae", NULL, "--vae", RECORD_TEXT, AT(vae), 0, 0, NULL, NULL},
};

const struct record_key *record_key(enum record_field field) { return &keys[field]; }

bool record_equal(const struct dit_record *a, const struct dit_record *b, enum record_field field) {
  const char *x = (const char *)a + keys[field].offset, *y = (const char *)b + keys[field].offset;
  if (keys[field].type == RECORD_NUMBER) return *(const double *)x == *(const double *)y;
  return *(const int *)x == *(const int *)y;
}

int layer_int(const struct layer_ints *ints, int layer) {
  if (ints->count == 0) return 0;
  return ints->values[layer < ints->count ? layer : ints->count - 1];
}

/* Members of routers. */

static const struct router_key *find_own(const struct router *router, const char *name) {
  for (int k = 0; router && k < router->key_count; k++)
    if (strcmp(router->keys[k].key.name, name) == 0) return &router->keys[k];
  return NULL;
}

/* Of any router: a record may come before its model is known. */
static const struct router_key *find_any(const char *name) {
  const struct mixture *mixture;
  const struct router_key *key = NULL;
  for (int i = 0; !key && (mixture = mixture_at(i)); i++) key = find_own(mixture->router, name);
  return key;
}

const double *record_own(const struct dit_record *record, const char *name) {
  for (int i = 0; i < record->own_count; i++)
    if (strcmp(record->own[i].key->key.name, name) == 0) return &record->own[i].value;
  return NULL;
}

enum ditmoe_status record_set_own(struct ditmoe_ctx *ctx, struct dit_record *record,
                                  const struct router_key *key, double value) {
  TRY(mem_room(ctx, (size_t)record->own_count, sizeof *record->own, "checkpoint record",
               &record->own));
  record->own[record->own_count++] = (struct router_value){key, value};
  return DITMOE_OK;
}

/* Reading. */

/* One JSON object on its way into a record. */
struct reading {
  struct ditmoe_ctx *ctx;
  struct dit_record *record;
  const char *origin;
  bool strict;
};

static void list_name(char *list, size_t size, const char *name) {
  const size_t used = strlen(list);
  snprintf(list + used, size - used, "%s%s", used ? ", " : "", name);
}

static enum ditmoe_status bad_value(const struct reading *r, const struct record_key *key) {
  const enum ditmoe_status code = r->strict ? DITMOE_USAGE : DITMOE_FORMAT;
  const struct mixture *mixture;
  char list[256] = "";
  for (int i = 0; key->type == RECORD_KIND && (mixture = mixture_at(i)); i++)
    list_name(list, sizeof list, mixture->kind);
  for (const struct record_choice *c = key->choices; c && c->name; c++)
    list_name(list, sizeof list, c->name);
  if (*list) return fail(r->ctx, code, "%s: \"%s\" must be one of: %s", r->origin, key->name, list);
  if (key->type == RECORD_TEXT)
    return fail(r->ctx, code, "%s: \"%s\" must be text", r->origin, key->name);
  if (key->type == RECORD_TEXTS)
    return fail(r->ctx, code, "%s: \"%s\" must be a list of texts", r->origin, key->name);
  return fail(r->ctx, code, "%s: \"%s\" must be a number from %g to %g%s", r->origin, key->name,
              key->low, key->high,
              key->type == RECORD_INTS ? ", or a list with one for each layer" : "");
}

static bool number_fits(const struct record_key *key, const cJSON *value, bool whole) {
  return cJSON_IsNumber(value) && isfinite(value->valuedouble) && value->valuedouble >= key->low &&
         value->valuedouble <= key->high &&
         (!whole || value->valuedouble == floor(value->valuedouble));
}

/* An int, a number or a choice. */
static bool read_number(const struct record_key *key, const cJSON *value, double *out) {
  if (cJSON_IsBool(value) && key->choices == booleans) {
    *out = cJSON_IsTrue(value);
    return true;
  }
  if (cJSON_IsString(value))
    for (const struct record_choice *c = key->choices; c && c->name; c++)
      if (strcasecmp(c->name, value->valuestring) == 0) {
        *out = c->value;
        return true;
      }
  if (key->low > key->high || !number_fits(key, value, key->type != RECORD_NUMBER)) return false;
  *out = value->valuedouble;
  return true;
}

static enum ditmoe_status read_ints(const struct reading *r, const struct record_key *key,
                                    const cJSON *value, struct layer_ints *out) {
  const int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 1;
  const cJSON *item = cJSON_IsArray(value) ? value->child : value;
  if (count < 1 || count > 4096) return bad_value(r, key);
  TRY(mem_alloc(r->ctx, (size_t)count, sizeof *out->values, "checkpoint record", &out->values));
  for (; out->count < count; out->count++, item = item->next) {
    if (!number_fits(key, item, true)) return bad_value(r, key);
    out->values[out->count] = (int)item->valuedouble;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_texts(const struct reading *r, const struct record_key *key,
                                     const cJSON *value) {
  struct dit_record *record = r->record;
  if (!cJSON_IsArray(value)) return bad_value(r, key);
  TRY(mem_zalloc(r->ctx, (size_t)cJSON_GetArraySize(value), sizeof *record->class_names,
                 "class names", &record->class_names));
  record->set |= 1u << REC_CLASS_NAMES;
  for (const cJSON *item = value->child; item; item = item->next) {
    if (!cJSON_IsString(item)) return bad_value(r, key);
    TRY(mem_strdup(r->ctx, item->valuestring, &record->class_names[record->class_count]));
    record->class_count++;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_field(const struct reading *r, enum record_field f,
                                     const cJSON *value) {
  const struct record_key *key = &keys[f];
  void *out = (char *)r->record + key->offset;
  double number = 0;
  switch (key->type) {
  case RECORD_INTS:
    TRY(read_ints(r, key, value, out));
    break;
  case RECORD_TEXTS:
    return read_texts(r, key, value);
  case RECORD_TEXT:
    if (!cJSON_IsString(value)) return bad_value(r, key);
    TRY(mem_strdup(r->ctx, value->valuestring, out));
    break;
  case RECORD_KIND:
    r->record->kind = cJSON_IsString(value) ? mixture_find(value->valuestring) : NULL;
    if (!r->record->kind) return bad_value(r, key);
    break;
  case RECORD_CHOICE:
  case RECORD_INT:
    if (!read_number(key, value, &number)) return bad_value(r, key);
    *(int *)out = (int)number;
    break;
  case RECORD_NUMBER:
    if (!read_number(key, value, out)) return bad_value(r, key);
    break;
  }
  r->record->set |= 1u << f;
  return DITMOE_OK;
}

static enum ditmoe_status read_own(const struct reading *r, const struct router_key *own,
                                   const cJSON *value) {
  double number;
  if (record_own(r->record, own->key.name)) return DITMOE_OK;
  if (!read_number(&own->key, value, &number)) return bad_value(r, &own->key);
  return record_set_own(r->ctx, r->record, own, number);
}

enum ditmoe_status record_read_json(struct ditmoe_ctx *ctx, struct dit_record *record,
                                    const char *origin, const cJSON *object, bool strict) {
  const struct reading r = {ctx, record, origin, strict};
  if (!cJSON_IsObject(object))
    return fail(ctx, strict ? DITMOE_USAGE : DITMOE_FORMAT, "%s: not a JSON object", origin);
  for (const cJSON *item = object->child; item; item = item->next) {
    int f = 0;
    while (f < REC_FIELDS && strcmp(keys[f].name, item->string) != 0 &&
           !(keys[f].alias && strcmp(keys[f].alias, item->string) == 0))
      f++;
    const struct router_key *own = f == REC_FIELDS ? find_any(item->string) : NULL;
    if (f == REC_FIELDS && !own && strict)
      return fail(ctx, DITMOE_USAGE, "%s: unknown member \"%s\" (docs/RECORD.md lists them)",
                  origin, item->string);
    if (cJSON_IsNull(item)) continue;
    if (own) TRY(read_own(&r, own, item));
    if (f < REC_FIELDS && !record_has(record, (enum record_field)f))
      TRY(read_field(&r, (enum record_field)f, item));
  }
  return DITMOE_OK;
}

/* Writing. */

static cJSON *write_ints(const struct layer_ints *ints) {
  return ints->count == 1 ? cJSON_CreateNumber(ints->values[0])
                          : cJSON_CreateIntArray(ints->values, ints->count);
}

static cJSON *write_number(const struct record_key *key, double value) {
  if (key->choices == booleans) return cJSON_CreateBool(value != 0);
  for (const struct record_choice *c = key->choices; c && c->name; c++)
    if (c->value == value) return cJSON_CreateString(c->name);
  return cJSON_CreateNumber(value);
}

static cJSON *write_field(const struct dit_record *record, enum record_field f) {
  const void *value = (const char *)record + keys[f].offset;
  switch (keys[f].type) {
  case RECORD_INTS:
    return write_ints(value);
  case RECORD_TEXTS:
    return cJSON_CreateStringArray((const char *const *)record->class_names, record->class_count);
  case RECORD_TEXT:
    return cJSON_CreateString(*(char *const *)value);
  case RECORD_KIND:
    return cJSON_CreateString(record->kind->kind);
  case RECORD_CHOICE:
  case RECORD_INT:
    return write_number(&keys[f], *(const int *)value);
  case RECORD_NUMBER:
    return write_number(&keys[f], *(const double *)value);
  }
  return NULL;
}

/* Takes `value`; false: no memory. */
static bool put(cJSON *object, const char *name, cJSON *value) {
  if (value && cJSON_AddItemToObject(object, name, value)) return true;
  cJSON_Delete(value);
  return false;
}

static bool write_all(cJSON *object, const struct dit_record *record) {
  const struct router *router = record->kind ? record->kind->router : NULL;
  bool ok = object != NULL;
  for (int f = 0; ok && f < REC_FIELDS; f++)
    if (record_has(record, (enum record_field)f) &&
        (f != REC_TOP_K || (router && router->needs_top_k)))
      ok = put(object, keys[f].name, write_field(record, (enum record_field)f));
  for (int k = 0; ok && router && k < router->key_count; k++) {
    const struct record_key *key = &router->keys[k].key;
    const double *value = record_own(record, key->name);
    if (value) ok = put(object, key->name, write_number(key, *value));
  }
  return ok;
}

enum ditmoe_status record_write_json(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     char **text) {
  cJSON *object = cJSON_CreateObject();
  char *printed = write_all(object, record) ? cJSON_PrintUnformatted(object) : NULL;
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
  mem_free(ctx, record->family);
  mem_free(ctx, record->own);
  *record = (struct dit_record){0};
}

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
static const struct record_choice predictions[] = {
    {"velocity", FLOW_PREDICTS_VELOCITY}, {"x", FLOW_PREDICTS_CLEAN}, {NULL, 0}};
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
    [REC_IN_CONTEXT_START] = {"in_context_start", NULL, NULL, RECORD_INT, AT(in_context_start), 0,
                              4096, NULL, "before which block the in-context tokens are put in"},
    [REC_PREDICTION] = {"prediction", NULL, NULL, RECORD_CHOICE, AT(prediction), 1, 0, predictions,
                        NULL},
    [REC_T_EPS] = {"t_eps", NULL, NULL, RECORD_NUMBER, AT(t_eps), 1e-6, 1, NULL, NULL},
    [REC_NOISE_SCALE] = {"noise_scale", NULL, NULL, RECORD_NUMBER, AT(noise_scale), 1e-6, 1e6, NULL,
                         NULL},
    [REC_PIXELS] = {"pixels", NULL, NULL, RECORD_CHOICE, AT(pixels), 1, 0, booleans, NULL},
    [REC_LATENT_MEAN] = {"latent_mean", NULL, NULL, RECORD_NUMBERS, AT(latent_mean), -1e6, 1e6,
                         NULL, NULL},
    [REC_LATENT_STD] = {"latent_std", NULL, NULL, RECORD_NUMBERS, AT(latent_std), 1e-6, 1e6, NULL,
                        NULL},
    [REC_CLASS_NAMES] = {"class_names", NULL, NULL, RECORD_TEXTS, AT(class_names), 0, 0, NULL,
                         NULL},
    [REC_VAE] = {"vae", NULL, "--vae", RECORD_TEXT, AT(vae), 0, 0, NULL, NULL},
    [REC_SCHEDULER] = {"scheduler", NULL, NULL, RECORD_OBJECT, AT(scheduler), 0, 0, NULL, NULL},
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
                                  const struct router_key *key, double value, const char *source) {
  TRY(mem_room(ctx, (size_t)record->own_count, sizeof *record->own, "checkpoint record",
               &record->own));
  struct router_value *own = &record->own[record->own_count++];
  *own = (struct router_value){key, value, NULL};
  return source ? mem_strdup(ctx, source, &own->source) : DITMOE_OK;
}

enum { SOURCE_LENGTH = 4200 };

/* "origin:member" */
static void name_source(char out[SOURCE_LENGTH], const char *origin, const char *member) {
  snprintf(out, SOURCE_LENGTH, "%s%s%s", origin, member ? ":" : "", member ? member : "");
}

enum ditmoe_status record_set(struct ditmoe_ctx *ctx, struct dit_record *record,
                              enum record_field field, const char *origin, const char *member) {
  char source[SOURCE_LENGTH];
  name_source(source, origin, member);
  record->set |= UINT64_C(1) << field;
  mem_free(ctx, record->sources[field]);
  record->sources[field] = NULL;
  return mem_strdup(ctx, source, &record->sources[field]);
}

/* Reading. */

/* One JSON object on its way into a record. */
struct reading {
  struct ditmoe_ctx *ctx;
  struct dit_record *record;
  const struct record_origin *origin;
};

static void list_name(char *list, size_t size, const char *name) {
  const size_t used = strlen(list);
  snprintf(list + used, size - used, "%s%s", used ? ", " : "", name);
}

static enum ditmoe_status bad_value(const struct reading *r, const struct record_key *key) {
  const enum ditmoe_status code = r->origin->trust == RECORD_GIVEN ? DITMOE_USAGE : DITMOE_FORMAT;
  const char *origin = r->origin->name;
  const struct mixture *mixture;
  char list[256] = "";
  for (int i = 0; key->type == RECORD_KIND && (mixture = mixture_at(i)); i++)
    list_name(list, sizeof list, mixture->kind);
  for (const struct record_choice *c = key->choices; c && c->name; c++)
    list_name(list, sizeof list, c->name);
  if (*list) return fail(r->ctx, code, "%s: \"%s\" must be one of: %s", origin, key->name, list);
  if (key->type == RECORD_TEXT)
    return fail(r->ctx, code, "%s: \"%s\" must be text", origin, key->name);
  if (key->type == RECORD_TEXTS)
    return fail(r->ctx, code, "%s: \"%s\" must be a list of texts", origin, key->name);
  if (key->type == RECORD_OBJECT)
    return fail(r->ctx, code, "%s: \"%s\" must be an object", origin, key->name);
  return fail(r->ctx, code, "%s: \"%s\" must be a %s from %g to %g%s", origin, key->name,
              key->type == RECORD_NUMBERS ? "list of numbers" : "number", key->low, key->high,
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
  for (; out->count < count && number_fits(key, item, true); item = item->next)
    out->values[out->count++] = (int)item->valuedouble;
  if (out->count == count) return DITMOE_OK;
  mem_free(r->ctx, out->values);
  *out = (struct layer_ints){0};
  return bad_value(r, key);
}

static enum ditmoe_status read_numbers(const struct reading *r, const struct record_key *key,
                                       const cJSON *value, struct channel_numbers *out) {
  const int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 0;
  if (count < 1 || count > 65536) return bad_value(r, key);
  TRY(mem_alloc(r->ctx, (size_t)count, sizeof *out->values, "checkpoint record", &out->values));
  for (const cJSON *item = value->child; item && number_fits(key, item, false); item = item->next)
    out->values[out->count++] = item->valuedouble;
  if (out->count == count) return DITMOE_OK;
  mem_free(r->ctx, out->values);
  *out = (struct channel_numbers){0};
  return bad_value(r, key);
}

static enum ditmoe_status read_texts(const struct reading *r, const struct record_key *key,
                                     const cJSON *value) {
  struct dit_record *record = r->record;
  const cJSON *item = cJSON_IsArray(value) ? value->child : NULL;
  while (cJSON_IsString(item)) item = item->next;
  if (!cJSON_IsArray(value) || item) return bad_value(r, key);
  TRY(mem_zalloc(r->ctx, (size_t)cJSON_GetArraySize(value), sizeof *record->class_names,
                 "class names", &record->class_names));
  for (item = value->child; item; item = item->next) {
    TRY(mem_strdup(r->ctx, item->valuestring, &record->class_names[record->class_count]));
    record->class_count++;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_field(const struct reading *r, enum record_field f,
                                     const cJSON *value) {
  const struct record_key *key = &keys[f];
  struct dit_record *record = r->record;
  void *out = (char *)record + key->offset;
  double number = 0;
  switch (key->type) {
  case RECORD_INTS:
    return read_ints(r, key, value, out);
  case RECORD_NUMBERS:
    return read_numbers(r, key, value, out);
  case RECORD_TEXTS:
    return read_texts(r, key, value);
  case RECORD_TEXT:
    return cJSON_IsString(value) ? mem_strdup(r->ctx, value->valuestring, out) : bad_value(r, key);
  case RECORD_OBJECT:
    if (!cJSON_IsObject(value)) return bad_value(r, key);
    record->scheduler = cJSON_Duplicate(value, true);
    return record->scheduler ? DITMOE_OK : fail(r->ctx, DITMOE_NOMEM, "no memory for a scheduler");
  case RECORD_KIND:
    record->kind = cJSON_IsString(value) ? mixture_find(value->valuestring) : NULL;
    return record->kind ? DITMOE_OK : bad_value(r, key);
  case RECORD_CHOICE:
  case RECORD_INT:
    if (!read_number(key, value, &number)) return bad_value(r, key);
    *(int *)out = (int)number;
    return DITMOE_OK;
  case RECORD_NUMBER:
    return read_number(key, value, out) ? DITMOE_OK : bad_value(r, key);
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_own(const struct reading *r, const struct router_key *own,
                                   const cJSON *value) {
  char source[SOURCE_LENGTH];
  double number;
  if (record_own(r->record, own->key.name)) return DITMOE_OK;
  if (!read_number(&own->key, value, &number)) return bad_value(r, &own->key);
  name_source(source, r->origin->name, value->string);
  return record_set_own(r->ctx, r->record, own, number, source);
}

/* Our name of a member. */
static const char *own_name(const struct record_origin *origin, const char *name) {
  for (const char *const(*word)[2] = origin->words; word && (*word)[0]; word++)
    if (strcmp((*word)[0], name) == 0) return (*word)[1];
  return name;
}

/* A training configuration may have a scheduler of its learning rate. */
static bool is_meant(const struct reading *r, int field, const cJSON *item) {
  return r->origin->trust != RECORD_FOREIGN || field != REC_SCHEDULER ||
         cJSON_HasObjectItem(item, "_class_name");
}

static enum ditmoe_status read_member(const struct reading *r, const cJSON *item) {
  const char *name = own_name(r->origin, item->string);
  int f = 0;
  while (f < REC_FIELDS && strcmp(keys[f].name, name) != 0 &&
         !(keys[f].alias && strcmp(keys[f].alias, name) == 0))
    f++;
  const struct router_key *own = f == REC_FIELDS ? find_any(name) : NULL;
  if (f == REC_FIELDS && !own && r->origin->trust == RECORD_GIVEN)
    return fail(r->ctx, DITMOE_USAGE, "%s: unknown member \"%s\" (docs/RECORD.md lists them)",
                r->origin->name, item->string);
  if (cJSON_IsNull(item)) return DITMOE_OK;
  if (own) return read_own(r, own, item);
  if (f == REC_FIELDS || record_has(r->record, (enum record_field)f) || !is_meant(r, f, item))
    return DITMOE_OK;
  TRY(read_field(r, (enum record_field)f, item));
  return record_set(r->ctx, r->record, (enum record_field)f, r->origin->name, item->string);
}

enum ditmoe_status record_read_json(struct ditmoe_ctx *ctx, struct dit_record *record,
                                    const struct record_origin *origin, const cJSON *object) {
  const struct reading r = {ctx, record, origin};
  if (!cJSON_IsObject(object))
    return fail(ctx, origin->trust == RECORD_GIVEN ? DITMOE_USAGE : DITMOE_FORMAT,
                "%s: not a JSON object", origin->name);
  for (const cJSON *item = object->child; item; item = item->next) {
    const enum ditmoe_status status = read_member(&r, item);
    if (status == DITMOE_FORMAT && origin->trust == RECORD_FOREIGN)
      warn(ctx, "%s: the member is passed over", ditmoe_errmsg(ctx));
    else
      TRY(status);
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
  case RECORD_NUMBERS: {
    const struct channel_numbers *list = value;
    return cJSON_CreateDoubleArray(list->values, list->count);
  }
  case RECORD_TEXTS:
    return cJSON_CreateStringArray((const char *const *)record->class_names, record->class_count);
  case RECORD_TEXT:
    return cJSON_CreateString(*(char *const *)value);
  case RECORD_OBJECT:
    return cJSON_Duplicate(record->scheduler, true);
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

static cJSON *write_source(const char *source) {
  return cJSON_CreateString(source ? source : "default");
}

/* The members with their values, or with their sources. */
static bool write_all(cJSON *object, const struct dit_record *record, bool sources) {
  const struct router *router = record->kind ? record->kind->router : NULL;
  bool ok = object != NULL;
  for (int f = 0; ok && f < REC_FIELDS; f++)
    if (record_has(record, (enum record_field)f) &&
        (f != REC_TOP_K || (router && router->needs_top_k)))
      ok = put(object, keys[f].name,
               sources ? write_source(record->sources[f])
                       : write_field(record, (enum record_field)f));
  for (int k = 0; ok && router && k < router->key_count; k++)
    for (int i = 0; ok && i < record->own_count; i++) {
      const struct router_value *own = &record->own[i];
      if (strcmp(own->key->key.name, router->keys[k].key.name) == 0)
        ok = put(object, router->keys[k].key.name,
                 sources ? write_source(own->source)
                         : write_number(&router->keys[k].key, own->value));
    }
  return ok;
}

static enum ditmoe_status write_text(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     bool sources, char **text) {
  cJSON *object = cJSON_CreateObject();
  char *printed = write_all(object, record, sources) ? cJSON_PrintUnformatted(object) : NULL;
  cJSON_Delete(object);
  if (!printed) return fail(ctx, DITMOE_NOMEM, "no memory for the checkpoint record");
  enum ditmoe_status status = mem_strdup(ctx, printed, text);
  cJSON_free(printed);
  return status;
}

enum ditmoe_status record_write_json(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     char **text) {
  return write_text(ctx, record, false, text);
}

enum ditmoe_status record_write_sources(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                        char **text) {
  return write_text(ctx, record, true, text);
}

void record_free(struct ditmoe_ctx *ctx, struct dit_record *record) {
  mem_free(ctx, record->top_k.values);
  mem_free(ctx, record->zero_experts.values);
  mem_free(ctx, record->copy_experts.values);
  mem_free(ctx, record->latent_mean.values);
  mem_free(ctx, record->latent_std.values);
  for (int i = 0; i < record->class_count; i++) mem_free(ctx, record->class_names[i]);
  mem_free(ctx, record->class_names);
  mem_free(ctx, record->vae);
  mem_free(ctx, record->family);
  cJSON_Delete(record->scheduler);
  for (int f = 0; f < REC_FIELDS; f++) mem_free(ctx, record->sources[f]);
  for (int i = 0; i < record->own_count; i++) mem_free(ctx, record->own[i].source);
  mem_free(ctx, record->own);
  *record = (struct dit_record){0};
}

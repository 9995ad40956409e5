/* The files that may hold a checkpoint record: the checkpoint itself, JSON beside it, which may be
 * of any program, and the scheduler of a pipeline folder of diffusers. */
#include "dit/config.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_LENGTH = 4096 };

struct reading {
  struct ditmoe_ctx *ctx;
  struct dit_config *config;
  char transformer[PATH_LENGTH]; /* a file that calls the model a transformer of diffusers, or "" */
};

static bool exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static const char *class_name(const cJSON *object) {
  const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "_class_name"));
  return name ? name : "";
}

/* Configurations beside the checkpoint. */

/* Says what a configuration and the weights have differently; false: nothing. */
static bool contradicts(const struct dit_config *c, const cJSON *object, char *text, size_t size) {
  const bool diffusers = !c->dialect->pos_embed;
  const int classes = c->label_rows - 1, side = config_side(c) * c->patch;
  const struct {
    const char *name;
    int found, other; /* two that are right */
  } sizes[] = {
      {"num_layers", c->depth, c->depth},
      {"depth", c->depth, c->depth},
      {"hidden_size", c->width, c->width},
      {"patch_size", c->patch, c->patch},
      {"in_channels", c->channels, c->channels},
      {"out_channels", c->out_channels, diffusers ? c->out_channels : c->channels},
      {"sample_size", side, side},
      {"input_size", side, side},
      {"num_embeds_ada_norm", classes, c->label_rows},
      {"num_classes", classes, c->label_rows},
  };
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, sizes[i].name);
    if (!cJSON_IsNumber(value) || sizes[i].found == 0 || value->valuedouble == sizes[i].found ||
        value->valuedouble == sizes[i].other)
      continue;
    snprintf(text, size, "\"%s\" is %.15g, but that of the weights is %d", sizes[i].name,
             value->valuedouble, sizes[i].found);
    return true;
  }
  const cJSON *heads = cJSON_GetObjectItemCaseSensitive(object, "num_attention_heads");
  const cJSON *dim = cJSON_GetObjectItemCaseSensitive(object, "attention_head_dim");
  if (!cJSON_IsNumber(heads) || !cJSON_IsNumber(dim) ||
      heads->valuedouble * dim->valuedouble == c->width)
    return false;
  snprintf(text, size,
           "\"num_attention_heads\" %.15g of \"attention_head_dim\" %.15g make a width of %.15g, "
           "but that of the weights is %d",
           heads->valuedouble, dim->valuedouble, heads->valuedouble * dim->valuedouble, c->width);
  return true;
}

/* In diffusers norm_eps is that of a block's second norm alone. */
static const char *const diffusers_words[][2] = {{"num_attention_heads", "heads"},
                                                 {"sample_size", "input_size"},
                                                 {"norm_eps", "norm2_eps"},
                                                 {NULL, NULL}};
static const char *const original_words[][2] = {
    {"num_attention_heads", "heads"}, {"sample_size", "input_size"}, {NULL, NULL}};

/* own: the file is this model's, so that it must fit; otherwise one that does not is passed over.
 */
static enum ditmoe_status read_members(struct reading *r, const char *path, const cJSON *object,
                                       bool own) {
  const bool diffusers = !r->config->dialect->pos_embed;
  const struct record_origin origin = {path, RECORD_FOREIGN,
                                       diffusers ? diffusers_words : original_words};
  char what[256];
  if (!cJSON_IsObject(object)) {
    warn(r->ctx, "%s: not a JSON object, the file is passed over", path);
    return DITMOE_OK;
  }
  if (contradicts(r->config, object, what, sizeof what)) {
    if (own || strstr(class_name(object), "Transformer"))
      return fail(r->ctx, DITMOE_MISMATCH, "%s: %s", path, what);
    warn(r->ctx, "%s: %s; the file is passed over", path, what);
    return DITMOE_OK;
  }
  if (!*r->transformer && diffusers && strstr(class_name(object), "Transformer2DModel"))
    snprintf(r->transformer, sizeof r->transformer, "%s", path);
  return record_read_json(r->ctx, &r->config->record, &origin, object);
}

static enum ditmoe_status read_beside(struct reading *r, const char *path, bool own) {
  cJSON *object = NULL;
  if (!exists(path)) return DITMOE_OK;
  enum ditmoe_status status = json_read_python(r->ctx, path, &object);
  if (status == DITMOE_FORMAT && !own) {
    warn(r->ctx, "%s; the file is passed over", ditmoe_errmsg(r->ctx));
    return DITMOE_OK;
  }
  TRY(status);
  status = read_members(r, path, object, own);
  cJSON_Delete(object);
  return status;
}

/* The scheduler. */

static const char *const objective_names[] = {[OBJECTIVE_DDPM] = "ddpm", [OBJECTIVE_RF] = "rf"};

/* By the beginning of a class of diffusers, what its models predict. */
static const struct {
  const char *prefix;
  enum dit_objective objective;
} scheduler_kinds[] = {
    {"FlowMatch", OBJECTIVE_RF},       {"DDIM", OBJECTIVE_DDPM},
    {"DDPM", OBJECTIVE_DDPM},          {"DEIS", OBJECTIVE_DDPM},
    {"DPMSolver", OBJECTIVE_DDPM},     {"EulerAncestralDiscrete", OBJECTIVE_DDPM},
    {"EulerDiscrete", OBJECTIVE_DDPM}, {"HeunDiscrete", OBJECTIVE_DDPM},
    {"KDPM2", OBJECTIVE_DDPM},         {"LMSDiscrete", OBJECTIVE_DDPM},
    {"PNDM", OBJECTIVE_DDPM},          {"UniPC", OBJECTIVE_DDPM}};

/* The member that tells the objective, or NULL. Some solvers are for flows, too. */
static const char *scheduler_objective(const cJSON *object, enum dit_objective *objective) {
  const char *prediction =
      cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "prediction_type"));
  *objective = OBJECTIVE_RF;
  if (prediction && strcmp(prediction, "flow_prediction") == 0) return "prediction_type";
  for (size_t i = 0; i < sizeof scheduler_kinds / sizeof *scheduler_kinds; i++)
    if (strncmp(class_name(object), scheduler_kinds[i].prefix, strlen(scheduler_kinds[i].prefix)) ==
        0) {
      *objective = scheduler_kinds[i].objective;
      return "_class_name";
    }
  return NULL;
}

static enum ditmoe_status take_scheduler(struct reading *r, const char *path, const cJSON *object) {
  static const char *const words[][2] = {{"flow_shift", "shift"}, {NULL, NULL}};
  const struct record_origin origin = {path, RECORD_STORED, words};
  struct dit_record *record = &r->config->record;
  enum dit_objective objective;
  const char *member = scheduler_objective(object, &objective);
  if (!*class_name(object))
    return fail(r->ctx, DITMOE_FORMAT, "%s: no \"_class_name\", the class of the scheduler", path);
  if (member && record_has(record, REC_OBJECTIVE) && record->objective != (int)objective) {
    warn(r->ctx, "%s: %s is for %s models, but the objective is %s (%s); the file is passed over",
         path, class_name(object), objective_names[objective], objective_names[record->objective],
         record->sources[REC_OBJECTIVE]);
    return DITMOE_OK;
  }
  record->scheduler = cJSON_Duplicate(object, true);
  if (!record->scheduler) return fail(r->ctx, DITMOE_NOMEM, "%s: no memory to read it", path);
  TRY(record_set(r->ctx, record, REC_SCHEDULER, path, NULL));
  TRY(record_read_json(r->ctx, record, &origin, object));
  if (!member || record_has(record, REC_OBJECTIVE)) return DITMOE_OK;
  record->objective = objective;
  TRY(record_set(r->ctx, record, REC_OBJECTIVE, path, member));
  if (objective != OBJECTIVE_RF || record_has(record, REC_TIME_DIRECTION)) return DITMOE_OK;
  record->time_direction = NOISE_AT_1; /* as the sigmas of every such scheduler */
  return record_set(r->ctx, record, REC_TIME_DIRECTION, path, member);
}

/* Of the folder; false: it has none. */
static bool find_scheduler(char path[PATH_LENGTH], const char *folder, const char *inner) {
  return snprintf(path, PATH_LENGTH, "%s/%sscheduler/scheduler_config.json", folder, inner) <
             PATH_LENGTH &&
         exists(path);
}

static bool ends_in_transformer(const char *folder) {
  static const char name[] = "transformer";
  size_t length = strlen(folder);
  while (length && folder[length - 1] == '/') length--;
  const size_t start = length - (sizeof name - 1);
  return length >= sizeof name - 1 && strncmp(folder + start, name, sizeof name - 1) == 0 &&
         (start == 0 || folder[start - 1] == '/');
}

static enum ditmoe_status read_scheduler(struct reading *r, const char *folder) {
  char path[PATH_LENGTH];
  cJSON *object = NULL;
  if (record_has(&r->config->record, REC_SCHEDULER)) return DITMOE_OK;
  if (!find_scheduler(path, folder, "") &&
      !(ends_in_transformer(folder) && find_scheduler(path, folder, "../")))
    return DITMOE_OK;
  TRY(json_read_python(r->ctx, path, &object));
  enum ditmoe_status status = cJSON_IsObject(object)
                                  ? take_scheduler(r, path, object)
                                  : fail(r->ctx, DITMOE_FORMAT, "%s: not a JSON object", path);
  cJSON_Delete(object);
  return status;
}

/* All of them. */

enum ditmoe_status record_read_text(struct ditmoe_ctx *ctx, struct dit_record *record,
                                    const struct record_origin *origin, const char *text) {
  cJSON *object = NULL;
  TRY(json_parse(ctx, origin->name, text, strlen(text), &object));
  enum ditmoe_status status = record_read_json(ctx, record, origin, object);
  cJSON_Delete(object);
  return status;
}

enum ditmoe_status record_read_files(struct ditmoe_ctx *ctx, struct dit_config *config,
                                     const struct ditmoe_checkpoint *checkpoint) {
  struct reading r = {.ctx = ctx, .config = config};
  struct dit_record *record = &config->record;
  const struct record_origin origin = {checkpoint->path, RECORD_STORED, NULL};
  const char *stored = checkpoint_metadata(checkpoint, CHECKPOINT_RECORD);
  const char *path = checkpoint->path, *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
  char folder[PATH_LENGTH], beside[PATH_LENGTH + 32];
  struct stat info;
  const bool is_folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
  const int parent = is_folder ? (int)strlen(path) : slash ? (int)(slash - path) : 1;
  snprintf(folder, sizeof folder, "%.*s", parent, is_folder || slash ? path : ".");
  if (stored) TRY(record_read_text(ctx, record, &origin, stored));
  if (!is_folder && dot && dot > path + (slash ? parent : 0)) {
    snprintf(beside, sizeof beside, "%.*s.json", (int)(dot - path), path);
    TRY(read_beside(&r, beside, false));
  }
  snprintf(beside, sizeof beside, "%s/config.json", folder);
  TRY(read_beside(&r, beside, false));
  snprintf(beside, sizeof beside, "%s/transformer/config.json", folder);
  if (is_folder) TRY(read_beside(&r, beside, true));
  TRY(read_scheduler(&r, folder));
  /* Its pipelines have noise predicted. */
  if (!*r.transformer || record_has(record, REC_OBJECTIVE)) return DITMOE_OK;
  record->objective = OBJECTIVE_DDPM;
  return record_set(ctx, record, REC_OBJECTIVE, r.transformer, "_class_name");
}

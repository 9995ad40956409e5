/* The table of families, and which of them a file is of. */
#include "dit/families.h"
#include "io/json.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Images instead of latents, and predictions of them. */
#define JIT                                                                                        \
  .record = "{\"objective\":\"rf\",\"time_direction\":\"0to1\",\"time_scale\":1,"                  \
            "\"cfg_channels\":\"all\",\"prediction\":\"x\",\"t_eps\":0.05,\"pixels\":true}",       \
  .sampler = "heun", .steps = 50, .heun_ends_euler = true, .guided_by_evaluation = true,           \
  .guided_inside = true

/* Of those that fit a file the first counts, so that special ones come before those that they are
 * made from. */
static const struct family families[] = {
    {.name = "dit-moe",
     .title = "DiT-MoE (arXiv 2407.11633)",
     .kinds = "dit-moe",
     .record = "{\"time_scale\":1}"},
    {.name = "promoe", .title = "ProMoE", .kinds = "promoe-tc promoe-ec"},
    {.name = "tc-dit", .title = "token choice, baseline of ProMoE", .kinds = "tc-dit"},
    {.name = "ec-dit", .title = "EC-DiT (arXiv 2410.02098)", .kinds = "ec-dit"},
    {.name = "diffmoe", .title = "DiffMoE (arXiv 2503.14487)", .kinds = "diffmoe"},
    {.name = "dit-diffusers",
     .title = "DiT (arXiv 2212.09748), names of diffusers",
     .kinds = "dit",
     .tensor = "transformer_blocks.0.norm1.linear.weight",
     .record = "{\"objective\":\"ddpm\"}"},
    {.name = "repa",
     .title = "REPA (arXiv 2410.06940)",
     .kinds = "dit",
     .tensor = "projectors.0.0.weight",
     .argument = "encoder_depth",
     .needs = "path_type=linear prediction=v",
     .record = "{\"objective\":\"rf\",\"time_direction\":\"1to0\",\"time_scale\":1,"
               "\"cfg_channels\":\"all\"}",
     .ignored = "projectors.",
     .sampler = "sde",
     .steps = 250,
     .heun_ends_euler = true,
     .single_rows = true},
    {.name = "sit",
     .title = "SiT (arXiv 2401.08740)",
     .kinds = "dit",
     .argument = "model=SiT-",
     .needs = "path_type=linear prediction=v",
     .record = "{\"objective\":\"rf\",\"time_direction\":\"0to1\",\"time_scale\":1,"
               "\"cfg_channels\":3}",
     .steps = 250,
     .counts_points = true},
    {.name = "dsmoe",
     .title = "DSMoE",
     .kinds = "dsmoe",
     .record = "{\"objective\":\"rf\",\"time_direction\":\"0to1\",\"time_scale\":1,"
               "\"cfg_channels\":\"all\"}"},
    {.name = "jitmoe", .title = "JiTMoE", .kinds = "jitmoe", JIT},
    {.name = "jit",
     .title = "JiT (arXiv 2511.13720)",
     .kinds = "dit",
     .tensor = "x_embedder.proj1.weight",
     JIT},
    {.name = "lightningdit",
     .title = "LightningDiT (arXiv 2501.01423)",
     .kinds = "dit",
     .tensor = "feat_rope.freqs_cos",
     .record = "{\"objective\":\"rf\",\"time_direction\":\"0to1\",\"time_scale\":1,"
               "\"cfg_channels\":3,\"shift\":0.3}",
     .statistics = true,
     .steps = 250,
     .counts_points = true,
     .guided_by_evaluation = true},
    {.name = "dit",
     .title = "DiT (arXiv 2212.09748)",
     .kinds = "dit",
     .argument = "model=DiT-",
     .record = "{\"objective\":\"ddpm\"}"},
    {.name = "promoe-dit",
     .title = "dense DiT as a flow, baseline of ProMoE",
     .kinds = "dit",
     .record = "{\"objective\":\"rf\",\"time_direction\":\"1to0\",\"time_scale\":1000}"},
};

const struct family *family_at(int index) {
  const int count = sizeof families / sizeof *families;
  return index < count ? &families[index] : NULL;
}

const struct family *family_find(const char *name) {
  const struct family *family;
  for (int i = 0; (family = family_at(i)); i++)
    if (strcmp(family->name, name) == 0) return family;
  return NULL;
}

static bool has_kind(const struct family *family, const struct mixture *kind) {
  const size_t length = strlen(kind->kind);
  for (const char *at = family->kinds; (at = strstr(at, kind->kind)); at += length)
    if ((at == family->kinds || at[-1] == ' ') && (at[length] == ' ' || !at[length])) return true;
  return false;
}

/* Whether the arguments have what the family's program leaves there. */
static bool has_argument(const struct family *family, const cJSON *args, char *why, size_t size) {
  if (!family->argument || !args) return false;
  const char *equals = strchr(family->argument, '=');
  char name[32];
  snprintf(name, sizeof name, "%.*s",
           (int)(equals ? (size_t)(equals - family->argument) : strlen(family->argument)),
           family->argument);
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(args, name);
  if (!item) return false;
  if (!equals) {
    snprintf(why, size, "args.%s is in the file", name);
    return true;
  }
  const char *value = cJSON_GetStringValue(item);
  if (!value || strncmp(value, equals + 1, strlen(equals + 1)) != 0) return false;
  snprintf(why, size, "args.%s is %.60s", name, value);
  return true;
}

/* Whether something in the file tells the family from others like it. */
static bool is_told(const struct family *family, const struct ditmoe_checkpoint *checkpoint,
                    const cJSON *args, char *why, size_t size) {
  if (family->tensor && checkpoint_find(checkpoint, family->tensor)) {
    snprintf(why, size, "tensor %s", family->tensor);
    return true;
  }
  return has_argument(family, args, why, size);
}

/* The arguments of the training program; NULL without. */
static cJSON *arguments_of(const struct ditmoe_checkpoint *checkpoint) {
  const char *text = checkpoint_metadata(checkpoint, CHECKPOINT_ARGS);
  return text ? cJSON_Parse(text) : NULL;
}

/* The record that a family has by itself; free it with record_free. */
static enum ditmoe_status own_record(struct ditmoe_ctx *ctx, const struct family *family,
                                     struct dit_record *out) {
  const struct record_origin origin = {family->name, RECORD_GIVEN, NULL};
  *out = (struct dit_record){0};
  return family->record ? record_read_text(ctx, out, &origin, family->record) : DITMOE_OK;
}

/* Members by which families of one kind differ. */
static const enum record_field decisive[] = {REC_OBJECTIVE, REC_TIME_DIRECTION, REC_TIME_SCALE};
enum { DECISIVE = sizeof decisive / sizeof *decisive };

/* The first decisive member that both have with different values; NULL: none. */
static const struct record_key *contradiction(const struct dit_record *a,
                                              const struct dit_record *b) {
  for (int i = 0; i < DECISIVE; i++)
    if (record_has(a, decisive[i]) && record_has(b, decisive[i]) &&
        !record_equal(a, b, decisive[i]))
      return record_key(decisive[i]);
  return NULL;
}

/* The families that fit a model and its record. */
struct choice {
  const struct family *family; /* the first of them                        */
  bool told;                   /* by something in the file, not by its kind alone */
  int count;
  char names[160];
};

/* record NULL: nothing is known but the file. */
static enum ditmoe_status find(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *checkpoint,
                               const struct mixture *kind, const struct dit_record *record,
                               struct choice *out, char *why, size_t size) {
  const struct family *family;
  cJSON *args = arguments_of(checkpoint);
  enum ditmoe_status status = DITMOE_OK;
  *out = (struct choice){0};
  for (int i = 0; status == DITMOE_OK && !out->told && (family = family_at(i)); i++) {
    struct dit_record own = {0};
    if (!has_kind(family, kind)) continue;
    const bool told = is_told(family, checkpoint, args, why, size);
    if (!told && family->tensor) continue;
    if (record) status = own_record(ctx, family, &own);
    const bool fits = !(record && contradiction(record, &own));
    if (fits) {
      const size_t used = strlen(out->names);
      snprintf(out->names + used, sizeof out->names - used, "%s%s", used ? ", " : "", family->name);
      if (told || !out->family) out->family = family;
      out->count++;
    }
    if (told) out->count = fits, out->family = fits ? family : NULL;
    out->told = told;
    if (record) record_free(ctx, &own);
  }
  cJSON_Delete(args);
  return status;
}

/* The family that the record names. */
static enum ditmoe_status take_named(struct ditmoe_ctx *ctx, struct dit_config *config,
                                     const char *path) {
  const struct dit_record *record = &config->record;
  const struct family *family = family_find(record->family);
  struct dit_record own;
  if (!family) {
    char names[200] = "";
    for (int i = 0; (family = family_at(i)); i++) {
      const size_t used = strlen(names);
      snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", family->name);
    }
    return fail(ctx, DITMOE_USAGE, "%s: family \"%.40s\" is not one of: %s", path, record->family,
                names);
  }
  if (!has_kind(family, record->kind))
    return fail(ctx, DITMOE_MISMATCH, "%s: the tensors are those of kind %s, not of family %s",
                path, record->kind->kind, family->name);
  TRY(own_record(ctx, family, &own));
  const struct record_key *key = contradiction(record, &own);
  record_free(ctx, &own);
  if (key)
    return fail(ctx, DITMOE_USAGE, "%s: family %s has another \"%s\" than the record or %s says",
                path, family->name, key->name, key->flag);
  config->family = family;
  snprintf(config->family_why, sizeof config->family_why, "the record or --family says so");
  return DITMOE_OK;
}

static enum ditmoe_status take_found(struct ditmoe_ctx *ctx, struct dit_config *config,
                                     const struct ditmoe_checkpoint *checkpoint) {
  const struct dit_record *record = &config->record;
  struct choice choice;
  TRY(find(ctx, checkpoint, record->kind, record, &choice, config->family_why,
           sizeof config->family_why));
  if (choice.count > 1)
    return fail(ctx, DITMOE_USAGE,
                "%s: the weights do not tell whose model this is, those of %s have the same "
                "tensors; give --family, --preset or %s, or a record",
                checkpoint->path, choice.names,
                record_has(record, REC_OBJECTIVE) ? "--time-direction" : "--objective");
  config->family = choice.family;
  if (choice.family && !choice.told)
    snprintf(config->family_why, sizeof config->family_why, "its tensors are of kind %s%s",
             record->kind->kind, record_has(record, REC_OBJECTIVE) ? ", with this objective" : "");
  return DITMOE_OK;
}

/* Arguments by which a model departs from what its family does as a rule. */
static enum ditmoe_status check_needs(struct ditmoe_ctx *ctx, const struct family *family,
                                      const struct ditmoe_checkpoint *checkpoint) {
  cJSON *args = family->needs ? arguments_of(checkpoint) : NULL;
  enum ditmoe_status status = DITMOE_OK;
  for (const char *need = family->needs; args && need && status == DITMOE_OK;) {
    char name[32];
    const char *wanted = strchr(need, '=') + 1, *end = strchr(need, ' ');
    const size_t length = end ? (size_t)(end - wanted) : strlen(wanted);
    snprintf(name, sizeof name, "%.*s", (int)(wanted - 1 - need), need);
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(args, name));
    if (value && strncasecmp(value, wanted, length) != 0)
      status = fail(ctx, DITMOE_MISMATCH,
                    "%s: was trained with %s %.40s, which no sampler here is for; those of %s "
                    "need %.*s",
                    checkpoint->path, name, value, family->name, (int)length, wanted);
    need = end ? end + 1 : NULL;
  }
  cJSON_Delete(args);
  return status;
}

enum ditmoe_status family_choose(struct ditmoe_ctx *ctx, struct dit_config *config,
                                 const struct ditmoe_checkpoint *checkpoint) {
  struct dit_record *record = &config->record;
  if (record_has(record, REC_FAMILY))
    TRY(take_named(ctx, config, checkpoint->path));
  else
    TRY(take_found(ctx, config, checkpoint));
  if (!config->family) return DITMOE_OK;
  if (!record_has(record, REC_FAMILY)) {
    TRY(mem_strdup(ctx, config->family->name, &record->family));
    TRY(record_set(ctx, record, REC_FAMILY, config->family_why, NULL));
  }
  TRY(check_needs(ctx, config->family, checkpoint));
  if (!config->family->record) return DITMOE_OK;
  const struct record_origin origin = {config->family->title, RECORD_STORED, NULL};
  return record_read_text(ctx, record, &origin, config->family->record);
}

void family_describe(const struct ditmoe_checkpoint *checkpoint, const struct mixture *kind,
                     char *text, size_t size) {
  struct choice choice;
  char why[160] = "";
  if (find(NULL, checkpoint, kind, NULL, &choice, why, sizeof why) != DITMOE_OK || !choice.count)
    snprintf(text, size, "none that is known: tensors of kind %s", kind->kind);
  else if (choice.told)
    snprintf(text, size, "%s: %s", choice.family->name, why);
  else if (choice.count == 1)
    snprintf(text, size, "%s: its tensors are of kind %s", choice.family->name,
             kind->family ? kind->family : kind->kind);
  else
    snprintf(text, size, "one of %s, whose tensors are the same", choice.names);
}

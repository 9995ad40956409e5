#include "dit/config.h"
#include "dit/families.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void name_at(char out[PARAM_NAME], const char *pattern, int layer, const char *rest) {
  const char *place = strstr(pattern, "%d");
  if (place)
    snprintf(out, PARAM_NAME, "%.*s%d%s%s", (int)(place - pattern), pattern, layer, place + 2,
             rest);
  else
    snprintf(out, PARAM_NAME, "%s%s", pattern, rest);
}

/* The tensor `pattern` (%d: the layer) + rest, or NULL. */
static const struct tensor *tensor_at(const struct ditmoe_checkpoint *checkpoint,
                                      const char *pattern, int layer, const char *rest) {
  char name[PARAM_NAME];
  name_at(name, pattern, layer, rest);
  return checkpoint_find(checkpoint, name);
}

const struct tensor *mixture_gate(const struct ditmoe_checkpoint *checkpoint,
                                  const struct mixture *mixture, int layer) {
  if (!mixture->router) return NULL;
  if (mixture->second && !tensor_at(checkpoint, mixture->prefix, layer, mixture->second))
    return NULL;
  return tensor_at(checkpoint, mixture->prefix, layer, mixture->gate);
}

enum { GUESS = 300 };

/* What a file that is no denoiser probably is, or which prefix hides that it is one. */
static const char *guess(const struct ditmoe_checkpoint *checkpoint, char text[GUESS]) {
  for (size_t i = 0; i < checkpoint->count; i++) {
    const char *name = checkpoint->tensors[i].name, *block = strstr(name, ".blocks.0.");
    if (!block) block = strstr(name, ".transformer_blocks.0.");
    const int length = block ? (int)(block - name) : 0;
    if (!block) continue;
    snprintf(text, GUESS, "; names have the prefix \"%.*s.\": --key %.*s takes those", length, name,
             length, name);
    return text;
  }
  if (checkpoint_find(checkpoint, "decoder.conv_in.weight"))
    return "; it looks like an AutoencoderKL, which goes to --vae";
  if (checkpoint_find(checkpoint, "19.weight") || checkpoint_find(checkpoint, "14.weight"))
    return "; it looks like a TAESD, which goes to --vae";
  return "";
}

static enum ditmoe_status find_dialect(struct ditmoe_ctx *ctx, struct dit_config *config,
                                       const struct ditmoe_checkpoint *checkpoint) {
  for (int i = DIALECTS - 1; i >= 0; i--) {
    const struct dialect *d = &dialects[i];
    if (d->patch_reduce && !tensor_at(checkpoint, d->patch_reduce, 0, ".weight")) continue;
    if (tensor_at(checkpoint, d->qkv[0], 0, ".weight") ||
        tensor_at(checkpoint, d->modulation, 0, ".weight"))
      config->dialect = d;
    if (tensor_at(checkpoint, d->qkv[0], 0, ".weight")) break;
  }
  if (config->dialect) return DITMOE_OK;
  if (checkpoint->count == 0)
    return fail(ctx, DITMOE_MISMATCH, "%s: holds no tensors; missing x_embedder.proj.weight",
                checkpoint->path);
  char text[GUESS];
  const char *nearest = checkpoint_nearest(checkpoint, "blocks.0.attn.qkv.weight");
  return fail(ctx, DITMOE_MISMATCH,
              "%s: not a diffusion transformer: no tensor blocks.0.attn.qkv.weight, "
              "blocks.0.attn.Wqkv.weight or transformer_blocks.0.attn1.to_q.weight "
              "(%zu tensors, %s is %s)%s",
              checkpoint->path, checkpoint->count, nearest ? "the nearest" : "the first",
              nearest ? nearest : checkpoint->tensors[0].name, guess(checkpoint, text));
}

/* Number of blocks: one more than the highest index that a name has after the prefix. */
static int count_blocks(const struct ditmoe_checkpoint *checkpoint, const char *pattern) {
  size_t prefix = (size_t)(strstr(pattern, "%d") - pattern);
  int depth = 0;
  for (size_t i = 0; i < checkpoint->count; i++) {
    int index, end = 0;
    const char *name = checkpoint->tensors[i].name;
    if (strncmp(name, pattern, prefix) != 0) continue;
    if (sscanf(name + prefix, "%4d%n", &index, &end) == 1 && name[prefix + (size_t)end] == '.' &&
        index >= depth)
      depth = index + 1;
  }
  return depth;
}

static enum ditmoe_status need(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *checkpoint,
                               const char *pattern, int layer, const char *rest, int rank,
                               const struct tensor **out) {
  char name[PARAM_NAME];
  name_at(name, pattern, layer, rest);
  const struct tensor *tensor = checkpoint_find(checkpoint, name);
  if (!tensor) return fail(ctx, DITMOE_MISMATCH, "%s: missing tensor %s", checkpoint->path, name);
  if (tensor->rank != rank || tensor->elements == 0)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: tensor %s has %d dimensions and %lld elements, expected %d", checkpoint->path,
                name, tensor->rank, (long long)tensor->elements, rank);
  for (int i = 0; i < rank; i++)
    if (tensor->shape[i] > 1 << 24)
      return fail(ctx, DITMOE_MISMATCH, "%s: tensor %s has a dimension of %lld", checkpoint->path,
                  name, (long long)tensor->shape[i]);
  *out = tensor;
  return DITMOE_OK;
}

static enum ditmoe_status infer_sizes(struct ditmoe_ctx *ctx, struct dit_config *config,
                                      const struct ditmoe_checkpoint *checkpoint) {
  const struct dialect *d = config->dialect;
  const struct tensor *patch, *labels, *final_linear;
  const struct tensor *table = d->pos_embed ? tensor_at(checkpoint, d->pos_embed, 0, "") : NULL;
  if (table && table->rank == 3) config->tokens = (int)table->shape[1];
  TRY(need(ctx, checkpoint, d->patch_embed, 0, ".weight", 4, &patch));
  config->width = (int)patch->shape[0];
  if (d->patch_reduce) TRY(need(ctx, checkpoint, d->patch_reduce, 0, ".weight", 4, &patch));
  if (d->patch_reduce) config->reduced = (int)patch->shape[0];
  TRY(need(ctx, checkpoint, d->labels, 0, "", 2, &labels));
  TRY(need(ctx, checkpoint, d->final_linear, 0, ".weight", 2, &final_linear));
  config->channels = (int)patch->shape[1];
  config->patch = (int)patch->shape[2];
  config->label_rows = (int)labels->shape[0];
  config->depth = count_blocks(checkpoint, d->block);
  if (patch->shape[2] != patch->shape[3] || config->patch > 256 || config->channels > 65536)
    return fail(ctx, DITMOE_MISMATCH, "%s: tensor %s is not a square patch embedding",
                checkpoint->path, patch->name);
  config->out_channels = (int)(final_linear->shape[0] / config->patch / config->patch);
  if (config->out_channels != config->channels && config->out_channels != 2 * config->channels)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: tensor %s has %lld rows: neither %d nor %d output channels at patch %d",
                checkpoint->path, final_linear->name, (long long)final_linear->shape[0],
                config->channels, 2 * config->channels, config->patch);
  return mem_zalloc(ctx, (size_t)config->depth, sizeof *config->experts, "layers",
                    &config->experts);
}

/* How well the tensors are those of a mixture; 0: not. Every model could be a dense one. */
static int fit(const struct dit_config *config, const struct ditmoe_checkpoint *checkpoint,
               const struct mixture *mixture) {
  if (!mixture->router) return 1;
  if (mixture->told_by && !checkpoint_find(checkpoint, mixture->told_by)) return 0;
  for (int layer = 0; layer < config->depth; layer++)
    if (mixture_gate(checkpoint, mixture, layer))
      return mixture->told_by ? 4 : mixture->second ? 3 : 2;
  return 0;
}

/* The first of those that fit best, and how many there are. */
static const struct mixture *find_mixture(const struct dit_config *config,
                                          const struct ditmoe_checkpoint *checkpoint, int *count) {
  const struct mixture *mixture, *found = NULL;
  int best = 0;
  for (int i = 0; (mixture = mixture_at(i)); i++) {
    const int own = fit(config, checkpoint, mixture);
    if (own > best) best = own, found = mixture, *count = 0;
    *count += own == best;
  }
  return found;
}

/* Routed experts of every block. */
static enum ditmoe_status infer_experts(struct ditmoe_ctx *ctx, struct dit_config *config,
                                        const struct ditmoe_checkpoint *checkpoint,
                                        const struct mixture *mixture) {
  for (int layer = 0; layer < config->depth; layer++) {
    const struct tensor *gate = mixture_gate(checkpoint, mixture, layer);
    config->experts[layer] = 0;
    if (!gate) continue;
    TRY(need(ctx, checkpoint, mixture->prefix, layer, mixture->gate, 2, &gate));
    if (gate->shape[0] > DIT_MAX_EXPERTS - 1)
      return fail(ctx, DITMOE_MISMATCH, "%s: tensor %s has %lld experts, at most %d are supported",
                  checkpoint->path, gate->name, (long long)gate->shape[0], DIT_MAX_EXPERTS - 1);
    config->experts[layer] = (int)gate->shape[0];
  }
  return DITMOE_OK;
}

static enum ditmoe_status unknown(struct ditmoe_ctx *ctx,
                                  const struct ditmoe_checkpoint *checkpoint, const char *what,
                                  const struct record_key *key) {
  return fail(ctx, DITMOE_USAGE, "%s: the weights do not tell %s; give %s%s (docs/RECORD.md)",
              checkpoint->path, what, key->flag ? key->flag : key->name,
              key->flag ? ", or a record" : " in a record");
}

/* found: one of the `count` mixtures that fit the tensors best. */
static enum ditmoe_status check_kind(struct ditmoe_ctx *ctx, struct dit_config *config,
                                     const struct ditmoe_checkpoint *checkpoint,
                                     const struct mixture *found, int count) {
  struct dit_record *record = &config->record;
  if (!record_has(record, REC_KIND)) {
    if (count > 1)
      return unknown(ctx, checkpoint, found->unknown ? found->unknown : "which router it has",
                     record_key(REC_KIND));
    record->kind = found;
    TRY(record_set(ctx, record, REC_KIND, "weights", NULL));
  }
  if (fit(config, checkpoint, record->kind) == fit(config, checkpoint, found))
    return infer_experts(ctx, config, checkpoint, record->kind);
  return fail(ctx, DITMOE_MISMATCH,
              "%s: the tensors are those of %s, but the record or --kind says %s", checkpoint->path,
              found->family ? found->family : found->kind, record->kind->kind);
}

#define DEFAULT(field, member, value)                                                              \
  do {                                                                                             \
    if (!record_has(r, field)) r->member = (value), r->set |= UINT64_C(1) << field;                \
  } while (0)

/* The last row of the class table is that of the empty class, unless the record says that it is a
 * class like the others, or there is no other. Every other row is a class. */
static void label_defaults(struct dit_config *config) {
  struct dit_record *r = &config->record;
  const int rows = config->label_rows;
  const bool all = record_has(r, REC_CLASSES_USED) ? r->classes_used >= rows : rows == 1;
  if (!record_has(r, REC_NULL_LABEL) && all)
    r->null_label = -1;
  else
    DEFAULT(REC_NULL_LABEL, null_label, rows - 1);
  DEFAULT(REC_CLASSES_USED, classes_used, r->null_label == rows - 1 ? rows - 1 : rows);
}

/* Of the members that are the router's. */
static enum ditmoe_status own_defaults(struct ditmoe_ctx *ctx, const struct dit_config *config,
                                       struct dit_record *r) {
  const struct router *router = r->kind->router;
  const int uncond = r->null_label >= 0 ? r->null_label : config->label_rows; /* no image's */
  for (int k = 0; router && k < router->key_count; k++) {
    const struct router_key *own = &router->keys[k];
    if (!record_own(r, own->key.name))
      TRY(record_set_own(ctx, r, own, own->null_label ? uncond : own->fallback, NULL));
  }
  return DITMOE_OK;
}

/* Pipelines of diffusers are published with this one; its other members are defaults there. */
static enum ditmoe_status default_scheduler(struct ditmoe_ctx *ctx, struct dit_record *record) {
  cJSON *scheduler = cJSON_CreateObject();
  if (!scheduler || !cJSON_AddStringToObject(scheduler, "_class_name", "DDIMScheduler") ||
      !cJSON_AddBoolToObject(scheduler, "clip_sample", false)) {
    cJSON_Delete(scheduler);
    return fail(ctx, DITMOE_NOMEM, "no memory for a scheduler");
  }
  record->scheduler = scheduler;
  record->set |= UINT64_C(1) << REC_SCHEDULER;
  return DITMOE_OK;
}

static enum ditmoe_status apply_defaults(struct ditmoe_ctx *ctx, struct dit_config *config) {
  struct dit_record *r = &config->record;
  bool diffusers = config->dialect == &dialects[DIALECT_DIFFUSERS];
  bool flash = config->dialect == &dialects[DIALECT_FLASH];
  bool flow = r->objective == OBJECTIVE_RF;
  DEFAULT(REC_TIME_SCALE, time_scale, flow ? 1000 : 1);
  if (flow) DEFAULT(REC_TIME_DIRECTION, time_direction, NOISE_AT_1);
  DEFAULT(REC_FREQUENCY_SHIFT, frequency_shift, diffusers ? 1 : 0);
  DEFAULT(REC_NORM_EPS, norm_eps, 1e-6);
  DEFAULT(REC_NORM2_EPS, norm2_eps, diffusers ? 1e-5 : 1e-6);
  DEFAULT(REC_QK_NORM_EPS, qk_norm_eps,
          flash || (config->qk_norm && !config->qk_bias) ? 1e-6 : 1e-5);
  DEFAULT(REC_QK_HALF, qk_half, 0);
  DEFAULT(REC_CFG_CHANNELS, cfg_channels, flow || diffusers || config->channels < 3 ? 0 : 3);
  label_defaults(config);
  DEFAULT(REC_SHIFT, shift, 1);
  if (flow) DEFAULT(REC_PREDICTION, prediction, FLOW_PREDICTS_VELOCITY);
  if (flow && r->prediction == FLOW_PREDICTS_CLEAN) DEFAULT(REC_T_EPS, t_eps, 0.05);
  if (flow) DEFAULT(REC_NOISE_SCALE, noise_scale, 1);
  if (!diffusers || flow || record_has(r, REC_SCHEDULER)) return DITMOE_OK;
  return default_scheduler(ctx, r);
}

/* What must be known by now. */
static enum ditmoe_status check_known(struct ditmoe_ctx *ctx, const struct dit_record *r,
                                      const struct ditmoe_checkpoint *checkpoint) {
  static const enum record_field needed[] = {REC_OBJECTIVE, REC_HEADS, REC_TOP_K};
  const struct router *router = r->kind->router;
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    const struct record_key *key = record_key(needed[i]);
    const bool wanted = needed[i] != REC_TOP_K || (router && router->needs_top_k);
    if (wanted && !record_has(r, needed[i])) return unknown(ctx, checkpoint, key->need, key);
  }
  for (int k = 0; router && k < router->key_count; k++) {
    const struct record_key *key = &router->keys[k].key;
    if (key->need && !record_own(r, key->name)) return unknown(ctx, checkpoint, key->need, key);
  }
  return DITMOE_OK;
}

int config_side(const struct dit_config *config) { return (int)lround(sqrt(config->tokens)); }

/* Classes are the rows below classes_used without null_label, if that is not behind them. */
static enum ditmoe_status check_labels(struct ditmoe_ctx *ctx, const struct dit_config *config,
                                       const char *path) {
  const struct dit_record *r = &config->record;
  if (r->null_label >= config->label_rows)
    return fail(ctx, DITMOE_MISMATCH, "%s: null label %d, but the class table has %d row%s", path,
                r->null_label, config->label_rows, config->label_rows == 1 ? "" : "s");
  if (r->classes_used > config->label_rows)
    return fail(ctx, DITMOE_MISMATCH, "%s: classes_used %d, but the class table has %d row%s", path,
                r->classes_used, config->label_rows, config->label_rows == 1 ? "" : "s");
  if (r->classes_used == 0)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: null label 0 is the only row of the class table: no class is left", path);
  return DITMOE_OK;
}

static enum ditmoe_status check_ranges(struct ditmoe_ctx *ctx, const struct dit_config *config,
                                       const char *path) {
  const struct dit_record *r = &config->record;
  if (config->inner % r->heads != 0)
    return fail(ctx, DITMOE_MISMATCH, "%s: %d heads do not divide the width %d (%s); check --heads",
                path, r->heads, config->inner, r->sources[REC_HEADS]);
  if (config->rope != ROPE_NONE && config->inner / r->heads % 4 != 0)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: heads of width %d have no quarters to turn by positions; check --heads", path,
                config->inner / r->heads);
  if (config->prefix && config->prefix_from >= config->depth)
    return fail(ctx, DITMOE_MISMATCH, "%s: in_context_start %d, but there are %d blocks", path,
                config->prefix_from, config->depth);
  int side = config_side(config);
  if (side * side != config->tokens || config->tokens < 1)
    return fail(ctx, DITMOE_MISMATCH, "%s: %d positions are not a square", path, config->tokens);
  TRY(check_labels(ctx, config, path));
  if (r->cfg_channels > config->channels)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: cfg_channels %d, but the latents have %d; a learned variance is not guided",
                path, r->cfg_channels, config->channels);
  const int means = r->latent_mean.count, deviations = r->latent_std.count;
  if (means != deviations || (means && means != config->channels))
    return fail(ctx, DITMOE_MISMATCH,
                "%s: latent_mean for %d channels, latent_std for %d, but the latents have %d", path,
                means, deviations, config->channels);
  for (int layer = 0; layer < config->depth; layer++)
    if (config->experts[layer] && record_has(r, REC_TOP_K) &&
        layer_int(&r->top_k, layer) > config->experts[layer])
      return fail(ctx, DITMOE_MISMATCH, "%s: top-k %d of %d experts in block %d; check --top-k",
                  path, layer_int(&r->top_k, layer), config->experts[layer], layer);
  return DITMOE_OK;
}

/* Whether the file has the weight of a norm. */
static bool has_norm(const struct ditmoe_checkpoint *checkpoint, const char *pattern) {
  return pattern && tensor_at(checkpoint, pattern, 0, ".weight");
}

/* The number of heads follows from the width of q's normalisation. */
static enum ditmoe_status infer_heads(struct ditmoe_ctx *ctx, struct dit_config *config,
                                      const struct ditmoe_checkpoint *checkpoint,
                                      const struct mixture *mixture) {
  const struct dialect *d = config->dialect;
  struct dit_record *record = &config->record;
  const struct tensor *qkv = tensor_at(checkpoint, d->qkv[0], 0, ".weight");
  const struct tensor *norm = d->q_norm ? tensor_at(checkpoint, d->q_norm, 0, ".weight") : NULL;
  config->rms_norm = has_norm(checkpoint, d->norm1);
  config->rms_final = has_norm(checkpoint, d->final_norm);
  config->inner = config->width;
  if (mixture->free_heads && qkv && qkv->rank == 2 && qkv->shape[0] % 3 == 0 && qkv->shape[0] > 0)
    config->inner = (int)(qkv->shape[0] / 3);
  config->qk_norm = norm != NULL;
  config->qk_bias = norm && tensor_at(checkpoint, d->q_norm, 0, ".bias");
  if (!norm || norm->rank != 1 || norm->shape[0] < 1 || config->inner % norm->shape[0] != 0)
    return DITMOE_OK;
  const int heads = (int)(config->inner / norm->shape[0]);
  if (record_has(record, REC_HEADS) && record->heads != heads)
    return fail(ctx, DITMOE_MISMATCH, "%s: tensor %s is for %d heads, not %d; check --heads",
                checkpoint->path, norm->name, heads, record->heads);
  record->heads = heads;
  return record_set(ctx, record, REC_HEADS, "weights", NULL);
}

/* Where no positions are stored, the record says how many there are. */
static enum ditmoe_status count_tokens(struct ditmoe_ctx *ctx, struct dit_config *config,
                                       const char *path) {
  struct dit_record *record = &config->record;
  if (config->tokens) {
    record->input_size = config_side(config) * config->patch;
    return record_set(ctx, record, REC_INPUT_SIZE, "weights", NULL);
  }
  if (!record_has(record, REC_INPUT_SIZE))
    return fail(ctx, DITMOE_USAGE,
                "%s: the weights do not tell the size of the latents; a record "
                "with input_size, or the config.json of diffusers, must be beside them",
                path);
  if (record->input_size % config->patch != 0)
    return fail(ctx, DITMOE_MISMATCH,
                "%s: input_size %d (%s) is not a multiple of the patches of the weights, %d", path,
                record->input_size, record->sources[REC_INPUT_SIZE], config->patch);
  const int side = record->input_size / config->patch;
  config->tokens = side * side;
  return DITMOE_OK;
}

/* Where a token is: a table of the file, one that is made, or the turning of q and k. */
static enum ditmoe_status infer_positions(struct ditmoe_ctx *ctx, struct dit_config *config,
                                          const struct ditmoe_checkpoint *checkpoint) {
  const struct dialect *d = config->dialect;
  const struct mixture *kind = config->record.kind;
  const struct tensor *table;
  if (d->rotary || (d->rope_cos && tensor_at(checkpoint, d->rope_cos, 0, "")))
    config->rope = ROPE_ADJACENT;
  if (!d->pos_embed) {
    config->positions = POSITIONS_MADE;
  } else if (kind->rotary && !tensor_at(checkpoint, d->pos_embed, 0, "")) {
    config->positions = POSITIONS_NONE;
    config->rope = ROPE_HALVES;
  } else {
    TRY(need(ctx, checkpoint, d->pos_embed, 0, "", 3, &table));
    config->tokens = (int)table->shape[1];
  }
  return count_tokens(ctx, config, checkpoint->path);
}

/* In-context tokens. */
static enum ditmoe_status infer_prefix(struct ditmoe_ctx *ctx, struct dit_config *config,
                                       const struct ditmoe_checkpoint *checkpoint) {
  const struct dialect *d = config->dialect;
  const struct record_key *from = record_key(REC_IN_CONTEXT_START);
  const struct tensor *table;
  if (!d->prefix_positions || !tensor_at(checkpoint, d->prefix_positions, 0, "")) return DITMOE_OK;
  TRY(need(ctx, checkpoint, d->prefix_positions, 0, "", 3, &table));
  if (!record_has(&config->record, REC_IN_CONTEXT_START))
    return unknown(ctx, checkpoint, from->need, from);
  config->prefix = (int)table->shape[1];
  config->prefix_from = config->record.in_context_start;
  return DITMOE_OK;
}

enum ditmoe_status config_kind(struct ditmoe_ctx *ctx, const struct ditmoe_checkpoint *checkpoint,
                               const struct mixture **kind) {
  struct dit_config config = {0};
  int candidates = 0;
  TRY(find_dialect(ctx, &config, checkpoint));
  config.depth = count_blocks(checkpoint, config.dialect->block);
  *kind = find_mixture(&config, checkpoint, &candidates);
  return DITMOE_OK;
}

/* An empty class among those that are said to be classes: the one is wrong or the other. chosen:
 * the overrides have a null label alone, which takes the place of what files say of the classes. */
static enum ditmoe_status agree_on_labels(struct ditmoe_ctx *ctx, struct dit_record *record,
                                          const struct ditmoe_checkpoint *checkpoint, bool chosen) {
  if (!record_has(record, REC_NULL_LABEL) || !record_has(record, REC_CLASSES_USED) ||
      record->null_label >= record->classes_used)
    return DITMOE_OK;
  if (!chosen)
    return fail(
        ctx, DITMOE_USAGE,
        "%s: the record excludes itself: null_label %d is the empty class, but classes_used "
        "%d makes it a class; give one of them, or a null_label behind the classes",
        checkpoint->path, record->null_label, record->classes_used);
  record->set &= ~(UINT64_C(1) << REC_CLASSES_USED);
  return DITMOE_OK;
}

enum ditmoe_status config_infer(struct ditmoe_ctx *ctx, struct dit_config *config,
                                const struct ditmoe_checkpoint *checkpoint, const char *overrides) {
  static const struct record_origin given = {"record", RECORD_GIVEN, NULL};
  struct dit_record *record = &config->record;
  int candidates = 0, experts = 0;
  TRY(find_dialect(ctx, config, checkpoint));
  TRY(infer_sizes(ctx, config, checkpoint));
  const struct mixture *found = find_mixture(config, checkpoint, &candidates);
  TRY(infer_experts(ctx, config, checkpoint, found));
  if (overrides) TRY(record_read_text(ctx, record, &given, overrides));
  TRY(infer_heads(ctx, config, checkpoint, found));
  const bool chosen = record_has(record, REC_NULL_LABEL) && !record_has(record, REC_CLASSES_USED);
  TRY(record_read_files(ctx, config, checkpoint));
  TRY(agree_on_labels(ctx, record, checkpoint, chosen));
  for (int layer = 0; layer < config->depth; layer++)
    if (config->experts[layer] > experts) experts = config->experts[layer];
  const struct known_shape shape = {record->kind,  found,   config->width,
                                    config->depth, experts, config->label_rows - 1};
  TRY(record_known_model(ctx, record, &shape));
  TRY(check_kind(ctx, config, checkpoint, found, candidates));
  TRY(family_choose(ctx, config, checkpoint));
  TRY(check_known(ctx, record, checkpoint));
  TRY(infer_positions(ctx, config, checkpoint));
  TRY(infer_prefix(ctx, config, checkpoint));
  TRY(apply_defaults(ctx, config));
  TRY(own_defaults(ctx, config, record));
  TRY(check_ranges(ctx, config, checkpoint->path));
  config->heads = record->heads;
  config->head_dim = config->inner / record->heads;
  config->size = config_side(config) * config->patch;
  return DITMOE_OK;
}

void config_free(struct ditmoe_ctx *ctx, struct dit_config *config) {
  record_free(ctx, &config->record);
  mem_free(ctx, config->experts);
}

/* Models: a checkpoint turned into weights of a backend. */
#include "api/handles.h"
#include "api/scheduler.h"
#include "dit/config.h"
#include "dit/families.h"
#include "io/packed.h"

#include <string.h>

/* The backend and the file. A packed file says what the compute type is, if nobody else does. */
static enum ditmoe_status open_file(struct ditmoe_ctx *ctx, struct exec *ex, const char *path,
                                    const struct ditmoe_model_options *options,
                                    struct ditmoe_checkpoint **out) {
  TRY(backend_open(ex, ctx, options->backend, options->tier, options->threads));
  TRY(backend_compute(ex, options->dtype));
  TRY(ditmoe_checkpoint_open(ctx, path, options->key, out));
  return options->dtype ? DITMOE_OK : backend_compute(ex, packed_dtype(*out));
}

static enum ditmoe_status keep_record(struct ditmoe_ctx *ctx, struct ditmoe_model *model) {
  const struct dit_record *record = &model->dit->config.record;
  TRY(record_write_json(ctx, record, &model->record));
  TRY(record_write_sources(ctx, record, &model->sources));
  return scheduler_open(ctx, record, &model->trained_betas);
}

static enum ditmoe_status load(struct ditmoe_ctx *ctx, struct ditmoe_model *model, const char *path,
                               const struct ditmoe_model_options *options) {
  enum ditmoe_status status = open_file(ctx, &model->ex, path, options, &model->file);
  model->ex.dry = options->plan_only;
  if (status == DITMOE_OK) status = dit_open(&model->ex, model->file, options->record, &model->dit);
  if (status == DITMOE_OK) status = keep_record(ctx, model);
  if (status == DITMOE_OK && packed_layout(model->file)) {
    model->file->ctx = &model->own;
    return DITMOE_OK;
  }
  ditmoe_checkpoint_close(model->file);
  model->file = NULL;
  return status;
}

enum ditmoe_status ditmoe_model_open(struct ditmoe_ctx *ctx, const char *path,
                                     const struct ditmoe_model_options *options,
                                     struct ditmoe_model **out) {
  const struct ditmoe_model_options defaults = {0};
  struct ditmoe_model *model = NULL;
  TRY(mem_zalloc(ctx, 1, sizeof *model, "model", &model));
  model->own.hooks = ctx->hooks;
  enum ditmoe_status status = load(ctx, model, path, options ? options : &defaults);
  model->ex.ctx = &model->own;
  if (status != DITMOE_OK) {
    ditmoe_model_close(model);
    return status;
  }
  *out = model;
  return DITMOE_OK;
}

void ditmoe_model_close(struct ditmoe_model *model) {
  if (!model) return;
  struct ditmoe_ctx own = model->own;
  model->ex.ctx = &own;
  dit_close(&model->ex, model->dit);
  exec_close(&model->ex);
  if (model->file) model->file->ctx = &own;
  ditmoe_checkpoint_close(model->file);
  mem_free(&own, model->record);
  mem_free(&own, model->sources);
  mem_free(&own, model->trained_betas);
  mem_free(&own, model);
}

enum ditmoe_status ditmoe_model_pack(struct ditmoe_ctx *ctx, const char *path,
                                     const struct ditmoe_model_options *options,
                                     const char *output) {
  const struct ditmoe_model_options defaults = {0};
  struct exec ex = {0};
  struct ditmoe_checkpoint *checkpoint = NULL;
  if (!options) options = &defaults;
  enum ditmoe_status status = open_file(ctx, &ex, path, options, &checkpoint);
  if (status == DITMOE_OK) status = dit_pack(&ex, checkpoint, options->record, output);
  ditmoe_checkpoint_close(checkpoint);
  exec_close(&ex);
  return status;
}

void ditmoe_model_info(const struct ditmoe_model *model, struct ditmoe_model_info *out) {
  const struct dit_config *c = &model->dit->config;
  *out = (struct ditmoe_model_info){
      .kind = c->record.kind->kind,
      .family = c->family ? c->family->name : NULL,
      .family_why = c->family ? c->family_why : NULL,
      .objective = c->record.objective == OBJECTIVE_RF ? "rf" : "ddpm",
      .backend = model->ex.device->ops->name,
      .tier = model->ex.device->tier,
      .dtype = model->ex.compute == DT_BF16 ? "bf16" : "f32",
      .channels = c->channels,
      .size = c->size,
      .patch = c->patch,
      .width = c->width,
      .depth = c->depth,
      .heads = c->heads,
      .num_classes = c->label_rows - (c->record.null_label >= 0),
      .classes_used = c->record.classes_used,
      .null_label = c->record.null_label,
      .learned_variance = c->out_channels > c->channels,
      .qk_norm = c->qk_norm,
      .pixels = makes_images(model),
      .ignored_tensors = model->dit->ignored,
      .latent_scale = record_has(&c->record, REC_LATENT_SCALE) ? c->record.latent_scale : 0,
      .parameters = model->dit->params.parameters,
      .weight_bytes = model->dit->params.weight_bytes,
  };
  for (int layer = 0; layer < c->depth; layer++) {
    if (!c->experts[layer]) continue;
    const struct router_layer *router = model->dit->blocks[layer].moe->router;
    if (c->experts[layer] > out->experts) out->experts = c->experts[layer];
    if (router->top_k > out->top_k) out->top_k = router->top_k;
    out->batch_coupled |= router->router->batch_coupled;
  }
}

enum ditmoe_status ditmoe_checkpoint_family(struct ditmoe_ctx *ctx,
                                            const struct ditmoe_checkpoint *checkpoint, char *text,
                                            size_t capacity) {
  const struct mixture *kind;
  TRY(config_kind(ctx, checkpoint, &kind));
  family_describe(checkpoint, kind, text, capacity);
  return DITMOE_OK;
}

const char *ditmoe_model_class_name(const struct ditmoe_model *model, int label) {
  const struct dit_record *record = &model->dit->config.record;
  return label >= 0 && label < record->class_count ? record->class_names[label] : NULL;
}

const char *ditmoe_model_record(const struct ditmoe_model *model) { return model->record; }

const char *ditmoe_model_record_sources(const struct ditmoe_model *model) { return model->sources; }

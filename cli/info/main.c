/* ditmoe-info: what is in a checkpoint file. */
#include "cli/json.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

struct settings {
  struct common_settings common;
  bool tensors, model, vae;
  const char *key, *record;
};

#define AT(member) .field = offsetof(struct settings, member)
static const struct option table[] = {
    {.name = "key",
     .kind = OPTION_TEXT,
     AT(key),
     .argument = "NAME",
     .group = "Checkpoint",
     .help = "Entry of a training checkpoint, such as ema or model, or what names of tensors begin "
             "with; EMA weights are preferred (docs/FILES.md)."},
    {.name = "tensors",
     .kind = OPTION_FLAG,
     AT(tensors),
     .help = "List the tensors with their types and shapes."},
    {.name = "model",
     .kind = OPTION_FLAG,
     AT(model),
     .help = "Open it as a model: architecture, sizes, checkpoint record; with -v also where each "
             "value of the record is from."},
    {.name = "vae",
     .kind = OPTION_FLAG,
     AT(vae),
     .help = "Open it as a decoder: whose names its tensors have, latents, factor, scale."},
    {.name = "record",
     .kind = OPTION_TEXT,
     AT(record),
     .argument = "FILE",
     .help = "With --model: JSON of what the weights do not tell."},
};

static const struct program program = {
    .name = "ditmoe-info",
    .summary = "describe a checkpoint",
    .operand = "FILE",
    .about =
        "Prints format, tensors and parameters of a PyTorch or safetensors file, an index.json of\n"
        "shards or a folder. Nothing in the file is executed.",
    .options = table,
    .count = sizeof table / sizeof table[0],
    .settings_size = sizeof(struct settings),
};

static cJSON *tensor_json(const struct ditmoe_tensor_info *info) {
  cJSON *tensor = cJSON_CreateObject(), *shape;
  cJSON_AddStringToObject(tensor, "name", info->name);
  cJSON_AddStringToObject(tensor, "dtype", info->dtype);
  shape = cJSON_AddArrayToObject(tensor, "shape");
  for (int i = 0; i < info->rank; i++)
    cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)info->shape[i]));
  return tensor;
}

/* Values of the tensors that a packed file was made from. */
static uint64_t listed_values(const char *list) {
  cJSON *tree = cJSON_Parse(list);
  const cJSON *tensor, *size;
  double values = 0;
  cJSON_ArrayForEach(tensor, tree) {
    double count = 1;
    cJSON_ArrayForEach(size, cJSON_GetObjectItemCaseSensitive(tensor, "shape")) {
      count *= size->valuedouble;
    }
    values += count;
  }
  cJSON_Delete(tree);
  return values >= 0 && values < 0x1p63 ? (uint64_t)values : 0;
}

static cJSON *checkpoint_json(const char *path, const struct ditmoe_checkpoint *checkpoint,
                              bool with_tensors) {
  cJSON *object = cJSON_CreateObject(), *tensors = cJSON_CreateArray();
  const char *key = ditmoe_checkpoint_key(checkpoint), *left = ditmoe_checkpoint_left(checkpoint);
  const char *record = ditmoe_checkpoint_metadata(checkpoint, "ditmoe");
  const char *layout = ditmoe_checkpoint_metadata(checkpoint, "ditmoe.packed");
  const char *tier = ditmoe_checkpoint_metadata(checkpoint, "ditmoe.tier");
  const char *list = ditmoe_checkpoint_metadata(checkpoint, "ditmoe.tensors");
  uint64_t elements = 0, bytes = 0;
  for (size_t i = 0; i < ditmoe_checkpoint_count(checkpoint); i++) {
    struct ditmoe_tensor_info info;
    uint64_t count = 1;
    ditmoe_checkpoint_tensor(checkpoint, i, &info);
    for (int d = 0; d < info.rank; d++) count *= (uint64_t)info.shape[d];
    elements += count;
    bytes += info.bytes;
    if (with_tensors) cJSON_AddItemToArray(tensors, tensor_json(&info));
  }
  cJSON_AddStringToObject(object, "file", path);
  cJSON_AddStringToObject(object, "format", ditmoe_checkpoint_format(checkpoint));
  if (key) cJSON_AddStringToObject(object, "key", key);
  if (left) cJSON_AddStringToObject(object, "not_taken", left);
  json_add_whole(object, "tensors", ditmoe_checkpoint_count(checkpoint));
  if (layout) elements = list ? listed_values(list) : 0;
  json_add_whole(object, "parameters", elements);
  json_add_whole(object, "bytes", bytes);
  if (layout) cJSON_AddStringToObject(object, "packed", layout);
  if (layout && tier) cJSON_AddStringToObject(object, "packed_for", tier);
  if (record) cJSON_AddStringToObject(object, "stored_record", record);
  if (with_tensors)
    cJSON_AddItemToObject(object, "tensor_list", tensors);
  else
    cJSON_Delete(tensors);
  return object;
}

static cJSON *model_json(const struct ditmoe_model *model, bool with_sources) {
  struct ditmoe_model_info info;
  ditmoe_model_info(model, &info);
  const struct {
    const char *name;
    int value;
  } numbers[] = {{"channels", info.channels},
                 {"size", info.size},
                 {"patch", info.patch},
                 {"width", info.width},
                 {"depth", info.depth},
                 {"heads", info.heads},
                 {"num_classes", info.num_classes},
                 {"classes_used", info.classes_used},
                 {"null_label", info.null_label},
                 {"experts", info.experts},
                 {"top_k", info.top_k}};
  cJSON *object = cJSON_CreateObject();
  cJSON_AddStringToObject(object, "kind", info.kind);
  if (info.family) cJSON_AddStringToObject(object, "family", info.family);
  if (info.family) cJSON_AddStringToObject(object, "family_why", info.family_why);
  if (info.ignored_tensors)
    cJSON_AddNumberToObject(object, "ignored_tensors", info.ignored_tensors);
  cJSON_AddStringToObject(object, "objective", info.objective);
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
    cJSON_AddNumberToObject(object, numbers[i].name, numbers[i].value);
  cJSON_AddBoolToObject(object, "learned_variance", info.learned_variance);
  cJSON_AddBoolToObject(object, "batch_coupled", info.batch_coupled);
  json_add_whole(object, "weight_bytes", info.weight_bytes);
  cJSON_AddItemToObject(object, "record", cJSON_Parse(ditmoe_model_record(model)));
  if (with_sources)
    cJSON_AddItemToObject(object, "record_sources",
                          cJSON_Parse(ditmoe_model_record_sources(model)));
  return object;
}

static enum ditmoe_status add_model(struct ditmoe_ctx *ctx, cJSON *object, const char *path,
                                    const struct settings *settings) {
  struct ditmoe_model *model = NULL;
  char *record;
  TRY(json_file_text("--record", settings->record, &record));
  const struct ditmoe_model_options options = {
      .key = settings->key, .record = record, .plan_only = 1};
  enum ditmoe_status status = report_call(ctx, ditmoe_model_open(ctx, path, &options, &model));
  if (status == DITMOE_OK)
    cJSON_AddItemToObject(object, "model", model_json(model, settings->common.verbose));
  ditmoe_model_close(model);
  free(record);
  return status;
}

static enum ditmoe_status add_decoder(struct ditmoe_ctx *ctx, cJSON *object, const char *path) {
  const struct ditmoe_model_options options = {.plan_only = 1};
  struct ditmoe_decoder *decoder = NULL;
  struct ditmoe_decoder_info info;
  TRY(report_call(ctx, ditmoe_decoder_open(ctx, path, &options, 0, &decoder)));
  ditmoe_decoder_info(decoder, &info);
  ditmoe_decoder_close(decoder);
  cJSON *out = cJSON_AddObjectToObject(object, "decoder");
  cJSON_AddStringToObject(out, "kind", info.kind);
  cJSON_AddStringToObject(out, "names", info.names);
  cJSON_AddNumberToObject(out, "latent_channels", info.latent_channels);
  cJSON_AddNumberToObject(out, "factor", info.factor);
  cJSON_AddNumberToObject(out, "scale", info.scale);
  cJSON_AddNumberToObject(out, "shift", info.shift);
  cJSON_AddBoolToObject(out, "statistics_of_channels", info.statistics);
  return DITMOE_OK;
}

/* One line for each scalar, "a.b: value"; lists in short. */
static void print_lines(const cJSON *object, const char *prefix) {
  const cJSON *item;
  cJSON_ArrayForEach(item, object) {
    char *name = text_format("%s%s", prefix, item->string);
    char *value = json_value_text(item);
    char *line = text_format("%s: %s", name, value);
    char *inner = text_format("%s.", name);
    if (cJSON_IsObject(item))
      print_lines(item, inner);
    else
      report_result(line);
    free(name);
    free(value);
    free(line);
    free(inner);
  }
}

static void print_tensors(const cJSON *list) {
  const cJSON *item;
  cJSON_ArrayForEach(item, list) {
    char *shape = json_text(cJSON_GetObjectItemCaseSensitive(item, "shape"), false);
    char *line =
        text_format("%-5s %-24s %s", cJSON_GetObjectItemCaseSensitive(item, "dtype")->valuestring,
                    shape, cJSON_GetObjectItemCaseSensitive(item, "name")->valuestring);
    report_result(line);
    free(shape);
    free(line);
  }
}

static enum ditmoe_status describe(struct ditmoe_ctx *ctx, const char *path,
                                   const struct settings *settings) {
  struct ditmoe_checkpoint *checkpoint = NULL;
  if (settings->record && !settings->model)
    return report_error(DITMOE_USAGE, "--record has no effect without --model");
  TRY(report_call(ctx, ditmoe_checkpoint_open(ctx, path, settings->key, &checkpoint)));
  cJSON *object = checkpoint_json(path, checkpoint, settings->tensors);
  char family[256];
  if (ditmoe_checkpoint_family(ctx, checkpoint, family, sizeof family) == DITMOE_OK)
    cJSON_AddStringToObject(object, "family", family);
  ditmoe_checkpoint_close(checkpoint);
  enum ditmoe_status status = settings->model ? add_model(ctx, object, path, settings) : DITMOE_OK;
  if (status == DITMOE_OK && settings->vae) status = add_decoder(ctx, object, path);
  if (settings->common.json) {
    json_put(object);
  } else {
    cJSON *tensors = cJSON_DetachItemFromObjectCaseSensitive(object, "tensor_list");
    print_lines(object, "");
    print_tensors(tensors);
    cJSON_Delete(tensors);
  }
  cJSON_Delete(object);
  return status;
}

int main(int argc, char **argv) {
  struct options options;
  struct settings settings;
  int code = options_read(&options, &program, &settings, argc, argv);
  if (code < 0) {
    struct ditmoe_ctx *ctx = report_context();
    code = (int)report_finish(ctx ? describe(ctx, options.operand, &settings) : DITMOE_NOMEM);
    ditmoe_ctx_destroy(ctx);
  }
  options_free(&options);
  return code;
}

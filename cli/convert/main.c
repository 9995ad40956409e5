/* ditmoe-convert: any checkpoint to safetensors, with its record inside. */
#include "cli/json.h"
#include "cli/options.h"
#include "cli/outputs.h"
#include "cli/report.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
  struct common_settings common;
  const char *output, *dtype, *tier, *key, *record;
  bool pack, force;
};

#define AT(member) .field = offsetof(struct settings, member)
static const struct option table[] = {
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_TEXT,
     AT(output),
     .argument = "FILE",
     .group = "Conversion",
     .help = "The safetensors file to write."},
    {.name = "dtype",
     .kind = OPTION_CHOICE,
     AT(dtype),
     .argument = "f32|bf16|f16",
     .help =
         "Type of floating tensors. Default: as they are; with --pack, what the tier does best."},
    {.name = "pack",
     .kind = OPTION_FLAG,
     AT(pack),
     .help = "Store the large layers as this machine has them in memory: such a file is used where "
             "it lies, by the same instruction tier and type (f32 or bf16) alone."},
    {.name = "tier",
     .kind = OPTION_CHOICE,
     AT(tier),
     .argument = "generic|avx2|avx512|avx512bf16|amx",
     .help = "With --pack: the instruction tier to pack for. Default: the best of this machine."},
    {.name = "key",
     .kind = OPTION_TEXT,
     AT(key),
     .argument = "NAME",
     .help = "Entry of a training checkpoint, such as ema or model, or what names of tensors begin "
             "with; EMA weights are preferred (docs/FILES.md)."},
    {.name = "record",
     .kind = OPTION_TEXT,
     AT(record),
     .argument = "FILE",
     .help = "JSON of what the weights do not tell, to be stored with them. Default: what is "
             "known of the model."},
    {.name = "force", .kind = OPTION_FLAG, AT(force), .help = "Replace the output if it exists."},
};

static const struct program program = {
    .name = "ditmoe-convert",
    .summary = "convert a checkpoint to safetensors",
    .operand = "FILE",
    .about =
        "Reads a PyTorch or safetensors file, an index.json of shards or a folder, and writes one\n"
        "safetensors file. If the checkpoint is a model that can be opened, its complete record "
        "is\n"
        "stored in the file, which then needs no configuration beside it.",
    .options = table,
    .count = sizeof table / sizeof table[0],
    .settings_size = sizeof(struct settings),
};

static enum ditmoe_status check(const char *path, const struct settings *settings) {
  const struct output_file output = {"output", settings->output};
  const struct input_file inputs[] = {{path, true}, {settings->record, false}};
  if (settings->tier && !settings->pack)
    return report_error(DITMOE_USAGE, "--tier has no effect without --pack");
  if (settings->pack && settings->dtype && strcmp(settings->dtype, "f16") == 0)
    return report_error(DITMOE_USAGE, "--dtype f16: --pack is for f32 or bf16");
  if (!output.path) return report_error(DITMOE_USAGE, "--output is missing; see --help");
  return outputs_check(&output, 1, inputs, sizeof inputs / sizeof *inputs, settings->force);
}

/* Opening a model holds its weights as f32; that is tried only if they take less than half of the
 * machine's memory. */
static bool may_open(const struct ditmoe_checkpoint *checkpoint) {
  double bytes = 0;
  for (size_t i = 0; i < ditmoe_checkpoint_count(checkpoint); i++) {
    struct ditmoe_tensor_info info;
    ditmoe_checkpoint_tensor(checkpoint, i, &info);
    bytes += 2.0 * (double)info.bytes;
  }
  return bytes < 0.5 * (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

/* The record of the opened model, else the given one, else the one already in the file, else NULL.
 * A given record that does not fit is an error. */
static enum ditmoe_status choose_record(struct ditmoe_ctx *ctx, const char *path,
                                        const struct settings *settings,
                                        const struct ditmoe_checkpoint *checkpoint, char **out) {
  char *text;
  TRY(json_file_text("--record", settings->record, &text));
  const char *held = ditmoe_checkpoint_metadata(checkpoint, "ditmoe");
  const struct ditmoe_model_options options = {.key = settings->key, .record = text};
  struct ditmoe_model *model = NULL;
  enum ditmoe_status status =
      may_open(checkpoint) ? ditmoe_model_open(ctx, path, &options, &model) : DITMOE_NOMEM;
  if (status == DITMOE_OK)
    *out = text_copy(ditmoe_model_record(model));
  else if (text || held)
    *out = text_copy(text ? text : held);
  bool wrong = text && status == DITMOE_USAGE;
  if (wrong)
    report_call(ctx, status);
  else if (!*out)
    report_note("no record is stored: %s", status == DITMOE_NOMEM
                                               ? "the model is too large to be opened here"
                                               : ditmoe_errmsg(ctx));
  ditmoe_model_close(model);
  free(text);
  return wrong ? status : DITMOE_OK;
}

static enum ditmoe_status pack(struct ditmoe_ctx *ctx, const char *path,
                               const struct settings *settings) {
  char *text;
  TRY(json_file_text("--record", settings->record, &text));
  const struct ditmoe_model_options options = {
      .tier = settings->tier, .dtype = settings->dtype, .key = settings->key, .record = text};
  enum ditmoe_status status =
      report_call(ctx, ditmoe_model_pack(ctx, path, &options, settings->output));
  free(text);
  return status;
}

static enum ditmoe_status convert(struct ditmoe_ctx *ctx, const char *path,
                                  const struct settings *settings,
                                  const struct ditmoe_checkpoint *checkpoint) {
  char *record = NULL;
  enum ditmoe_status status = DITMOE_OK;
  if (!ditmoe_checkpoint_metadata(checkpoint, "ditmoe.packed")) /* which is refused below */
    status = choose_record(ctx, path, settings, checkpoint, &record);
  if (status == DITMOE_OK)
    status = report_call(
        ctx, ditmoe_checkpoint_write(ctx, checkpoint, settings->output, settings->dtype, record));
  free(record);
  return status;
}

/* What was written. */
static enum ditmoe_status report_output(struct ditmoe_ctx *ctx, const struct settings *settings) {
  struct ditmoe_checkpoint *written = NULL;
  if (!settings->common.json) {
    report_file(settings->output);
    return DITMOE_OK;
  }
  TRY(report_call(ctx, ditmoe_checkpoint_open(ctx, settings->output, NULL, &written)));
  const char *record = ditmoe_checkpoint_metadata(written, "ditmoe");
  const char *layout = ditmoe_checkpoint_metadata(written, "ditmoe.packed");
  cJSON *object = cJSON_CreateObject();
  cJSON_AddStringToObject(object, "file", settings->output);
  cJSON_AddNumberToObject(object, "tensors", (double)ditmoe_checkpoint_count(written));
  if (layout) cJSON_AddStringToObject(object, "packed", layout);
  cJSON_AddItemToObject(object, "record", record ? cJSON_Parse(record) : cJSON_CreateNull());
  json_put(object);
  cJSON_Delete(object);
  ditmoe_checkpoint_close(written);
  return DITMOE_OK;
}

static enum ditmoe_status run(struct ditmoe_ctx *ctx, const char *path,
                              const struct settings *settings) {
  struct ditmoe_checkpoint *checkpoint = NULL;
  TRY(check(path, settings));
  if (settings->pack) {
    TRY(pack(ctx, path, settings));
  } else {
    TRY(report_call(ctx, ditmoe_checkpoint_open(ctx, path, settings->key, &checkpoint)));
    enum ditmoe_status status = convert(ctx, path, settings, checkpoint);
    ditmoe_checkpoint_close(checkpoint);
    TRY(status);
  }
  return report_output(ctx, settings);
}

int main(int argc, char **argv) {
  struct options options;
  struct settings settings;
  int code = options_read(&options, &program, &settings, argc, argv);
  if (code < 0) {
    struct ditmoe_ctx *ctx = report_context();
    code = (int)report_finish(ctx ? run(ctx, options.operand, &settings) : DITMOE_NOMEM);
    ditmoe_ctx_destroy(ctx);
  }
  options_free(&options);
  return code;
}

/* The files that may hold a checkpoint record. */
#include "dit/config.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A diffusers configuration says the same with other words; norm_eps is that of a block's second
 * norm, the others are 1e-6 in the program, which also divides its frequencies by half - 1. */
static enum ditmoe_status read_diffusers(struct ditmoe_ctx *ctx, struct dit_record *record,
                                         const char *path, const cJSON *object) {
  static const char *const words[][2] = {
      {"num_attention_heads", "heads"}, {"norm_eps", "norm2_eps"}, {"sample_size", "input_size"}};
  cJSON *translated = cJSON_CreateObject();
  bool ok = translated && cJSON_AddNumberToObject(translated, "frequency_shift", 1) &&
            cJSON_AddStringToObject(translated, "objective", "ddpm");
  for (size_t i = 0; ok && i < sizeof words / sizeof *words; i++) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, words[i][0]);
    if (value) ok = cJSON_AddItemToObject(translated, words[i][1], cJSON_Duplicate(value, true));
  }
  enum ditmoe_status status = ok ? record_read_json(ctx, record, path, translated, false)
                                 : fail(ctx, DITMOE_NOMEM, "%s: no memory to read it", path);
  cJSON_Delete(translated);
  return status;
}

static enum ditmoe_status read_beside(struct ditmoe_ctx *ctx, struct dit_record *record,
                                      const char *path) {
  struct stat info;
  if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return DITMOE_OK;
  cJSON *object = NULL;
  TRY(json_read(ctx, path, &object));
  enum ditmoe_status status =
      cJSON_IsObject(object) && cJSON_GetObjectItemCaseSensitive(object, "_class_name")
          ? read_diffusers(ctx, record, path, object)
          : record_read_json(ctx, record, path, object, false);
  cJSON_Delete(object);
  return status;
}

enum ditmoe_status record_read_files(struct ditmoe_ctx *ctx, struct dit_record *record,
                                     const struct ditmoe_checkpoint *checkpoint) {
  const char *own = checkpoint_metadata(checkpoint, "ditmoe");
  if (own) {
    cJSON *object = NULL;
    TRY(json_parse(ctx, checkpoint->path, own, strlen(own), &object));
    enum ditmoe_status status = record_read_json(ctx, record, checkpoint->path, object, false);
    cJSON_Delete(object);
    TRY(status);
  }
  const char *path = checkpoint->path;
  char beside[4096];
  struct stat info;
  bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
  const char *slash = strrchr(path, '/');
  int parent = slash ? (int)(slash - path) : 1;
  const char *dot = strrchr(path, '.');
  if (folder) {
    snprintf(beside, sizeof beside, "%s/config.json", path);
    TRY(read_beside(ctx, record, beside));
    snprintf(beside, sizeof beside, "%s/transformer/config.json", path);
    return read_beside(ctx, record, beside);
  }
  if (dot && dot > path + (slash ? parent : 0)) {
    snprintf(beside, sizeof beside, "%.*s.json", (int)(dot - path), path);
    TRY(read_beside(ctx, record, beside));
  }
  snprintf(beside, sizeof beside, "%.*s/config.json", parent, slash ? path : ".");
  return read_beside(ctx, record, beside);
}

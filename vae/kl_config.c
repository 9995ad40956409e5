/* Reading and checking config.json of an AutoencoderKL; absent keys take the defaults of
 * diffusers. */
#include "vae/kl_config.h"

#include "io/json.h"

#include <math.h>
#include <string.h>

static bool is_given(const cJSON *item) { return item && !cJSON_IsNull(item); }

static bool is_integer(const cJSON *item, int low, int high) {
  double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
  return value >= low && value <= high && floor(value) == value;
}

static enum ditmoe_status read_integers(struct ditmoe_ctx *ctx, const char *path, const cJSON *json,
                                        struct kl_config *out) {
  int image_channels;
  const struct {
    const char *name;
    int *value, low, high;
  } keys[] = {{"layers_per_block", &out->layers, 1, KL_BLOCKS - 1},
              {"latent_channels", &out->latent_channels, 1, VAE_LATENTS},
              {"norm_num_groups", &out->groups, 1, VAE_GROUPS},
              {"in_channels", &image_channels, 3, 3},
              {"out_channels", &image_channels, 3, 3}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, keys[i].name);
    if (!is_given(item)) continue;
    if (!is_integer(item, keys[i].low, keys[i].high))
      return fail(ctx, DITMOE_FORMAT, "%s: %s must be an integer from %d to %d", path, keys[i].name,
                  keys[i].low, keys[i].high);
    *keys[i].value = (int)item->valuedouble;
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_booleans(struct ditmoe_ctx *ctx, const char *path, const cJSON *json,
                                        struct kl_config *out) {
  const struct {
    const char *name;
    bool *value;
  } keys[] = {{"use_quant_conv", &out->quant},
              {"use_post_quant_conv", &out->post_quant},
              {"mid_block_add_attention", &out->attention}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, keys[i].name);
    if (!is_given(item)) continue;
    if (!cJSON_IsBool(item))
      return fail(ctx, DITMOE_FORMAT, "%s: %s must be true or false", path, keys[i].name);
    *keys[i].value = cJSON_IsTrue(item);
  }
  return DITMOE_OK;
}

static enum ditmoe_status read_scaling(struct ditmoe_ctx *ctx, const char *path, const cJSON *json,
                                       struct kl_config *out) {
  const cJSON *scale = cJSON_GetObjectItemCaseSensitive(json, "scaling_factor");
  const cJSON *shift = cJSON_GetObjectItemCaseSensitive(json, "shift_factor");
  if (is_given(scale)) out->scale = cJSON_IsNumber(scale) ? scale->valuedouble : NAN;
  if (is_given(shift)) out->shift = cJSON_IsNumber(shift) ? shift->valuedouble : NAN;
  if (!(out->scale >= 1e-6 && out->scale <= 1e6))
    return fail(ctx, DITMOE_FORMAT, "%s: scaling_factor must be a number from 1e-6 to 1e6", path);
  if (!(fabs(out->shift) <= 1e6))
    return fail(ctx, DITMOE_FORMAT, "%s: shift_factor must be null or a number from -1e6 to 1e6",
                path);
  return DITMOE_OK;
}

/* A number for each channel of the latents, from `low` to 1e6. */
static enum ditmoe_status read_statistic(struct ditmoe_ctx *ctx, const char *path,
                                         const cJSON *json, const char *name, double low,
                                         const struct kl_config *config, float *out) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, name), *item;
  bool good = cJSON_IsArray(list) && cJSON_GetArraySize(list) == config->latent_channels;
  cJSON_ArrayForEach(item, list) {
    good = good && cJSON_IsNumber(item) && item->valuedouble >= low && item->valuedouble <= 1e6;
    if (good) *out++ = (float)item->valuedouble;
  }
  if (good) return DITMOE_OK;
  return fail(ctx, DITMOE_FORMAT, "%s: %s must be null or a list of %d numbers from %g to 1e6",
              path, name, config->latent_channels, low);
}

static enum ditmoe_status read_statistics(struct ditmoe_ctx *ctx, const char *path,
                                          const cJSON *json, struct kl_config *out) {
  static const char *const names[2] = {"latents_mean", "latents_std"};
  const bool given[2] = {is_given(cJSON_GetObjectItemCaseSensitive(json, names[0])),
                         is_given(cJSON_GetObjectItemCaseSensitive(json, names[1]))};
  if (!given[0] && !given[1]) return DITMOE_OK;
  if (given[0] != given[1])
    return fail(ctx, DITMOE_FORMAT, "%s: %s without %s", path, names[given[1]], names[given[0]]);
  if (out->shift != 0)
    return fail(ctx, DITMOE_FORMAT, "%s: shift_factor and latents_mean exclude each other", path);
  out->statistics = true;
  TRY(read_statistic(ctx, path, json, names[0], -1e6, out, out->mean));
  return read_statistic(ctx, path, json, names[1], 1e-6, out, out->deviation);
}

static enum ditmoe_status read_channels(struct ditmoe_ctx *ctx, const char *path, const cJSON *json,
                                        struct kl_config *out) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "block_out_channels"), *item;
  int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
  if (is_given(list) && (count < 1 || count > KL_LEVELS))
    return fail(ctx, DITMOE_FORMAT, "%s: block_out_channels must list 1 to %d widths", path,
                KL_LEVELS);
  if (count > 0) out->levels = 0;
  cJSON_ArrayForEach(item, list) out->channels[out->levels++] =
      is_integer(item, 1, KL_WIDTH) ? (int)item->valuedouble : -1;
  for (int i = 0; i < out->levels; i++)
    if (out->channels[i] < 1 || out->channels[i] % out->groups != 0)
      return fail(ctx, DITMOE_FORMAT,
                  "%s: block_out_channels[%d] must be a multiple of norm_num_groups (%d) up to %d",
                  path, i, out->groups, KL_WIDTH);
  return DITMOE_OK;
}

static bool is_text(const cJSON *item, const char *text) {
  return text && cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

/* Keys that change the network in ways that it has no code for. */
static enum ditmoe_status check_supported(struct ditmoe_ctx *ctx, const char *path,
                                          const cJSON *json) {
  static const struct {
    const char *name, *plain, *attends; /* which of both a level is, its tensors say */
  } texts[] = {{"act_fn", "silu", NULL},
               {"down_block_types", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"},
               {"up_block_types", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, texts[i].name);
    const bool list = cJSON_IsArray(item);
    for (const cJSON *text = list ? item->child : item; text; text = list ? text->next : NULL)
      if (!is_text(text, texts[i].plain) && !is_text(text, texts[i].attends))
        return fail(ctx, DITMOE_FORMAT, "%s: %s must be \"%s\", found \"%s\"", path, texts[i].name,
                    texts[i].plain, cJSON_IsString(text) ? text->valuestring : "something else");
  }
  return DITMOE_OK;
}

static enum ditmoe_status check_object(struct ditmoe_ctx *ctx, const char *path,
                                       const cJSON *json) {
  return cJSON_IsObject(json) ? DITMOE_OK
                              : fail(ctx, DITMOE_FORMAT, "%s: expected a JSON object", path);
}

static enum ditmoe_status check_class(struct ditmoe_ctx *ctx, const char *path, const cJSON *json) {
  const cJSON *name = cJSON_GetObjectItemCaseSensitive(json, "_class_name");
  if (!name || is_text(name, "AutoencoderKL")) return DITMOE_OK;
  return fail(ctx, DITMOE_MISMATCH,
              "%s: not a decoder: _class_name must be AutoencoderKL, found %s", path,
              cJSON_IsString(name) ? name->valuestring : "no text");
}

struct kl_config kl_config_default(void) {
  return (struct kl_config){.levels = 1,
                            .channels = {64},
                            .layers = 1,
                            .latent_channels = 4,
                            .groups = 32,
                            .scale = 0.18215,
                            .quant = true,
                            .post_quant = true,
                            .attention = true};
}

enum ditmoe_status kl_config_read(struct ditmoe_ctx *ctx, const char *path, struct kl_config *out) {
  cJSON *json = NULL;
  *out = kl_config_default();
  TRY(json_read(ctx, path, &json));
  enum ditmoe_status status = DITMOE_OK;
  TRY_DONE(check_object(ctx, path, json));
  TRY_DONE(check_class(ctx, path, json));
  TRY_DONE(check_supported(ctx, path, json));
  TRY_DONE(read_integers(ctx, path, json, out));
  TRY_DONE(read_booleans(ctx, path, json, out));
  TRY_DONE(read_scaling(ctx, path, json, out));
  TRY_DONE(read_statistics(ctx, path, json, out));
  TRY_DONE(read_channels(ctx, path, json, out));
  out->z_channels = out->latent_channels;
done:
  cJSON_Delete(json);
  return status;
}

enum ditmoe_status kl_config_read_scaling(struct ditmoe_ctx *ctx, const char *path,
                                          struct kl_config *config) {
  struct kl_config read = *config;
  cJSON *json = NULL;
  TRY(json_read(ctx, path, &json));
  enum ditmoe_status status = DITMOE_OK;
  if (!is_text(cJSON_GetObjectItemCaseSensitive(json, "_class_name"), "AutoencoderKL")) goto done;
  TRY_DONE(read_integers(ctx, path, json, &read));
  config->groups = read.groups;
  TRY_DONE(read_scaling(ctx, path, json, config));
  TRY_DONE(read_statistics(ctx, path, json, config));
done:
  cJSON_Delete(json);
  return status;
}

/* Model and decoder: which files, and what the command line says about them. */
#include "cli/default_model.h"
#include "cli/outputs.h"
#include "cli/sample/sample.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The checkpoint record. */

/* "top-k" becomes the member "top_k". */
static void add_to_record(cJSON *record, const struct option *option, const char *value) {
  char *name = text_copy(option->name);
  for (char *c = name; *c; c++)
    if (*c == '-') *c = '_';
  cJSON_DeleteItemFromObjectCaseSensitive(record, name);
  if (option->kind == OPTION_CHOICE || option->kind == OPTION_TEXT)
    cJSON_AddStringToObject(record, name, value);
  else
    cJSON_AddRawToObject(record, name, value);
  free(name);
}

/* Members that a file of statistics stands for. */
static enum ditmoe_status add_statistics(struct sample *run, cJSON **record) {
  char *text = NULL;
  TRY(report_call(run->ctx,
                  ditmoe_latent_statistics(run->ctx, run->settings.latents_stats, &text)));
  cJSON *members = cJSON_Parse(text);
  free(text);
  if (!*record) *record = cJSON_CreateObject();
  while (members && members->child) {
    cJSON *member = cJSON_DetachItemViaPointer(members, members->child);
    cJSON_DeleteItemFromObjectCaseSensitive(*record, member->string);
    cJSON_AddItemToObject(*record, member->string, member);
  }
  cJSON_Delete(members);
  return DITMOE_OK;
}

/* The file, and over it the single options. NULL if there are none. */
static enum ditmoe_status make_record(struct sample *run) {
  const struct option *option;
  cJSON *record = NULL;
  if (run->origin.record) run->record = text_copy(run->origin.record);
  if (run->settings.record) TRY(json_file_read("--record", run->settings.record, &record));
  enum ditmoe_status status =
      run->settings.latents_stats ? add_statistics(run, &record) : DITMOE_OK;
  for (size_t i = 0; (option = option_at(&sample_program, i)); i++) {
    if (!(option->traits & OPTION_IN_RECORD)) continue;
    char *value = option_value(&run->options, option);
    if (value && !record) record = cJSON_CreateObject();
    if (value) add_to_record(record, option, value);
    free(value);
  }
  if (record) run->record = json_text(record, false);
  cJSON_Delete(record);
  return status;
}

/* What a source is in words of the user; free(). */
static char *source_name(const struct sample *run, const char *member, const char *source) {
  static const char given[] = "record:";
  if (strncmp(source, given, strlen(given)) != 0) return text_copy(source);
  if (run->settings.latents_stats &&
      (!strcmp(member, "latent_mean") || !strcmp(member, "latent_std")))
    return text_format("--latents-stats %s", run->settings.latents_stats);
  char *name = text_copy(member);
  for (char *c = name; *c; c++)
    if (*c == '_') *c = '-';
  const struct option *option = option_find(&sample_program, name, strlen(name));
  const enum option_source from = option && option->traits & OPTION_IN_RECORD
                                      ? option_source(&run->options, option)
                                      : FROM_NOWHERE;
  char *text = from >= FROM_ENVIRONMENT ? text_format("--%s", name)
               : from == FROM_PROTOCOL  ? text_format("--preset %s", run->settings.preset)
               : run->settings.record
                   ? text_format("%s:%s", run->settings.record, source + strlen(given))
                   : text_copy("the image");
  free(name);
  return text;
}

/* With -v every member of the record and its source; the objective's in any case, unless the user
 * named it. */
static void show_record(const struct sample *run) {
  cJSON *record = cJSON_Parse(ditmoe_model_record(run->model));
  cJSON *sources = cJSON_Parse(ditmoe_model_record_sources(run->model));
  const cJSON *item;
  cJSON_ArrayForEach(item, record) {
    const char *source =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(sources, item->string));
    if (!source) continue;
    char *value = json_value_text(item);
    char *name = source_name(run, item->string, source);
    const bool told = strncmp(source, "record:", strlen("record:")) == 0;
    if (strcmp(item->string, "objective") == 0 && !told)
      report_note("objective %s, by %s", value, name);
    else
      report_detail("record: %s %.160s (%s)", item->string, value, name);
    free(name);
    free(value);
  }
  cJSON_Delete(sources);
  cJSON_Delete(record);
}

/* The decoder. */

static bool exists(const char *path) {
  struct stat info;
  return stat(path, &info) == 0;
}

/* The decoder that the model's record names, relative to its folder; NULL if none. */
static char *vae_of_record(const struct ditmoe_model *model) {
  cJSON *record = cJSON_Parse(ditmoe_model_record(model));
  const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, "vae"));
  char *copy = path && path[0] != '/' ? text_copy(path) : NULL;
  cJSON_Delete(record);
  return copy;
}

/* Sets vae_path: what was given, else the first place that exists. */
static enum ditmoe_status find_vae(struct sample *run) {
  const char *given = run->settings.vae, *model = run->settings.model;
  if (!given && run->info.pixels) return DITMOE_OK;
  if (given) {
    if (strcmp(given, "none") != 0) run->vae_path = text_copy(given);
    return DITMOE_OK;
  }
  struct stat info;
  bool folder = stat(model, &info) == 0 && S_ISDIR(info.st_mode);
  char *root = folder ? text_format("%s/", model) : path_folder(model);
  char *places[] = {text_copy("vae"), vae_of_record(run->model), text_copy("sd-vae-ft-mse")};
  char *tried = text_copy("");
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
    if (!places[i]) continue;
    char *path = text_format("%s%s", root, places[i]);
    char *longer = text_format("%s%s%s", tried, *tried ? ", " : "", path);
    free(tried);
    tried = longer;
    if (!run->vae_path && exists(path)) run->vae_path = text_copy(path);
    free(path);
    free(places[i]);
  }
  enum ditmoe_status status = DITMOE_OK;
  if (!run->vae_path)
    status =
        report_error(DITMOE_FORMAT,
                     "no decoder: none of %s exists; give --vae PATH, or --vae none for a model "
                     "of pixels",
                     tried);
  free(tried);
  free(root);
  return status;
}

/* Opening. */

/* Options about what this model, by its complete record, and its decoder do not have. */
static enum ditmoe_status refuse_needless(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  cJSON *record = cJSON_Parse(ditmoe_model_record(run->model));
  char *why = text_format("on a model of kind %s", run->info.kind);
  const struct option_use uses[] = {
      {&s->top_k, cJSON_HasObjectItem(record, "top_k"), why},
      {&s->capacity, cJSON_HasObjectItem(record, "capacity"), why},
      {&s->uncond_label, cJSON_HasObjectItem(record, "uncond_label"), why},
      {&s->router_weight_mode, cJSON_HasObjectItem(record, "router_weight_mode"), why},
      {&s->time_direction, strcmp(run->info.objective, "rf") == 0, "on a model that is no flow"},
      {&s->qk_norm_eps, run->info.qk_norm, "on a model without norms of q and k"},
      {&s->latent_scale, run->vae_path, "with --vae none"},
      {&s->latent_shift, run->vae_path, "with --vae none"},
  };
  enum ditmoe_status status =
      options_refuse_needless(&run->options, uses, sizeof uses / sizeof *uses);
  free(why);
  cJSON_Delete(record);
  return status;
}

static enum ditmoe_status expect(const char *option, int64_t wanted, int64_t found) {
  if (wanted == 0 || wanted == found) return DITMOE_OK;
  return report_error(DITMOE_MISMATCH, "--%s %lld: the model has %lld", option, (long long)wanted,
                      (long long)found);
}

static enum ditmoe_status open_decoder(struct sample *run,
                                       const struct ditmoe_model_options *options) {
  TRY(find_vae(run));
  if (!run->vae_path) return DITMOE_OK;
  const struct ditmoe_model_options same = {.backend = options->backend,
                                            .tier = options->tier,
                                            .dtype = options->dtype,
                                            .threads = options->threads,
                                            .plan_only = options->plan_only};
  TRY(report_call(run->ctx, ditmoe_decoder_open(run->ctx, run->vae_path, &same,
                                                (int)run->settings.tile, &run->decoder)));
  ditmoe_decoder_info(run->decoder, &run->decoder_info);
  if (option_given(&run->options, &run->settings.latent_shift) &&
      run->settings.latent_shift != run->decoder_info.shift)
    return report_error(DITMOE_MISMATCH, "--latent-shift %g: the decoder's is %g",
                        run->settings.latent_shift, run->decoder_info.shift);
  report_detail("decoder: %s, %s, factor %d", run->vae_path, run->decoder_info.kind,
                run->decoder_info.factor);
  return DITMOE_OK;
}

static enum ditmoe_status open_model(struct sample *run,
                                     const struct ditmoe_model_options *options) {
  const char *path = run->settings.model;
  TRY(report_call(run->ctx, ditmoe_model_open(run->ctx, path, options, &run->model)));
  ditmoe_model_info(run->model, &run->info);
  const struct ditmoe_model_info *info = &run->info;
  report_detail("model: %s, %s, %s, %d layers of width %d, %d experts, %llu parameters", path,
                info->kind, info->objective, info->depth, info->width, info->experts,
                (unsigned long long)info->parameters);
  if (info->family) report_detail("family: %s, %s", info->family, info->family_why);
  if (info->ignored_tensors)
    report_detail("%d tensors that only training needs are passed over", info->ignored_tensors);
  report_detail("arithmetic: %s, backend %s, instructions %s", info->dtype, info->backend,
                info->tier);
  show_record(run);
  sample_check_preset(run);
  TRY(expect("num-classes", run->settings.num_classes, info->num_classes));
  if (option_given(&run->options, &run->settings.num_experts) &&
      run->settings.num_experts != info->experts)
    return report_error(DITMOE_MISMATCH, "--num-experts %lld: the model has %d",
                        (long long)run->settings.num_experts, info->experts);
  return DITMOE_OK;
}

/* A side in pixels, that of the latents, and what the latter are multiples of. */
static enum ditmoe_status choose_side(const struct sample *run, const char *option, int64_t wanted,
                                      int *pixels, int *latent) {
  const int factor = run->decoder ? run->decoder_info.factor : 1, unit = factor * run->info.patch;
  if (wanted % unit != 0)
    return report_error(DITMOE_USAGE, "--%s %lld: with this model and decoder a multiple of %d",
                        option, (long long)wanted, unit);
  *latent = wanted ? (int)(wanted / factor) : run->info.size;
  *pixels = *latent * factor;
  return DITMOE_OK;
}

static enum ditmoe_status choose_size(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const int trained = run->info.size * (run->decoder ? run->decoder_info.factor : 1);
  TRY(choose_side(run, "width", s->width, &run->width, &run->latent_width));
  TRY(choose_side(run, "height", s->height, &run->height, &run->latent_height));
  if (run->width == run->height)
    TRY(expect("image-size", s->image_size, run->width));
  else if (s->image_size)
    return report_error(DITMOE_MISMATCH, "--image-size %lld: the images are of %dx%d",
                        (long long)s->image_size, run->width, run->height);
  if (run->width != trained || run->height != trained)
    report_note("images of %dx%d: this model was trained at %dx%d", run->width, run->height,
                trained, trained);
  return DITMOE_OK;
}

size_t sample_image_bytes(const struct sample *run) {
  return 3 * (size_t)run->width * (size_t)run->height;
}

size_t sample_latent_bytes(const struct sample *run) {
  const size_t plane = (size_t)run->latent_width * (size_t)run->latent_height;
  return (size_t)run->info.channels * plane * sizeof(float);
}

static enum ditmoe_status choose_model(struct sample *run) {
  char *path;
  TRY(default_model(&path));
  enum ditmoe_status status = option_set(
      &run->options, option_of(&run->options, &run->settings.model), path, "model", FROM_PRESET);
  report_note("model: %s (another: -m FILE)", path);
  free(path);
  return status;
}

enum ditmoe_status sample_open(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  double start = clock_seconds();
  if (!s->model) TRY(choose_model(run));
  TRY(make_record(run));
  struct ditmoe_model_options options = {.backend = s->backend,
                                         .tier = s->tier,
                                         .dtype = s->dtype,
                                         .threads = (int)s->threads,
                                         .key = s->key,
                                         .record = run->record,
                                         .plan_only = s->dry_run};
  TRY(open_model(run, &options));
  run->classes = classes_of(run->model, s->allow_null || s->reproduce);
  if (s->list_classes) return DITMOE_OK;
  TRY(open_decoder(run, &options));
  TRY(refuse_needless(run));
  TRY(choose_size(run));
  if (!s->dry_run) TRY(sample_hash_start(run));
  run->seconds_open = clock_seconds() - start;
  return DITMOE_OK;
}

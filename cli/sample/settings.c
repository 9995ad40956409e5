/* Settings that do not come from the command line, and the rules between options. */
#include "cli/sample/sample.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

/* Environment. */

enum ditmoe_status sample_read_environment(struct sample *run) {
  static const struct {
    const char *variable, *option, *end;
  } variables[] = {{"DITMOE_MODEL", "model", ""},
                   {"DITMOE_VAE", "vae", ""},
                   {"DITMOE_THREADS", "threads", ""},
                   {"OMP_NUM_THREADS", "threads", ","}}; /* a list, of which the first counts */
  for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
    const char *value = getenv(variables[i].variable), *name = variables[i].option;
    const struct option *option = option_find(&sample_program, name, strlen(name));
    if (!value || !*value || option_source(&run->options, option) >= FROM_ENVIRONMENT) continue;
    char *first = text_copy_part(value, strcspn(value, variables[i].end));
    enum ditmoe_status status =
        option_set(&run->options, option, first, variables[i].variable, FROM_ENVIRONMENT);
    free(first);
    TRY(status);
  }
  return DITMOE_OK;
}

void sample_show_sources(const struct sample *run) {
  const struct option *option;
  for (size_t i = 0; (option = option_at(&sample_program, i)); i++) {
    enum option_source source = option_source(&run->options, option);
    if (source < FROM_ENVIRONMENT) continue;
    char *value = option_value(&run->options, option);
    report_detail("%s: %s (%s)", option->name, value, option_source_name(source));
    free(value);
  }
}

/* Rules between options. */

enum ditmoe_status sample_needless(const struct sample *run, const void *field, bool useful,
                                   const char *why) {
  const struct option *option = option_of(&run->options, field);
  if (useful || option_source(&run->options, option) < FROM_ENVIRONMENT) return DITMOE_OK;
  return report_error(DITMOE_USAGE, "--%s has no effect %s", option->name, why);
}

/* DiT's programs give the architecture as --model. */
static bool is_architecture_name(const char *text) {
  static const char *const families[] = {"DiT-", "DiT_MoE-", "ProMoE-", "SiT-"};
  for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
    if (strncmp(text, families[i], strlen(families[i])) == 0 &&
        strcspn(text, ".") == strlen(text) &&
        (strchr(text, '/') || strlen(text) <= strlen(families[i]) + 2))
      return true;
  return false;
}

static enum ditmoe_status check_execution(const struct sample_settings *s) {
  if (strncmp(s->device, "cuda", 4) == 0)
    return report_error(DITMOE_DEVICE, "--device %s: this build has no CUDA; use --device cpu",
                        s->device);
  if (strcmp(s->device, "cpu") != 0)
    return report_error(DITMOE_USAGE, "--device: \"%s\" is not one of cpu|cuda", s->device);
  return DITMOE_OK;
}

/* What is kept in the memory of one process. */
static enum ditmoe_status check_run(const struct sample_settings *s) {
  const struct {
    bool given;
    const char *name;
  } alone[] = {{s->show, "show"}, {s->reproduce != NULL, "reproduce"}, {s->latents, "latents"}};
  for (size_t i = 0; i < sizeof alone / sizeof alone[0]; i++)
    if (alone[i].given && s->ranks > 1)
      return report_error(DITMOE_USAGE, "--%s is for one process, this is a run of %lld ranks",
                          alone[i].name, (long long)s->ranks);
  if (s->latents && s->resume)
    return report_error(DITMOE_USAGE,
                        "--latents contradicts --resume: those of earlier images are lost");
  return DITMOE_OK;
}

enum ditmoe_status sample_check_options(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  bool guided = s->cfg_scale > 1, pixels = s->vae && strcmp(s->vae, "none") == 0;
  if (s->model && is_architecture_name(s->model))
    return report_error(DITMOE_USAGE,
                        "--model %s: this is the file to load; the architecture is read from it",
                        s->model);
  TRY(check_execution(s));
  TRY(check_run(s));
  if (s->classes && s->class_file)
    return report_error(DITMOE_USAGE, "--class and --class-file are alternatives");
  if (s->steps && s->respacing)
    return report_error(DITMOE_USAGE, "--steps and --respacing are alternatives");
  TRY(sample_needless(run, &s->cfg_interval, guided, "without guidance (--cfg-scale)"));
  TRY(sample_needless(run, &s->cfg_channels, guided, "without guidance (--cfg-scale)"));
  TRY(sample_needless(run, &s->grid_columns, s->grid, "without --grid"));
  TRY(sample_needless(run, &s->grid_samples, s->grid, "without --grid"));
  TRY(sample_needless(run, &s->rank_timeout, s->ranks > 1, "without --ranks"));
  TRY(sample_needless(run, &s->zoom, s->show, "without --show"));
  TRY(sample_check_routing(run));
  TRY(sample_needless(run, &s->tile, !pixels, "with --vae none"));
  TRY(sample_needless(run, &s->tier, strcmp(s->backend, "ref") != 0, "with --backend ref"));
  return DITMOE_OK;
}

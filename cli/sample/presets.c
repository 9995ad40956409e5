/* --preset: published protocols as a table of settings, each with the number that was published for
 * it. What the user, the environment or an image gives wins over it. */
#include "cli/sample/sample.h"
#include "cli/text.h"

#include <stdlib.h>
#include <string.h>

#define DDPM   "sampler=ddpm steps=250 num-samples=50000 "
#define EULER  "sampler=euler num-samples=50000 "
#define HEUN   "sampler=heun steps=250 num-samples=50000 "
#define SDE    "sampler=sde steps=250 num-samples=50000 "
#define GUIDED "cfg-scale=1.5"
#define PLAIN  "cfg-scale=1"

/* docs/PRESETS.md has the same rows and the files. */
static const struct preset {
  const char *name;
  int width, depth;     /* of the model                                        */
  const char *settings; /* "OPTION=VALUE ..."                                  */
  const char *result;   /* what was published, NULL: nothing for these weights */
  const char *source;
} presets[] = {
    {"dit-xl-2-256", 1152, 28, DDPM GUIDED " objective=ddpm", "FID 2.27", "arXiv 2212.09748"},
    {"dit-xl-2-256-plain", 1152, 28, DDPM PLAIN " objective=ddpm", "FID about 9.6",
     "arXiv 2212.09748"},
    {"dit-xl-2-512", 1152, 28, DDPM GUIDED " objective=ddpm", "FID 3.04",
     "arXiv 2212.09748, to be confirmed"},
    {"dit-moe-s", 384, 12, DDPM GUIDED " family=dit-moe", NULL, "arXiv 2407.11633"},
    {"dit-moe-b", 768, 12, DDPM GUIDED " family=dit-moe", NULL, "arXiv 2407.11633"},
    {"dit-moe-xl", 1152, 28, EULER GUIDED " steps=50 family=dit-moe", NULL,
     "arXiv 2407.11633; its FID of 1.72 is that of other weights, by 250 steps of ddpm"},
    {"dit-moe-g", 1408, 40, EULER GUIDED " steps=50 family=dit-moe", NULL,
     "arXiv 2407.11633; its FID of 1.80 at 512 is that of other weights, by 250 steps of ddpm"},
    {"promoe-b", 768, 12, EULER GUIDED " steps=250 family=promoe", "FID 6.39, IS 154.21", "ProMoE"},
    {"promoe-b-plain", 768, 12, EULER PLAIN " steps=250 family=promoe", "FID 24.44, IS 60.38",
     "ProMoE"},
    {"promoe-l", 1024, 24, EULER GUIDED " steps=250 family=promoe", "FID 2.79, IS 244.21",
     "ProMoE"},
    {"promoe-l-plain", 1024, 24, EULER PLAIN " steps=250 family=promoe", "FID 11.61, IS 100.82",
     "ProMoE"},
    {"promoe-xl", 1152, 28, EULER GUIDED " steps=250 family=promoe", "FID 2.59, IS 265.62",
     "ProMoE"},
    {"promoe-xl-plain", 1152, 28, EULER PLAIN " steps=250 family=promoe", "FID 9.44, IS 114.94",
     "ProMoE"},
    {"sit-xl-2-256", 1152, 28, SDE GUIDED " family=sit", "FID 2.06", "arXiv 2401.08740"},
    {"sit-xl-2-256-plain", 1152, 28, SDE PLAIN " family=sit", "FID 8.3", "SiT issue 31"},
    {"sit-xl-2-256-ode-plain", 1152, 28, HEUN PLAIN " family=sit", "FID 9.5",
     "SiT issue 31; by dopri5, which 250 points of heun stand in for"},
    {"sit-xl-2-256-ode", 1152, 28, HEUN GUIDED " family=sit", "FID 2.15",
     "arXiv 2401.08740, to be confirmed; by dopri5, which 250 points of heun stand in for"},
    {"repa-xl-2-256", 1152, 28, SDE "cfg-scale=1.8 cfg-times=0:0.7 family=repa", "FID 1.42",
     "arXiv 2410.06940"},
    {"lightningdit-xl-1-256", 1152, 28,
     EULER "steps=250 cfg-scale=6.7 cfg-times=0.125:1 family=lightningdit", "FID 1.35",
     "arXiv 2501.01423"},
};

enum { PRESETS = sizeof presets / sizeof presets[0] };

static const struct preset *find(const char *name) {
  for (size_t i = 0; i < PRESETS; i++)
    if (strcmp(presets[i].name, name) == 0) return &presets[i];
  return NULL;
}

static bool given(const struct sample *run, const char *name) {
  return option_source(&run->options, option_find(&sample_program, name, strlen(name))) >=
         FROM_ENVIRONMENT;
}

/* Whether a setting that the user has takes the place of one of another name. */
static bool replaced(const struct sample *run, const char *name) {
  static const char *const others[][2] = {
      {"steps", "respacing"},         {"num-samples", "class"},      {"num-samples", "class-file"},
      {"num-samples", "index-range"}, {"cfg-times", "cfg-interval"}, {"family", "record"},
      {"objective", "record"}};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
    if (strcmp(others[i][0], name) == 0 && given(run, others[i][1])) return true;
  return given(run, name);
}

/* One "OPTION=VALUE" of `length` characters. */
static enum ditmoe_status apply(struct sample *run, const char *setting, size_t length) {
  const size_t name = strcspn(setting, "=");
  const struct option *option = option_find(&sample_program, setting, name);
  char *value = text_copy_part(setting + name + 1, length - name - 1);
  enum ditmoe_status status = DITMOE_OK;
  if (!replaced(run, option->name))
    status = option_set(&run->options, option, value, option->name, FROM_PROTOCOL);
  free(value);
  return status;
}

enum ditmoe_status sample_apply_preset(struct sample *run) {
  const char *name = run->settings.preset;
  if (!name || run->settings.reproduce) return DITMOE_OK;
  const struct preset *preset = find(name);
  if (!preset)
    return report_error(DITMOE_USAGE, "--preset: there is no \"%.80s\"; see --list-presets", name);
  size_t length;
  for (const char *s = preset->settings; *s; s += length + strspn(s + length, " ")) {
    length = strcspn(s, " ");
    TRY(apply(run, s, length));
  }
  return DITMOE_OK;
}

void sample_check_preset(const struct sample *run) {
  const struct preset *preset = run->settings.preset ? find(run->settings.preset) : NULL;
  if (!preset) return;
  if (preset->width != run->info.width || preset->depth != run->info.depth)
    report_warning("--preset %s is for a model of width %d and depth %d, this one has %d and %d",
                   preset->name, preset->width, preset->depth, run->info.width, run->info.depth);
  else
    report_detail("preset %s: %s (%s)", preset->name,
                  preset->result ? preset->result : "nothing published", preset->source);
}

void sample_list_presets(bool json) {
  cJSON *list = cJSON_CreateArray();
  for (size_t i = 0; i < PRESETS; i++) {
    const struct preset *p = &presets[i];
    const char *result = p->result ? p->result : "nothing published";
    char *line = text_format("%-22s  %s: %s (%s)", p->name, result, p->settings, p->source);
    if (!json) report_result(line);
    free(line);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", p->name);
    cJSON_AddStringToObject(object, "settings", p->settings);
    if (p->result) cJSON_AddStringToObject(object, "result", p->result);
    cJSON_AddStringToObject(object, "source", p->source);
    cJSON_AddItemToArray(list, object);
  }
  if (json) json_put(list);
  cJSON_Delete(list);
}

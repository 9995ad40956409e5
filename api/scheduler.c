#include "api/scheduler.h"

#include <math.h>
#include <string.h>

/* The classes that are followed, as bits. Heun and midpoint go as the Euler of flows. */
enum { DDIM = 1, DDPM = 2, DPM = 4, FLOW = 8, NOISE = DDIM | DDPM | DPM };

static const struct scheduler_class {
  const char *name, *sampler;
  unsigned bit;
  struct schedule_request defaults; /* where they are not 0 */
} classes[] = {
    {"DDIMScheduler",
     "ddim",
     DDIM,
     {.spacing = SPACING_LEADING, .clip = true, .clip_range = 1, .train_steps = 1000}},
    {"DDPMScheduler",
     "ddpm",
     DDPM,
     {.spacing = SPACING_LEADING,
      .clip = true,
      .clip_range = 1,
      .variance = VARIANCE_SMALL,
      .train_steps = 1000}},
    {"DPMSolverMultistepScheduler",
     "dpmpp-2m",
     DPM,
     {.spacing = SPACING_LINSPACE, .train_steps = 1000}},
    {"FlowMatchEulerDiscreteScheduler",
     "euler",
     FLOW,
     {.flow_sigma_min = true, .train_steps = 1000}},
};

/* What is done with a member. */
enum rule {
  NUMBER, /* a double                                                                */
  WHOLE,  /* an int                                                                  */
  CHOICE, /* a place in the list `values`: "a,b|c", where a and b stand for the first */
  FLAG,   /* the same for a bool                                                     */
  BETAS,  /* scheduler_open has them                                                 */
  ONLY,   /* refused, unless it is in the list                                       */
  PASSED  /* without effect here                                                     */
};

#define AT(member) offsetof(struct schedule_request, member)
static const struct member {
  const char *name;
  unsigned classes; /* that have it */
  enum rule rule;
  size_t offset;
  const char *values;
  double low, high;
} members[] = {
    {"num_train_timesteps", NOISE | FLOW, WHOLE, AT(train_steps), NULL, 2, 1e6},
    {"beta_schedule", NOISE, CHOICE, AT(betas), "linear|scaled_linear|squaredcos_cap_v2", 0, 0},
    {"beta_start", NOISE, NUMBER, AT(beta_start), NULL, 1e-12, 0.999},
    {"beta_end", NOISE, NUMBER, AT(beta_end), NULL, 1e-12, 0.999},
    {"trained_betas", NOISE, BETAS, AT(trained_betas), NULL, 0, 0},
    {"rescale_betas_zero_snr", NOISE, FLAG, AT(zero_snr), "false|true", 0, 0},
    {"prediction_type", NOISE, CHOICE, AT(prediction), "epsilon|v_prediction|sample", 0, 0},
    {"timestep_spacing", NOISE, CHOICE, AT(spacing), "|linspace|leading|trailing", 0, 0},
    {"steps_offset", NOISE, WHOLE, AT(steps_offset), NULL, 0, 1e6},
    {"clip_sample", DDIM | DDPM, FLAG, AT(clip), "false|true", 0, 0},
    {"clip_sample_range", DDIM | DDPM, NUMBER, AT(clip_range), NULL, 1e-6, 1e6},
    {"thresholding", NOISE, ONLY, 0, "false", 0, 0},
    {"dynamic_thresholding_ratio", NOISE, PASSED, 0, NULL, 0, 0},
    {"sample_max_value", NOISE, PASSED, 0, NULL, 0, 0},
    {"set_alpha_to_one", DDIM, FLAG, AT(final_alpha_first), "true|false", 0, 0},
    {"variance_type", DDPM, CHOICE, AT(variance),
     "learned_range|fixed_small,fixed_small_log|fixed_large", 0, 0},
    {"variance_type", DPM, PASSED, 0, NULL, 0, 0},
    {"solver_order", DPM, ONLY, 0, "2", 0, 0},
    {"algorithm_type", DPM, ONLY, 0, "dpmsolver++,deis", 0, 0},
    {"solver_type", DPM, ONLY, 0, "midpoint,logrho,bh1,bh2", 0, 0},
    {"lower_order_final", DPM, FLAG, AT(full_order_final), "true|false", 0, 0},
    {"euler_at_final", DPM, FLAG, AT(euler_at_final), "false|true", 0, 0},
    {"final_sigmas_type", DPM, FLAG, AT(final_sigma_min), "zero|sigma_min", 0, 0},
    {"lambda_min_clipped", DPM, ONLY, 0, "-Infinity,null", 0, 0},
    {"use_lu_lambdas", DPM, ONLY, 0, "false", 0, 0},
    {"use_flow_sigmas", DPM, ONLY, 0, "false", 0, 0},
    {"flow_shift", DPM, PASSED, 0, NULL, 0, 0},
    {"use_karras_sigmas", DPM | FLOW, ONLY, 0, "false", 0, 0},
    {"use_exponential_sigmas", DPM | FLOW, ONLY, 0, "false", 0, 0},
    {"use_beta_sigmas", DPM | FLOW, ONLY, 0, "false", 0, 0},
    {"use_dynamic_shifting", DPM | FLOW, ONLY, 0, "false", 0, 0},
    {"time_shift_type", DPM | FLOW, PASSED, 0, NULL, 0, 0},
    {"shift", FLOW, PASSED, 0, NULL, 0, 0}, /* it is the record's */
    {"shift_terminal", FLOW, ONLY, 0, "null", 0, 0},
    {"base_shift", FLOW, PASSED, 0, NULL, 0, 0},
    {"max_shift", FLOW, PASSED, 0, NULL, 0, 0},
    {"base_image_seq_len", FLOW, PASSED, 0, NULL, 0, 0},
    {"max_image_seq_len", FLOW, PASSED, 0, NULL, 0, 0},
    {"invert_sigmas", FLOW, ONLY, 0, "false", 0, 0},
    {"stochastic_sampling", FLOW, ONLY, 0, "false", 0, 0},
};
enum { MEMBERS = sizeof members / sizeof *members };

static const char *class_of(const struct dit_record *record) {
  const char *name =
      cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record->scheduler, "_class_name"));
  return name ? name : "";
}

static const char *origin_of(const struct dit_record *record) {
  const char *source = record->sources[REC_SCHEDULER];
  return source ? source : "scheduler";
}

static const struct scheduler_class *find_class(const char *name) {
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
    if (strcmp(classes[i].name, name) == 0) return &classes[i];
  return NULL;
}

/* The class that a sampler is in diffusers. */
static const struct scheduler_class *class_of_sampler(const struct sampler *sampler) {
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
    if (strcmp(classes[i].sampler, sampler->name) == 0) return &classes[i];
  return strcmp(sampler->objective, "rf") == 0 ? find_class("FlowMatchEulerDiscreteScheduler")
                                               : NULL;
}

static bool is_known(const char *name) {
  for (size_t m = 0; m < MEMBERS; m++)
    if (strcmp(members[m].name, name) == 0) return true;
  return false;
}

/* Betas that were given. */

static enum ditmoe_status read_betas(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     const cJSON *list, double **out) {
  const int count = cJSON_GetArraySize(list);
  double *beta;
  TRY(mem_alloc(ctx, (size_t)count, sizeof *beta, "betas", &beta));
  int i = 0;
  for (const cJSON *item = list->child; item; item = item->next, i++) {
    beta[i] = item->valuedouble;
    if (cJSON_IsNumber(item) && beta[i] > 0 && beta[i] < 1) continue;
    mem_free(ctx, beta);
    return fail(ctx, DITMOE_FORMAT, "%s: \"trained_betas\": element %d must be between 0 and 1",
                origin_of(record), i);
  }
  *out = beta;
  return DITMOE_OK;
}

enum ditmoe_status scheduler_open(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                  double **trained_betas) {
  const bool followed = find_class(class_of(record)) != NULL;
  const cJSON *item;
  cJSON_ArrayForEach(item, record->scheduler) {
    if (followed && item->string[0] != '_' && !is_known(item->string))
      warn(ctx, "%s: \"%s\" is not a member of these schedulers, it is passed over",
           origin_of(record), item->string);
  }
  const cJSON *betas = cJSON_GetObjectItemCaseSensitive(record->scheduler, "trained_betas");
  if (!betas || cJSON_IsNull(betas)) return DITMOE_OK;
  if (!cJSON_IsArray(betas))
    return fail(ctx, DITMOE_FORMAT, "%s: \"trained_betas\" must be a list of numbers",
                origin_of(record));
  return read_betas(ctx, record, betas, trained_betas);
}

/* Who samples. */

enum ditmoe_status scheduler_sampler(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                     const char *objective, const char **sampler) {
  const char *name = class_of(record);
  const struct scheduler_class *class = find_class(name);
  *sampler = class ? class->sampler : NULL;
  if (!*name || (class && strcmp(sampler_find(class->sampler)->objective, objective) == 0))
    return DITMOE_OK;
  return fail(ctx, DITMOE_FORMAT,
              "%s: %s is not supported%s; --sampler %s goes without it, for example",
              origin_of(record), name, class ? " for flows" : "",
              strcmp(objective, "rf") == 0 ? "euler" : "ddim");
}

/* Its schedule. */

/* The text by which a value stands in a list of values. */
static const char *word_of(const cJSON *value) {
  static const char digits[][2] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
  if (cJSON_IsString(value)) return value->valuestring;
  if (cJSON_IsBool(value)) return cJSON_IsTrue(value) ? "true" : "false";
  if (cJSON_IsNull(value)) return "null";
  if (cJSON_IsNumber(value) && isinf(value->valuedouble))
    return value->valuedouble < 0 ? "-Infinity" : "Infinity";
  if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble <= 9 &&
      value->valuedouble == floor(value->valuedouble))
    return digits[(int)value->valuedouble];
  return "another value";
}

/* Place of a word in "a,b|c": 0 for a and b, 1 for c; -1: it has none. */
static int place_in(const char *values, const char *word) {
  int place = 0;
  for (const char *p = values; *word && *p;) {
    const size_t length = strcspn(p, ",|");
    if (strlen(word) == length && strncmp(p, word, length) == 0) return place;
    place += p[length] == '|';
    p += length + (p[length] != '\0');
  }
  return -1;
}

struct following {
  struct ditmoe_ctx *ctx;
  const char *origin, *class;
  const double *trained_betas;
  int trained_count;
};

static enum ditmoe_status refuse(const struct following *f, const struct member *m,
                                 const char *word) {
  return fail(f->ctx, DITMOE_FORMAT,
              "%s: \"%s\": %s is not supported, expected %s%s; another --sampler, or a --record "
              "with a \"scheduler\" of its own, goes without it",
              f->origin, m->name, word, m->values[0] == '|' ? m->values + 1 : m->values,
              m->rule == ONLY ? " alone" : "");
}

static enum ditmoe_status take_number(const struct following *f, const struct member *m,
                                      const cJSON *value, void *out) {
  const double number = value->valuedouble;
  if (!cJSON_IsNumber(value) || !(number >= m->low && number <= m->high) ||
      (m->rule == WHOLE && number != floor(number)))
    return fail(f->ctx, DITMOE_FORMAT, "%s: \"%s\" must be a %snumber from %g to %g", f->origin,
                m->name, m->rule == WHOLE ? "whole " : "", m->low, m->high);
  if (m->rule == WHOLE)
    *(int *)out = (int)number;
  else
    *(double *)out = number;
  return DITMOE_OK;
}

static enum ditmoe_status take(const struct following *f, const struct member *m,
                               const cJSON *value, struct schedule_request *request) {
  void *out = (char *)request + m->offset;
  int place = 0;
  switch (m->rule) {
  case NUMBER:
  case WHOLE:
    return take_number(f, m, value, out);
  case CHOICE:
  case FLAG:
  case ONLY:
    place = place_in(m->values, word_of(value));
    if (place < 0) return refuse(f, m, word_of(value));
    if (m->rule == CHOICE) *(int *)out = place;
    if (m->rule == FLAG) *(bool *)out = place != 0;
    return DITMOE_OK;
  case BETAS:
    request->trained_betas = f->trained_betas;
    return DITMOE_OK;
  case PASSED:
    return DITMOE_OK;
  }
  return DITMOE_OK;
}

/* As many as the chain has steps. */
static enum ditmoe_status check_betas(const struct following *f,
                                      const struct schedule_request *request) {
  if (request->trained_betas && f->trained_count != request->train_steps)
    return fail(f->ctx, DITMOE_FORMAT,
                "%s: \"trained_betas\" has %d elements, \"num_train_timesteps\" is %d", f->origin,
                f->trained_count, request->train_steps);
  return DITMOE_OK;
}

enum ditmoe_status scheduler_follow(struct ditmoe_ctx *ctx, const struct dit_record *record,
                                    const double *trained_betas, const struct sampler *sampler,
                                    struct schedule_request *request) {
  const struct scheduler_class *class = class_of_sampler(sampler);
  const cJSON *object = record->scheduler;
  const struct following f = {
      ctx, origin_of(record), class_of(record), trained_betas,
      cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(object, "trained_betas"))};
  if (!class || !object || !object->child) return DITMOE_OK;
  if (strcmp(class->name, f.class) == 0) *request = class->defaults;
  request->float32_betas = true;
  for (size_t m = 0; m < MEMBERS; m++) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, members[m].name);
    if (value && members[m].classes & class->bit) TRY(take(&f, &members[m], value, request));
  }
  return check_betas(&f, request);
}

/* Noise schedules against fixtures: tables of respaced chains in files named after the respacing,
 * betas <kind>_<T>, timesteps T<T>_<respacing>, and respacings that must fail. */
#include "cases.h"
#include "limit.h"
#include "sampler/schedule.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static double same(double x) { return x; }
static double complement_root(double x) { return sqrt(1 - x); }
static double complement_log(double x) { return log(1 - x); }

static const struct table {
  const char *tensor;
  size_t member;            /* of struct schedule               */
  double (*derive)(double); /* what the tensor holds of a value */
} tables[] = {
    {"alphas_cumprod", offsetof(struct schedule, abar), same},
    {"alphas_cumprod_next", offsetof(struct schedule, abar_next), same},
    {"alphas_cumprod_prev", offsetof(struct schedule, abar_prev), same},
    {"betas", offsetof(struct schedule, beta), same},
    {"log_one_minus_alphas_cumprod", offsetof(struct schedule, abar), complement_log},
    {"posterior_log_variance_clipped", offsetof(struct schedule, posterior_log_variance), same},
    {"posterior_mean_coef1", offsetof(struct schedule, posterior_c1), same},
    {"posterior_mean_coef2", offsetof(struct schedule, posterior_c2), same},
    {"posterior_variance", offsetof(struct schedule, posterior_variance), same},
    {"sqrt_alphas_cumprod", offsetof(struct schedule, abar), sqrt},
    {"sqrt_one_minus_alphas_cumprod", offsetof(struct schedule, abar), complement_root},
    {"sqrt_recip_alphas_cumprod", offsetof(struct schedule, sqrt_recip_abar), same},
    {"sqrt_recipm1_alphas_cumprod", offsetof(struct schedule, sqrt_recipm1_abar), same},
    {"timestep_map", offsetof(struct schedule, times), same},
};

static enum ditmoe_status check_table(struct case_file *file, const struct schedule *schedule,
                                      const char *tensor) {
  const struct table *table = NULL;
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    if (!strcmp(tensor, tables[i].tensor)) table = &tables[i];
  if (!table) return case_line(file, tensor, INFINITY, 0), DITMOE_OK;
  const double *source = *(double *const *)(const void *)((const char *)schedule + table->member);
  double *values;
  TRY(mem_alloc(file->ctx, (size_t)schedule->steps, sizeof *values, tensor, &values));
  for (int i = 0; i < schedule->steps; i++) values[i] = table->derive(source[i]);
  bool integers = checkpoint_find(file->checkpoint, tensor)->dtype == DT_I64;
  enum ditmoe_status status =
      integers ? case_equal(file, tensor, values, schedule->steps)
               : case_relative(file, tensor, values, schedule->steps, LIMIT_SCHEDULE);
  mem_free(file->ctx, values);
  return status;
}

static enum ditmoe_status check_chain(struct ditmoe_ctx *ctx, const char *folder, int train_steps,
                                      const char *respacing, case_report *report, void *user) {
  struct schedule_request request = {.respacing = respacing, .train_steps = train_steps};
  struct schedule schedule = {0};
  struct case_file file = {0};
  char name[64];
  enum ditmoe_status status;
  snprintf(name, sizeof name, "%s.safetensors", *respacing ? respacing : "full1000");
  for (char *p = name; (p = strchr(p, ','));) *p = '-';
  TRY_DONE(case_open(ctx, folder, name, report, user, &file));
  TRY_DONE(schedule_ddpm(ctx, &request, &schedule));
  for (size_t i = 0; i < file.checkpoint->count; i++)
    TRY_DONE(check_table(&file, &schedule, file.checkpoint->tensors[i].name));
done:
  schedule_free(ctx, &schedule);
  case_close(&file);
  return status;
}

static enum ditmoe_status check_betas(struct case_file *file, const char *tensor) {
  bool cosine = !strncmp(tensor, "squaredcos_cap_v2", strlen("squaredcos_cap_v2"));
  int train_steps = 0;
  double *betas;
  sscanf(strrchr(tensor, '_') ? strrchr(tensor, '_') : "", "_%d", &train_steps);
  TRY(mem_alloc(file->ctx, (size_t)train_steps, sizeof *betas, tensor, &betas));
  const struct schedule_request request = {.betas = cosine ? BETA_SQUARED_COSINE : BETA_LINEAR,
                                           .train_steps = train_steps};
  schedule_betas(betas, &request, false);
  enum ditmoe_status status = case_relative(file, tensor, betas, train_steps, LIMIT_SCHEDULE);
  mem_free(file->ctx, betas);
  return status;
}

static enum ditmoe_status check_spacing(struct case_file *file, const char *tensor) {
  int train_steps = 0, start = 0, count, *timesteps;
  double *values;
  sscanf(tensor, "T%d_%n", &train_steps, &start);
  TRY(schedule_space_timesteps(file->ctx, train_steps, tensor + start, &timesteps, &count));
  enum ditmoe_status status = mem_alloc(file->ctx, (size_t)count, sizeof *values, tensor, &values);
  if (status == DITMOE_OK) {
    for (int i = 0; i < count; i++) values[i] = timesteps[i];
    status = case_equal(file, tensor, values, count);
    mem_free(file->ctx, values);
  }
  mem_free(file->ctx, timesteps);
  return status;
}

/* key: "<T>/<respacing>". 0 if it is refused as a wrong option. */
static double refusal(struct ditmoe_ctx *ctx, const char *key) {
  int train_steps = 0, start = 0, count, *timesteps;
  sscanf(key, "%d/%n", &train_steps, &start);
  enum ditmoe_status status =
      schedule_space_timesteps(ctx, train_steps, key + start, &timesteps, &count);
  if (status == DITMOE_OK) mem_free(ctx, timesteps);
  return status != DITMOE_USAGE;
}

static enum ditmoe_status check_all(struct ditmoe_ctx *ctx, const char *folder, const char *name,
                                    enum ditmoe_status (*check)(struct case_file *, const char *),
                                    case_report *report, void *user) {
  struct case_file file;
  enum ditmoe_status status = DITMOE_OK;
  TRY(case_open(ctx, folder, name, report, user, &file));
  for (size_t i = 0; i < file.checkpoint->count && status == DITMOE_OK; i++)
    status = check(&file, file.checkpoint->tensors[i].name);
  case_close(&file);
  return status;
}

enum ditmoe_status schedule_case(struct ditmoe_ctx *ctx, const char *folder, case_report *report,
                                 void *user) {
  cJSON *manifest = NULL, *item;
  char text[1024];
  enum ditmoe_status status;
  snprintf(text, sizeof text, "%s/manifest.json", folder);
  TRY(json_read(ctx, text, &manifest));
  int train_steps = (int)case_number(manifest, "num_train_timesteps", 1000);
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(manifest, "respacings"))
      TRY_DONE(check_chain(ctx, folder, train_steps, cJSON_GetStringValue(item), report, user));
  TRY_DONE(check_all(ctx, folder, "named_betas.safetensors", check_betas, report, user));
  TRY_DONE(check_all(ctx, folder, "space_timesteps.safetensors", check_spacing, report, user));
  cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(manifest, "must_fail")) {
    snprintf(text, sizeof text, "must_fail:%s", item->string);
    report(user, text, refusal(ctx, item->string), 0);
  }
done:
  cJSON_Delete(manifest);
  return status;
}

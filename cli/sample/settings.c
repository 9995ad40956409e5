/* Settings from wherever they come: the command line has been read, an image, the environment and a
 * launcher of ranks follow; then the rules between them. */
#include "cli/outputs.h"
#include "cli/sample/sample.h"
#include "cli/text.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum ditmoe_status read_environment(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const struct option_variable variables[] = {{"DITMOE_MODEL", &s->model, false},
                                              {"DITMOE_VAE", &s->vae, false},
                                              {"DITMOE_THREADS", &s->threads, false},
                                              {"OMP_NUM_THREADS", &s->threads, true}};
  return options_read_environment(&run->options, variables, sizeof variables / sizeof *variables);
}

/* Which rank of how many this is. */

static const struct launcher { /* the first that says both counts */
  const char *rank, *ranks;
} launchers[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                 {"PMI_RANK", "PMI_SIZE"},
                 {"SLURM_PROCID", "SLURM_NTASKS"},
                 {"RANK", "WORLD_SIZE"}};

static const char *environment(const char *name) {
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

static enum ditmoe_status set(struct sample *run, const void *field, const char *value,
                              const char *what, enum option_source source) {
  return option_set(&run->options, option_of(&run->options, field), value, what, source);
}

/* A rank other than 0 is one of several; 0 alone may be a script that started nothing yet. */
static bool is_one_of_several(const char *rank) {
  return rank && rank[strspn(rank, "0123456789")] == 0 && strtol(rank, NULL, 10) > 0;
}

/* SLURM numbers the batch script, too, and says the tasks that it asked for; only what srun starts
 * is in a step. */
static bool is_batch_script(const struct launcher *l) {
  return strcmp(l->rank, "SLURM_PROCID") == 0 && environment("SLURM_JOB_ID") &&
         !environment("SLURM_STEP_ID") && !is_one_of_several(environment(l->rank));
}

static enum ditmoe_status read_launcher(struct sample *run) {
  const struct launcher *lone = NULL;
  for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++) {
    const struct launcher *l = &launchers[i];
    const char *rank = environment(l->rank), *ranks = environment(l->ranks);
    if (!rank || is_batch_script(l)) continue;
    if (ranks) {
      TRY(set(run, &run->settings.ranks, ranks, l->ranks, FROM_ENVIRONMENT));
      return set(run, &run->settings.rank, rank, l->rank, FROM_ENVIRONMENT);
    }
    if (!lone && is_one_of_several(rank)) lone = l;
  }
  if (lone)
    return report_error(DITMOE_USAGE,
                        "%s is set, but %s is not: --ranks 1 makes the whole run, --rank and "
                        "--ranks a part of it",
                        lone->rank, lone->ranks);
  TRY(set(run, &run->settings.ranks, "1", "ranks", FROM_PRESET));
  return set(run, &run->settings.rank, "0", "rank", FROM_PRESET);
}

/* Ranks of this host; 0 if the launcher does not say. SLURM's form is "8" or "8(x2),3". */
static long local_ranks(void) {
  static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS",
                                      "SLURM_NTASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE",
                                      "LOCAL_WORLD_SIZE"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (environment(names[i])) return strtol(environment(names[i]), NULL, 10);
  return 0;
}

/* A launcher that binds ranks to processors has divided them already. */
static enum ditmoe_status choose_threads(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  long ranks = local_ranks(), processors = sysconf(_SC_NPROCESSORS_ONLN);
  cpu_set_t set_of_cpus;
  if (s->threads || ranks < 2) return DITMOE_OK;
  long threads = processors / ranks < 1 ? 1 : processors / ranks;
  if (sched_getaffinity(0, sizeof set_of_cpus, &set_of_cpus) == 0 &&
      CPU_COUNT(&set_of_cpus) < threads)
    threads = CPU_COUNT(&set_of_cpus);
  report_detail("%ld threads: %ld processors, %ld ranks on this host", threads, processors, ranks);
  char *text = text_format("%ld", threads);
  enum ditmoe_status status = set(run, &s->threads, text, "threads", FROM_PRESET);
  free(text);
  return status;
}

static enum ditmoe_status read_ranks(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  bool rank = option_given(&run->options, &s->rank), ranks = option_given(&run->options, &s->ranks);
  if (rank && !ranks) return report_error(DITMOE_USAGE, "--rank needs --ranks");
  if (ranks && !rank && s->ranks > 1) return report_error(DITMOE_USAGE, "--ranks needs --rank");
  if (!ranks) TRY(read_launcher(run));
  if (s->rank >= s->ranks)
    return report_error(DITMOE_USAGE, "rank %lld: of %lld ranks the last is %lld",
                        (long long)s->rank, (long long)s->ranks, (long long)s->ranks - 1);
  if (s->ranks == 1) return DITMOE_OK;
  if (s->rank > 0 && !s->common.verbose) report_style(REPORT_QUIET, s->common.color);
  return choose_threads(run);
}

/* Rules between options. */

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

/* A GPU means the backend that runs on it. */
static enum ditmoe_status choose_backend(struct sample_settings *s) {
  if (strncmp(s->device, "cuda:", 5) == 0)
    return report_error(DITMOE_DEVICE,
                        "--device %s: one GPU is used, the first; use --device cuda, and "
                        "CUDA_VISIBLE_DEVICES to choose another",
                        s->device);
  if (strcmp(s->device, "cuda") == 0)
    s->backend = "cuda";
  else if (strcmp(s->device, "cpu") != 0)
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

static enum ditmoe_status refuse_needless(const struct sample *run) {
  const struct sample_settings *s = &run->settings;
  const bool guided = s->cfg_scale != 1, counted = s->routing_dump || s->routing_trace;
  static const char no_guidance[] = "without guidance (--cfg-scale)",
                    no_dump[] = "without --routing-dump";
  const struct option_use uses[] = {
      {&s->cfg_interval, guided, no_guidance},
      {&s->cfg_times, guided, no_guidance},
      {&s->cfg_channels, guided, no_guidance},
      {&s->grid_columns, s->grid, "without --grid"},
      {&s->grid_samples, s->grid, "without --grid"},
      {&s->rank_timeout, s->ranks > 1, "without --ranks"},
      {&s->zoom, s->show, "without --show"},
      {&s->routing_bins, s->routing_dump, no_dump},
      {&s->routing_mass, s->routing_dump, no_dump},
      {&s->routing_scores, s->routing_trace, "without --routing-trace"},
      {&s->routing_uncond, counted, "without --routing-dump or --routing-trace"},
      {&s->routing_uncond, guided, no_guidance},
      {&s->tile, !s->vae || strcmp(s->vae, "none") != 0, "with --vae none"},
      {&s->tier, strcmp(s->backend, "ref") != 0, "with --backend ref"},
  };
  return options_refuse_needless(&run->options, uses, sizeof uses / sizeof *uses);
}

static enum ditmoe_status check_rules(struct sample *run) {
  struct sample_settings *s = &run->settings;
  if (s->model && is_architecture_name(s->model))
    return report_error(DITMOE_USAGE,
                        "--model %s: this is the file to load; the architecture is read from it",
                        s->model);
  TRY(choose_backend(s));
  TRY(check_run(s));
  if (option_given(&run->options, &s->cfg_interval) && option_given(&run->options, &s->cfg_times))
    return report_error(DITMOE_USAGE, "--cfg-interval and --cfg-times are alternatives");
  if (s->classes && s->class_file)
    return report_error(DITMOE_USAGE, "--class and --class-file are alternatives");
  if (s->steps && s->respacing)
    return report_error(DITMOE_USAGE, "--steps and --respacing are alternatives");
  return refuse_needless(run);
}

/* With -v: every setting that is not a default, and where it came from. */
static void show_sources(const struct sample *run) {
  const struct option *option;
  for (size_t i = 0; (option = option_at(&sample_program, i)); i++) {
    enum option_source source = option_source(&run->options, option);
    if (source < FROM_PROTOCOL) continue;
    char *value = option_value(&run->options, option);
    report_detail("%s: %s (%s)", option->name, value, option_source_name(source));
    free(value);
  }
}

/* "384x256" stands for a width and a height. */
static enum ditmoe_status read_size(struct sample *run) {
  const struct sample_settings *s = &run->settings;
  if (!s->size) return DITMOE_OK;
  const char *cross = strchr(s->size, 'x');
  if (option_given(&run->options, &s->width) || option_given(&run->options, &s->height))
    return report_error(DITMOE_USAGE, "--size and --width or --height are alternatives");
  if (!cross)
    return report_error(DITMOE_USAGE, "--size %s: expected WIDTHxHEIGHT, such as 384x256", s->size);
  char *width = text_copy_part(s->size, (size_t)(cross - s->size));
  enum ditmoe_status status = set(run, &s->width, width, "size", FROM_USER);
  if (status == DITMOE_OK) status = set(run, &s->height, cross + 1, "size", FROM_USER);
  free(width);
  return status;
}

enum ditmoe_status sample_read_settings(struct sample *run) {
  TRY(read_size(run));
  if (run->settings.reproduce) TRY(sample_read_image(run));
  TRY(read_environment(run));
  TRY(sample_apply_preset(run));
  TRY(read_ranks(run));
  TRY(check_rules(run));
  show_sources(run);
  return DITMOE_OK;
}

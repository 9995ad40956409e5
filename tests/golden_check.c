/* golden_check [options] FOLDER...: recomputes the fixtures of each folder with the library and
 * compares them tensor by tensor; with --dtype bf16, compares what the library makes of their
 * inputs in bf16 with what it makes of them in f32, on every tier that the machine has. Exit status
 * 0 if every output tensor was compared and is within its limit, 1 if not, 2 for a wrong command
 * line, 77 if the machine lacks the tier. */
#include "tests/golden/golden.h"
#include "tests/vae_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
  const char *backend, *tier;
  int threads;
  bool verbose, bf16;
  int first; /* index of the first folder */
};

/* Modules of tests/cases.h. */

static enum ditmoe_status check_rng(struct golden *g) {
  return rng_case(g->ctx, g->folder, report_add, g->report);
}

static enum ditmoe_status check_schedule(struct golden *g) {
  return schedule_case(g->ctx, g->folder, report_add, g->report);
}

static enum ditmoe_status check_vae(struct golden *g) {
  if (!g->precision) TRY(vae_case(g->ex, g->folder, g->manifest, report_add, g->report));
  return golden_decoder(g);
}

/* Whether the folder has a model or a decoder: others know no compute type. */
static bool has_weights(const struct golden *g) {
  return cJSON_IsString(golden_field(g->manifest, "weights"));
}

static enum ditmoe_status check_sampler(struct golden *g) {
  if (has_weights(g)) return golden_model(g);
  return sampler_table_case(g->ctx, g->folder, g->manifest, report_add, g->report);
}

static const struct {
  const char *kind;
  enum ditmoe_status (*check)(struct golden *g);
} kinds[] = {
    {"dit_moe", golden_model},       {"promoe", golden_model},     {"dit", golden_model},
    {"diffusers_dit", golden_model}, {"sit", golden_model},        {"repa", golden_model},
    {"sampler", check_sampler},      {"schedule", check_schedule}, {"rng", check_rng},
    {"vae_kl", check_vae},           {"taesd", check_vae},         {"inception", golden_inception},
    {"metrics", golden_metrics}};

static enum ditmoe_status check_kind(struct golden *g) {
  const char *kind = case_string(g->manifest, "kind");
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(kinds[i].kind, kind)) return kinds[i].check(g);
  return fail(g->ctx, DITMOE_FORMAT, "unknown kind \"%s\"", kind);
}

static enum ditmoe_status check_manifest(struct golden *g) {
  char path[2048];
  cJSON *manifest = NULL;
  snprintf(path, sizeof path, "%s/manifest.json", g->folder);
  TRY(json_read(g->ctx, path, &manifest));
  g->manifest = manifest;
  if (g->precision && !has_weights(g)) {
    printf("  nothing to compute in bf16\n");
    cJSON_Delete(manifest);
    return DITMOE_OK;
  }
  enum ditmoe_status status = check_kind(g);
  if (status == DITMOE_OK && !g->precision) status = check_coverage(g);
  if (status == DITMOE_OK && g->report->folder_passed + g->report->folder_failed == 0)
    status = fail(g->ctx, DITMOE_FORMAT, "nothing to compare");
  cJSON_Delete(manifest);
  return status;
}

static void check_folder(struct golden *g, const char *folder) {
  struct report *report = g->report;
  printf("%s\n", folder);
  g->folder = folder;
  if (check_manifest(g) != DITMOE_OK) {
    printf("  FAIL %s\n", ditmoe_errmsg(g->ctx));
    report->folder_failed++;
  }
  exec_clear(g->ex);
  printf("%s: %ld passed, %ld failed; nearest to its limit (%.0f%%): %s\n", folder,
         report->folder_passed, report->folder_failed, fmin(100 * report->worst, 999),
         report->worst > 0 ? report->worst_name : "none");
  report_end_folder(report);
}

/* All folders with one tier, NULL: the best; DITMOE_DEVICE if the machine lacks it. */
static enum ditmoe_status check_tier(struct report *report, const struct options *options,
                                     const char *tier, char **folders, int count) {
  struct exec ex;
  struct golden g = {.ctx = report->ctx, .ex = &ex, .report = report};
  enum ditmoe_status status;
  TRY(backend_open(&ex, g.ctx, options->backend, tier, options->threads));
  if (options->bf16) TRY_DONE(precision_open(&ex, &g.precision));
  printf("backend %s, tier %s, %d threads\n", ex.device->ops->name, ex.device->tier,
         ex.device->threads);
  for (int i = 0; i < count; i++) check_folder(&g, folders[i]);
  status = DITMOE_OK;
done:
  precision_close(g.precision);
  exec_close(&ex);
  return status;
}

/* Those of the CPU backend that the machine has. */
static enum ditmoe_status check_tiers(struct report *report, const struct options *options,
                                      char **folders, int count) {
  static const char *const tiers[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};
  for (size_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
    enum ditmoe_status status = check_tier(report, options, tiers[i], folders, count);
    if (status == DITMOE_DEVICE)
      printf("skipped: %s\n", ditmoe_errmsg(report->ctx));
    else
      TRY(status);
  }
  return DITMOE_OK;
}

/* Command line. */

static int usage(void) {
  fprintf(
      stderr,
      "usage: golden_check [--backend NAME] [--tier NAME] [--dtype f32|bf16] [--threads N] [-v] "
      "FOLDER...\n");
  return 2;
}

static bool parse(struct options *options, int argc, char **argv) {
  int i = 1;
  for (; i < argc && argv[i][0] == '-'; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (!strcmp(argv[i], "-v")) {
      options->verbose = true;
      continue;
    }
    if (!value) return false;
    if (!strcmp(argv[i], "--backend"))
      options->backend = value;
    else if (!strcmp(argv[i], "--tier"))
      options->tier = value;
    else if (!strcmp(argv[i], "--threads"))
      options->threads = atoi(value);
    else if (!strcmp(argv[i], "--dtype") && (!strcmp(value, "f32") || !strcmp(value, "bf16")))
      options->bf16 = !strcmp(value, "bf16");
    else
      return false;
    i++;
  }
  options->first = i;
  return i < argc;
}

static void print_warning(void *user, const char *line) {
  (void)user;
  fprintf(stderr, "warning: %s\n", line);
}

int main(int argc, char **argv) {
  struct options options = {0};
  if (!parse(&options, argc, argv)) return usage();
  struct ditmoe_ctx *ctx = ditmoe_ctx_create(&(struct ditmoe_hooks){.warn = print_warning});
  if (!ctx) return 1;
  struct report report = {.ctx = ctx, .verbose = options.verbose};
  char **folders = argv + options.first;
  const int count = argc - options.first;
  enum ditmoe_status status = options.bf16 && !options.tier && !options.backend
                                  ? check_tiers(&report, &options, folders, count)
                                  : check_tier(&report, &options, options.tier, folders, count);
  if (status != DITMOE_OK) fprintf(stderr, "golden_check: %s\n", ditmoe_errmsg(ctx));
  ditmoe_ctx_destroy(ctx);
  if (status != DITMOE_OK) return status == DITMOE_DEVICE ? 77 : 1;
  printf("%ld passed, %ld failed\n", report.passed, report.failed);
  return report.failed == 0 ? 0 : 1;
}

/* Every tensor of a folder's data files is an input or was compared. */
#include "tests/golden/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Inputs that no call or run of a manifest names, by kind. They describe what to compute: starting
 * points, noise, labels, given predictions, parameters of a velocity field, counters of a
 * generator, and which steps a trajectory keeps; sets of features. Radii of float16 distances are
 * those of a mode that is not offered, dec_mid and enc_mid lie inside of a network. */
static const struct {
  const char *kind, *names[12];
} inputs[] = {
    {"sampler",
     {"z", "noise", "y", "y_null", "traj_idx", "eps", "orders", "mean", "std", "weight", "times"}},
    {"dit_moe", {"z", "noise", "y", "y_null", "traj_idx"}},
    {"promoe", {"z", "noise", "y", "y_null", "traj_idx"}},
    {"dit", {"z", "noise", "y", "labels"}},
    {"diffusers_dit", {"z", "noise", "y", "labels"}},
    {"sit", {"z", "noise", "y"}},
    {"repa", {"z", "noise", "y"}},
    {"vae_kl", {"image", "latents", "dec_mid", "enc_mid"}},
    {"taesd", {"image", "latents"}},
    {"rng", {"counter", "key"}},
    {"metrics",
     {"A", "B", "C", "E", "PR_ref", "PR_sample", "SA", "SB", "radii_ref_float16",
      "radii_sample_float16"}},
};

static bool listed(const char *kind, const char *tensor) {
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
    for (size_t j = 0; !strcmp(inputs[i].kind, kind) && inputs[i].names[j]; j++)
      if (!strcmp(inputs[i].names[j], tensor)) return true;
  return false;
}

/* Whether a call names the tensor as its x, t or y. */
static bool named_by_call(const struct golden *g, const char *file, const char *tensor) {
  static const char *const roles[] = {"x", "t", "y"};
  const cJSON *call;
  cJSON_ArrayForEach(call, golden_field(g->manifest, "calls")) {
    if (strcmp(case_string(call, "inputs"), file) != 0) continue;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
      if (!strcmp(case_string(call, roles[i]), tensor)) return true;
  }
  return false;
}

static void cover_tensor(struct golden *g, const char *file, const char *tensor) {
  char line[256];
  snprintf(line, sizeof line, "%s:%s", file, tensor);
  if (report_has(g->report, line)) return;
  const bool input =
      named_by_call(g, file, tensor) || listed(case_string(g->manifest, "kind"), tensor);
  if (!input) report_add(g->report, line, INFINITY, 0);
  if (input && g->report->verbose) printf("  %-56s input\n", line);
}

/* The tensors that the file has, and those that the manifest promises. */
static enum ditmoe_status cover_file(struct golden *g, const cJSON *entry) {
  struct case_file file;
  const cJSON *tensor;
  TRY(golden_open(g, entry->string, &file));
  for (size_t i = 0; i < file.checkpoint->count; i++)
    cover_tensor(g, entry->string, file.checkpoint->tensors[i].name);
  cJSON_ArrayForEach(tensor, golden_field(entry, "tensors")) {
    if (!checkpoint_find(file.checkpoint, tensor->string))
      cover_tensor(g, entry->string, tensor->string);
  }
  case_close(&file);
  return DITMOE_OK;
}

enum ditmoe_status check_coverage(struct golden *g) {
  const cJSON *entry, *files = golden_field(g->manifest, "files");
  if (!cJSON_IsObject(files)) return fail(g->ctx, DITMOE_FORMAT, "the manifest lists no files");
  cJSON_ArrayForEach(entry, files) {
    const char *ending = strrchr(entry->string, '.');
    const bool weights = !strcmp(case_string(entry, "kind"), "state_dict");
    if (ending && !strcmp(ending, ".safetensors") && !weights) TRY(cover_file(g, entry));
  }
  return DITMOE_OK;
}

/* Feature networks. */
#include "base/system.h"
#include "ditmoe_eval.h"
#include "eval/network.h"

#include <stdio.h>
#include <string.h>

enum { MOST_SIDE = 1 << 16 };

struct ditmoe_features {
  struct ditmoe_ctx own; /* see api/handles.h */
  struct exec ex;
  struct network *network;
  enum resize_rule rule;
  int capacity; /* images that the arena holds */
  char sha256[65], name[64];
};

static const char *const rules[] = {[RESIZE_ADM] = "adm", [RESIZE_PYTORCH_FID] = "pytorch-fid"};

static enum ditmoe_status parse_rule(struct ditmoe_ctx *ctx, const char *name,
                                     enum resize_rule *out) {
  *out = RESIZE_ADM;
  if (!name || strcmp(name, rules[RESIZE_ADM]) == 0) return DITMOE_OK;
  *out = RESIZE_PYTORCH_FID;
  if (strcmp(name, rules[RESIZE_PYTORCH_FID]) == 0) return DITMOE_OK;
  return fail(ctx, DITMOE_USAGE, "resize: expected \"adm\" or \"pytorch-fid\", found \"%s\"", name);
}

/* pt_inception-2015-12-05-6726825d.pth: its publisher ends the name of a file with the first digits
 * of its SHA-256. A conversion of it to another format has the same numbers, but nothing to know
 * them by, and counts as other weights. */
static bool defines_fid(const struct ditmoe_features *features) {
  return features->network->kind == &inception_kind &&
         strncmp(features->sha256, "6726825d", 8) == 0;
}

static bool is_random(const struct ditmoe_features *features) {
  return strcmp(features->sha256,
                "4e267298c6aff5d2a2996152926a96a24518c28f03da6ea4e71388d6a887b4af") == 0;
}

static void give_name(struct ditmoe_features *features) {
  const char *kind = features->network->kind->name;
  if (defines_fid(features))
    snprintf(features->name, sizeof features->name, "%s", kind);
  else if (is_random(features))
    snprintf(features->name, sizeof features->name, "random-inception");
  else
    snprintf(features->name, sizeof features->name, "%s %.8s", kind, features->sha256);
}

static enum ditmoe_status load(struct ditmoe_ctx *ctx, struct ditmoe_features *features,
                               const char *path, const struct ditmoe_model_options *options) {
  struct exec *ex = &features->ex;
  TRY(backend_open(ex, ctx, options->backend, options->tier, options->threads));
  TRY(backend_compute(ex, options->dtype ? options->dtype : "f32"));
  TRY(network_open(ex, path, &features->network));
  TRY(ditmoe_file_sha256(ctx, path, features->sha256));
  give_name(features);
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_features_open(struct ditmoe_ctx *ctx, const char *path,
                                        const struct ditmoe_model_options *options,
                                        const char *resize, struct ditmoe_features **out) {
  const struct ditmoe_model_options defaults = {0};
  struct ditmoe_features *features = NULL;
  enum resize_rule rule;
  TRY(parse_rule(ctx, resize, &rule));
  TRY(mem_zalloc(ctx, 1, sizeof *features, "feature network", &features));
  features->own.hooks = ctx->hooks;
  features->rule = rule;
  enum ditmoe_status status = load(ctx, features, path, options ? options : &defaults);
  features->ex.ctx = &features->own;
  if (status != DITMOE_OK) {
    ditmoe_features_close(features);
    return status;
  }
  *out = features;
  return DITMOE_OK;
}

void ditmoe_features_close(struct ditmoe_features *features) {
  if (!features) return;
  struct ditmoe_ctx own = features->own;
  features->ex.ctx = &own;
  network_close(&features->ex, features->network);
  exec_close(&features->ex);
  mem_free(&own, features);
}

void ditmoe_features_info(const struct ditmoe_features *features,
                          struct ditmoe_features_info *out) {
  const struct network_kind *kind = features->network->kind;
  const struct exec *ex = &features->ex;
  *out = (struct ditmoe_features_info){
      .kind = kind->name,
      .name = features->name,
      .defines_fid = defines_fid(features),
      .resize = rules[features->rule],
      .side = kind->side,
      .pool = kind->pool,
      .spatial = kind->spatial,
      .logits = kind->logits,
      .backend = ex->device->ops->name,
      .tier = ex->device->tier,
      .dtype = ex->compute == DT_BF16 ? "bf16" : "f32",
  };
  memcpy(out->sha256, features->sha256, sizeof out->sha256);
}

/* The arena for batches of `count`. */
static enum ditmoe_status make_room(struct ditmoe_features *features, int count) {
  struct exec *ex = &features->ex;
  if (count <= features->capacity) return DITMOE_OK;
  const uint64_t bytes = network_bytes(ex, features->network, count);
  const uint64_t available = system_memory_available() + ex->arena.capacity;
  if (bytes > available)
    return fail(ex->ctx, DITMOE_NOMEM,
                "features of %d images at a time need %.1f MiB, %.1f MiB are free", count,
                (double)bytes / 1048576, (double)available / 1048576);
  struct ditmoe_ctx *caller = ex->ctx;
  features->capacity = 0;
  ex->ctx = &features->own; /* the memory outlives this call */
  enum ditmoe_status status = exec_reserve(ex, bytes);
  ex->ctx = caller;
  if (status != DITMOE_OK) return fail(caller, status, "%s", features->own.error);
  features->capacity = count;
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_features_run(struct ditmoe_ctx *ctx, struct ditmoe_features *features,
                                       const uint8_t *pixels, int count, int height, int width,
                                       float *pool, float *spatial, float *logits) {
  struct exec *ex = &features->ex;
  const struct features out = {pool, spatial, logits};
  if (count < 1) return fail(ctx, DITMOE_USAGE, "count: expected at least 1, found %d", count);
  if (height < 1 || width < 1 || height > MOST_SIDE || width > MOST_SIDE)
    return fail(ctx, DITMOE_USAGE, "an image of %d x %d pixels: expected 1 to %d", width, height,
                MOST_SIDE);
  ex->ctx = ctx;
  enum ditmoe_status status = make_room(features, count);
  if (status == DITMOE_OK)
    status = network_run(ex, features->network, features->rule, pixels, count, height, width, &out);
  exec_clear(ex);
  ex->ctx = &features->own;
  return status;
}

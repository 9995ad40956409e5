/* Sets of images: one side of a comparison. */
#include "api/set.h"
#include "base/blas.h"

#include "eval/metrics.h"
#include "io/file.h"

enum ditmoe_status set_normal_create(struct ditmoe_ctx *ctx, struct set_normal *normal, int dims) {
  const size_t n = (size_t)dims;
  TRY(mem_alloc(ctx, n, (n + 1) * sizeof *normal->mean, "mean and covariance", &normal->mean));
  normal->covariance = normal->mean + n;
  normal->dims = dims;
  return DITMOE_OK;
}

void set_normal_free(struct ditmoe_ctx *ctx, struct set_normal *normal) {
  mem_free(ctx, normal->mean);
  *normal = (struct set_normal){0};
}

/* Statistics of a file that came from another network can only be compared with their like. */
static enum ditmoe_status check_dims(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                     const struct set_normal *normal, const char *array,
                                     int expected) {
  if (!normal->dims || !expected || normal->dims == expected) return DITMOE_OK;
  return fail(ctx, DITMOE_FORMAT, "%s: %s has %d dimensions, the features of %s have %d", set->path,
              array, normal->dims, set->network.name, expected);
}

/* What the file does not give and the measures need. */
static struct set_work plan(const struct ditmoe_set *set,
                            const struct ditmoe_set_options *options) {
  const unsigned measures = options->measures;
  return (struct set_work){
      .pool = measures & DITMOE_FRECHET && !set->pool.dims,
      .spatial = measures & DITMOE_SPATIAL && !set->spatial.dims,
      .score = measures & DITMOE_INCEPTION && !options->reference,
      .keep = measures & (DITMOE_PRECISION | DITMOE_KERNEL),
  };
}

static enum ditmoe_status check_network(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                        const struct ditmoe_features *network,
                                        const struct set_work *work) {
  const struct ditmoe_features_info *info = &set->network;
  const bool needed = work->pool || work->spatial || work->score || work->keep;
  if (!needed) return DITMOE_OK;
  if (!network)
    return fail(ctx, DITMOE_USAGE, "%s: a feature network is needed to compute features",
                set->path);
  const char *missing = (work->pool || work->keep) && !info->pool ? "pool features"
                        : work->spatial && !info->spatial         ? "spatial features"
                        : work->score && !info->logits            ? "logits"
                                                                  : NULL;
  if (missing) return fail(ctx, DITMOE_USAGE, "%s: the network has no %s", info->name, missing);
  return DITMOE_OK;
}

static enum ditmoe_status load(struct ditmoe_ctx *ctx, struct ditmoe_set *set,
                               struct ditmoe_features *network,
                               const struct ditmoe_set_options *options) {
  bool has_images;
  int64_t total = 0;
  TRY(set_read_file(ctx, set, &has_images, &total));
  const bool part = options->count && has_images && options->count < total;
  if (options->recompute || part) { /* the file's are those of all its images */
    if (options->recompute && !has_images)
      return fail(ctx, DITMOE_USAGE, "%s: has statistics alone, nothing can be computed anew",
                  set->path);
    set_normal_free(&set->own, &set->pool);
    set_normal_free(&set->own, &set->spatial);
  }
  if (network) {
    ditmoe_features_info(network, &set->network);
    TRY(check_dims(ctx, set, &set->pool, "mu", set->network.pool));
    TRY(check_dims(ctx, set, &set->spatial, "mu_s", set->network.spatial));
  }
  if (!has_images) {
    set->info.kind = "statistics";
    set->info.images = -1;
    TRY(ditmoe_file_sha256(ctx, set->path, set->info.sha256));
  } else {
    const struct set_work work = plan(set, options);
    TRY(check_network(ctx, set, network, &work));
    TRY(set_pass(ctx, set, network, options, &work));
  }
  set->info.statistics = !set->pool.dims ? NULL : set->pool.from_file ? "file" : "computed";
  return DITMOE_OK;
}

enum ditmoe_status ditmoe_set_open(struct ditmoe_ctx *ctx, const char *path,
                                   struct ditmoe_features *network,
                                   const struct ditmoe_set_options *options,
                                   struct ditmoe_set **out) {
  const struct ditmoe_set_options defaults = {0};
  struct ditmoe_set *set = NULL;
  if (!options) options = &defaults;
  if (options->count < 0 || options->batch < 0 || options->threads < 0)
    return fail(ctx, DITMOE_USAGE, "%s: count, threads and batch must not be negative", path);
  TRY(blas_load(ctx, options->threads));
  TRY(mem_zalloc(ctx, 1, sizeof *set, "set of images", &set));
  set->own.hooks = ctx->hooks;
  set->threads = options->threads;
  set->images = (struct ditmoe_images_options){options->recursive, options->count};
  enum ditmoe_status status = mem_strdup(ctx, path, &set->path);
  if (status == DITMOE_OK) status = load(ctx, set, network, options);
  if (status != DITMOE_OK) {
    ditmoe_set_close(set);
    return status;
  }
  *out = set;
  return DITMOE_OK;
}

void ditmoe_set_close(struct ditmoe_set *set) {
  if (!set) return;
  struct ditmoe_ctx own = set->own;
  set_normal_free(&own, &set->pool);
  set_normal_free(&own, &set->spatial);
  mem_free(&own, set->features);
  mem_free(&own, set->path);
  mem_free(&own, set);
}

void ditmoe_set_info(const struct ditmoe_set *set, struct ditmoe_set_info *out) {
  *out = set->info;
}

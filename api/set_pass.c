/* One pass over the images of a set, in batches of equal size. */
#include "api/set.h"
#include "eval/metrics.h"
#include "io/hash.h"

#include <string.h>

enum { BATCH_DEFAULT = 16, BATCH_BYTES = 256 << 20, SCORE_SPLIT = 5000 };

struct pass {
  struct ditmoe_set *set;
  struct ditmoe_features *network;
  const struct ditmoe_set_options *options;
  const struct set_work *work;
  struct ditmoe_images *images;
  struct hash *hash;
  struct moments *pool, *spatial;
  struct score *score;
  float *pool_rows, *spatial_rows, *logit_rows; /* of a batch; NULL: not wanted */
  uint8_t *pixels;                              /* [held, height, width, 3]      */
  size_t room;                                  /* bytes of pixels               */
  int width, height;                            /* of the images held            */
  int held, capacity, batch;                    /* images                        */
  int64_t done;
};

static enum ditmoe_status create(struct ditmoe_ctx *ctx, struct pass *p) {
  const struct ditmoe_features_info *network = &p->set->network;
  const struct set_work *work = p->work;
  struct ditmoe_images_info images;
  TRY(ditmoe_images_open(ctx, p->set->path, &p->set->images, &p->images));
  ditmoe_images_info(p->images, &images);
  p->set->info.kind = images.kind;
  p->set->info.images = images.count;
  p->set->info.jpeg = images.jpeg;
  if ((work->pool || work->spatial) && images.count < 2)
    return fail(ctx, DITMOE_NONFINITE, "%s: one image has no covariance; at least 2 are needed",
                p->set->path);
  p->batch = p->options->batch ? p->options->batch : BATCH_DEFAULT;
  if (p->batch > images.count) p->batch = (int)images.count;
  const size_t batch = (size_t)p->batch;
  TRY(hash_create(ctx, &p->hash));
  if (work->pool) TRY(moments_create(ctx, network->pool, &p->pool));
  if (work->spatial) TRY(moments_create(ctx, network->spatial, &p->spatial));
  if (work->score) TRY(score_create(ctx, network->logits, SCORE_SPLIT, &p->score));
  if (work->pool || work->keep)
    TRY(mem_alloc(ctx, batch * (size_t)network->pool, sizeof(float), "features", &p->pool_rows));
  if (work->spatial)
    TRY(mem_alloc(ctx, batch * (size_t)network->spatial, sizeof(float), "features",
                  &p->spatial_rows));
  if (work->score)
    TRY(mem_alloc(ctx, batch * (size_t)network->logits, sizeof(float), "features", &p->logit_rows));
  if (!work->keep) return DITMOE_OK;
  p->set->dims = network->pool;
  return mem_alloc(ctx, (size_t)images.count * (size_t)network->pool, sizeof(float),
                   "the features of all images", &p->set->features);
}

static void destroy(struct ditmoe_ctx *ctx, struct pass *p) {
  ditmoe_images_close(p->images);
  hash_free(ctx, p->hash);
  moments_free(ctx, p->pool);
  moments_free(ctx, p->spatial);
  score_free(ctx, p->score);
  mem_free(ctx, p->pool_rows);
  mem_free(ctx, p->spatial_rows);
  mem_free(ctx, p->logit_rows);
  mem_free(ctx, p->pixels);
}

/* The library says which image of a call; here that has a file. */
static enum ditmoe_status extract(struct ditmoe_ctx *ctx, const struct pass *p) {
  char why[sizeof ctx->error];
  enum ditmoe_status status =
      ditmoe_features_run(ctx, p->network, p->pixels, p->held, p->height, p->width, p->pool_rows,
                          p->spatial_rows, p->logit_rows);
  if (status != DITMOE_NONFINITE) return status;
  memcpy(why, ctx->error, sizeof why);
  return fail(ctx, status, "images from number %lld on (%s): %s", (long long)p->done,
              ditmoe_images_name(p->images, p->done), why);
}

static enum ditmoe_status run_batch(struct ditmoe_ctx *ctx, struct pass *p) {
  const struct ditmoe_features_info *network = &p->set->network;
  const size_t dims = (size_t)network->pool;
  if (!p->pool_rows && !p->spatial_rows && !p->logit_rows) return DITMOE_OK;
  TRY(extract(ctx, p));
  if (p->pool) TRY(moments_add(ctx, p->pool, p->pool_rows, p->held));
  if (p->spatial) TRY(moments_add(ctx, p->spatial, p->spatial_rows, p->held));
  if (p->score) TRY(score_add_logits(ctx, p->score, p->logit_rows, p->held));
  if (p->set->features)
    memcpy(p->set->features + (size_t)p->done * dims, p->pool_rows,
           (size_t)p->held * dims * sizeof(float));
  return DITMOE_OK;
}

static enum ditmoe_status flush(struct ditmoe_ctx *ctx, struct pass *p) {
  if (!p->held) return DITMOE_OK;
  TRY(run_batch(ctx, p));
  p->done += p->held;
  p->held = 0;
  if (p->options->observe && p->options->observe(p->options->user, p->done, p->set->info.images))
    return fail(ctx, DITMOE_CANCELLED, "cancelled after %lld of %lld images", (long long)p->done,
                (long long)p->set->info.images);
  return DITMOE_OK;
}

/* Another size begins: room for a batch of it, smaller if the images are huge. */
static enum ditmoe_status resize(struct ditmoe_ctx *ctx, struct pass *p, int width, int height) {
  const size_t image = 3 * (size_t)width * (size_t)height;
  const size_t fitting = BATCH_BYTES / image + 1;
  p->capacity = fitting < (size_t)p->batch ? (int)fitting : p->batch;
  p->width = width;
  p->height = height;
  if ((size_t)p->capacity * image <= p->room) return DITMOE_OK;
  mem_free(ctx, p->pixels);
  p->pixels = NULL;
  p->room = (size_t)p->capacity * image;
  return mem_alloc(ctx, p->room, 1, "a batch of images", &p->pixels);
}

static enum ditmoe_status add_image(struct ditmoe_ctx *ctx, struct pass *p, int64_t index) {
  struct ditmoe_set_info *info = &p->set->info;
  const uint8_t *pixels;
  int width, height;
  TRY(ditmoe_images_read(ctx, p->images, index, &pixels, &width, &height));
  if (index == 0) {
    info->width = width;
    info->height = height;
  }
  info->sizes += width != info->width || height != info->height;
  if (width != p->width || height != p->height) {
    TRY(flush(ctx, p));
    TRY(resize(ctx, p, width, height));
  }
  const size_t image = 3 * (size_t)width * (size_t)height;
  hash_add(p->hash, pixels, image);
  memcpy(p->pixels + (size_t)p->held * image, pixels, image);
  return ++p->held == p->capacity ? flush(ctx, p) : DITMOE_OK;
}

static enum ditmoe_status read_moments(struct ditmoe_ctx *ctx, struct moments *moments, int dims,
                                       struct set_normal *out) {
  if (!moments) return DITMOE_OK;
  TRY(set_normal_create(ctx, out, dims));
  return moments_read(ctx, moments, out->mean, out->covariance);
}

static enum ditmoe_status walk(struct ditmoe_ctx *ctx, struct pass *p) {
  struct ditmoe_set *set = p->set;
  TRY(create(ctx, p));
  for (int64_t i = 0; i < set->info.images; i++) TRY(add_image(ctx, p, i));
  TRY(flush(ctx, p));
  TRY(hash_read(ctx, p->hash, set->info.sha256));
  TRY(read_moments(ctx, p->pool, set->network.pool, &set->pool));
  TRY(read_moments(ctx, p->spatial, set->network.spatial, &set->spatial));
  if (p->score) TRY(score_read(ctx, p->score, &set->score));
  set->scored = p->score != NULL;
  return DITMOE_OK;
}

enum ditmoe_status set_pass(struct ditmoe_ctx *ctx, struct ditmoe_set *set,
                            struct ditmoe_features *network,
                            const struct ditmoe_set_options *options, const struct set_work *work) {
  struct pass p = {.set = set, .network = network, .options = options, .work = work};
  enum ditmoe_status status = walk(ctx, &p);
  destroy(ctx, &p);
  return status;
}

/* Sets to files. */
#include "api/set.h"
#include "io/hash.h"
#include "io/npz.h"

#include <string.h>

static enum ditmoe_status save_normal(struct ditmoe_ctx *ctx, struct ditmoe_npz *npz,
                                      const struct set_normal *normal, const char *mean,
                                      const char *covariance) {
  const int64_t n = normal->dims, shape[] = {n, n};
  const size_t row = (size_t)n * sizeof(double);
  if (!n) return DITMOE_OK;
  TRY(ditmoe_npz_array(ctx, npz, mean, "f8", 1, shape));
  TRY(ditmoe_npz_write(ctx, npz, normal->mean, row));
  TRY(ditmoe_npz_array(ctx, npz, covariance, "f8", 2, shape));
  return ditmoe_npz_write(ctx, npz, normal->covariance, (size_t)n * row);
}

static enum ditmoe_status copy_images(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                      struct ditmoe_images *images, struct hash *hash,
                                      struct ditmoe_npz *npz) {
  const struct ditmoe_set_info *info = &set->info;
  const int64_t shape[] = {info->images, info->height, info->width, 3};
  char digest[65];
  TRY(ditmoe_npz_array(ctx, npz, "arr_0", "u1", 4, shape));
  for (int64_t i = 0; i < info->images; i++) {
    const uint8_t *pixels;
    int width, height;
    TRY(ditmoe_images_read(ctx, images, i, &pixels, &width, &height));
    if (width != info->width || height != info->height)
      return fail(ctx, DITMOE_FORMAT,
                  "%s: %d x %d pixels, but the first image has %d x %d: an "
                  "array holds one size",
                  ditmoe_images_name(images, i), width, height, info->width, info->height);
    const size_t size = 3 * (size_t)width * (size_t)height;
    hash_add(hash, pixels, size);
    TRY(ditmoe_npz_write(ctx, npz, pixels, size));
  }
  TRY(hash_read(ctx, hash, digest));
  if (strcmp(digest, info->sha256) != 0)
    return fail(ctx, DITMOE_FORMAT, "%s: its images have changed since they were first read",
                set->path);
  return DITMOE_OK;
}

/* They are read once more: a set keeps no images. */
static enum ditmoe_status save_images(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                      struct ditmoe_npz *npz) {
  struct ditmoe_images *images = NULL;
  struct hash *hash = NULL;
  enum ditmoe_status status;
  TRY_DONE(ditmoe_images_open(ctx, set->path, &set->images, &images));
  TRY_DONE(hash_create(ctx, &hash));
  TRY_DONE(copy_images(ctx, set, images, hash, npz));
done:
  hash_free(ctx, hash);
  ditmoe_images_close(images);
  return status;
}

enum ditmoe_status ditmoe_set_save(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                   const char *path, int images) {
  struct ditmoe_npz *npz = NULL;
  enum ditmoe_status status;
  if (!set->pool.dims)
    return fail(ctx, DITMOE_USAGE, "%s: the set has no statistics to be saved", set->path);
  if (images && set->info.images < 0)
    return fail(ctx, DITMOE_USAGE, "%s: has statistics alone, no images to be saved", set->path);
  TRY(ditmoe_npz_create(ctx, path, &npz));
  TRY_DONE(save_normal(ctx, npz, &set->pool, "mu", "sigma"));
  TRY_DONE(save_normal(ctx, npz, &set->spatial, "mu_s", "sigma_s"));
  if (images) TRY_DONE(save_images(ctx, set, npz));
  return ditmoe_npz_commit(ctx, npz);
done:
  ditmoe_npz_abandon(ctx, npz);
  return status;
}

enum ditmoe_status ditmoe_set_save_features(struct ditmoe_ctx *ctx, const struct ditmoe_set *set,
                                            const char *path) {
  const int64_t shape[] = {set->info.images, set->dims};
  if (!set->features)
    return fail(ctx, DITMOE_USAGE, "%s: the set keeps no features to be saved", set->path);
  return npy_write(ctx, path, "f4", 2, shape, set->features);
}

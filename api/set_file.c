/* Statistics out of an npz, as pytorch-fid (mu, sigma) and ADM (also mu_s, sigma_s) write them. */
#include "api/set.h"
#include "io/image.h"
#include "io/npz.h"

#include <math.h>
#include <sys/stat.h>

/* A covariance of this many dimensions takes 2 GiB. */
enum { DIMS_MAX = 16384 };

static const double ASYMMETRY_MAX = 1e-6; /* of the largest variance */

static enum ditmoe_status check_shapes(struct ditmoe_ctx *ctx, const char *path,
                                       const struct npz_array *mean,
                                       const struct npz_array *covariance) {
  char a[NPZ_SHAPE_TEXT], b[NPZ_SHAPE_TEXT];
  const int64_t n = mean->rank == 1 ? mean->shape[0] : 0;
  if (n < 1 || covariance->rank != 2 || covariance->shape[0] != n || covariance->shape[1] != n)
    return fail(ctx, DITMOE_FORMAT,
                "%s: %s %s and %s %s do not belong together: expected [D] and "
                "[D, D]",
                path, mean->name, npz_shape_text(a, mean), covariance->name,
                npz_shape_text(b, covariance));
  if (n > DIMS_MAX)
    return fail(ctx, DITMOE_FORMAT, "%s: %s %s: more than %d dimensions", path, mean->name,
                npz_shape_text(a, mean), DIMS_MAX);
  return DITMOE_OK;
}

static enum ditmoe_status check_finite(struct ditmoe_ctx *ctx, const char *path, const char *array,
                                       const double *values, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(values[i]))
      return fail(ctx, DITMOE_NONFINITE, "%s: %s: value %lld is %s", path, array, (long long)i,
                  isnan(values[i]) ? "not a number" : "infinite");
  return DITMOE_OK;
}

/* Differences by rounding, as between the halves of a product, are averaged away. */
static enum ditmoe_status check_covariance(struct ditmoe_ctx *ctx, const char *path,
                                           const char *array, double *s, int64_t n) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) {
    if (s[i * n + i] < 0)
      return fail(ctx, DITMOE_FORMAT, "%s: %s: the variance [%lld, %lld] is negative: %g", path,
                  array, (long long)i, (long long)i, s[i * n + i]);
    largest = fmax(largest, s[i * n + i]);
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) {
      double *lower = &s[i * n + j], *upper = &s[j * n + i];
      if (*lower == *upper) continue;
      if (fabs(*lower - *upper) >= ASYMMETRY_MAX * largest)
        return fail(ctx, DITMOE_FORMAT,
                    "%s: %s is not symmetric: [%lld, %lld] is %g, [%lld, %lld] "
                    "is %g",
                    path, array, (long long)i, (long long)j, *lower, (long long)j, (long long)i,
                    *upper);
      *lower = *upper = 0.5 * *lower + 0.5 * *upper;
    }
  return DITMOE_OK;
}

/* The pair of arrays, if both are there; one alone is an error. */
static enum ditmoe_status read_pair(struct ditmoe_ctx *ctx, struct ditmoe_set *set,
                                    struct npz *file, const char *mean_name,
                                    const char *covariance_name, struct set_normal *out) {
  const struct npz_array *mean = npz_find(file, mean_name);
  const struct npz_array *covariance = npz_find(file, covariance_name);
  if (!mean && !covariance) return DITMOE_OK;
  if (!mean || !covariance)
    return fail(ctx, DITMOE_FORMAT, "%s: has %s but no %s", set->path,
                mean ? mean_name : covariance_name, mean ? covariance_name : mean_name);
  TRY(check_shapes(ctx, set->path, mean, covariance));
  const int64_t n = mean->shape[0];
  TRY(set_normal_create(ctx, out, (int)n));
  out->from_file = true;
  TRY(npz_read_f64(ctx, file, mean, out->mean));
  TRY(npz_read_f64(ctx, file, covariance, out->covariance));
  TRY(check_finite(ctx, set->path, mean_name, out->mean, n));
  TRY(check_finite(ctx, set->path, covariance_name, out->covariance, n * n));
  return check_covariance(ctx, set->path, covariance_name, out->covariance, n);
}

static enum ditmoe_status read_all(struct ditmoe_ctx *ctx, struct ditmoe_set *set, struct npz *file,
                                   bool *has_images, int64_t *total) {
  const struct npz_array *images = npz_find(file, "arr_0");
  TRY(read_pair(ctx, set, file, "mu", "sigma", &set->pool));
  TRY(read_pair(ctx, set, file, "mu_s", "sigma_s", &set->spatial));
  *has_images = images != NULL;
  *total = images && images->rank ? images->shape[0] : 0;
  if (images || set->pool.dims) return DITMOE_OK;
  return fail(ctx, DITMOE_FORMAT,
              "%s: has neither images (arr_0, uint8 [N, H, W, 3]) nor "
              "statistics (mu [D] and sigma [D, D])",
              set->path);
}

enum ditmoe_status set_read_file(struct ditmoe_ctx *ctx, struct ditmoe_set *set, bool *has_images,
                                 int64_t *total) {
  struct stat info;
  struct npz *file;
  *has_images = true;
  if (stat(set->path, &info) == 0 && S_ISDIR(info.st_mode)) return DITMOE_OK;
  if (image_is_file(set->path)) return DITMOE_OK;
  TRY(npz_open(ctx, set->path, &file));
  enum ditmoe_status status = read_all(ctx, set, file, has_images, total);
  npz_close(file);
  return status;
}

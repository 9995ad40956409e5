/* Mean and covariance of a set. */
#include "api/set.h"

enum ditmoe_status set_normal_create(struct ditmoe_ctx *ctx, struct set_normal *normal, int dims) {
  const size_t n = (size_t)dims;
  TRY(mem_alloc(ctx, n, sizeof *normal->mean, "mean", &normal->mean));
  enum ditmoe_status status =
      mem_alloc(ctx, n * n, sizeof *normal->covariance, "covariance", &normal->covariance);
  if (status != DITMOE_OK) {
    mem_free(ctx, normal->mean);
    normal->mean = NULL;
    return status;
  }
  normal->dims = dims;
  return DITMOE_OK;
}

void set_normal_free(struct ditmoe_ctx *ctx, struct set_normal *normal) {
  mem_free(ctx, normal->mean);
  mem_free(ctx, normal->covariance);
  *normal = (struct set_normal){0};
}

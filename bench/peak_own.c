/* Our own linear layer. */
#include "bench/peak.h"
#include "cli/text.h"

#include <stdlib.h>

struct own {
  struct linear *linear;
  void *x, *y; /* of the device */
};

static size_t x_bytes(const struct product *p) {
  return (size_t)p->rows * (size_t)p->in * dtype_size(p->be->dtype);
}

static size_t y_bytes(const struct product *p) {
  return (size_t)p->rows * (size_t)p->out * sizeof(float);
}

static void close_own(struct product *p) {
  struct own *own = p->state;
  struct backend *be = p->be;
  if (own->linear) be->ops->linear_destroy(be, own->linear);
  if (own->x) be->ops->release(be, own->x);
  if (own->y) be->ops->release(be, own->y);
  free(own);
}

static enum ditmoe_status make(struct product *p, struct own *own) {
  struct backend *be = p->be;
  const struct tensor weight = {.name = "weight",
                                .dtype = be->dtype,
                                .rank = 2,
                                .shape = {p->out, p->in},
                                .elements = (int64_t)p->out * p->in,
                                .data = p->w};
  const struct linear_source source = {.parts = 1, .weight = {&weight}};
  TRY(be->ops->linear_create(be, &source, &own->linear));
  TRY(be->ops->alloc(be, x_bytes(p), "a product", &own->x));
  TRY(be->ops->alloc(be, y_bytes(p), "a product", &own->y));
  be_upload(be, own->x, p->x, x_bytes(p));
  return be->status;
}

static enum ditmoe_status open_own(struct product *p, bool *available) {
  (void)available;
  p->state = memory_get(1, sizeof(struct own));
  enum ditmoe_status status = report_call(p->bench->ctx, make(p, p->state));
  if (status != DITMOE_OK) close_own(p);
  return status;
}

static enum ditmoe_status call(void *user) {
  struct product *p = user;
  const struct own *own = p->state;
  be_linear(p->be, own->y, own->x, own->linear, p->rows);
  return report_call(p->bench->ctx, p->be->status);
}

const struct product_library product_own = {"own", open_own, call, close_own};

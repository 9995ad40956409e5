/* Our own linear layer. */
#include "bench/peak.h"
#include "cli/text.h"

#include <stdlib.h>

struct own {
  struct linear *linear;
  void *x, *y; /* of the device */
};

static size_t x_bytes(const struct product *p) {
  return (size_t)p->rows * (size_t)p->in * dtype_size(p->ex->compute);
}

static size_t y_bytes(const struct product *p) {
  return (size_t)p->rows * (size_t)p->out * sizeof(float);
}

static void close_own(struct product *p) {
  struct own *own = p->state;
  struct exec *ex = p->ex;
  if (own->linear) ex->device->ops->linear_destroy(ex, own->linear);
  if (own->x) ex->device->ops->release(ex, own->x);
  if (own->y) ex->device->ops->release(ex, own->y);
  free(own);
}

static enum ditmoe_status make(struct product *p, struct own *own) {
  struct exec *ex = p->ex;
  const struct tensor weight = {.name = "weight",
                                .dtype = ex->compute,
                                .rank = 2,
                                .shape = {p->out, p->in},
                                .elements = (int64_t)p->out * p->in,
                                .data = p->w};
  const struct linear_source source = {.parts = 1, .input = ex->compute, .weight = {&weight}};
  TRY(ex->device->ops->linear_create(ex, &source, &own->linear));
  TRY(ex->device->ops->alloc(ex, x_bytes(p), "a product", &own->x));
  TRY(ex->device->ops->alloc(ex, y_bytes(p), "a product", &own->y));
  be_upload(ex, own->x, p->x, x_bytes(p));
  return ex->status;
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
  be_linear(p->ex, own->y, (struct act){own->x, p->ex->compute}, own->linear, p->rows);
  return report_call(p->bench->ctx, p->ex->status);
}

const struct product_library product_own = {"own", open_own, call, close_own};

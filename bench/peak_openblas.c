/* OpenBLAS, which the metrics use, too. It has no products of bf16 in Debian's form. */
#include "base/blas.h"
#include "bench/peak.h"

static enum ditmoe_status open_openblas(struct product *p, bool *available) {
  *available = p->ex->compute == DT_F32;
  return *available ? blas_load(p->ex->ctx, p->ex->device->threads) : DITMOE_OK;
}

static enum ditmoe_status call(void *user) {
  const struct product *p = user;
  blas.cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, p->rows, p->out, p->in, 1, p->x, p->in,
                   p->w, p->in, 0, p->y, p->out);
  return DITMOE_OK;
}

static void close_openblas(struct product *p) { (void)p; }

const struct product_library product_openblas = {"OpenBLAS", open_openblas, call, close_openblas};

/* The fastest matrix products of this machine, by us and by the libraries that are here. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include "bench/bench.h"

/* y [rows, out] (f32) = x [rows, in] W^T, W [out, in], both of ex->dtype on the host. Weights are
 * packed beforehand by those that can. */
struct product {
  struct bench *bench;
  struct exec *ex;
  int rows, in, out;
  const void *x, *w;
  float *y;
  void *state; /* of the library */
};

struct product_library {
  const char *name;
  /* *available = false where the library, or its product of this type, is missing. */
  enum ditmoe_status (*open)(struct product *product, bool *available);
  enum ditmoe_status (*call)(void *product);
  void (*close)(struct product *product);
};

extern const struct product_library product_own, product_openblas;
#ifdef HAVE_ONEDNN
extern const struct product_library product_onednn;
#endif

#endif

#include "base/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

struct function {
  const char *name;
  size_t offset; /* in struct blas */
};

#define FUNCTION(name) {#name, offsetof(struct blas, name)},
static const struct function of_blas[] = {BLAS_FUNCTIONS(FUNCTION){0}},
                             of_lapack[] = {LAPACK_FUNCTIONS(FUNCTION){0}};

/* Libraries as they are called where programs run, and where they are built. */
static const struct library {
  const char *file[2];
  const struct function *function;
} libraries[] = {{{"libopenblas.so.0", "libopenblas.so"}, of_blas},
                 {{"liblapacke.so.3", "liblapacke.so"}, of_lapack}};

struct blas blas;
static bool loaded;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static enum ditmoe_status load(struct ditmoe_ctx *ctx, const struct library *library) {
  void *handle = dlopen(library->file[0], RTLD_NOW | RTLD_LOCAL);
  if (!handle) handle = dlopen(library->file[1], RTLD_NOW | RTLD_LOCAL);
  for (const struct function *f = library->function; handle && f->name; f++) {
    void *address = dlsym(handle, f->name);
    if (!address) handle = NULL;
    *(void **)(void *)((char *)&blas + f->offset) = address;
  }
  if (handle) return DITMOE_OK;
  return fail(ctx, DITMOE_FAILED,
              "metrics need %s, which cannot be loaded: %s (Debian: apt-get install "
              "libopenblas0 liblapacke)",
              library->file[0], dlerror());
}

enum ditmoe_status blas_load(struct ditmoe_ctx *ctx, int threads) {
  enum ditmoe_status status = DITMOE_OK;
  pthread_mutex_lock(&lock);
  for (size_t i = 0; !loaded && status == DITMOE_OK && i < sizeof libraries / sizeof *libraries;
       i++)
    status = load(ctx, &libraries[i]);
  loaded = status == DITMOE_OK;
  if (loaded && threads > 0) blas.openblas_set_num_threads(threads);
  pthread_mutex_unlock(&lock);
  return status;
}

/* OpenBLAS, if it is on this machine: loaded when it is asked for. Its interface is declared here;
 * 101, 111 and 112 stand for row-major, not transposed and transposed. */
#include "bench/peak.h"

#include <dlfcn.h>

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

typedef void sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                   const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef void sbgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                    const uint16_t *a, int lda, const uint16_t *b, int ldb, float beta, float *c,
                    int ldc);

/* Never unloaded: its threads may still be there. */
static struct {
  bool tried;
  sgemm *f32;
  sbgemm *bf16;
  void (*set_threads)(int count);
} blas;

/* A function pointer that dlsym gives as a data pointer. */
#define LOOK_UP(library, member, symbol) (*(void **)(void *)&blas.member = dlsym(library, symbol))

static void load(void) {
  if (blas.tried) return;
  blas.tried = true;
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  LOOK_UP(library, f32, "cblas_sgemm");
  LOOK_UP(library, bf16, "cblas_sbgemm");
  LOOK_UP(library, set_threads, "openblas_set_num_threads");
}

static enum ditmoe_status open_openblas(struct product *p, bool *available) {
  load();
  *available = blas.set_threads && (p->be->dtype == DT_BF16 ? blas.bf16 != NULL : blas.f32 != NULL);
  if (*available) blas.set_threads(p->be->threads);
  return DITMOE_OK;
}

static enum ditmoe_status call(void *user) {
  const struct product *p = user;
  if (p->be->dtype == DT_BF16)
    blas.bf16(ROW_MAJOR, PLAIN, TRANSPOSED, p->rows, p->out, p->in, 1, p->x, p->in, p->w, p->in, 0,
              p->y, p->out);
  else
    blas.f32(ROW_MAJOR, PLAIN, TRANSPOSED, p->rows, p->out, p->in, 1, p->x, p->in, p->w, p->in, 0,
             p->y, p->out);
  return DITMOE_OK;
}

static void close_openblas(struct product *p) { (void)p; }

const struct product_library product_openblas = {"OpenBLAS", open_openblas, call, close_openblas};

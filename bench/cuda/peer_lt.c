#include "bench/cuda/peer_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACE = 64 << 20 };

#define FUNCTIONS(f)                                                                               \
  f(cublasLtCreate) f(cublasLtDestroy) f(cublasLtMatmulDescCreate) f(cublasLtMatmulDescDestroy)    \
      f(cublasLtMatmulDescSetAttribute) f(cublasLtMatrixLayoutCreate)                              \
          f(cublasLtMatrixLayoutDestroy) f(cublasLtMatmulPreferenceCreate)                         \
              f(cublasLtMatmulPreferenceDestroy) f(cublasLtMatmulPreferenceSetAttribute)           \
                  f(cublasLtMatmulAlgoGetHeuristic) f(cublasLtMatmul)

struct peer_lt {
  void *library, *workspace;
#define POINTER(name) __typeof__(&name) name;
  FUNCTIONS(POINTER)
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t w, x, y;
  cublasLtMatmulAlgo_t algorithm;
  struct cuda_product made_for; /* its shape and types */
};

static void *open_library(void) {
  static const char *const names[] = {"libcublasLt.so.13",
                                      "/usr/local/cuda/lib64/libcublasLt.so.13",
                                      "libcublasLt.so.12", "libcublasLt.so"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *library = dlopen(names[i], RTLD_NOW);
    if (library) return library;
  }
  return NULL;
}

struct peer_lt *peer_lt_open(const char **why) {
  struct peer_lt *lt = calloc(1, sizeof *lt);
  *why = "out of memory";
  if (!lt) return NULL;
  *why = "libcublasLt is not there";
  lt->library = open_library();
  int missing = !lt->library;
#define LOOK_UP(name)                                                                              \
  if (!missing) *(void **)&lt->name = dlsym(lt->library, #name);                                   \
  missing = missing || !lt->name;
  FUNCTIONS(LOOK_UP)
  if (!missing && !lt->cublasLtCreate(&lt->handle) && !cudaMalloc(&lt->workspace, WORKSPACE))
    return lt;
  peer_lt_close(lt);
  return NULL;
}

static void forget(struct peer_lt *lt) {
  if (lt->product) lt->cublasLtMatmulDescDestroy(lt->product);
  if (lt->w) lt->cublasLtMatrixLayoutDestroy(lt->w);
  if (lt->x) lt->cublasLtMatrixLayoutDestroy(lt->x);
  if (lt->y) lt->cublasLtMatrixLayoutDestroy(lt->y);
  lt->product = NULL;
  lt->w = lt->x = lt->y = NULL;
}

void peer_lt_close(struct peer_lt *lt) {
  forget(lt);
  if (lt->workspace) cudaFree(lt->workspace);
  if (lt->handle) lt->cublasLtDestroy(lt->handle);
  if (lt->library) dlclose(lt->library);
  free(lt);
}

static cudaDataType_t type_of(enum dtype type) {
  return type == DT_F32 ? CUDA_R_32F : type == DT_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

/* Column-major: y^T [out, rows] = (w^T [in, out])^T x^T [in, rows]. */
static int prepare(struct peer_lt *lt, const struct cuda_product *p) {
  const struct cuda_product *made = &lt->made_for;
  if (lt->product && made->in == p->in && made->out == p->out && made->rows == p->rows &&
      made->type == p->type && made->y_type == p->y_type)
    return 1;
  forget(lt);
  uint64_t in = (uint64_t)p->in, out = (uint64_t)p->out, rows = (uint64_t)p->rows;
  cublasOperation_t transposed = CUBLAS_OP_T;
  size_t workspace = WORKSPACE;
  cublasLtMatmulPreference_t preference = NULL;
  cublasLtMatmulHeuristicResult_t found;
  int count = 0;
  int failed =
      lt->cublasLtMatmulDescCreate(&lt->product, CUBLAS_COMPUTE_32F, CUDA_R_32F) ||
      lt->cublasLtMatmulDescSetAttribute(lt->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof transposed) ||
      lt->cublasLtMatrixLayoutCreate(&lt->w, type_of(p->type), in, out, (int64_t)in) ||
      lt->cublasLtMatrixLayoutCreate(&lt->x, type_of(p->type), in, rows, (int64_t)in) ||
      lt->cublasLtMatrixLayoutCreate(&lt->y, type_of(p->y_type), out, rows, p->ldy) ||
      lt->cublasLtMatmulPreferenceCreate(&preference) ||
      lt->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace, sizeof workspace) ||
      lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, lt->product, lt->w, lt->x, lt->y, lt->y,
                                         preference, 1, &found, &count);
  if (preference) lt->cublasLtMatmulPreferenceDestroy(preference);
  if (failed || count == 0) {
    forget(lt);
    return 0;
  }
  lt->algorithm = found.algo;
  lt->made_for = *p;
  return 1;
}

int peer_lt_multiply(struct peer_lt *lt, cudaStream_t stream, const struct cuda_product *p) {
  const float one = 1, zero = 0;
  return prepare(lt, p) && !lt->cublasLtMatmul(lt->handle, lt->product, &one, p->weight, lt->w,
                                               p->x, lt->x, &zero, p->y, lt->y, p->y, lt->y,
                                               &lt->algorithm, lt->workspace, WORKSPACE, stream);
}

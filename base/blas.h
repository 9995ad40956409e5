/* OpenBLAS and LAPACK, which metrics need and sampling does not: loaded when they are first used.
 */
#ifndef BASE_BLAS_H
#define BASE_BLAS_H

#include "base/status.h"

#include <cblas.h>
#include <lapacke.h>

#define BLAS_FUNCTIONS(X)                                                                          \
  X(openblas_set_num_threads)                                                                      \
  X(cblas_sgemm) X(cblas_dgemm) X(cblas_dsymm) X(cblas_dsyrk)
#define LAPACK_FUNCTIONS(X) X(LAPACKE_dpstrf_work) X(LAPACKE_dsyevd_work) X(LAPACKE_dsyevr_work)

/* By their own names: blas.cblas_dgemm(...). */
struct blas {
#define BLAS_MEMBER(name) __typeof__(name) *name;
  BLAS_FUNCTIONS(BLAS_MEMBER)
  LAPACK_FUNCTIONS(BLAS_MEMBER)
#undef BLAS_MEMBER
};
extern struct blas blas;

/* Before the functions are called. threads: theirs from now on, in the whole process; 0 changes
 * nothing. They work while no other thread of ours does. DITMOE_FAILED if a library is missing. */
enum ditmoe_status blas_load(struct ditmoe_ctx *ctx, int threads);

#endif

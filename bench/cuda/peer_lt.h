/* Dense products by cuBLASLt, which is opened at run time: the peer of our own. */
#ifndef BENCH_CUDA_PEER_LT_H
#define BENCH_CUDA_PEER_LT_H

#include "backend/cuda/kernels_moe.h"

#ifdef __cplusplus
extern "C" {
#endif

struct peer_lt;

/* NULL, with *why, where there is no cuBLASLt. */
struct peer_lt *peer_lt_open(const char **why);
void peer_lt_close(struct peer_lt *lt);
/* y [rows, out] = x w^T of one expert without index, bias and activation; false if cuBLASLt
 * refuses. The best algorithm by its heuristic is looked up once for each shape in a row. */
int peer_lt_multiply(struct peer_lt *lt, cudaStream_t stream, const struct cuda_product *p);

#ifdef __cplusplus
}
#endif

#endif

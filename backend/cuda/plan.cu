/* Choices of routers as assignments (expert, token, weight): the kernels to
 * backend/ref/ref_route.c. Candidates have one total order: larger score first, then the lower
 * index; NaN after all numbers.
 */
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels_moe.h"

DEVICE bool is_nan(float x) { return x != x; }

enum { THREADS = 256, SELECT_THREADS = 1024, BINS = 256 };

DEVICE void set(const struct cuda_plan &d, int64_t at, int32_t expert, int32_t token, float gate) {
  d.expert[at] = expert;
  d.source[at] = token;
  d.gate[at] = gate;
}

DEVICE bool precedes(float a, int a_index, float b, int b_index) {
  if (is_nan(a) || is_nan(b)) return is_nan(a) == is_nan(b) ? a_index < b_index : is_nan(b);
  return a != b ? a > b : a_index < b_index;
}

static unsigned blocks_for(int64_t n, int threads) {
  return (unsigned)((n + threads - 1) / threads);
}

/* A thread for each row. */
__global__ void assign_topk(const struct cuda_plan d, int64_t at, const float *scores,
                            int32_t first_token, int64_t rows, int E, int K, int skip) {
  int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (r >= rows) return;
  scores += r * E;
  int last = -1;
  for (int rank = 0; rank < skip + K; rank++) {
    int best = -1;
    for (int e = 0; e < E; e++)
      if ((last < 0 || precedes(scores[last], last, scores[e], e)) &&
          (best < 0 || precedes(scores[e], e, scores[best], best)))
        best = e;
    last = best;
    if (rank >= skip)
      set(d, at + r * K + rank - skip, best, first_token + static_cast<int32_t>(r), scores[best]);
  }
}

cudaError_t cuda_assign_topk(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                             const float *scores, int32_t first_token, int64_t rows, int E, int K,
                             int skip) {
  if (rows == 0) return cudaSuccess;
  LAUNCH(assign_topk, blocks_for(rows, THREADS), THREADS, 0, stream, *plan, at, scores, first_token,
         rows, E, K, skip);
  return cudaGetLastError();
}

DEVICE float group_score(const float *scores, const float *bias, int first, int n) {
  float best = -INFINITY, next = -INFINITY;
  for (int e = first; e < first + n; e++) {
    const float c = scores[e] + bias[e];
    if (c > best)
      next = best, best = c;
    else if (c > next)
      next = c;
  }
  return best + next;
}

/* A thread for each row and group. */
__global__ void rank_biased(float *ranked, const float *scores, const struct cuda_biased b,
                            int64_t rows, int E) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / b.groups;
  const int group = static_cast<int>(i % b.groups), n = E / b.groups;
  if (r >= rows) return;
  scores += r * E;
  ranked += r * E;
  const float own = group_score(scores, b.bias, group * n, n);
  int better = 0;
  for (int g = 0; b.kept < b.groups && g < b.groups; g++)
    better += precedes(group_score(scores, b.bias, g * n, n), g, own, group);
  for (int e = group * n; e < (group + 1) * n; e++)
    ranked[e] = better < b.kept ? scores[e] + b.bias[e] : 0;
}

/* A thread for each row: in double as the CPU's. */
__global__ void renormalise(const struct cuda_plan d, const float *scores, float factor,
                            int64_t rows, int E, int K) {
  const int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (r >= rows) return;
  double sum = 1e-20;
  for (int j = 0; j < K; j++) sum += static_cast<double>(scores[r * E + d.expert[r * K + j]]);
  for (int j = 0; j < K; j++) {
    const double score = static_cast<double>(scores[r * E + d.expert[r * K + j]]);
    d.gate[r * K + j] = static_cast<float>(score / (K > 1 ? sum : 1) * static_cast<double>(factor));
  }
}

cudaError_t cuda_assign_biased(cudaStream_t stream, const struct cuda_plan *plan, float *ranked,
                               const float *scores, const struct cuda_biased *biased, int64_t rows,
                               int E, int K, int skip) {
  if (rows == 0) return cudaSuccess;
  LAUNCH(rank_biased, blocks_for(rows * biased->groups, THREADS), THREADS, 0, stream, ranked,
         scores, *biased, rows, E);
  cudaError_t error = cuda_assign_topk(stream, plan, 0, ranked, 0, rows, E, K, skip);
  if (error != cudaSuccess) return error;
  LAUNCH(renormalise, blocks_for(rows, THREADS), THREADS, 0, stream, *plan, scores, biased->factor,
         rows, E, K);
  return cudaGetLastError();
}

/* Selection of the k best of n scores by one block: the k-th best key is found digit by digit from
 * the top, then the better ones and the first of its equals are taken in order. */
struct selection {
  int bins[BINS], counts[SELECT_THREADS / 32];
  unsigned prefix;
  int left; /* to take among those that agree with the prefix */
};

/* Ascends with the score; zeros of both signs are equal, NaN is the least. */
DEVICE unsigned key_of(float score) {
  unsigned bits = __float_as_uint(score + 0.0f);
  if (is_nan(score)) return 0;
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

/* The bin in which the left-th of the counted keys from the top lies. By the first warp. */
DEVICE void choose_bin(struct selection *s, int shift) {
  int lane = threadIdx.x, top = BINS - 1 - lane * (BINS / 32), sum = 0;
  for (int i = 0; i < BINS / 32; i++) sum += s->bins[top - i];
  int through = sum;
  for (int step = 1; step < 32; step *= 2) {
    int got = __shfl_up_sync(0xffffffffu, through, step);
    if (lane >= step) through += got;
  }
  int left = s->left, before = through - sum;
  __syncwarp();
  if (before >= left || through < left) return;
  for (int i = 0;; i++) {
    int count = s->bins[top - i];
    if (before + count >= left) {
      s->prefix |= static_cast<unsigned>(top - i) << shift;
      s->left = left - before;
      return;
    }
    before += count;
  }
}

/* s->prefix = key of the k-th best, s->left = how many with this key belong to the k. 0 < k <= n.
 */
DEVICE void find_last(struct selection *s, const float *scores, int64_t stride, int n, int k) {
  if (threadIdx.x == 0) {
    s->prefix = 0;
    s->left = k;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) s->bins[i] = 0;
    __syncthreads();
    unsigned prefix = s->prefix, above = shift == 24 ? 0 : ~0u << (shift + 8);
    for (int t = threadIdx.x; t < n; t += blockDim.x) {
      unsigned key = key_of(scores[t * stride]);
      if ((key & above) == prefix) atomicAdd(&s->bins[key >> shift & (BINS - 1)], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) choose_bin(s, shift);
    __syncthreads();
  }
}

/* Threads before this one in the block for which the predicates hold: of the first in the low 16
 * bits, of the second above; *all: of all threads. */
DEVICE unsigned count_before(struct selection *s, bool first, bool second, unsigned *all) {
  unsigned below = (1u << threadIdx.x % 32) - 1;
  unsigned one = __ballot_sync(0xffffffffu, first), two = __ballot_sync(0xffffffffu, second);
  unsigned before = __popc(one & below) | __popc(two & below) << 16;
  int warp = threadIdx.x / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) s->counts[warp] = __popc(one) | __popc(two) << 16;
  __syncthreads();
  *all = 0;
  for (int w = 0; w < static_cast<int>(blockDim.x) / 32; w++) {
    if (w < warp) before += s->counts[w];
    *all += s->counts[w];
  }
  return before;
}

/* One expert's choice among n tokens, score of token t at scores[t * stride]. */
struct choice {
  const float *scores;
  int64_t stride;
  int n;
  int32_t expert, first_token;
};

/* Fills `slots` assignments from `at`: the k best tokens in ascending order, then unused ones. */
DEVICE void take_tokens(struct selection *s, const struct cuda_plan &d, int64_t at, int64_t slots,
                        const struct choice &c, int k) {
  if (k > c.n) k = c.n;
  if (k > 0) {
    find_last(s, c.scores, c.stride, c.n, k);
    unsigned last = s->prefix;
    int left = s->left, better = 0, equal = 0; /* seen so far */
    for (int from = 0; from < c.n; from += blockDim.x) {
      int t = from + threadIdx.x;
      float score = t < c.n ? c.scores[t * c.stride] : 0.0f;
      unsigned key = key_of(score), all;
      bool above = t < c.n && key > last, same = t < c.n && key == last;
      unsigned before = count_before(s, above, same, &all);
      int equals = equal + static_cast<int>(before >> 16);
      if (above || (same && equals < left))
        set(d, at + better + static_cast<int>(before & 0xffff) + min(equals, left), c.expert,
            c.first_token + t, score);
      better += static_cast<int>(all & 0xffff);
      equal += static_cast<int>(all >> 16);
    }
  }
  for (int64_t i = k + threadIdx.x; i < slots; i += blockDim.x) set(d, at + i, -1, 0, 0);
}

/* A block for each expert and image. */
__global__ void assign_tokens(const struct cuda_plan d, int64_t at, const float *scores,
                              int32_t first_token, int T, int E, int K, int64_t stride) {
  SHARED struct selection selection;
  int e = blockIdx.x, b = blockIdx.y;
  struct choice c = {scores + (int64_t)b * T * E + e, E, T, e, first_token + b * T};
  at += b * stride + (int64_t)e * K;
  take_tokens(&selection, d, at, e + 1 < E ? K : stride - (int64_t)e * K, c, K);
}

cudaError_t cuda_assign_tokens(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                               const float *scores, int32_t first_token, int B, int T, int E, int K,
                               int64_t stride) {
  if (B == 0) return cudaSuccess;
  LAUNCH(assign_tokens, dim3((unsigned)E, (unsigned)B), THREADS, 0, stream, *plan, at, scores,
         first_token, T, E, K, stride);
  return cudaGetLastError();
}

/* A block for each expert. */
__global__ void assign_counted(const struct cuda_plan d, int64_t at, const float *scores,
                               const float *capacity, const float *threshold, int S, int E) {
  SHARED struct selection selection;
  int e = blockIdx.x, k = 0;
  for (int from = 0; from < S; from += blockDim.x) {
    int t = from + threadIdx.x;
    unsigned all;
    count_before(&selection, t < S && capacity[(int64_t)t * E + e] > threshold[e], false, &all);
    k += static_cast<int>(all);
  }
  struct choice c = {scores + e, E, S, e, 0};
  take_tokens(&selection, d, at + (int64_t)e * S, S, c, k);
}

cudaError_t cuda_assign_counted(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                                const float *scores, const float *capacity, const float *threshold,
                                int64_t S, int E) {
  if (S == 0) return cudaSuccess;
  LAUNCH(assign_counted, (unsigned)E, SELECT_THREADS, 0, stream, *plan, at, scores, capacity,
         threshold, (int)S, E);
  return cudaGetLastError();
}

/* A block row for each image. */
__global__ void assign_by_label(const struct cuda_plan d, int64_t at, const int32_t *labels,
                                int32_t label, int32_t expert, int T, int64_t stride) {
  int b = blockIdx.y;
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (labels[b] != label || i >= stride) return;
  at += b * stride + i;
  if (i < T)
    set(d, at, expert, b * T + static_cast<int32_t>(i), 1.0f);
  else
    set(d, at, -1, 0, 0.0f);
}

cudaError_t cuda_assign_by_label(cudaStream_t stream, const struct cuda_plan *plan, int64_t at,
                                 const int32_t *labels, int32_t label, int32_t expert, int B, int T,
                                 int64_t stride) {
  if (B == 0) return cudaSuccess;
  LAUNCH(assign_by_label, dim3(blocks_for(stride, THREADS), (unsigned)B), THREADS, 0, stream, *plan,
         at, labels, label, expert, T, stride);
  return cudaGetLastError();
}

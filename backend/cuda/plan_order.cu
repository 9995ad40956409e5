/* The plan from the assignments: rows by expert and, within one, by token; each token's rows by
 * descending weight. Three launches:
 *
 *   clear   lists and counters
 *   link    each token's assignments as a list, in any order; rows of each expert in each chunk of
 *           tokens; the last block turns these counts into those of the chunks before, and offsets
 *   rank    a token's list sorted by expert, then by assignment; each row's place: rows of its
 *           expert in chunks before, of tokens before in its chunk
 *
 * Counters are integers: their order of addition changes nothing. */
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels_moe.h"

DEVICE bool is_nan(float x) { return x != x; }

enum { THREADS = 1024, CHUNK = 128 /* tokens, one a thread */ };

static int64_t chunks_of(int tokens) { return tokens > 0 ? (tokens + CHUNK - 1) / CHUNK : 1; }

/* What is between the launches, in `work`; first[t] is the head of token t's list until it is
 * ranked. Lists end with -1. */
struct order_work {
  int32_t *counts; /* [chunks, E] */
  int32_t *finished;
  int32_t *next; /* [capacity] */
  int chunks;
};

int64_t cuda_dispatch_work(int tokens, int experts, int64_t capacity) {
  return chunks_of(tokens) * experts + 1 + capacity;
}

__global__ void order_clear(const struct cuda_plan d, const struct order_work w) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < d.tokens) d.first[i] = -1;
  if (i <= (int64_t)w.chunks * d.experts) w.counts[i] = 0; /* and `finished` behind them */
}

/* True in all threads of the last block that gets here; it sees what the others wrote before. */
DEVICE bool last_block(int32_t *counter) {
  SHARED int ticket;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) ticket = atomicAdd(counter, 1);
  __syncthreads();
  __threadfence();
  return ticket == static_cast<int>(gridDim.x) - 1;
}

/* Inclusive sums over the threads of a warp. */
DEVICE int warp_scan(int value) {
  for (int step = 1; step < 32; step *= 2) {
    int got = __shfl_up_sync(0xffffffffu, value, step);
    if (static_cast<int>(threadIdx.x) % 32 >= step) value += got;
  }
  return value;
}

/* counts, rows of an expert in a chunk, become those in the chunks before; offset. By one block, a
 * warp for each expert. Shared memory: an int for each expert. */
DEVICE void counts_to_offsets(const struct cuda_plan &d, const struct order_work &w) {
  enum { EACH = 4 }; /* counts on their way at once */
  SHARED_MEMORY(memory);
  int32_t *totals = (int32_t *)memory;
  int lane = threadIdx.x % 32;
  for (int e = threadIdx.x / 32; e < d.experts; e += THREADS / 32) {
    int base = 0;
    for (int from = 0; from < w.chunks; from += 32 * EACH) {
      int32_t *count = w.counts + (int64_t)(from + lane) * d.experts + e;
      int own[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++)
        own[i] = from + lane + 32 * i < w.chunks ? __ldcg(count + (int64_t)32 * i * d.experts) : 0;
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        int through = warp_scan(own[i]);
        if (from + lane + 32 * i < w.chunks)
          count[(int64_t)32 * i * d.experts] = base + through - own[i];
        base += __shfl_sync(0xffffffffu, through, 31);
      }
    }
    if (lane == 0) totals[e] = base;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  int row = 0;
  for (int e = 0; e < d.experts; e++) {
    d.offset[e] = row;
    row += totals[e];
  }
  d.offset[d.experts] = row;
}

__global__ void __launch_bounds__(THREADS)
    order_link(const struct cuda_plan d, const struct order_work w) {
  int64_t a = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  int32_t expert = a < d.capacity ? d.expert[a] : -1;
  if (expert >= 0) {
    int32_t t = d.source[a];
    w.next[a] = atomicExch(&d.first[t], static_cast<int32_t>(a));
    atomicAdd(&w.counts[(int64_t)(t / CHUNK) * d.experts + expert], 1);
  }
  if (last_block(w.finished)) counts_to_offsets(d, w);
}

/* row [begin ..] = the list, by expert, then by assignment. */
DEVICE void sort_by_expert(const struct cuda_plan &d, const int32_t *next, int32_t list,
                           int begin) {
  for (int i = begin; list >= 0; list = next[list], i++) {
    int32_t expert = d.expert[list];
    int j = i;
    for (; j > begin; j--) {
      int32_t other = d.row[j - 1], its = d.expert[other];
      if (its < expert || (its == expert && other < list)) break;
      d.row[j] = other;
    }
    d.row[j] = list;
  }
}

/* Insertion sort of one token's rows, which come by ascending expert: larger weights first, NaN
 * last, ties stay. */
DEVICE void sort_by_weight(const struct cuda_plan &d, int begin, int end) {
  for (int i = begin + 1; i < end; i++) {
    int32_t moved = d.row[i];
    float w = d.weight[moved];
    int j = i;
    for (; j > begin; j--) {
      float other = d.weight[d.row[j - 1]];
      if (!(w > other || (is_nan(other) && !is_nan(w)))) break;
      d.row[j] = d.row[j - 1];
    }
    d.row[j] = moved;
  }
}

/* Exclusive sums of each expert's counts [CHUNK] over the tokens of the chunk, a warp each. */
DEVICE void scan_counts(int32_t *counts, int experts) {
  enum { EACH = CHUNK / 32 };
  for (int e = threadIdx.x / 32; e < experts; e += CHUNK / 32) {
    int32_t *mine = counts + e * CHUNK + threadIdx.x % 32 * EACH;
    int own = 0;
    for (int i = 0; i < EACH; i++) own += mine[i];
    int before = warp_scan(own) - own;
    for (int i = 0; i < EACH; i++) {
      int count = mine[i];
      mine[i] = before;
      before += count;
    }
  }
}

/* Rows of tokens before this thread's, of which it has `own`, in the whole plan. */
DEVICE int rows_before(const struct cuda_plan &d, const int32_t *chunk_counts, int own) {
  SHARED int sums[CHUNK / 32];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, before = 0;
  int through = warp_scan(own);
  for (int e = lane; e < d.experts; e += 32) before += chunk_counts[e];
  before = __reduce_add_sync(0xffffffffu, before);
  if (lane == 31) sums[warp] = through;
  __syncthreads();
  for (int w = 0; w < warp; w++) before += sums[w];
  return before + through - own;
}

/* Shared memory: CHUNK ints for each expert. */
__global__ void __launch_bounds__(CHUNK)
    order_rank(const struct cuda_plan d, const struct order_work w) {
  SHARED_MEMORY(memory);
  int32_t *counts = (int32_t *)memory;
  const int32_t *before = w.counts + (int64_t)blockIdx.x * d.experts;
  int t = blockIdx.x * CHUNK + threadIdx.x, own = 0;
  int32_t list = t < d.tokens ? d.first[t] : -1;
  for (int e = 0; e < d.experts; e++) counts[e * CHUNK + threadIdx.x] = 0;
  for (int32_t a = list; a >= 0; a = w.next[a], own++) counts[d.expert[a] * CHUNK + threadIdx.x]++;
  int begin = rows_before(d, before, own), end = begin + own;
  if (t < d.tokens) d.first[t] = begin;
  if (t == max(d.tokens - 1, 0)) d.first[d.tokens] = end;
  sort_by_expert(d, w.next, list, begin);
  scan_counts(counts, d.experts);
  __syncthreads();
  for (int i = begin; i < end; i++) {
    int32_t a = d.row[i], e = d.expert[a];
    int32_t r = d.offset[e] + before[e] + counts[e * CHUNK + threadIdx.x]++;
    d.token[r] = t;
    d.weight[r] = d.gate[a];
    d.row[i] = r;
  }
  sort_by_weight(d, begin, end);
}

cudaError_t cuda_dispatch_order(cudaStream_t stream, const struct cuda_plan *plan, int32_t *work) {
  const int64_t chunks = chunks_of(plan->tokens), counts = chunks * plan->experts;
  const struct order_work w = {work, work + counts, work + counts + 1, static_cast<int>(chunks)};
  const int64_t clear = counts > plan->tokens ? counts : plan->tokens;
  unsigned blocks = (unsigned)((plan->capacity + THREADS - 1) / THREADS);
  int bytes = plan->experts * (int)sizeof(int32_t);
  cudaError_t error =
      cudaFuncSetAttribute(order_rank, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes * CHUNK);
  if (error) return error;
  if (blocks == 0) blocks = 1; /* without assignments there are offsets, too */
  LAUNCH(order_clear, (unsigned)(clear / THREADS + 1), THREADS, 0, stream, *plan, w);
  LAUNCH(order_link, blocks, THREADS, bytes, stream, *plan, w);
  LAUNCH(order_rank, (unsigned)chunks, CHUNK, bytes * CHUNK, stream, *plan, w);
  return cudaGetLastError();
}

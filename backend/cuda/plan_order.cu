/* The plan from the assignments: rows by expert and, within one, by token; each token's rows by
 * descending weight. Two stable counting sorts, by token and by expert, in five launches:
 *
 *   clear   counters
 *   count   assignments of each token; the last block turns counts into ends of ranges
 *   fill    assignments into their token's range, in any order
 *   sort    a token's range by expert, then by assignment; rows of each expert in each chunk of
 *           tokens; the last block turns them into the first rows
 *   rank    each row's place: rows of its expert in chunks before, of tokens before in its chunk
 *
 * Counters are integers: their order of addition changes nothing. */
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels_moe.h"

DEVICE bool is_nan(float x) { return x != x; }

enum {
  COUNT_THREADS = 1024,
  CHUNK = 128 /* tokens, one a thread */,
  COUNTERS = 2 /* of blocks that finished, before the counts of chunks */
};

static int chunks_of(int tokens) { return (tokens + CHUNK - 1) / CHUNK; }

int64_t cuda_dispatch_work(int tokens, int experts) {
  return COUNTERS + (int64_t)chunks_of(tokens) * experts;
}

__global__ void order_clear(const struct cuda_plan d, int32_t *work) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= d.tokens) d.first[i] = 0;
  if (i < COUNTERS) work[i] = 0;
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

/* first[t] = assignments of tokens 0 .. t, from those of t alone. By one block. */
DEVICE void counts_to_ends(const struct cuda_plan &d) {
  enum { EACH = 4 };
  SHARED int sums[COUNT_THREADS / 32];
  int warp = threadIdx.x / 32, base = 0;
  for (int from = 0; from <= d.tokens; from += COUNT_THREADS * EACH) {
    int at = from + static_cast<int>(threadIdx.x) * EACH, count[EACH], own = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++)
      own += count[i] = at + i < d.tokens ? __ldcg(d.first + at + i) : 0;
    int through = warp_scan(own), before = base;
    if (threadIdx.x % 32 == 31) sums[warp] = through;
    __syncthreads();
    for (int w = 0; w < COUNT_THREADS / 32; w++) {
      if (w < warp) before += sums[w];
      base += sums[w];
    }
    __syncthreads();
    before += through - own;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      before += count[i];
      if (at + i <= d.tokens) d.first[at + i] = before;
    }
  }
}

__global__ void order_count(const struct cuda_plan d, int32_t *work) {
  int64_t a = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (a < d.capacity && d.expert[a] >= 0) atomicAdd(&d.first[d.source[a]], 1);
  if (last_block(&work[0])) counts_to_ends(d);
}

/* Ends of ranges become their starts. row holds assignments until order_rank. */
__global__ void order_fill(const struct cuda_plan d) {
  int64_t a = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (a < d.capacity && d.expert[a] >= 0)
    d.row[atomicSub(&d.first[d.source[a]], 1) - 1] = static_cast<int32_t>(a);
}

DEVICE void sort_by_expert(const struct cuda_plan &d, int begin, int end) {
  for (int i = begin + 1; i < end; i++) {
    int32_t moved = d.row[i], expert = d.expert[moved];
    int j = i;
    for (; j > begin; j--) {
      int32_t other = d.row[j - 1], its = d.expert[other];
      if (its < expert || (its == expert && other < moved)) break;
      d.row[j] = other;
    }
    d.row[j] = moved;
  }
}

/* counts [chunks, E], rows of an expert in a chunk, become those in the chunks before; offset. By
 * one block, a warp for each expert. */
DEVICE void counts_to_offsets(const struct cuda_plan &d, int32_t *counts, int32_t *totals) {
  int lane = threadIdx.x % 32, chunks = gridDim.x;
  for (int e = threadIdx.x / 32; e < d.experts; e += CHUNK / 32) {
    int base = 0;
    for (int from = 0; from < chunks; from += 32) {
      int chunk = from + lane;
      int32_t *count = counts + (int64_t)chunk * d.experts + e;
      int own = chunk < chunks ? __ldcg(count) : 0, through = warp_scan(own);
      if (chunk < chunks) *count = base + through - own;
      base += __shfl_sync(0xffffffffu, through, 31);
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

/* Shared memory: an int for each expert. */
__global__ void order_sort(const struct cuda_plan d, int32_t *work) {
  SHARED_MEMORY(memory);
  int32_t *counts = (int32_t *)memory, *all = work + COUNTERS;
  int t = blockIdx.x * CHUNK + threadIdx.x;
  for (int e = threadIdx.x; e < d.experts; e += CHUNK) counts[e] = 0;
  __syncthreads();
  if (t < d.tokens) {
    int begin = d.first[t], end = d.first[t + 1];
    sort_by_expert(d, begin, end);
    for (int i = begin; i < end; i++) atomicAdd(&counts[d.expert[d.row[i]]], 1);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < d.experts; e += CHUNK)
    all[(int64_t)blockIdx.x * d.experts + e] = counts[e];
  if (last_block(&work[1])) counts_to_offsets(d, all, counts);
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

/* Shared memory: CHUNK ints for each expert. */
__global__ void order_rank(const struct cuda_plan d, const int32_t *before) {
  SHARED_MEMORY(memory);
  int32_t *counts = (int32_t *)memory;
  int t = blockIdx.x * CHUNK + threadIdx.x, begin = 0, end = 0;
  for (int i = threadIdx.x; i < d.experts * CHUNK; i += CHUNK) counts[i] = 0;
  __syncthreads();
  if (t < d.tokens) {
    begin = d.first[t];
    end = d.first[t + 1];
  }
  for (int i = begin; i < end; i++) counts[d.expert[d.row[i]] * CHUNK + threadIdx.x]++;
  __syncthreads();
  scan_counts(counts, d.experts);
  __syncthreads();
  for (int i = begin; i < end; i++) {
    int32_t a = d.row[i], e = d.expert[a];
    int32_t r = d.offset[e] + before[(int64_t)blockIdx.x * d.experts + e] +
                counts[e * CHUNK + threadIdx.x]++;
    d.token[r] = t;
    d.weight[r] = d.gate[a];
    d.row[i] = r;
  }
  sort_by_weight(d, begin, end);
}

cudaError_t cuda_dispatch_order(cudaStream_t stream, const struct cuda_plan *plan, int32_t *work) {
  unsigned chunks = (unsigned)chunks_of(plan->tokens > 0 ? plan->tokens : 1);
  unsigned blocks = (unsigned)((plan->capacity + COUNT_THREADS - 1) / COUNT_THREADS);
  int bytes = plan->experts * (int)sizeof(int32_t);
  cudaError_t error =
      cudaFuncSetAttribute(order_rank, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes * CHUNK);
  if (error) return error;
  if (blocks == 0) blocks = 1; /* without assignments there are offsets, too */
  LAUNCH(order_clear, (unsigned)(plan->tokens / COUNT_THREADS + 1), COUNT_THREADS, 0, stream, *plan,
         work);
  LAUNCH(order_count, blocks, COUNT_THREADS, 0, stream, *plan, work);
  LAUNCH(order_fill, blocks, COUNT_THREADS, 0, stream, *plan);
  LAUNCH(order_sort, chunks, CHUNK, bytes, stream, *plan, work);
  LAUNCH(order_rank, chunks, CHUNK, bytes * CHUNK, stream, *plan, work + COUNTERS);
  return cudaGetLastError();
}

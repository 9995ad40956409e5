/* Products on Hopper: wgmma on tiles that arrive by TMA, gathered rows by cp.async.
 *
 * A block of three warpgroups stays on its multiprocessor and walks over tiles of y. Warpgroup 0
 * fills a ring of pieces of BK inputs of the tile's rows and of the expert's weights; the other two
 * multiply:
 *
 *     struct halves: both have one tile of 128 x 256, each 64 rows of it. 48 KB a piece. The second
 *         starts STAGGER steps late, so that one of the two keeps the tensor cores busy while the
 *         other stores: enough where results are few, as of pairs.
 *     struct turns:  each has every second tile, of 128 x 192, and the tensor cores in turn: one
 *         stores its tile while the other multiplies. 40 KB a piece.
 *
 *             warpgroup 1   multiply 0 | store 0    | multiply 2 | store 2 ..
 *             warpgroup 2              | multiply 1 | store 1    | multiply 3 ..
 *
 * A tile of rows of x [64 inputs = 128 bytes] has TMA's 128-byte swizzle: 16-byte chunk c of row r
 * stands at chunk c ^ (r % 8), which keeps both the copies and wgmma free of bank conflicts. */
#include "backend/cuda/gemm.cuh"
#include "backend/cuda/gemm_kernels.h"
#include "backend/cuda/hopper.cuh"

enum {
  BK = 64,
  STAGGER = 2,
  CONSUMERS = 2,
  GROUP = 128, /* threads of a warpgroup */
  ROW_BYTES = BK * 2
};

/* Ways to divide the work. GROUP_M64: a consumer has so many times 64 rows. Registers of threads
 * that fill the ring and of those that multiply: LOW + 2 * HIGH = 3 * 168. */
struct halves {
  static constexpr int BM = 128, BN = 256, GROUP_M64 = 1, STAGES = 4, LOW = 72, HIGH = 216;
  static constexpr bool TURNS = false;
};
struct turns {
  static constexpr int BM = 128, BN = 192, GROUP_M64 = 2, STAGES = 5, LOW = 24, HIGH = 240;
  static constexpr bool TURNS = true;
};
template <class S> constexpr int stage_bytes = (S::BM + S::BN) * ROW_BYTES;

enum { MOST_STAGES = 5 };

/* turn[g]: that the other consumer leaves the tensor cores to g, or that g may start late. */
struct ring {
  uint64_t full[MOST_STAGES], empty[MOST_STAGES], turn[CONSUMERS];
  struct tile_walk walk;
};

/* Place in the ring; `phase` is the parity of the rounds. */
struct place {
  int stage;
  int phase;
};

template <class S> DEVICE void advance(struct place *place, int steps = 1) {
  int stage = place->stage + steps;
  place->stage = stage % S::STAGES;
  place->phase ^= stage / S::STAGES & 1;
}

/* A warp brings the rows of x of a stage: eight lanes copy 128 bytes, lane l the chunk l % 8 of
 * rows l / 8 + 4 i. source[j] of lane l is the row of x for row l + 32 j, or -1. wgmma reads
 * through the async proxy what generic copies wrote. */
template <typename T, int BM>
DEVICE void gather(unsigned char *a, const struct cuda_product &p, const int32_t *source, int k) {
  int lane = threadIdx.x % 32, chunk = lane % 8, column = k + chunk * 8;
  const T *x = (const T *)p.x + column;
#pragma unroll
  for (int i = 0; i < BM / 4; i++) {
    int r = lane / 8 + 4 * i, from = __shfl_sync(0xffffffffu, source[i / 8], r % 32);
    bool valid = from >= 0 && column < p.in;
    copy_async16(a + r * ROW_BYTES + ((chunk ^ (r % 8)) << 4),
                 valid ? x + from * p.ldx : (const T *)p.x, valid);
  }
  copy_async_commit();
  copy_async_wait<0>();
  async_proxy_fence();
  __syncwarp();
}

/* The warp of each stage: copies of one do not wait for those of another. */
template <typename T, class S>
DEVICE void produce_gathered(unsigned char *memory, struct ring *ring, const struct cuda_product &p,
                             const CUtensorMap *weights) {
  static_assert(S::STAGES == GROUP / 32, "a warp for each stage");
  int stage = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned char *a = memory + stage * stage_bytes<S>;
  uint64_t *full = &ring->full[stage];
  struct place to = {0, 0};
  struct tile tile = {};
  for (int t = blockIdx.x; walk_at<S::BM, S::BN>(&ring->walk, p, t, &tile); t += gridDim.x) {
    int32_t source[S::BM / 32];
#pragma unroll
    for (int j = 0; j < S::BM / 32; j++) {
      int r = tile.row + lane + 32 * j;
      source[j] = r < tile.end ? p.token[r] : -1;
    }
    for (int k = 0; k < p.in; k += BK, advance<S>(&to)) {
      if (to.stage != stage) continue;
      mbarrier_wait(&ring->empty[stage], to.phase ^ 1);
      if (lane == 0) {
        mbarrier_expect(full, S::BN * ROW_BYTES);
        tensor_load_3d(a + S::BM * ROW_BYTES, weights, full, k, tile.column, tile.expert);
      }
      gather<T, S::BM>(a, p, source, k);
      if (lane == 0) mbarrier_arrive(full);
    }
  }
}

template <class S>
DEVICE void produce(unsigned char *memory, struct ring *ring, const struct cuda_product &p,
                    const CUtensorMap *rows, const CUtensorMap *weights) {
  if (threadIdx.x > 0) return;
  struct place to = {0, 0};
  struct tile tile = {};
  for (int t = blockIdx.x; walk_at<S::BM, S::BN>(&ring->walk, p, t, &tile); t += gridDim.x)
    for (int k = 0; k < p.in; k += BK, advance<S>(&to)) {
      unsigned char *a = memory + to.stage * stage_bytes<S>;
      uint64_t *full = &ring->full[to.stage];
      mbarrier_wait(&ring->empty[to.stage], to.phase ^ 1);
      mbarrier_expect(full, stage_bytes<S>);
      tensor_load_2d(a, rows, full, k, tile.row);
      tensor_load_3d(a + S::BM * ROW_BYTES, weights, full, k, tile.column, tile.expert);
    }
}

/* acc = the products of one tile's rows from `row` on. Arrives at `other` when step `last_alone`
 * has its piece: the ring has no older phase then that the other consumer could take for its own.
 */
template <typename T, class S>
DEVICE void multiply(float (&acc)[S::GROUP_M64][S::BN / 2], unsigned char *memory,
                     struct ring *ring, struct place *from, int steps, int row, uint64_t *other,
                     int last_alone) {
  bool lead = threadIdx.x % 32 == 0;
  int before = 0;
  for (int step = 0; step < steps; step++) {
    unsigned char *a = memory + from->stage * stage_bytes<S>;
    uint64_t rows = warpgroup_operand(a + row * ROW_BYTES);
    uint64_t weights = warpgroup_operand(a + S::BM * ROW_BYTES);
    mbarrier_wait(&ring->full[from->stage], from->phase);
    warpgroup_fence();
#pragma unroll
    for (int k = 0; k < BK / 16; k++)
#pragma unroll
      for (int m = 0; m < S::GROUP_M64; m++)
        warpgroup_mma<S::BN, T>(acc[m], rows + (m * 64 * ROW_BYTES + k * 32) / 16,
                                weights + k * 32 / 16, step + k > 0);
    warpgroup_commit();
    if (lead && step == last_alone) mbarrier_arrive(other);
    warpgroup_wait<1>();
    if (lead && step > 0) mbarrier_arrive(&ring->empty[before]);
    before = from->stage;
    advance<S>(from);
  }
  warpgroup_wait<0>();
  if (lead) mbarrier_arrive(&ring->empty[before]);
}

/* Tiles of consumer `group`. */
template <typename T, typename Y, class S, bool PAIRED>
DEVICE void consume(unsigned char *memory, struct ring *ring, const struct cuda_product &p,
                    int group) {
  int steps = (p.in + BK - 1) / BK, warp = threadIdx.x / 32 % 4;
  int row = S::TURNS ? 0 : group * 64 * S::GROUP_M64, stride = S::TURNS ? CONSUMERS : 1;
  int last_alone = S::TURNS ? steps - 1 : group == 0 ? min(STAGGER, steps) - 1 : -1;
  int turn = group == 0; /* parity; the first has its first turn without waiting */
  struct place from = {0, 0};
  struct tile tile = {};
  if (S::TURNS && group == 1) advance<S>(&from, steps);
  for (int t = blockIdx.x + (S::TURNS ? group * gridDim.x : 0);
       walk_at<S::BM, S::BN>(&ring->walk, p, t, &tile); t += stride * gridDim.x) {
    float acc[S::GROUP_M64][S::BN / 2];
    bool first = t < static_cast<int>(gridDim.x);
    if (S::TURNS || (first && group == 1)) mbarrier_wait(&ring->turn[group], turn);
    multiply<T, S>(acc, memory, ring, &from, steps, row, &ring->turn[group ^ 1],
                   S::TURNS || first ? last_alone : -1);
#pragma unroll
    for (int m = 0; m < S::GROUP_M64; m++)
      store_accumulators<Y, PAIRED, S::BN / 8>(p, tile, acc[m], tile.row + row + m * 64 + warp * 16,
                                               tile.column);
    if (S::TURNS) advance<S>(&from, steps);
    turn ^= 1;
  }
}

template <typename T, typename Y, class S, bool GATHER, bool PAIRED>
__global__ void __launch_bounds__((CONSUMERS + 1) * GROUP, 1)
    product_sm90(const __grid_constant__ CUtensorMap rows,
                 const __grid_constant__ CUtensorMap weights,
                 const __grid_constant__ struct cuda_product p) {
  SHARED_MEMORY(memory);
  struct ring *ring = (struct ring *)(memory + S::STAGES * stage_bytes<S>);
  if (threadIdx.x == 0) {
    for (int s = 0; s < S::STAGES; s++) {
      mbarrier_init(&ring->full[s], GATHER ? 2 : 1);
      mbarrier_init(&ring->empty[s], (S::TURNS ? 1 : CONSUMERS) * GROUP / 32);
    }
    for (int g = 0; g < CONSUMERS; g++) mbarrier_init(&ring->turn[g], GROUP / 32);
    mbarrier_fence();
  }
  walk_init<S::BM, S::BN>(&ring->walk, p);
  int group = threadIdx.x / GROUP - 1;
  if (group < 0) {
    registers_lower<S::LOW>();
    if constexpr (GATHER)
      produce_gathered<T, S>(memory, ring, p, &weights);
    else
      produce<S>(memory, ring, p, &rows, &weights);
  } else {
    registers_raise<S::HIGH>();
    consume<T, Y, S, PAIRED>(memory, ring, p, group);
  }
}

/* Of x or weights [.., rows, in]: boxes of BK inputs and `box` rows. */
static cudaError_t map_rows(CUtensorMap *map, const struct cuda_product *p, const void *data,
                            int64_t rows, int64_t pitch, int matrices, int box) {
  uint64_t n = (uint64_t)rows, plane = matrices > 1 ? (uint64_t)p->weight_stride : n * pitch;
  struct tensor_shape shape = {matrices ? 3 : 2,
                               {(uint64_t)p->in, n, (uint64_t)matrices},
                               2 * (uint64_t)pitch,
                               2 * plane,
                               {BK, (uint32_t)box}};
  return tensor_map_create(map, (void *)data, &shape);
}

template <typename T, typename Y, class S, bool GATHER, bool PAIRED>
static cudaError_t launch(cudaStream_t stream, const struct cuda_product *p, int blocks) {
  int bytes = S::STAGES * stage_bytes<S> + (int)sizeof(struct ring);
  int64_t tiles = walk_bound<S::BM, S::BN>(p);
  CUtensorMap rows = {}, weights = {};
  cudaError_t error = map_rows(&weights, p, p->weight, product_total(p), p->in, p->experts, S::BN);
  if (!error && !GATHER) error = map_rows(&rows, p, p->x, p->x_rows, p->ldx, 0, S::BM);
  if (!error)
    error = cudaFuncSetAttribute(product_sm90<T, Y, S, GATHER, PAIRED>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error) return error;
  LAUNCH((product_sm90<T, Y, S, GATHER, PAIRED>), (unsigned)(tiles < blocks ? tiles : blocks),
         (CONSUMERS + 1) * GROUP, bytes, stream, rows, weights, *p);
  return cudaGetLastError();
}

template <typename T>
static cudaError_t launch_of(cudaStream_t stream, const struct cuda_product *p, int blocks) {
  bool narrow = p->y_type != DT_F32;
  if (p->activation == CUDA_PAIRED)
    return !narrow    ? cudaErrorNotSupported
           : p->token ? launch<T, T, halves, true, true>(stream, p, blocks)
                      : launch<T, T, halves, false, true>(stream, p, blocks);
  if (p->token)
    return narrow ? launch<T, T, halves, true, false>(stream, p, blocks) : cudaErrorNotSupported;
  return narrow ? launch<T, T, turns, false, false>(stream, p, blocks)
                : launch<T, float, turns, false, false>(stream, p, blocks);
}

cudaError_t product_sm90(cudaStream_t stream, const struct cuda_product *p) {
  int device, major, blocks;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (!error) error = cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device);
  if (error) return error;
  if (major != 9 || !product_copies(p)) return cudaErrorNotSupported;
  return p->type == DT_BF16 ? launch_of<__nv_bfloat16>(stream, p, blocks)
                            : launch_of<__half>(stream, p, blocks);
}

/* Products on Hopper: wgmma on tiles that arrive by TMA, gathered rows by cp.async.
 *
 * A block of three warpgroups stays on its multiprocessor and walks over tiles of y. Warpgroup 0
 * fills a ring of STAGES pieces of BK inputs of the tile's rows and of the expert's weights; the
 * other two multiply, each half of the tile's rows:
 *
 *     M64 = 1: tiles of 128 x 256, a warpgroup has 64 x 256   (the first product of experts)
 *     M64 = 2: tiles of 256 x 128, a warpgroup has 128 x 128  (widths that 256 does not divide)
 *
 * Both take 48 KB a stage for 128 x 256 x 64 multiplications. The second warpgroup starts STAGGER
 * steps late, so that one of the two keeps the tensor cores busy while the other stores. A tile of
 * rows of x [64 inputs = 128 bytes] has TMA's 128-byte swizzle: 16-byte chunk c of row r stands at
 * chunk c ^ (r % 8), which keeps both the copies and wgmma free of bank conflicts. */
#include "backend/cuda/gemm.cuh"
#include "backend/cuda/gemm_kernels.h"
#include "backend/cuda/hopper.cuh"

enum {
  BK = 64,
  STAGES = 4,
  STAGGER = 2,
  CONSUMERS = 2,
  GROUP = 128, /* threads of a warpgroup */
  ROW_BYTES = BK * 2,
  STAGE_BYTES = (128 + 256) * ROW_BYTES
};

struct ring {
  uint64_t full[STAGES], empty[STAGES], late;
  struct tile_walk walk;
};

/* Place in the ring; `phase` is the parity of the rounds. */
struct place {
  int stage;
  int phase;
};

DEVICE void advance(struct place *place) {
  place->stage = (place->stage + 1) % STAGES;
  place->phase ^= place->stage == 0;
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
template <typename T, int BM, int BN>
DEVICE void produce_gathered(unsigned char *memory, struct ring *ring, const struct cuda_product &p,
                             const CUtensorMap *weights) {
  static_assert(STAGES == GROUP / 32, "a warp for each stage");
  int stage = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned char *a = memory + stage * STAGE_BYTES;
  uint64_t *full = &ring->full[stage];
  struct place to = {0, 0};
  struct tile tile = {};
  for (int t = blockIdx.x; walk_at<BM, BN>(&ring->walk, p, t, &tile); t += gridDim.x) {
    int32_t source[BM / 32];
#pragma unroll
    for (int j = 0; j < BM / 32; j++) {
      int r = tile.row + lane + 32 * j;
      source[j] = r < tile.end ? p.token[r] : -1;
    }
    for (int k = 0; k < p.in; k += BK, advance(&to)) {
      if (to.stage != stage) continue;
      mbarrier_wait(&ring->empty[stage], to.phase ^ 1);
      if (lane == 0) {
        mbarrier_expect(full, BN * ROW_BYTES);
        tensor_load_3d(a + BM * ROW_BYTES, weights, full, k, tile.column, tile.expert);
      }
      gather<T, BM>(a, p, source, k);
      if (lane == 0) mbarrier_arrive(full);
    }
  }
}

template <int BM, int BN>
DEVICE void produce(unsigned char *memory, struct ring *ring, const struct cuda_product &p,
                    const CUtensorMap *rows, const CUtensorMap *weights) {
  if (threadIdx.x > 0) return;
  struct place to = {0, 0};
  struct tile tile = {};
  for (int t = blockIdx.x; walk_at<BM, BN>(&ring->walk, p, t, &tile); t += gridDim.x)
    for (int k = 0; k < p.in; k += BK, advance(&to)) {
      unsigned char *a = memory + to.stage * STAGE_BYTES;
      uint64_t *full = &ring->full[to.stage];
      mbarrier_wait(&ring->empty[to.stage], to.phase ^ 1);
      mbarrier_expect(full, STAGE_BYTES);
      tensor_load_2d(a, rows, full, k, tile.row);
      tensor_load_3d(a + BM * ROW_BYTES, weights, full, k, tile.column, tile.expert);
    }
}

/* acc = the products of the warpgroup's rows of one tile. */
template <typename T, int M64, int BN>
DEVICE void multiply(float (&acc)[M64][BN / 2], unsigned char *memory, struct ring *ring,
                     struct place *from, int steps, int group, bool first) {
  constexpr int BM = 128 * M64;
  bool lead = threadIdx.x % 32 == 0;
  for (int step = 0; step < steps; step++) {
    unsigned char *a = memory + from->stage * STAGE_BYTES;
    uint64_t rows = warpgroup_operand(a + group * 64 * M64 * ROW_BYTES);
    uint64_t weights = warpgroup_operand(a + BM * ROW_BYTES);
    mbarrier_wait(&ring->full[from->stage], from->phase);
    warpgroup_fence();
#pragma unroll
    for (int k = 0; k < BK / 16; k++)
#pragma unroll
      for (int m = 0; m < M64; m++)
        warpgroup_mma<BN, T>(acc[m], rows + (m * 64 * ROW_BYTES + k * 32) / 16,
                             weights + k * 32 / 16, step + k > 0);
    warpgroup_commit();
    warpgroup_wait<1>();
    if (lead && step > 0) mbarrier_arrive(&ring->empty[(from->stage + STAGES - 1) % STAGES]);
    if (first && group == 0 && lead && step == min(STAGGER, steps) - 1)
      mbarrier_arrive(&ring->late);
    advance(from);
  }
  warpgroup_wait<0>();
  if (lead) mbarrier_arrive(&ring->empty[(from->stage + STAGES - 1) % STAGES]);
}

template <typename T, typename Y, int M64, int BN, bool PAIRED>
DEVICE void consume(unsigned char *memory, struct ring *ring, const struct cuda_product &p,
                    int group) {
  constexpr int BM = 128 * M64;
  struct place from = {0, 0};
  struct tile tile = {};
  int warp = threadIdx.x / 32 % 4;
  for (int t = blockIdx.x; walk_at<BM, BN>(&ring->walk, p, t, &tile); t += gridDim.x) {
    float acc[M64][BN / 2];
    bool first = t == static_cast<int>(blockIdx.x);
    if (first && group == 1) mbarrier_wait(&ring->late, 0);
    multiply<T, M64, BN>(acc, memory, ring, &from, (p.in + BK - 1) / BK, group, first);
#pragma unroll
    for (int m = 0; m < M64; m++)
      store_accumulators<Y, PAIRED, BN / 8>(
          p, tile, acc[m], tile.row + (group * M64 + m) * 64 + warp * 16, tile.column);
  }
}

template <typename T, typename Y, int M64, bool GATHER, bool PAIRED>
__global__ void __launch_bounds__((CONSUMERS + 1) * GROUP, 1)
    product_sm90(const __grid_constant__ CUtensorMap rows,
                 const __grid_constant__ CUtensorMap weights,
                 const __grid_constant__ struct cuda_product p) {
  constexpr int BM = 128 * M64, BN = 256 / M64;
  SHARED_MEMORY(memory);
  struct ring *ring = (struct ring *)(memory + STAGES * STAGE_BYTES);
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      mbarrier_init(&ring->full[s], GATHER ? 2 : 1);
      mbarrier_init(&ring->empty[s], CONSUMERS * GROUP / 32);
    }
    mbarrier_init(&ring->late, GROUP / 32);
    mbarrier_fence();
  }
  walk_init<BM, BN>(&ring->walk, p);
  int group = threadIdx.x / GROUP - 1;
  if (group < 0) {
    registers_lower<72>();
    if constexpr (GATHER)
      produce_gathered<T, BM, BN>(memory, ring, p, &weights);
    else
      produce<BM, BN>(memory, ring, p, &rows, &weights);
  } else {
    registers_raise<216>();
    consume<T, Y, M64, BN, PAIRED>(memory, ring, p, group);
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

template <typename T, typename Y, int M64, bool GATHER, bool PAIRED>
static cudaError_t launch(cudaStream_t stream, const struct cuda_product *p, int blocks) {
  constexpr int BM = 128 * M64, BN = 256 / M64;
  int bytes = STAGES * STAGE_BYTES + (int)sizeof(struct ring);
  int64_t tiles = walk_bound<BM, BN>(p);
  CUtensorMap rows = {}, weights = {};
  cudaError_t error = map_rows(&weights, p, p->weight, product_total(p), p->in, p->experts, BN);
  if (!error && !GATHER) error = map_rows(&rows, p, p->x, p->x_rows, p->ldx, 0, BM);
  if (!error)
    error = cudaFuncSetAttribute(product_sm90<T, Y, M64, GATHER, PAIRED>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error) return error;
  LAUNCH((product_sm90<T, Y, M64, GATHER, PAIRED>), (unsigned)(tiles < blocks ? tiles : blocks),
         (CONSUMERS + 1) * GROUP, bytes, stream, rows, weights, *p);
  return cudaGetLastError();
}

/* Wide tiles for the first product of experts, whose inputs are gathered; high ones elsewhere. */
template <typename T>
static cudaError_t launch_of(cudaStream_t stream, const struct cuda_product *p, int blocks) {
  bool narrow = p->y_type != DT_F32;
  if (p->activation == CUDA_PAIRED)
    return !narrow    ? cudaErrorNotSupported
           : p->token ? launch<T, T, 1, true, true>(stream, p, blocks)
                      : launch<T, T, 1, false, true>(stream, p, blocks);
  if (p->token)
    return narrow ? launch<T, T, 1, true, false>(stream, p, blocks) : cudaErrorNotSupported;
  return narrow ? launch<T, T, 2, false, false>(stream, p, blocks)
                : launch<T, float, 2, false, false>(stream, p, blocks);
}

cudaError_t product_sm90(cudaStream_t stream, const struct cuda_product *p) {
  int device, major, blocks;
  cudaError_t error = cudaGetDevice(&device);
  if (!error) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (!error) error = cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device);
  if (error) return error;
  if (major != 9 || p->type == DT_F32 || p->in % 8 || p->ldx % 8 || p->experts > PRODUCT_EXPERTS)
    return cudaErrorNotSupported;
  return p->type == DT_BF16 ? launch_of<__nv_bfloat16>(stream, p, blocks)
                            : launch_of<__half>(stream, p, blocks);
}

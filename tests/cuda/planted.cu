/* Kernels for tests/test_cuda_emulation.c. */
#include "backend/cuda/hopper.cuh"
#include "tests/cuda/planted.h"

static __global__ void reverse(float *data, int with_barrier) {
  SHARED_MEMORY(memory);
  float *shared = reinterpret_cast<float *>(memory);
  shared[threadIdx.x] = data[threadIdx.x];
  if (with_barrier) __syncthreads();
  data[threadIdx.x] = shared[PLANTED_THREADS - 1 - threadIdx.x];
}
cudaError_t planted_reverse(float *data, int with_barrier) {
  LAUNCH(reverse, 1, PLANTED_THREADS, PLANTED_THREADS * sizeof *data, 0, data, with_barrier);
  return cudaGetLastError();
}

template <int N> static __global__ void reverse_static(float *data, int with_barrier) {
  SHARED float shared[N];
  shared[threadIdx.x] = data[threadIdx.x];
  if (with_barrier) __syncthreads();
  data[threadIdx.x] = shared[N - 1 - threadIdx.x];
}
cudaError_t planted_reverse_static(float *data, int with_barrier) {
  LAUNCH((reverse_static<PLANTED_THREADS>), 1, PLANTED_THREADS, 0, 0, data, with_barrier);
  return cudaGetLastError();
}

static __global__ void fill(float *data, int n) {
  int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) data[i] = static_cast<float>(i);
}
cudaError_t planted_fill(float *data, int n) {
  LAUNCH(fill, (n + PLANTED_THREADS - 1) / PLANTED_THREADS, PLANTED_THREADS, 0, 0, data, n);
  return cudaGetLastError();
}

static __global__ void shared_overrun(float *data, int n) {
  SHARED_MEMORY(memory);
  float *shared = reinterpret_cast<float *>(memory);
  for (int i = threadIdx.x; i < n; i += PLANTED_THREADS) shared[i] = 1;
  data[threadIdx.x] = shared[threadIdx.x];
}
cudaError_t planted_shared_overrun(float *data, int n) {
  LAUNCH(shared_overrun, 1, PLANTED_THREADS, PLANTED_THREADS * sizeof *data, 0, data, n);
  return cudaGetLastError();
}

static __global__ void unwritten(float *data) {
  SHARED_MEMORY(memory);
  data[threadIdx.x] = reinterpret_cast<float *>(memory)[threadIdx.x];
}
cudaError_t planted_unwritten(float *data) {
  LAUNCH(unwritten, 1, PLANTED_THREADS, PLANTED_THREADS * sizeof *data, 0, data);
  return cudaGetLastError();
}

static __global__ void some_at_barrier(float *data, int n) {
  if (static_cast<int>(threadIdx.x) < n) barrier_sync(1, PLANTED_THREADS);
  data[threadIdx.x] = 1;
}
cudaError_t planted_barrier(float *data, int n) {
  LAUNCH(some_at_barrier, 1, PLANTED_THREADS, 0, 0, data, n);
  return cudaGetLastError();
}

static __global__ void same_word(float *data) {
  if (threadIdx.x == 0) data[0] = 1;
}
cudaError_t planted_blocks(float *data) {
  LAUNCH(same_word, 2, PLANTED_THREADS, 0, 0, data);
  return cudaGetLastError();
}

static __global__ void read_word(float *data, const float *from) { data[threadIdx.x] = *from; }
cudaError_t planted_host(float *data, const float *host) {
  LAUNCH(read_word, 1, PLANTED_THREADS, 0, 0, data, host);
  return cudaGetLastError();
}

static __global__ void copies(float *data, int wait) {
  SHARED_MEMORY(memory);
  float *shared = reinterpret_cast<float *>(memory);
  int i = threadIdx.x;
  copy_async16(&shared[4 * i], &data[4 * i], i % 2 == 0);
  copy_async_commit();
  if (wait) copy_async_wait<0>();
  __syncthreads();
  for (int j = i; j < 4 * PLANTED_THREADS; j += PLANTED_THREADS)
    data[j] = shared[4 * PLANTED_THREADS - 1 - j];
}
cudaError_t planted_copies(float *data, int wait) {
  LAUNCH(copies, 1, PLANTED_THREADS, 4 * PLANTED_THREADS * sizeof *data, 0, data, wait);
  return cudaGetLastError();
}

static __global__ void warp_sums(float *data) {
  float sum = data[threadIdx.x];
  for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffff, sum, by);
  unsigned odd = __ballot_sync(0xffffffff, threadIdx.x & 1);
  unsigned same = __match_any_sync(0xffffffff, threadIdx.x / 4);
  int all = __reduce_add_sync(0xffffffff, 1);
  if (threadIdx.x % 32 == 5)
    data[PLANTED_THREADS + threadIdx.x / 32] =
        sum + static_cast<float>(__popc(odd) + __popc(same) + all);
}
cudaError_t planted_warp(float *data) {
  LAUNCH(warp_sums, 1, PLANTED_THREADS, 0, 0, data);
  return cudaGetLastError();
}

static __global__ void one_mma(float *data, const unsigned short *a, const unsigned short *b) {
  SHARED uint4 tile[2 * (16 + 8)];
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  tile[lane] = reinterpret_cast<const uint4 *>(a)[lane];
  if (lane < 16) tile[32 + lane] = reinterpret_cast<const uint4 *>(b)[lane];
  __syncwarp();
  uint32_t ra[4], rb[2];
  float c[4] = {0, 0, 0, 0};
  ldmatrix_x4(ra, &tile[lane % 16 * 2 + lane / 16]);
  ldmatrix_x2(rb, &tile[32 + lane % 8 * 2 + lane / 8 % 2]);
  mma_m16n8k16<__nv_bfloat16>(c, ra, rb);
  data[g * 8 + 2 * t] = c[0];
  data[g * 8 + 2 * t + 1] = c[1];
  data[(g + 8) * 8 + 2 * t] = c[2];
  data[(g + 8) * 8 + 2 * t + 1] = c[3];
}
cudaError_t planted_mma(float *data, const unsigned short *a, const unsigned short *b) {
  LAUNCH(one_mma, 1, 32, 0, 0, data, a, b);
  return cudaGetLastError();
}

/* Both tiles lie swizzled in `tiles`: 64 rows of 128 bytes each. */
static __device__ void multiply(float *data, const unsigned char *tiles) {
  float c[32];
  warpgroup_fence();
  for (int k = 0; k < 4; k++)
    warpgroup_mma<64, __nv_bfloat16>(c, warpgroup_operand(tiles + 32 * k),
                                     warpgroup_operand(tiles + 8192 + 32 * k), k > 0);
  warpgroup_commit();
  warpgroup_wait<0>();
  int w = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < 32; i++)
    data[(16 * w + g + i % 4 / 2 * 8) * 64 + i / 4 * 8 + 2 * t + i % 2] = c[i];
}

static __global__ void by_maps(float *data, const __grid_constant__ CUtensorMap a,
                               const __grid_constant__ CUtensorMap b, int wait) {
  SHARED_MEMORY(memory);
  uint64_t *barrier = reinterpret_cast<uint64_t *>(memory + 16384);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_expect(barrier, 16384);
    tensor_load_2d(memory, &a, barrier, 0, 0);
    tensor_load_2d(memory + 8192, &b, barrier, 0, 0);
  }
  if (wait) mbarrier_wait(barrier, 0);
  multiply(data, memory);
}
cudaError_t planted_warpgroup(float *data, unsigned short *a, unsigned short *b, int wait) {
  const struct tensor_shape shape = {2, {64, 64, 1}, 128, 0, {64, 64}};
  CUtensorMap map_a, map_b;
  cudaError_t error = tensor_map_create(&map_a, a, &shape);
  if (error == cudaSuccess) error = tensor_map_create(&map_b, b, &shape);
  if (error != cudaSuccess) return error;
  LAUNCH(by_maps, 1, PLANTED_THREADS, 16384 + 8, 0, data, map_a, map_b, wait);
  return cudaGetLastError();
}

static __global__ void by_threads(float *data, const unsigned short *a, const unsigned short *b,
                                  int fence) {
  SHARED_MEMORY(memory);
  for (int i = threadIdx.x; i < 1024; i += PLANTED_THREADS) {
    int row = i / 8 % 64, place = i % 8 ^ row % 8;
    copy_async16(memory + i / 512 * 8192 + row * 128 + place * 16,
                 (i < 512 ? a : b) + (i % 512) * 8);
  }
  copy_async_commit();
  copy_async_wait<0>();
  if (fence) async_proxy_fence();
  __syncthreads();
  multiply(data, memory);
}
cudaError_t planted_warpgroup_copied(float *data, const unsigned short *a, const unsigned short *b,
                                     int fence) {
  LAUNCH(by_threads, 1, PLANTED_THREADS, 16384, 0, data, a, b, fence);
  return cudaGetLastError();
}

static __global__ void vectors(float *data, int by) {
  float4 *four = reinterpret_cast<float4 *>(data + by);
  float4 v = four[threadIdx.x];
  v.x += 1;
  four[threadIdx.x] = v;
}
cudaError_t planted_misaligned(float *data, int by) {
  LAUNCH(vectors, 1, PLANTED_THREADS, 0, 0, data, by);
  return cudaGetLastError();
}

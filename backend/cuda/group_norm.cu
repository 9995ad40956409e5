/* GroupNorm (Wu & He 2018) in two steps: means of values and of squares, in double, by chunks of
 * pixels whose sums are added in order; then the values.
 *
 * A chunk's block has a thread for each channel of each of `lines` pixels:
 *
 *   thread   0 .. C-1 | C .. 2C-1 | ...        256 channels or more: one line, a thread goes on
 *   pixel    0, lines, 2 lines ...             with channels 256 apart
 */
#include "backend/cuda/kernels_images.h"
#include "backend/cuda/types.cuh"

enum { NORM_THREADS = 256, CHUNK = 128 };

static int64_t chunks_of(const struct cuda_window *w) {
  int64_t pixels = static_cast<int64_t>(w->bottom - w->top) * (w->right - w->left);
  return (pixels + CHUNK - 1) / CHUNK;
}
int64_t cuda_group_moments_work(const struct cuda_window *w) {
  return chunks_of(w) * w->B * w->groups * 2;
}

/* work [B, chunks, groups, 2] = sums of a chunk */
static __global__ void chunk_sums(double *work, const float *x, cuda_window w, int64_t chunks) {
  SHARED_MEMORY(memory);
  double *sums = reinterpret_cast<double *>(memory); /* [lines, C, 2] */
  const int64_t image = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  const int C = w.C, lines = C < NORM_THREADS ? NORM_THREADS / C : 1, columns = w.right - w.left;
  const int64_t end = min((chunk + 1) * CHUNK, static_cast<int64_t>(w.bottom - w.top) * columns);
  const int line = threadIdx.x / C;
  x += image * w.pixels * C;
  for (int c = C < NORM_THREADS ? threadIdx.x % C : threadIdx.x; c < C && line < lines;
       c += NORM_THREADS) {
    double sum = 0, squares = 0;
    for (int64_t p = chunk * CHUNK + line; p < end; p += lines) {
      const int64_t at = (w.top + p / columns) * w.width + w.left + p % columns;
      const double value = static_cast<double>(x[at * C + c]);
      sum += value;
      squares = fma(value, value, squares);
    }
    sums[(line * C + c) * 2] = sum;
    sums[(line * C + c) * 2 + 1] = squares;
  }
  __syncthreads();
  const int n = C / w.groups;
  for (int i = threadIdx.x; i < 2 * w.groups; i += NORM_THREADS) {
    double sum = 0;
    for (int l = 0; l < lines; l++)
      for (int c = 0; c < n; c++) sum += sums[(l * C + i / 2 * n + c) * 2 + i % 2];
    work[blockIdx.x * 2 * static_cast<int64_t>(w.groups) + i] = sum;
  }
}

/* A warp adds the chunks of a group. */
static __global__ void add_chunks(double *moments, const double *work, cuda_window w,
                                  int64_t chunks, double count, bool add) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (NORM_THREADS / 32) + threadIdx.x / 32;
  const int64_t each = 2 * w.groups;
  if (i >= w.B * each) return;
  work += i / each * chunks * each + i % each;
  double sum = 0;
  for (int64_t c = threadIdx.x % 32; c < chunks; c += 32) sum += work[c * each];
  sum = warp_sum(sum) / count;
  if (threadIdx.x % 32 == 0) moments[i] = add ? moments[i] + sum : sum;
}

cudaError_t cuda_group_moments(cudaStream_t stream, double *moments, const float *x, double *work,
                               const struct cuda_window *w, bool add) {
  const int64_t chunks = chunks_of(w);
  const int lines = w->C < NORM_THREADS ? NORM_THREADS / w->C : 1;
  const size_t shared = static_cast<size_t>(lines) * w->C * 2 * sizeof(double);
  if (shared > 48 << 10)
    cudaFuncSetAttribute(chunk_sums, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared));
  if (w->B * chunks > 0)
    LAUNCH(chunk_sums, static_cast<unsigned>(w->B * chunks), NORM_THREADS, shared, stream, work, x,
           *w, chunks);
  if (w->B > 0)
    LAUNCH(add_chunks, blocks_of(static_cast<int64_t>(w->B) * w->groups * 2, NORM_THREADS / 32),
           NORM_THREADS, 0, stream, moments, work, *w, chunks,
           static_cast<double>(w->total) * (w->C / w->groups), add);
  return cudaGetLastError();
}

template <class T> static __global__ void group_norm(struct cuda_group_norm p, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * NORM_THREADS + threadIdx.x;
  if (i >= n) return;
  const int c = static_cast<int>(i % p.C);
  const double *m = p.moments + (i / p.C / p.pixels * p.groups + c / (p.C / p.groups)) * 2;
  const double variance = m[1] - m[0] * m[0];
  const double scale = rsqrt((variance < 0 ? 0 : variance) + static_cast<double>(p.eps));
  float normal = static_cast<float>((static_cast<double>(p.x[i]) - m[0]) * scale);
  float value = fmaf(normal, p.weight[c], p.bias[c]);
  if (p.silu) value = value / (1 + expf(-value));
  static_cast<T *>(p.y)[i] = from_f32<T>(value);
}
cudaError_t cuda_group_norm(cudaStream_t stream, const struct cuda_group_norm *norm) {
  const int64_t n = norm->B * norm->pixels * norm->C;
  if (n > 0)
    BY_TYPE(norm->type,
            LAUNCH((group_norm<T>), blocks_of(n, NORM_THREADS), NORM_THREADS, 0, stream, *norm, n));
  return cudaGetLastError();
}

/* Checks and times attention, its gradient and random normals on a GPU; a line of JSON each. Needs
 * nothing but a driver. Exit code 1 if a result is wrong. */
extern "C" {
#include "base/rng.h"
}

#include "backend/cuda/kernels_attention.h"
#include "backend/cuda/kernels_noise.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <functional>
#include <vector>

namespace {

enum { TRIALS = 20, WARM_UP = 3, SAMPLES = 200 };

int failures;

struct shape {
  const char *name;
  enum dtype type, qkv_type;
  int B, T, H, d;
  bool gradient;
};

const shape SHAPES[] = {
    {"XL/2 256px", DT_BF16, DT_BF16, 64, 256, 16, 72, true},
    {"XL/2 256px", DT_BF16, DT_F32, 64, 256, 16, 72, true},
    {"XL/2 256px", DT_F16, DT_F32, 64, 256, 16, 72, false},
    {"XL/2 256px", DT_F32, DT_F32, 64, 256, 16, 72, true},
    {"XL/2 256px, 2 images", DT_BF16, DT_BF16, 2, 256, 16, 72, false},
    {"XL/2 512px", DT_BF16, DT_BF16, 16, 1024, 16, 72, true},
    {"B/2 256px", DT_BF16, DT_BF16, 64, 256, 12, 64, true},
    {"G/2 256px", DT_BF16, DT_BF16, 32, 256, 16, 88, true},
    {"width 128", DT_BF16, DT_BF16, 32, 256, 16, 128, true},
    {"decoder 256px", DT_F32, DT_F32, 8, 1024, 1, 512, false},
};

void must(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  exit(2);
}

template <typename type> type *device_array(size_t count) {
  void *memory;
  must(cudaMalloc(&memory, count * sizeof(type)), "cudaMalloc");
  return static_cast<type *>(memory);
}

template <typename type> std::vector<type> download(const void *memory, size_t count) {
  std::vector<type> values(count);
  must(cudaMemcpy(values.data(), memory, count * sizeof(type), cudaMemcpyDeviceToHost),
       "cudaMemcpy");
  return values;
}

__global__ void round_values(float *x, size_t n) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * (size_t)blockDim.x)
    x[i] = __bfloat162float(__float2bfloat16_rn(x[i]));
}

__global__ void narrow_values(__nv_bfloat16 *y, const float *x, size_t n) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * (size_t)blockDim.x)
    y[i] = __float2bfloat16_rn(x[i]);
}

/* [images, count] of normals that bf16 holds. */
float *random_values(int64_t images, int64_t count, uint64_t seed) {
  float *x = device_array<float>(images * count);
  const struct cuda_normals n = {x, images, count, seed, 0, 0, RNG_INITIAL_NOISE};
  must(cuda_normals(nullptr, &n), "cuda_normals");
  std::vector<float> expected(count), got = download<float>(x + (images - 1) * count, count);
  rng_normal(expected.data(), count, seed, images - 1, 0, RNG_INITIAL_NOISE);
  if (memcmp(expected.data(), got.data(), count * sizeof(float))) {
    printf("{\"error\": \"normals are not the CPU's\"}\n");
    failures++;
  }
  round_values<<<1024, 256>>>(x, images * count);
  return x;
}

/* Median in ms. */
double time_of(const std::function<cudaError_t()> &call) {
  cudaEvent_t start, stop;
  std::vector<float> times;
  must(cudaEventCreate(&start), "cudaEventCreate");
  must(cudaEventCreate(&stop), "cudaEventCreate");
  for (int i = 0; i < WARM_UP + TRIALS; i++) {
    float ms;
    must(cudaEventRecord(start, nullptr), "cudaEventRecord");
    must(call(), "a launch");
    must(cudaEventRecord(stop, nullptr), "cudaEventRecord");
    must(cudaEventSynchronize(stop), "a kernel");
    must(cudaEventElapsedTime(&ms, start, stop), "cudaEventElapsedTime");
    if (i >= WARM_UP) times.push_back(ms);
  }
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  std::sort(times.begin(), times.end());
  return times[TRIALS / 2];
}

size_t size_of(enum dtype type) { return type == DT_F32 ? 4 : 2; }

double value_of(const std::vector<unsigned char> &bytes, enum dtype type, size_t i) {
  float x;
  uint16_t half;
  if (type == DT_F32) {
    memcpy(&x, &bytes[4 * i], 4);
    return x;
  }
  memcpy(&half, &bytes[2 * i], 2);
  if (type == DT_F16) {
    __half h;
    memcpy(&h, &half, 2);
    return __half2float(h);
  }
  const uint32_t bits = (uint32_t)half << 16;
  memcpy(&x, &bits, 4);
  return x;
}

/* One head of one image on the host in float64. */
struct head {
  std::vector<float> qkv, d_o;
  shape s;
  int h;

  const float *row(int which, int i) const {
    return &qkv[((size_t)(i * 3 + which) * s.H + h) * s.d];
  }
  const float *gradient(int i) const { return &d_o[((size_t)i * s.H + h) * s.d]; }
  double dot(const float *a, const float *b) const {
    double sum = 0;
    for (int n = 0; n < s.d; n++) sum += (double)a[n] * b[n];
    return sum;
  }
  void probabilities(std::vector<double> &prob, int i) const {
    double max = -INFINITY, sum = 0;
    for (int j = 0; j < s.T; j++)
      max = std::max(max, prob[j] = dot(row(0, i), row(1, j)) / std::sqrt(s.d));
    for (int j = 0; j < s.T; j++) sum += prob[j] = std::exp(prob[j] - max);
    for (int j = 0; j < s.T; j++) prob[j] /= sum;
  }
};

struct errors {
  double difference = 0, norm = 0;
  void add(double got, double expected) {
    difference += (got - expected) * (got - expected);
    norm += expected * expected;
  }
  double relative() const { return std::sqrt(difference / norm); }
};

/* Relative error of o [T, H, d] of one image in some rows of all heads. */
double check_output(head &x, const std::vector<unsigned char> &o) {
  errors e;
  std::vector<double> prob(x.s.T);
  for (int i = 0; i < SAMPLES; i++) {
    const int t = i * 7919 % x.s.T;
    x.h = i % x.s.H;
    x.probabilities(prob, t);
    for (int n = 0; n < x.s.d; n++) {
      double expected = 0;
      for (int j = 0; j < x.s.T; j++) expected += prob[j] * x.row(2, j)[n];
      e.add(value_of(o, x.s.type, ((size_t)t * x.s.H + x.h) * x.s.d + n), expected);
    }
  }
  return e.relative();
}

/* The worst relative error of dq, dk and dv [T, 3, H, d] of one head. */
double check_gradient(head &x, const std::vector<float> &dqkv) {
  const int T = x.s.T, d = x.s.d;
  std::vector<double> prob(T), grad((size_t)3 * T * d);
  x.h = x.s.H - 1;
  for (int i = 0; i < T; i++) {
    double mean = 0;
    x.probabilities(prob, i);
    for (int j = 0; j < T; j++) mean += prob[j] * x.dot(x.gradient(i), x.row(2, j));
    for (int j = 0; j < T; j++) {
      const double ds = prob[j] * (x.dot(x.gradient(i), x.row(2, j)) - mean) / std::sqrt(d);
      for (int n = 0; n < d; n++) {
        grad[(size_t)i * d + n] += ds * x.row(1, j)[n];
        grad[(size_t)(T + j) * d + n] += ds * x.row(0, i)[n];
        grad[(size_t)(2 * T + j) * d + n] += prob[j] * x.gradient(i)[n];
      }
    }
  }
  double worst = 0;
  for (int which = 0; which < 3; which++) {
    errors e;
    for (int i = 0; i < T; i++)
      for (int n = 0; n < d; n++)
        e.add(dqkv[((size_t)(i * 3 + which) * x.s.H + x.h) * d + n],
              grad[(size_t)(which * T + i) * d + n]);
    worst = std::max(worst, e.relative());
  }
  return worst;
}

void report(const shape &s, const char *what, double ms, double flops, double bytes, double error,
            bool right) {
  printf("{\"op\": \"%s\", \"shape\": \"%s\", \"type\": \"%s\", \"qkv\": \"%s\", \"B\": %d, "
         "\"T\": %d, \"H\": %d, \"d\": %d, \"ms\": %.4f, \"TFLOP/s\": %.1f, \"GB/s\": %.0f, "
         "\"error\": %.2g, \"right\": %s}\n",
         what, s.name,
         s.type == DT_F32   ? "f32"
         : s.type == DT_F16 ? "f16"
                            : "bf16",
         s.qkv_type == DT_F32 ? "f32" : "half", s.B, s.T, s.H, s.d, ms, flops / ms * 1e-9,
         bytes / ms * 1e-6, error, right ? "true" : "false");
  fflush(stdout);
  failures += !right;
}

void run(const shape &s) {
  const size_t rows = (size_t)s.B * s.T * s.H, image = (size_t)s.T * s.H * s.d;
  const size_t width = size_of(s.type), count = rows * s.d;
  float *qkv = random_values(s.B, 3 * image, 1), *lse = device_array<float>(rows);
  __nv_bfloat16 *narrow = device_array<__nv_bfloat16>(3 * count);
  unsigned char *o = device_array<unsigned char>(count * width);
  narrow_values<<<1024, 256>>>(narrow, qkv, 3 * count);
  const bool f32 = s.qkv_type == DT_F32;
  const void *input = f32 ? (const void *)qkv : narrow;
  struct cuda_attention a = {input, o, lse, s.qkv_type, s.type, s.B, s.T, s.H, s.d};
  const double product = 2.0 * (double)rows * s.T * s.d;
  const double read = 3.0 * count * size_of(s.qkv_type), written = (double)count * width;

  const double ms = time_of([&] { return cuda_attention(nullptr, &a); });
  head last = {download<float>(qkv + (s.B - 1) * 3 * image, 3 * image), {}, s, 0};
  const auto alone = download<unsigned char>(o + (s.B - 1) * image * width, image * width);
  const double error = check_output(last, alone);
  a.qkv = (const char *)input + (s.B - 1) * 3 * image * size_of(s.qkv_type);
  a.B = 1;
  must(cuda_attention(nullptr, &a), "a launch");
  const bool same = download<unsigned char>(o, image * width) == alone;
  report(s, "attention", ms, 2 * product, read + written, error,
         same && error < (s.type == DT_F32   ? 1e-5
                          : s.type == DT_F16 ? 7e-4
                                             : 6e-3));
  if (!same) printf("{\"error\": \"an image alone has other bits\"}\n");

  if (s.gradient) {
    float *d_o = random_values(s.B, image, 2), *dqkv = device_array<float>(3 * count);
    float *delta = device_array<float>(rows);
    a.qkv = input, a.B = s.B;
    must(cuda_attention(nullptr, &a), "a launch");
    const struct cuda_attention_bwd b = {dqkv,       delta,  d_o, input, o,   lse, DT_F32,
                                         s.qkv_type, s.type, s.B, s.T,   s.H, s.d};
    const double bwd_ms = time_of([&] { return cuda_attention_bwd(nullptr, &b); });
    last.d_o = download<float>(d_o + (s.B - 1) * image, image);
    const double bwd_error =
        check_gradient(last, download<float>(dqkv + (s.B - 1) * 3 * image, 3 * image));
    report(s, "attention_bwd", bwd_ms, 5 * product, 2 * read + 2.0 * count * 4 + 3.0 * count * 4,
           bwd_error,
           bwd_error < (s.type == DT_F32   ? 1e-5
                        : s.type == DT_F16 ? 5e-4
                                           : 4e-3));
    for (void *memory : {(void *)d_o, (void *)dqkv, (void *)delta}) cudaFree(memory);
  }
  for (void *memory : {(void *)qkv, (void *)narrow, (void *)o, (void *)lse}) cudaFree(memory);
}

} // namespace

int main() {
  for (const shape &s : SHAPES) run(s);
  float *x = device_array<float>((size_t)64 << 20);
  const struct cuda_normals n = {x, 64, 1 << 20, 1, 0, 0, RNG_INITIAL_NOISE};
  const double ms = time_of([&] { return cuda_normals(nullptr, &n); });
  printf("{\"op\": \"normals\", \"count\": %d, \"ms\": %.4f, \"GB/s\": %.0f}\n", 64 << 20, ms,
         (double)((size_t)256 << 20) / ms * 1e-6);
  return failures > 0;
}

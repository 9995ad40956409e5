/* Operations on single values, and those that only move them: a thread has one place of the result
 * or a few. They are bound by memory; neighbouring threads touch neighbouring values. */
#include "backend/cuda/kernels_rows.h"
#include "backend/cuda/types.cuh"

enum { VALUES_THREADS = 256, VALUES_EACH = 4, VALUES_BLOCK = VALUES_THREADS * VALUES_EACH };

/* f(i) for all i < n, EACH of them per thread, a block apart so that accesses stay dense. */
template <class F> static __global__ void each_value(F f, int64_t n) {
  int64_t first = static_cast<int64_t>(blockIdx.x) * VALUES_BLOCK + threadIdx.x;
#pragma unroll
  for (int k = 0; k < VALUES_EACH; k++) {
    int64_t i = first + k * VALUES_THREADS;
    if (i < n) f(i);
  }
}

template <class F> static cudaError_t launch_values(cudaStream_t stream, F f, int64_t n) {
  if (n > 0) LAUNCH((each_value<F>), blocks_of(n, VALUES_BLOCK), VALUES_THREADS, 0, stream, f, n);
  return cudaGetLastError();
}

template <class Y, class X> struct convert_value {
  Y *y;
  const X *x;
  __device__ void operator()(int64_t i) const { y[i] = from_f32<Y>(to_f32(x[i])); }
};

/* Four at once. */
template <class Y, class X> struct convert_values {
  four<Y> *y;
  const four<X> *x;
  __device__ void operator()(int64_t i) const {
    const four<X> from = x[i];
    four<Y> to;
#pragma unroll
    for (int j = 0; j < 4; j++) to.at[j] = from_f32<Y>(to_f32(from.at[j]));
    y[i] = to;
  }
};

template <class Y, class X>
static cudaError_t convert(cudaStream_t stream, Y *y, const X *x, int64_t n) {
  if (n % 4 || !aligned(y) || !aligned(x))
    return launch_values(stream, convert_value<Y, X>{y, x}, n);
  return launch_values(
      stream,
      convert_values<Y, X>{reinterpret_cast<four<Y> *>(y), reinterpret_cast<const four<X> *>(x)},
      n / 4);
}
cudaError_t cuda_narrow(cudaStream_t stream, void *y, enum dtype type, const float *x, int64_t n) {
  BY_TYPE(type, return convert(stream, static_cast<T *>(y), x, n));
}
cudaError_t cuda_widen(cudaStream_t stream, float *y, const void *x, enum dtype type, int64_t n) {
  BY_TYPE(type, return convert(stream, y, static_cast<const T *>(x), n));
}

#define MAP(op, expression)                                                                        \
  struct op##_value {                                                                              \
    float *y;                                                                                      \
    const float *from;                                                                             \
    __device__ void operator()(int64_t i) const {                                                  \
      float x = from[i];                                                                           \
      y[i] = expression;                                                                           \
    }                                                                                              \
  };                                                                                               \
  cudaError_t cuda_##op(cudaStream_t stream, float *y, const float *x, int64_t n) {                \
    return launch_values(stream, op##_value{y, x}, n);                                             \
  }
MAP(silu, x / (1 + expf(-x)))
MAP(sigmoid, 1 / (1 + expf(-x)))
MAP(relu, x < 0 ? 0 : x) /* a NaN stays one */
#undef MAP

struct tanh_value {
  float *y;
  const float *x;
  float limit;
  __device__ void operator()(int64_t i) const { y[i] = limit * tanhf(x[i] / limit); }
};
cudaError_t cuda_tanh_clamp(cudaStream_t stream, float *y, const float *x, float limit, int64_t n) {
  return launch_values(stream, tanh_value{y, x, limit}, n);
}

struct add_value {
  float *y;
  const float *a, *b;
  __device__ void operator()(int64_t i) const { y[i] = a[i] + b[i]; }
};
cudaError_t cuda_add(cudaStream_t stream, float *y, const float *a, const float *b, int64_t n) {
  return launch_values(stream, add_value{y, a, b}, n);
}

struct add_row_value {
  float *x;
  const float *row;
  int64_t n;
  __device__ void operator()(int64_t i) const { x[i] += row[i % n]; }
};
cudaError_t cuda_add_rows(cudaStream_t stream, float *x, const float *row, int64_t rows,
                          int64_t n) {
  return launch_values(stream, add_row_value{x, row, n}, rows * n);
}

/* i counts the values of q and k; each row has as many of v behind them. */
struct round_value {
  float *qkv;
  int64_t D;
  __device__ void operator()(int64_t i) const {
    float *value = &qkv[i / (2 * D) * 3 * D + i % (2 * D)];
    *value = __half2float(__float2half_rn(*value));
  }
};
cudaError_t cuda_qk_round_f16(cudaStream_t stream, float *qkv, int64_t rows, int D) {
  return launch_values(stream, round_value{qkv, D}, rows * 2 * D);
}

/* Frequency and angle are rounded to f32 where the CPU rounds them. */
struct time_value {
  float *features;
  const float *time;
  int n;
  float shift;
  __device__ void operator()(int64_t i) const {
    const int half = n / 2, k = static_cast<int>(i % half);
    const int64_t b = i / half;
    float exponent = __fdiv_rn(__fmul_rn(-9.210340371976184f, static_cast<float>(k)),
                               __fsub_rn(static_cast<float>(half), shift));
    float frequency = static_cast<float>(exp(static_cast<double>(exponent)));
    double angle = static_cast<double>(__fmul_rn(time[b], frequency));
    features[b * n + k] = static_cast<float>(cos(angle));
    features[b * n + half + k] = static_cast<float>(sin(angle));
  }
};
cudaError_t cuda_time_features(cudaStream_t stream, float *features, const float *time, int B,
                               int n, float shift) {
  return launch_values(stream, time_value{features, time, n, shift},
                       static_cast<int64_t>(B) * (n / 2));
}

struct gather_value {
  float *dst;
  const float *src;
  const int32_t *index;
  int64_t D;
  __device__ void operator()(int64_t i) const { dst[i] = src[index[i / D] * D + i % D]; }
};
cudaError_t cuda_gather_rows(cudaStream_t stream, float *dst, const float *src,
                             const int32_t *index, int64_t n, int D) {
  return launch_values(stream, gather_value{dst, src, index, D}, n * D);
}

/* Where element i of [B, C, height, width] lies: its patch (of all images), its place inside, its
 * channel. */
struct patch_shape {
  int C, height, width, patch;
};
DEVICE int64_t patch_place(const patch_shape &s, int64_t i, int64_t *inside, int64_t *channel) {
  int64_t column = i % s.width, row = i / s.width % s.height, plane = i / s.width / s.height;
  int64_t rows = s.height / s.patch, columns = s.width / s.patch;
  *inside = row % s.patch * s.patch + column % s.patch;
  *channel = plane % s.C;
  return (plane / s.C * rows + row / s.patch) * columns + column / s.patch;
}

struct patchify_value {
  float *rows;
  const float *x;
  patch_shape s;
  __device__ void operator()(int64_t i) const {
    int64_t inside, channel, patch = patch_place(s, i, &inside, &channel);
    rows[(patch * s.C + channel) * s.patch * s.patch + inside] = x[i];
  }
};
cudaError_t cuda_patchify(cudaStream_t stream, float *rows, const float *x, int B, int C,
                          int height, int width, int patch) {
  return launch_values(stream, patchify_value{rows, x, {C, height, width, patch}},
                       static_cast<int64_t>(B) * C * height * width);
}

struct unpatchify_value {
  float *x;
  const float *rows;
  patch_shape s;
  __device__ void operator()(int64_t i) const {
    int64_t inside, channel, patch = patch_place(s, i, &inside, &channel);
    x[i] = rows[(patch * s.patch * s.patch + inside) * s.C + channel];
  }
};
cudaError_t cuda_unpatchify(cudaStream_t stream, float *x, const float *rows, int B, int C,
                            int height, int width, int patch) {
  return launch_values(stream, unpatchify_value{x, rows, {C, height, width, patch}},
                       static_cast<int64_t>(B) * C * height * width);
}

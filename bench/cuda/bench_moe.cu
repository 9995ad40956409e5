/* Checks and times the products and the plan of mixture-of-experts layers on a GPU, beside dense
 * products of equal size by cuBLASLt; a line of JSON each. Built by scripts/cuda_bench.sh; needs
 * nothing but a driver, and libcublasLt for the comparison. Exit code 1 if a result is wrong. */
#include "bench/cuda/peer_lt.h"
#include "tests/cuda/moe_checks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>

enum { TRIALS = 20, WARM_UP = 3, SAMPLES = 300 };

static int failures;
static struct peer_lt *lt;

struct shape {
  const char *name;
  int D, F, E, K, tokens;
};

__global__ void fill_random(void *to, int narrow, size_t n, float scale, unsigned seed) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * (size_t)blockDim.x) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u + seed * 0xd1b54a32d192ed03u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    float value = scale * ((float)(unsigned)(z >> 32) / 2147483648.0f - 1);
    uint32_t bits = __float_as_uint(value);
    if (narrow)
      ((uint16_t *)to)[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    else
      ((float *)to)[i] = value;
  }
}

static void fill(device_array<uint16_t> &to, float scale, unsigned seed) {
  fill_random<<<1024, 256>>>(to.data, 1, to.count, scale, seed);
}
static void fill(device_array<float> &to, float scale, unsigned seed) {
  fill_random<<<1024, 256>>>(to.data, 0, to.count, scale, seed);
}

/* Median in ms; negative if the call is not supported. */
static double time_of(const std::function<cudaError_t()> &call) {
  cudaEvent_t start, stop;
  std::vector<float> times;
  must(cudaEventCreate(&start), "cudaEventCreate");
  must(cudaEventCreate(&stop), "cudaEventCreate");
  for (int i = 0; i < WARM_UP + TRIALS; i++) {
    float ms;
    must(cudaEventRecord(start, nullptr), "cudaEventRecord");
    cudaError_t error = call();
    if (error == cudaErrorNotSupported) return -1;
    must(error, "a launch");
    must(cudaEventRecord(stop, nullptr), "cudaEventRecord");
    must(cudaEventSynchronize(stop), "a kernel");
    must(cudaEventElapsedTime(&ms, start, stop), "cudaEventElapsedTime");
    if (i >= WARM_UP) times.push_back(ms);
  }
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

static void print_bytes(const struct shape &s, const char *what, double ms, double bytes) {
  printf("{\"case\": \"%s\", \"what\": \"%s\", \"ms\": %.4f, \"gb_s\": %.0f}\n", s.name, what, ms,
         bytes / ms / 1e6);
  fflush(stdout);
}

template <class T> static std::vector<T> part(const T *from, size_t n) {
  std::vector<T> to(n);
  must(cudaMemcpy(to.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost), "a kernel");
  return to;
}

/* Row `row` of a bf16 matrix [.., n] in device memory. */
static std::vector<uint16_t> row_of(const void *data, size_t row, int n) {
  return part((const uint16_t *)data + row * n, (size_t)n);
}

static double dot(const std::vector<uint16_t> &a, const std::vector<uint16_t> &b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++)
    sum += (double)widen_bits(a[i], DT_BF16) * widen_bits(b[i], DT_BF16);
  return sum;
}

/* Relative error of SAMPLES random elements against float64. */
static double sampled_error(const struct cuda_product &p, int64_t rows) {
  std::vector<int32_t> offset = {0, (int32_t)rows}, token;
  if (p.offset) offset = part(p.offset, (size_t)p.experts + 1);
  if (p.token) token = part(p.token, (size_t)rows);
  bool paired = p.activation == CUDA_PAIRED;
  size_t total = paired ? cuda_paired_rows(p.out) : p.out;
  uint64_t state = 7;
  double error = 0, norm = 0;
  for (int i = 0; i < SAMPLES; i++) {
    int r = (int)(random_bits(&state) % (unsigned)rows), e = 0;
    int o = (int)(random_bits(&state) % (unsigned)p.out);
    while (offset[e + 1] <= r) e++;
    size_t first = e * total + (paired ? o / CUDA_PAIR * 2 * CUDA_PAIR + o % CUDA_PAIR : o);
    std::vector<uint16_t> x = row_of(p.x, p.token ? token[r] : r, p.in);
    double sum = dot(x, row_of(p.weight, first, p.in));
    double up = paired ? dot(x, row_of(p.weight, first + CUDA_PAIR, p.in)) : 0;
    if (p.bias) sum += part(p.bias + o, 1)[0];
    double want = activation_of(p.activation, sum, up);
    size_t at = (size_t)r * p.ldy + o;
    double got = p.y_type == DT_F32 ? part((const float *)p.y + at, 1)[0]
                                    : widen_bits(part((const uint16_t *)p.y + at, 1)[0], DT_BF16);
    error += (got - want) * (got - want);
    norm += want * want;
  }
  return sqrt(error / norm);
}

static double flops_of(const struct cuda_product &p, int64_t rows) {
  return 2.0 * rows * p.in * p.out * (p.activation == CUDA_PAIRED ? 2 : 1);
}

/* cuBLASLt's time for a dense product of equal FLOPs: of the first expert's weights, which it may
 * read past, as those of all are there; y is left as it was only in shape. */
static double time_of_peer(const struct cuda_product &p, int64_t rows, void *y) {
  struct cuda_product dense = p;
  if (p.activation == CUDA_PAIRED) dense.out = cuda_paired_rows(p.out);
  dense.rows = rows;
  dense.ldy = dense.out;
  dense.y = y;
  return !lt ? -1 : time_of([&] {
    return peer_lt_multiply(lt, nullptr, &dense) ? cudaSuccess : cudaErrorNotSupported;
  });
}

/* x_dense: rows for the peer, which gathers nothing; y_dense: its results. */
static void run_product(const struct shape &s, const char *what, struct cuda_product p,
                        int64_t rows, const void *x_dense, void *y_dense) {
  static const char *const names[] = {"best", "simt", "sm80", "sm90"};
  struct cuda_product dense = p;
  dense.x = x_dense;
  double peer = time_of_peer(dense, rows, y_dense), flops = flops_of(p, rows);
  if (peer > 0)
    printf("{\"case\": \"%s\", \"what\": \"%s\", \"by\": \"cublaslt\", \"ms\": %.4f, \"tflops\": "
           "%.1f}\n",
           s.name, what, peer, flops / peer / 1e9);
  for (int kernel = CUDA_PRODUCT_SM80; kernel <= CUDA_PRODUCT_SM90; kernel++) {
    size_t bytes = (size_t)rows * p.ldy * (p.y_type == DT_F32 ? 4 : 2);
    must(cudaMemset(p.y, 0xff, bytes), "cudaMemset");
    double ms = time_of([&] { return cuda_multiply_by(nullptr, &p, (cuda_product_kernel)kernel); });
    if (ms < 0) continue;
    double error = sampled_error(p, rows);
    bool good = error < (p.y_type == DT_F32 ? 1e-5 : 5e-3);
    failures += !good;
    printf("{\"case\": \"%s\", \"what\": \"%s\", \"by\": \"%s\", \"ms\": %.4f, \"tflops\": %.1f, "
           "\"of_cublaslt\": %.3f, \"error\": %.1e, \"ok\": %s}\n",
           s.name, what, names[kernel], ms, flops / ms / 1e9, peer > 0 ? peer / ms : 0, error,
           good ? "true" : "false");
    fflush(stdout);
  }
}

/* x [rows, in] times w [out, in], one expert. */
static struct cuda_product dense_product(enum dtype type, enum dtype y_type, int in, int out,
                                         int64_t rows) {
  struct cuda_product p = {};
  p.type = type;
  p.y_type = y_type;
  p.in = in;
  p.out = out;
  p.experts = 1;
  p.rows = p.x_rows = rows;
  p.ldx = in;
  p.ldy = out;
  return p;
}

struct layer {
  device_array<int32_t> expert, source, offset, token, first, row, work;
  device_array<float> gate, weight, scores;
  struct cuda_plan plan;
  explicit layer(const struct shape &s)
      : expert(s.tokens * (size_t)s.K), source(expert.count), offset(s.E + 1), token(expert.count),
        first(s.tokens + 1), row(expert.count),
        work(cuda_dispatch_work(s.tokens, s.E, (int64_t)expert.count)), gate(expert.count),
        weight(expert.count),
        scores((size_t)s.tokens * s.E), plan{s.E,         s.tokens,    (int64_t)expert.count,
                                             expert.data, source.data, gate.data,
                                             offset.data, token.data,  weight.data,
                                             first.data,  row.data} {
    fill(scores, 1, 1);
  }
};

static void run_plan(const struct shape &s, layer &l) {
  double ms = time_of([&] {
    return cuda_assign_topk(nullptr, &l.plan, 0, l.scores.data, 0, s.tokens, s.E, s.K, 0);
  });
  print_bytes(s, "assign_topk", ms, s.tokens * (4.0 * s.E + 12.0 * s.K));
  ms = time_of([&] { return cuda_dispatch_order(nullptr, &l.plan, l.work.data); });
  print_bytes(s, "dispatch_order", ms, s.tokens * (8.0 + 24.0 * s.K));
}

/* The routed experts of a layer. */
static void run_experts(const struct shape &s) {
  layer l(s);
  run_plan(s, l);
  int64_t rows = l.plan.capacity;
  size_t total = cuda_paired_rows(s.F);
  device_array<uint16_t> x((size_t)s.tokens * s.D), in(s.E * total * s.D), h((size_t)rows * s.F),
      out((size_t)s.E * s.D * s.F), x_dense((size_t)rows * s.D), wide((size_t)rows * total);
  fill(x, 1, 2);
  fill(x_dense, 1, 3);
  fill(in, sqrtf(3.0f / (float)s.D), 4);
  fill(out, sqrtf(3.0f / (float)s.F), 5);
  struct cuda_product first = dense_product(DT_BF16, DT_BF16, s.D, s.F, rows);
  first.activation = CUDA_PAIRED;
  first.experts = s.E;
  first.x = x.data;
  first.x_rows = s.tokens;
  first.offset = l.offset.data;
  first.token = l.token.data;
  first.weight = in.data;
  first.weight_stride = (int64_t)total * s.D;
  first.y = h.data;
  run_product(s, "experts_in", first, rows, x_dense.data, wide.data);
  double ms = time_of([&] {
    return cuda_rows_copy(nullptr, x_dense.data, DT_BF16, x.data, DT_BF16, l.offset.data, s.E,
                          l.token.data, rows, s.D);
  });
  print_bytes(s, "gather rows", ms, 2.0 * s.D * (rows + s.tokens));
  struct cuda_product gathered = first;
  gathered.token = nullptr;
  gathered.x = x_dense.data;
  gathered.x_rows = rows;
  run_product(s, "experts_in of gathered rows", gathered, rows, x_dense.data, wide.data);
  device_array<float> result((size_t)rows * s.D), y((size_t)s.tokens * s.D), add(y.count);
  fill(add, 1, 6);
  struct cuda_product second = dense_product(DT_BF16, DT_F32, s.F, s.D, rows);
  second.experts = s.E;
  second.x = h.data;
  second.offset = l.offset.data;
  second.weight = out.data;
  second.weight_stride = (int64_t)s.D * s.F;
  second.y = result.data;
  run_product(s, "experts_out f32", second, rows, h.data, result.data);
  ms = time_of([&] {
    return cuda_combine_rows(nullptr, y.data, result.data, DT_F32, &l.plan, add.data, s.D);
  });
  print_bytes(s, "combine f32", ms, 4.0 * s.D * (rows + 2.0 * s.tokens));
  second.y_type = DT_BF16;
  second.y = wide.data;
  run_product(s, "experts_out bf16", second, rows, h.data, wide.data);
  ms = time_of([&] {
    return cuda_combine_rows(nullptr, y.data, wide.data, DT_BF16, &l.plan, add.data, s.D);
  });
  print_bytes(s, "combine bf16", ms, 2.0 * s.D * rows + 8.0 * s.D * s.tokens);
}

/* Products of all tokens: attention's, the shared expert's, the router's. */
static void run_dense(const struct shape &s) {
  struct item {
    const char *what;
    int in, out;
    enum cuda_activation activation;
    enum dtype y_type;
  } items[] = {{"qkv f32", s.D, 3 * s.D, CUDA_LINEAR, DT_F32},
               {"qkv bf16", s.D, 3 * s.D, CUDA_LINEAR, DT_BF16},
               {"projection", s.D, s.D, CUDA_LINEAR, DT_F32},
               {"shared_in", s.D, 2 * s.D, CUDA_PAIRED, DT_BF16},
               {"shared_out", 2 * s.D, s.D, CUDA_LINEAR, DT_F32},
               {"mlp_in gelu", s.D, 4 * s.D, CUDA_GELU, DT_BF16}};
  for (const item &i : items) {
    bool paired = i.activation == CUDA_PAIRED;
    size_t total = paired ? cuda_paired_rows(i.out) : i.out;
    device_array<uint16_t> x((size_t)s.tokens * i.in), w(total * i.in);
    device_array<float> bias(total), y(2 * s.tokens * total);
    fill(x, 1, 2);
    fill(w, sqrtf(3.0f / (float)i.in), 3);
    fill(bias, 1, 4);
    struct cuda_product p = dense_product(DT_BF16, i.y_type, i.in, i.out, s.tokens);
    p.activation = i.activation;
    p.x = x.data;
    p.weight = w.data;
    p.bias = paired ? nullptr : bias.data;
    p.y = y.data;
    run_product(s, i.what, p, s.tokens, x.data, y.data);
  }
  device_array<float> u((size_t)s.tokens * s.D), gate((size_t)s.E * s.D),
      scores((size_t)s.tokens * s.E), modulation((size_t)6 * s.D * s.D), c((size_t)64 * 6 * s.D);
  fill(u, 1, 2);
  fill(gate, 0.02f, 3);
  fill(modulation, 0.02f, 4);
  struct cuda_product p = dense_product(DT_F32, DT_F32, s.D, s.E, s.tokens);
  p.x = u.data;
  p.weight = gate.data;
  p.y = scores.data;
  print_bytes(s, "router f32",
              time_of([&] { return cuda_multiply_by(nullptr, &p, CUDA_PRODUCT_BEST); }),
              4.0 * s.tokens * (s.D + s.E));
  struct cuda_product m = dense_product(DT_F32, DT_F32, s.D, 6 * s.D, 64);
  m.x = u.data;
  m.weight = modulation.data;
  m.y = c.data;
  print_bytes(s, "modulation f32",
              time_of([&] { return cuda_multiply_by(nullptr, &m, CUDA_PRODUCT_BEST); }),
              24.0 * s.D * s.D);
}

int main(int argc, char **argv) {
  static const struct shape shapes[] = {{"xl2-b32", 1152, 4608, 8, 2, 2 * 32 * 256},
                                        {"xl2-b64", 1152, 4608, 8, 2, 2 * 64 * 256},
                                        {"g2-b32", 1408, 5632, 16, 2, 2 * 32 * 256},
                                        {"xl2-b1", 1152, 4608, 8, 2, 2 * 256}};
  const char *why;
  cudaDeviceProp device;
  must(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  printf("{\"device\": \"%s\", \"multiprocessors\": %d}\n", device.name,
         device.multiProcessorCount);
  failures = check_products(0) + check_plans(0) + check_rows(0);
  printf("{\"checks_failed\": %d}\n", failures);
  lt = peer_lt_open(&why);
  if (!lt) printf("{\"cublaslt\": \"%s\"}\n", why);
  for (const struct shape &s : shapes) {
    if (argc > 1 && !strstr(argv[1], s.name)) continue;
    run_experts(s);
    run_dense(s);
  }
  if (lt) peer_lt_close(lt);
  return failures > 0;
}
